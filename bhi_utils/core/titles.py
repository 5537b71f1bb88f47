"""Names of metrics, classes, parts of a split and models, and a metric's text with its interval. Used by pages, tables and figures."""

from collections.abc import Mapping

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


def cell(metric: Mapping[str, float | None] | None, *, digits: int = 3, sign: bool = False) -> str:
    """Returns a metric as tables show it; a dash for one that does not exist.

    >>> cell({"value": 0.9121, "low": 0.8803, "high": 0.9399})
    '0.912 (0.880–0.940)'

    Args:
        metric: ``{"value", "low", "high"}``, or None.
        digits: after the point.
        sign: for differences: each number with its sign, ``+0.012 (+0.008 to +0.016)``.
    """
    if not metric or metric.get("value") is None:
        return "–"
    form, joint = f"{{:{'+' if sign else ''}.{digits}f}}", " to " if sign else "–"
    # adding zero turns the -0.0 of a rounded small number into 0.0
    value, low, high = (found if (found := metric.get(key)) is None else round(found, digits) + 0.0 for key in ("value", "low", "high"))
    # an interval with a negative end reads badly with a dash
    joint = " to " if low is not None and low < 0 else joint
    return form.format(value) if low is None or high is None else f"{form.format(value)} ({form.format(low)}{joint}{form.format(high)})"


CLASSES = ("IDC−", "IDC+")
PART_NAMES = {"train": "training", "val": "validation", "test": "test", "unused": "unused"}

MODEL_NAMES = {"cnn": "custom CNN", "efficientnetb0": "EfficientNetB0", "logistic_regression": "frozen features + logistic regression"}
PAPER_METRICS = {"auc": "AUC", "recall": "recall", "precision": "precision", "binary_accuracy": "binary accuracy", "loss": "loss"}
