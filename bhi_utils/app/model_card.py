"""The model's card as the app shows and gives it: what it learned from, how good it is, and where it fails. Used by the app only."""

from typing import Any

from bhi_utils.app import patch_answer
from bhi_utils.app.page_html import render
from bhi_utils.core.messages import text
from bhi_utils.evaluation.calibration import describe
from bhi_utils.model import bundles
from bhi_utils.model.predictor import Predictor

#: Metrics in the order of the table.
METRICS = ("auc", "auprc", "recall", "precision", "specificity", "balanced_accuracy", "binary_accuracy", "f1", "brier", "ece", "loss")
#: Parts whose metrics a bundle may hold, the most telling first.
PARTS = ("test", "out_of_fold", "early_stopping", "val", "train")
LIMITS = ("limit_scale", "limit_stain", "limit_scope", "limit_evidence")

#: Long lists of a bundle, which the card only counts.
_LISTS = ("train_cases", "validation_cases", "seen")


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
    bundle, found = predictor.bundle, predictor.bundle.get("metrics") or {}
    metrics = {part: found[part] for part in PARTS if found.get(part)}
    cases = {"fitted_on": None, **bundles.served(bundle)}
    said = {"rule": patch_answer.rule(bundle, language), "calibration": describe(bundle["calibration"], language)}
    return render("card", language, model=predictor, metrics=metrics, order=METRICS, cases=cases, limits=LIMITS, **said)
