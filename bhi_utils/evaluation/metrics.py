"""Metrics with intervals by case, differences between models, and the counts and curves behind them.

Used by training, the notebooks, the studies and the reports. IDC+ is the positive class. Intervals come from resampling cases with
replacement, since patches of one case resemble each other: ``evaluation.case_weights`` computes all resamples at once, and
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
RESAMPLES = 2000


def evaluate(frame: pd.DataFrame, *, threshold: float, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, dict[str, float | None]]:
    """Computes every metric of one model on one part, with 95 % intervals over resampled cases.

    Args:
        frame: columns ``case``, ``label`` (0 or 1), ``logit`` and ``probability``; one row a patch.
        threshold: a patch counts as IDC+ at ``probability >= threshold``.
        resamples: how often the cases are drawn with replacement; 0 gives values without intervals.
        seed: seed of the draws.

    Returns:
        name to ``{"value", "low", "high"}``. ``low`` and ``high`` are None without resamples, for the calibration slope and intercept and
        for the threshold, and where cases say nothing about the spread (see `intervals.scaled`). The value of a calibration slope is None
        when the logits part the classes perfectly. Precision is 0, without an interval, where no patch is called IDC+. Ties count one half
        in the AUC.

    Raises:
        InputError: there is no patch, an answer is not a number, a class is missing, or every patch has the same answer.

    >>> frame = pd.DataFrame({"case": [1, 1, 2, 2], "label": [0, 1, 0, 1], "logit": [-1.0, 2.0, 1.0, 0.0]})
    >>> found = evaluate(frame.assign(probability=[0.27, 0.88, 0.73, 0.5]), threshold=0.5, resamples=0)
    >>> found["auc"]["value"], found["recall"]["value"], found["specificity"]["value"]
    (0.75, 1.0, 0.5)
    """
    cases, values = resampled(frame, threshold, resamples, seed)
    result = {name: interval(values[name], cases, "positive" if name == "loss" else "share") for name in NAMES}
    if not (frame["probability"] >= threshold).any():
        result["precision"] = {"value": 0.0, "low": None, "high": None}
    result["threshold"] = {"value": float(threshold), "low": None, "high": None}
    return result


def difference(
    first: pd.DataFrame, second: pd.DataFrame, *, threshold: float | tuple[float, float] = 0.5, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Computes every metric of ``first`` minus that of ``second``, paired: the same cases are drawn for both.

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
    """Returns the number of cases, and each metric under ``intervals.weights``; without resamples, of the frame as it is only."""
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
    """Turns values from `resampled` into ``{"value", "low", "high"}``: entry 0 is the value, the others give its interval."""
    value, low, high = float(values[0]), None, None
    if len(values) > 1:
        low, high = intervals.scaled(*intervals.parts(values, cases), scale=scale)
    return {"value": value if np.isfinite(value) else None, "low": low, "high": high}


def curve_at(labels: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Returns recall and precision at every threshold: columns ``threshold``, ``recall``, ``precision``."""
    precision, recall, threshold = precision_recall_curve(labels, probability)
    return pd.DataFrame({"threshold": threshold, "recall": recall[:-1], "precision": precision[:-1]})


def confusion(labels: np.ndarray, probability: np.ndarray, *, threshold: float) -> np.ndarray:
    """Counts patches as int array (2, 2): rows are the truth, columns the answer, IDC− before IDC+.

    >>> confusion(np.array([0, 1, 1]), np.array([0.2, 0.4, 0.8]), threshold=0.5).tolist()
    [[1, 0], [1, 1]]
    """
    predicted = np.asarray(probability) >= threshold
    return np.bincount(2 * np.asarray(labels).astype(int) + predicted, minlength=4).reshape(2, 2)


def reliability(labels: np.ndarray, probability: np.ndarray, *, bins: int = ECE_BINS) -> pd.DataFrame:
    """Returns mean probability and share of IDC+ in equal ranges: columns ``probability, share, patches``; empty ranges are left out."""
    index = case_weights.bin_of(probability, bins)
    groups = pd.DataFrame({"bin": index, "probability": probability, "share": labels}).groupby("bin")
    return groups.mean().assign(patches=groups.size()).reset_index(drop=True)
