"""Many files: what the interface and its API answer for patches and zips. Used by the interface only; ``predict.many_files`` reads them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.app import page_html
from bhi_utils.core import zips
from bhi_utils.core.atomic_files import csv_text
from bhi_utils.core.messages import number, say, text, threshold_said, translated
from bhi_utils.core.paths import InputError, plain
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict import many_files

#: Most images that are answered at once, rejected lines that the page shows, and patches between two looks at the progress.
MOST, LINES, STEP = 1000, 20, 64
#: Most members of a zip, folders and other files included: its directory, which is read at once, stays below 4 MB.
MEMBERS = 10 * MOST
COLUMNS = (*many_files.COLUMNS, "in_scope", "remark")


def answered(predictor: Predictor, paths: Sequence[Path], language: str) -> Iterator[tuple[int, int] | dict[str, Any]]:
    """How many of how many images are done; at last ``problem, answers`` (columns), ``rejected`` (columns) and ``count``.

    Args:
        predictor: the model.
        paths: images and zips.
        language: of the sentences.
    """
    found, rejected = [], []
    for path in paths:
        try:
            held = list(many_files.places(path, most=MEMBERS))
            found += held
            if not held:
                rejected.append((plain(path.name), translated(say("nothing_inside"), language)))
        except zips.TooMany as error:
            yield _nothing(text("too_many", language, count=number(error.total, language)))
            return
        except InputError:
            rejected.append((plain(path.name), translated(say("damaged_zip"), language)))
        if len(found) > MOST:
            yield _nothing(text("too_many", language, count=number(len(found), language)))
            return
    rows, waiting, asked = [], [], deque()
    # the next files are read while the network answers for those before them
    with ThreadPoolExecutor(1) as network:
        for done, (name, seen) in enumerate(many_files.checked(found, name=_name), start=1):
            if seen.patch is None:
                rejected.append((name, translated(seen.problem, language)))
            else:
                remark = " ".join(translated(one, language) for one in (*seen.doubts, *seen.notes))
                waiting.append((name, seen.patch, not seen.doubts, remark))
            if len(waiting) == STEP or (waiting and done == len(found)):
                asked.append((done, network.submit(_answers, predictor, waiting, language)))
                waiting = []
            while len(asked) > 1 or (asked and done == len(found)):
                answered_for, answers = asked.popleft()
                rows.append(answers.result())
                yield answered_for, len(found)
    if not rows and not rejected:
        yield _nothing(text("no_images", language))
        return
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=COLUMNS)
    yield {
        "problem": "",
        "count": len(table),
        "answers": {name: column.tolist() for name, column in table.items()},
        "rejected": {"file": [name for name, _ in rejected], "reason": [reason for _, reason in rejected]},
        "threshold": float(predictor.threshold),
        "threshold_calibrated": float(predictor.threshold_calibrated),
    }


def _nothing(problem: str) -> dict[str, Any]:
    return {"problem": problem, "count": 0, "answers": {name: [] for name in COLUMNS}, "rejected": {"file": [], "reason": []}}


def _name(path: Path, member: str | None) -> str:
    """The name that the sender knows, without the folder that an upload lies in."""
    return path.name if member is None else f"{path.name}/{member}"


def _answers(predictor: Predictor, waiting: Sequence[tuple[str, np.ndarray, bool, str]], language: str) -> pd.DataFrame:
    names, patches, in_scope, remarks = zip(*waiting, strict=True)
    known = np.where(predictor.seen.pixels(np.stack(patches)), text("seen", language), "")
    remarks = [" ".join(filter(None, said)) for said in zip(known.tolist(), remarks, strict=True)]
    return many_files.answered(predictor, names, patches).assign(in_scope=in_scope, remark=remarks)[list(COLUMNS)]


def shown(details: dict[str, Any], language: str) -> str:
    """The summary, the rejected files and the downloads; the table itself is Gradio's."""
    if details["problem"]:
        return page_html.problem(details["problem"], language)
    answers, rejected = pd.DataFrame(details["answers"]), pd.DataFrame(details["rejected"])
    positive = int(sum(answers["predicted_label"]))
    counts = {"count": len(answers), "positive": positive, "negative": len(answers) - positive}
    counts = {name: number(value, language) for name, value in counts.items()}
    counts["t"] = threshold_said(details["threshold_calibrated"], language)
    said = f"<p><strong>{text('answered', language, **counts)}</strong></p>"
    buttons = page_html.download(text("download_table", language), "answers.csv", csv_text(answers)) if len(answers) else ""
    if len(rejected):
        lines = [f"{row.file}: {row.reason}" for row in rejected.head(LINES).itertuples()]
        if len(rejected) > LINES:
            lines.append(text("rejected_more", language, count=number(len(rejected) - LINES, language)))
        said += f"<p>{text('rejected', language, count=number(len(rejected), language))}</p>{page_html.bullets(lines)}"
        buttons += page_html.download(text("download_rejected", language), "rejected.csv", csv_text(rejected))
    return f'<div class="answer" role="status">{said}<div class="buttons">{buttons}</div></div>'


def rows(details: dict[str, Any], language: str) -> dict[str, Any]:
    """The table as Gradio's component takes it, numbers as numbers so that they sort."""
    headers = [text(key, language) for key in ("file", "probability", "label", "remark")]
    answers = details["answers"]
    columns = (answers["file"], [round(value, 4) for value in answers["probability_calibrated"]], answers["label"], answers["remark"])
    return {"headers": headers, "data": [list(row) for row in zip(*columns, strict=True)]}
