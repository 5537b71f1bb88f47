"""One patch: what the interface and its API answer, and how the page shows it.

Used by the interface only. `answer` is all that is known of a patch; `shown` says it in HTML.
"""

from html import escape
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bhi_utils import plots
from bhi_utils.app import page_html
from bhi_utils.core.messages import number, percent, probability, text, threshold_said, translated
from bhi_utils.core.titles import CLASSES
from bhi_utils.data import input_checks
from bhi_utils.model.augment import dihedral
from bhi_utils.model.predictor import Predictor

#: How often a patch can be turned and mirrored.
VIEWS = 8
#: Side of a patch's pictures in pixels: four times what there is to see, the page smooths the rest, and little to send.
SIDE = 200


def check(file: Path | BinaryIO, language: str) -> tuple[np.ndarray | None, dict[str, Any]]:
    """The patch in a file, None where there is none, and what is said of the file: ``problem, doubts, notes, size, in_scope``."""
    found = input_checks.check_file(file)
    doubts, notes = ([translated(one, language) for one in said] for said in (found.doubts, found.notes))
    details = {"problem": translated(found.problem, language), "doubts": doubts, "notes": notes, "size": list(found.size)}
    return found.patch, {**details, "in_scope": found.patch is not None and not doubts}


def answer(predictor: Predictor, patch: np.ndarray, language: str) -> dict[str, Any]:
    """What the model says of one patch.

    Args:
        predictor: the model.
        patch: uint8 array (50, 50, 3).
        language: of the sentences.

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
            "patch": page_html.data_url(plots.enlarged(patch, side=SIDE)),
            "evidence": page_html.data_url(plots.overlay(patch, evidence, side=SIDE)),
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


def shown(bundle: dict[str, Any], details: dict[str, Any], language: str, *, found: dict[str, Any] | None = None) -> str:
    """The page's answer: first the problem or the doubts, then class, probability, threshold, evidence and, once known, the views.

    Args:
        bundle: the model's.
        details: of `check` and, without a problem, of `answer`.
        language: of the texts.
        found: of `views`.
    """
    if details["problem"]:
        return page_html.problem(details["problem"], language)
    doubt = page_html.doubt(details["doubts"], language)
    said = f'<div class="answer" role="status">{_verdict(bundle, details, language)}{_spread(found, details, language)}</div>'
    said += _pictures(details, language)
    # what is no tissue gets its reason, and the number only for those who ask
    return f'{doubt}<details class="anyway"><summary>{text("anyway", language)}</summary>{said}</details>' if doubt else said


def _verdict(bundle: dict[str, Any], details: dict[str, Any], language: str) -> str:
    value, threshold = details["probability_calibrated"], details["threshold_calibrated"]
    side = "positive" if details["predicted_label"] else "negative"
    p, t = probability(value, language, beside=threshold), threshold_said(threshold, language)
    # how the model's own threshold was chosen says nothing of another one that somebody has put in force
    chosen = _chosen(bundle, language) if details.get("threshold") == bundle.get("threshold") else []
    meaning = [text("above" if details["predicted_label"] else "under", language, t=t), *chosen]
    notes = [*([text("seen", language)] if details["seen"] else []), *details["notes"]]
    return f"""<div class="head"><span class="class {side}">{details["label"]}</span>
<span>{text("probability_of", language)} <span class="number">{escape(p)}</span></span></div>
<div class="bar" role="img" aria-label="{escape(text("bar", language, p=p, t=t))}">
<span class="fill {side}" style="width:{100 * value:.1f}%"></span><i style="left:{100 * threshold:.1f}%"></i>
<em style="left:clamp(3.6rem, {100 * threshold:.1f}%, 100% - 3.6rem)">{escape(text("threshold", language, value=t))}</em></div>
<p>{escape(" ".join(meaning))}</p>{page_html.bullets(notes)}"""


def _chosen(bundle: dict[str, Any], language: str) -> list[str]:
    """How the threshold was chosen, and what it means on the cases that the bundle tells of."""
    said = [text("rule", language, rule=rule(bundle, language))] if bundle.get("threshold_rule") else []
    for part, key in (("test", "meaning"), ("early_stopping", "meaning_early")):
        found = (bundle.get("metrics") or {}).get(part) or {}
        if all((found.get(name) or {}).get("value") is not None for name in ("recall", "precision")):
            said.append(text(key, language, **{name: interval(found[name], language) for name in ("recall", "precision")}))
    return said


def rule(bundle: dict[str, Any], language: str) -> str:
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


def interval(metric: dict[str, Any], language: str) -> str:
    """A share with its interval, in percent."""
    value = percent(metric["value"], language)
    if metric.get("low") is None or metric.get("high") is None:
        return value
    return f"{value} ({percent(metric['low'], language)[:-2]}–{percent(metric['high'], language)})"


def _spread(found: dict[str, Any] | None, details: dict[str, Any], language: str) -> str:
    if found is None:
        return ""
    values = sorted(found["probabilities"])
    said = text("views", language, **{name: probability(found[name], language) for name in ("low", "high", "mean")})
    said += " " + text("views_differ" if found["classes"] > 1 else "views_agree", language)
    label = text("views_bar", language, values="; ".join(probability(value, language) for value in values))
    dots = "".join(f'<b style="left:{100 * value:.1f}%"></b>' for value in values)
    bar = f'<div class="bar views" role="img" aria-label="{escape(label)}">{dots}'
    return f'<p class="spread">{escape(said)}</p>{bar}<i style="left:{100 * details["threshold_calibrated"]:.1f}%"></i></div>'


def _pictures(details: dict[str, Any], language: str) -> str:
    patch, evidence = text("patch_as_read", language), text("evidence", language)
    pictures = details["pictures"]
    legend = page_html.legend(details["evidence_limit"], float(np.mean(details["evidence"])), language)
    return f"""<figure class="over" {page_html.fresh()}><div class="pair"><div><img src="{pictures["patch"]}" alt="{patch}"></div>
<div><img src="{pictures["patch"]}" alt=""><img class="cover" src="{pictures["evidence"]}" alt="{evidence}"></div></div>
{page_html.opacity(language)}{legend}</figure>"""
