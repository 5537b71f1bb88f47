"""Patches: the answers for one, and for many files and zips of them, as JSON and as HTML.

Used by the interface only; ``predict.many_files`` reads the files.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from bhi_utils import plots
from bhi_utils.app.page_html import data_url, render
from bhi_utils.core.atomic_files import csv_text
from bhi_utils.core.messages import number, percent, probability, say, text, translated
from bhi_utils.core.paths import InputError, plain
from bhi_utils.core.titles import CLASSES
from bhi_utils.data import input_checks, patch_listing
from bhi_utils.model.augment import dihedral
from bhi_utils.model.bundles import Bundle, Card
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict import many_files

#: How often a patch can be turned and mirrored.
VIEWS = 8
#: Side of a patch's pictures in pixels: four times what there is to see, the page smooths the rest, and little to send.
SIDE = 200
#: Most images that are answered at once, rejected lines that the page shows, and patches between two looks at the progress.
MOST, LINES, STEP = 1000, 20, 64
#: Most members of a zip, folders and other files included: its directory, which is read at once, stays below 4 MB.
MEMBERS = 10 * MOST
COLUMNS = (*many_files.COLUMNS, "in_scope", "remark")


# ---- one patch


def check(file: Path | BinaryIO, language: str) -> tuple[np.ndarray | None, dict[str, Any]]:
    """The patch in a file, None where there is none, and what is said of the file: ``problem, doubts, notes, size, in_scope``."""
    found = input_checks.check_file(file)
    doubts, notes = ([translated(one, language) for one in said] for said in (found.doubts, found.notes))
    details = {"problem": translated(found.problem, language), "doubts": doubts, "notes": notes, "size": list(found.size)}
    return found.array, {**details, "in_scope": found.array is not None and not doubts}


def answer(predictor: Predictor, patch: np.ndarray) -> dict[str, Any]:
    """What the model says of one patch.

    Args:
        predictor: the model.
        patch: uint8 array (50, 50, 3).

    Returns:
        JSON-able: ``label``, ``predicted_label``, ``logit``, ``probability``, ``probability_calibrated``, ``threshold`` (on
        ``probability``), ``threshold_calibrated``, ``seen`` (in training), ``evidence`` (rows of numbers whose mean is the logit),
        ``evidence_limit`` (the logit of the map's full colours), and ``pictures`` as URLs: the ``patch`` enlarged, and the ``evidence``
        over it.
    """
    table, maps = predictor.predict_with_evidence(patch[None])
    return described(predictor, patch, table.iloc[0], maps[0])


def described(predictor: Predictor, patch: np.ndarray, row: Any, evidence: np.ndarray) -> dict[str, Any]:
    """`answer` from what the network has said already: a row of `Predictor.predict`, or of a region, and its evidence map."""
    predicted = int(row["predicted_label"])
    return {
        "label": CLASSES[predicted],
        "predicted_label": predicted,
        **{name: float(row[name]) for name in ("logit", "probability", "probability_calibrated", "threshold", "threshold_calibrated")},
        "seen": bool(predictor.seen.pixels(patch[None])[0]),
        "evidence": np.round(evidence.astype(float), 4).tolist(),
        "evidence_limit": plots.limit(evidence),
        "pictures": {
            "patch": data_url(plots.enlarged(patch, side=SIDE)),
            "evidence": data_url(plots.overlay(patch, evidence, side=SIDE)),
        },
    }


def views(predictor: Predictor, patch: np.ndarray) -> dict[str, Any]:
    """The calibrated probabilities of the patch turned and mirrored in all eight ways: ``probabilities, low, high, mean``."""
    turned = np.concatenate([dihedral(patch[None], view) for view in range(VIEWS)])
    found = predictor.predict(turned)["probability_calibrated"].to_numpy()
    return {
        "probabilities": found.tolist(),
        **{"low": float(found.min()), "high": float(found.max()), "mean": float(found.mean())},
        "classes": int(np.unique(found >= predictor.threshold_calibrated).size),
    }


def shown(bundle: Bundle, details: dict[str, Any], language: str, *, found: dict[str, Any] | None = None) -> str:
    """The answer as HTML.

    Args:
        bundle: the model's.
        details: of `check` and, without a problem, of `answer`.
        language: of the texts.
        found: of `views`.
    """
    # how the model's own threshold was chosen says nothing of another one that somebody has put in force
    own: Card = bundle if details.get("threshold") == bundle.get("threshold") else {}
    return render(
        "patch",
        language,
        details=details,
        rule=rule(own, language),
        metrics=own.get("metrics") or {},
        views=found,
        views_said="; ".join(probability(value, language) for value in sorted(found["probabilities"])) if found else "",
        logit=float(np.mean(details.get("evidence", 0))),
    )


def rule(bundle: Card, language: str) -> str:
    """The rule by which the threshold was chosen; that of an earlier version's bundle is a sentence and stays as it is written."""
    kept = bundle.get("threshold_rule") or ""
    if isinstance(kept, str):
        return kept.replace(">=", "≥")
    value = kept.get("value", 0.0)
    return text(
        f"rule_{kept['rule']}",
        language,
        where=text(f"on_{kept['where']}", language),
        share=percent(value, language),
        times=number(value, language, digits=0 if value.is_integer() else 2),
    )


# ---- many files


def files_answered(predictor: Predictor, paths: Sequence[Path], language: str) -> Iterator[tuple[int, int] | dict[str, Any]]:
    """How many of how many images are done; at last ``problem, answers`` (columns), ``rejected`` (columns) and ``count``.

    Args:
        predictor: the model.
        paths: images and zips.
        language: of the sentences.
    """
    found: list[tuple[Path, str | None]] = []
    rejected: list[tuple[str, str]] = []
    for path in paths:
        try:
            held = list(many_files.places(path, most=MEMBERS))
            found += held
            if not held:
                rejected.append((plain(path.name), translated(say("nothing_inside"), language)))
        except patch_listing.TooMany as error:
            yield _nothing(text("too_many", language, count=number(error.total, language)))
            return
        except InputError:
            rejected.append((plain(path.name), translated(say("damaged_zip"), language)))
        if len(found) > MOST:
            yield _nothing(text("too_many", language, count=number(len(found), language)))
            return
    rows = []
    with ThreadPoolExecutor(1) as network:
        asked: Iterator[Any] = (
            (done, network.submit(_answers, predictor, batch, language)) for done, batch in _batches(found, rejected, language)
        )
        # the next files are read while the network answers for those before them
        for (done, answers), _ in pairwise(chain(asked, [None])):
            rows.append(answers.result())
            yield done, len(found)
    if not rows and not rejected:
        yield _nothing(text("no_images", language))
        return
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=COLUMNS)
    yield {
        "problem": "",
        "count": len(table),
        "answers": table.to_dict("list"),
        "rejected": pd.DataFrame(rejected, columns=["file", "reason"]).to_dict("list"),
        "threshold": float(predictor.threshold),
        "threshold_calibrated": float(predictor.threshold_calibrated),
    }


