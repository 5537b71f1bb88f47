"""Names of metrics, classes, parts of a split and models, and a metric's text with its interval. Used by pages, tables and figures."""

from collections.abc import Mapping
from typing import Any, TypedDict

from bhi_utils.core.messages import counted

#: The metrics in the order of tables, and how pages call them.
METRICS = {
    "auc": "AUC",
    "auprc": "average precision",
    "recall": "recall (IDC+ patches found)",
    "precision": "precision",
    "specificity": "specificity",
    "binary_accuracy": "binary accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1 of IDC+",
    "f1_macro": "F1, macro (mean of both classes)",
    "f1_weighted": "F1, weighted by class frequency",
    "loss": "loss (log)",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "calibration_slope": "calibration slope (ideal 1)",
    "calibration_intercept": "calibration intercept (ideal 0)",
}


class Metric(TypedDict):
    """A metric, or a difference of two, and the ends of its 95 % interval; None for what does not exist."""

    value: float | None
    low: float | None
    high: float | None


#: Metric to its value and interval.
Metrics = dict[str, Metric]


def cell(metric: Metric | None, *, digits: int = 3, sign: bool = False) -> str:
    """Returns a metric as tables show it; a dash for one that does not exist.

    >>> cell({"value": 0.9121, "low": 0.8803, "high": 0.9399})
    '0.912 (0.880–0.940)'

    Args:
        metric: the metric, or None.
        digits: after the point of the value; the interval's ends have three.
        sign: for differences: each number with its sign, ``+0.012 (+0.008 to +0.016)``.
    """
    if not metric or metric["value"] is None:
        return "–"
    text, low, high = _rounded(metric["value"], digits, sign), metric["low"], metric["high"]
    if low is None or high is None:
        return text
    # an interval with a negative end reads badly with a dash
    return f"{text} ({_rounded(low, 3, sign)}{' to ' if sign or round(low, 3) < 0 else '–'}{_rounded(high, 3, sign)})"


def _rounded(number: float, digits: int, sign: bool) -> str:
    # adding zero turns the -0.0 of a rounded small number into 0.0
    return f"{round(number, digits) + 0.0:{'+' if sign else ''}.{digits}f}"


CLASSES = ("IDC−", "IDC+")
PART_NAMES = {"train": "training", "val": "validation", "test": "test", "unused": "unused"}

MODEL_NAMES = {"cnn": "custom CNN", "efficientnetb0": "EfficientNetB0", "logistic_regression": "frozen features + logistic regression"}
PAPER_METRICS = {"auc": "AUC", "recall": "recall", "precision": "precision", "binary_accuracy": "binary accuracy", "loss": "loss"}


def origin(data: Mapping[str, Any]) -> str:
    """Says where patches came from, as figures and pages do.

    Args:
        data: ``kind``, ``synthetic`` (a synthetic cohort handed over as a zip or folder is still synthetic), ``cases`` and ``patches``.

    >>> origin({"kind": "phantom", "synthetic": True, "cases": 48, "patches": 2880})
    'SYNTHETIC phantom, 48 cases, 2,880 patches'
    """
    kind = f"SYNTHETIC {data['kind']}" if data["synthetic"] else data["kind"]
    return f"{kind}, {counted(data['cases'], 'case')}, {counted(data['patches'], 'patch')}"
