"""Metrics with intervals by case, differences between models, and the counts and curves behind them.

Used by training, the notebooks, the studies and the report. Positive class: IDC+. Intervals come from resampling cases with replacement,
since patches of one case resemble each other; all resamples are computed at once from case weights (``evaluation.case_weights``), and
``evaluation.intervals`` turns them into an interval.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from bhi_utils.core.paths import InputError
from bhi_utils.core.titles import METRICS
from bhi_utils.evaluation import case_weights, intervals
from bhi_utils.evaluation.case_weights import ECE_BINS

NAMES = tuple(METRICS)
#: The scale on which each metric's interval is made; those not named are shares.
SCALES = {"loss": "positive", "calibration_slope": "plain", "calibration_intercept": "plain"}
RESAMPLES = 2000


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
    case_weights.check(label, frame["logit"].to_numpy())
    case_weights.check(label, frame["probability"].to_numpy())
    if frame["probability"].nunique() == 1:
        raise InputError("The model gives every patch the same answer, so it ranks nothing and has no AUC: train it longer.")
    # cases by id, so that a draw is the same one for two frames of the same cases
    cases, case = np.unique(frame["case"].to_numpy(), return_inverse=True)
    counts = intervals.weights(len(cases), resamples, seed) if resamples else np.ones((1, len(cases)))
    return len(cases), case_weights.table(frame, case, counts, threshold=threshold)


def interval(values: np.ndarray, cases: int, scale: str) -> dict[str, float | None]:
    """Entry 0, and the interval that the others give it, if there are any."""
    value, low, high = float(values[0]), None, None
    if len(values) > 1:
        low, high = intervals.scaled(*intervals.parts(values, cases), scale=scale)
    return {"value": value if np.isfinite(value) else None, "low": low, "high": high}


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
    index = case_weights.bin_of(probability, bins)
    groups = pd.DataFrame({"bin": index, "probability": probability, "share": labels}).groupby("bin")
    return groups.mean().assign(patches=groups.size()).reset_index(drop=True)
