"""The model's card as the interface shows and gives it: what it learned from, how good it is, and where it fails. Used by the interface."""

from html import escape
from typing import Any

from bhi_utils.app import page_html, patch_answer
from bhi_utils.core.messages import TEXTS, number, text
from bhi_utils.evaluation.calibration import describe
from bhi_utils.model import bundles
from bhi_utils.model.predictor import Predictor

#: Metrics in the order of the table.
METRICS = ("auc", "auprc", "recall", "precision", "specificity", "balanced_accuracy", "binary_accuracy", "f1", "brier", "ece", "loss")
#: Long lists of a bundle, which the card only counts.
_LISTS = ("train_cases", "validation_cases", "seen")
#: Parts whose metrics a bundle may hold, the most telling first.
PARTS = ("test", "out_of_fold", "early_stopping", "val", "train")
LIMITS = ("limit_scale", "limit_stain", "limit_scope", "limit_evidence")


def facts(predictor: Predictor, language: str) -> dict[str, Any]:
    """The bundle without its lists of cases, the warning and the limits."""
    bundle = {name: value for name, value in predictor.bundle.items() if name not in _LISTS}
    return {
        "warning": text("warning", language),
        **bundle,
        "threshold_calibrated": float(predictor.threshold_calibrated),
        "cases": bundles.served(predictor.bundle),
        "limits": [text(key, language) for key in LIMITS],
    }


def shown(predictor: Predictor, language: str) -> str:
    """The card as HTML."""
    limits = page_html.bullets([text("warning", language), *(text(key, language) for key in LIMITS)])
    return f"""<div class="card answer"><h2>{text("card_model", language)}</h2>{_facts(predictor, language)}
<h2>{text("card_metrics", language)}</h2>{_metrics(predictor.bundle.get("metrics") or {}, language)}
<h2>{text("card_limits", language)}</h2>{limits}</div>"""


def _facts(predictor: Predictor, language: str) -> str:
    bundle, missing = predictor.bundle, text("card_missing", language)
    data = bundle.get("data", {})
    served = {name: text("card_cases", language, count=number(count, language)) for name, count in bundles.served(bundle).items()}
    cuts = {"raw": predictor.threshold, "calibrated": predictor.threshold_calibrated}
    cuts = {name: number(value, language, digits=3) for name, value in cuts.items()}
    known = {name: number(data[name], language) for name in ("cases", "patches") if name in data}
    rows = {
        "card_name": bundle.get("name"),
        "card_start": bundle.get("initialisation"),
        "card_data": text("card_data_value", language, kind=_kind(data, language), **known) if len(known) == 2 else None,
        **{"fitted_on": None, **served},
        "card_threshold": text("card_threshold_value", language, **cuts),
        "card_rule": patch_answer.rule(bundle, language) or None,
        "card_calibration": describe(bundle["calibration"], language),
        "card_hash": bundle.get("sha256"),
    }
    cells = "".join(
        f"<tr><th scope=row>{text(key, language)}</th><td>{escape(str(value or missing))}</td></tr>" for key, value in rows.items()
    )
    return f'<div class="scroll"><table>{cells}</table></div>'


def _kind(data: dict[str, Any], language: str) -> str:
    return text("phantom" if data.get("synthetic") else "archive", language)


def _metrics(metrics: dict[str, Any], language: str) -> str:
    parts = [part for part in PARTS if metrics.get(part)]
    if not parts:
        return f"<p>{text('card_none', language)}</p>"
    head = "".join(f"<th scope=col>{text(part, language)}</th>" for part in parts)
    rows = ""
    for name in METRICS:
        if any(name in metrics[part] for part in parts):
            cells = "".join(f"<td>{_value(metrics[part].get(name), language)}</td>" for part in parts)
            rows += f"<tr><th scope=row>{name.replace('_', ' ')}</th>{cells}</tr>"
    notes = [text("card_interval", language), *(text(f"note_{part}", language) for part in parts if f"note_{part}" in TEXTS[language])]
    return (
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>{page_html.bullets(notes)}'
    )


def _value(metric: dict[str, Any] | None, language: str) -> str:
    if not metric or metric.get("value") is None:
        return "–"
    value, *ends = (metric.get(name) for name in ("value", "low", "high"))
    written = number(value, language, digits=3)
    return written if None in ends else f"{written} ({'–'.join(number(end, language, digits=3) for end in ends)})"