def _nothing(problem: str) -> dict[str, Any]:
    return {"problem": problem, "count": 0, "answers": {name: [] for name in COLUMNS}, "rejected": {"file": [], "reason": []}}


def _name(path: Path, member: str | None) -> str:
    """The name that the sender knows, without the folder that an upload lies in."""
    return path.name if member is None else f"{path.name}/{member}"


def _batches(
    found: Sequence[tuple[Path, str | None]], rejected: list[tuple[str, str]], language: str
) -> Iterator[tuple[int, list[tuple[str, np.ndarray, bool, str]]]]:
    """How many files are read, and of up to `STEP` patches name, pixels, whether they look like tissue, and remarks."""
    waiting = []
    for done, (name, seen) in enumerate(many_files.checked(found, name=_name), start=1):
        if seen.array is None:
            rejected.append((name, translated(seen.problem, language)))
        else:
            waiting.append((name, seen.array, not seen.doubts, " ".join(translated(one, language) for one in (*seen.doubts, *seen.notes))))
        if waiting and (len(waiting) == STEP or done == len(found)):
            yield done, waiting
            waiting = []


def _answers(predictor: Predictor, waiting: Sequence[tuple[str, np.ndarray, bool, str]], language: str) -> pd.DataFrame:
    names, patches, in_scope, remarks = zip(*waiting, strict=True)
    known = np.where(predictor.seen.pixels(np.stack(patches)), text("seen", language), "")
    remarks = [" ".join(filter(None, said)) for said in zip(known.tolist(), remarks, strict=True)]
    return many_files.answered(predictor, names, patches).assign(in_scope=in_scope, remark=remarks)[list(COLUMNS)]


def files_shown(details: dict[str, Any], language: str) -> str:
    """The summary, the rejected files and the downloads as HTML; the table itself is Gradio's."""
    answers, rejected = (csv_text(pd.DataFrame(details[name])) for name in ("answers", "rejected"))
    return render("files", language, details=details, answers_csv=answers, rejected_csv=rejected, lines=LINES)


def files_rows(details: dict[str, Any], language: str) -> dict[str, Any]:
    """The table as Gradio's component takes it, numbers as numbers so that they sort."""
    headers = [text(key, language) for key in ("file", "probability", "label", "remark")]
    answers = details["answers"]
    columns = (answers["file"], [round(value, 4) for value in answers["probability_calibrated"]], answers["label"], answers["remark"])
    return {"headers": headers, "data": [list(row) for row in zip(*columns, strict=True)]}
