"""Metrics with intervals by case, differences between models, and the counts and curves behind them.

Used by training, the notebooks, the studies and the report. Positive class: IDC+. Intervals come from resampling cases with replacement,
since patches of one case resemble each other; all resamples are computed at once from case weights (``weighted``), and ``intervals``
turns them into an interval.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from bhi_utils import intervals, weighted
from bhi_utils.calibration import Calibration, fit_calibration
from bhi_utils.paths import InputError
from bhi_utils.thresholds import threshold_for_recall
from bhi_utils.weighted import ECE_BINS

#: The metrics in the order of tables, and how pages call them.
TITLES = {
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
NAMES = tuple(TITLES)
#: The scale on which each metric's interval is made; those not named are shares.
SCALES = {"loss": "positive", "calibration_slope": "plain", "calibration_intercept": "plain"}
RESAMPLES = 2000

__all__ = [
    "NAMES",
    "RESAMPLES",
    "TITLES",
    "Calibration",
    "cell",
    "confusion",
    "curve_at",
    "difference",
    "evaluate",
    "fit_calibration",
    "reliability",
    "threshold_for_recall",
]


def evaluate(frame: pd.DataFrame, *, threshold: float, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, dict[str, float | None]]:
    """Every metric of one model on one part, with 95 % intervals over resampled cases.

    Args:
        frame: columns ``case``, ``label`` (0 or 1), ``logit`` and ``probability``; one row a patch.
        threshold: a patch counts as IDC+ at ``probability >= threshold``.
        resamples: how often the cases are drawn with replacement; 0 gives values without intervals.
        seed: seed of the draws.

    Returns:
        name to ``{"value", "low", "high"}``. What does not exist is None: the interval without resamples, of the threshold, or where
        cases say nothing about the spread (see `intervals.scaled`); the value of a slope when the logits part the classes perfectly.
        Precision is 0, without an interval, where no patch is called IDC+. Ties count one half in the AUC.

    Raises:
        InputError: there is no patch, an answer is not a number, a class is missing, or every patch has the same answer.
    """
    cases, values = resampled(frame, threshold, resamples, seed)
    result = {name: interval(values[name], cases, SCALES.get(name, "share")) for name in NAMES}
    if not (frame["probability"] >= threshold).any():
        result["precision"] = {"value": 0.0, "low": None, "high": None}
    result["threshold"] = {"value": float(threshold), "low": None, "high": None}
    return result


def difference(
    first: pd.DataFrame, second: pd.DataFrame, *, threshold: float | tuple[float, float] = 0.5, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Every metric of ``first`` minus that of ``second``, paired: the same cases are drawn for both.

    Args:
        first: columns as for `evaluate`.
        second: the same of another model or another split, with patches of the same cases; the patches may differ.
        threshold: a patch counts as IDC+ at ``probability >= threshold``, in both, or one threshold for each.
        resamples: how often the cases are drawn with replacement.
        seed: seed of the draws.

    Raises:
        InputError: the two do not have the same cases, or as for `evaluate`.
    """
    if set(first["case"]) != set(second["case"]):
        raise InputError("The two sets of predictions are not of the same cases, so they cannot be compared case by case.")
    both = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    (cases, one), (_, two) = (resampled(frame, at, resamples, seed) for frame, at in zip((first, second), both, strict=True))
    return {name: interval(one[name] - two[name], cases, "plain") for name in NAMES}


def resampled(frame: pd.DataFrame, threshold: float, resamples: int, seed: int) -> tuple[int, dict[str, np.ndarray]]:
    """The number of cases, and each metric under ``intervals.weights``: float arrays; of the frame as it is only, without resamples."""
    label = frame["label"].to_numpy()
    weighted.check(label, frame["logit"].to_numpy())
    weighted.check(label, frame["probability"].to_numpy())
    if frame["probability"].nunique() == 1:
        raise InputError("The model gives every patch the same answer, so it ranks nothing and has no AUC: train it longer.")
    # cases by id, so that a draw is the same one for two frames of the same cases
    cases, case = np.unique(frame["case"].to_numpy(), return_inverse=True)
    counts = intervals.weights(len(cases), resamples, seed) if resamples else np.ones((1, len(cases)))
    return len(cases), weighted.table(frame, case, counts, threshold=threshold)


def interval(values: np.ndarray, cases: int, scale: str) -> dict[str, float | None]:
    """Entry 0, and the interval that the others give it, if there are any."""
    value, low, high = float(values[0]), None, None
    if len(values) > 1:
        low, high = intervals.scaled(*intervals.parts(values, cases), scale=scale)
    return {"value": value if np.isfinite(value) else None, "low": low, "high": high}


def cell(metric: Mapping[str, float | None] | None, *, digits: int = 3, sign: bool = False) -> str:
    """A metric as tables show it, ``0.912 (0.880–0.940)``; a dash for what does not exist.

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


def curve_at(labels: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Recall and precision at every threshold: columns ``threshold``, ``recall``, ``precision``."""
    precision, recall, threshold = precision_recall_curve(labels, probability)
    return pd.DataFrame({"threshold": threshold, "recall": recall[:-1], "precision": precision[:-1]})


def confusion(labels: np.ndarray, probability: np.ndarray, *, threshold: float) -> np.ndarray:
    """Counts as int array (2, 2): rows truth, columns answer, IDC− before IDC+."""
    predicted = np.asarray(probability) >= threshold
    return np.bincount(2 * np.asarray(labels).astype(int) + predicted, minlength=4).reshape(2, 2)


def reliability(labels: np.ndarray, probability: np.ndarray, *, bins: int = ECE_BINS) -> pd.DataFrame:
    """Mean probability and share of IDC+ in equal ranges: columns ``probability, share, patches``; empty ranges are left out."""
    index = weighted.bin_of(probability, bins)
    groups = pd.DataFrame({"bin": index, "probability": probability, "share": labels}).groupby("bin")
    return groups.mean().assign(patches=groups.size()).reset_index(drop=True)
