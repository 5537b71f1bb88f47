"""Metrics with intervals by case, the threshold's choice, and calibration.

Used by training (threshold and calibration, on validation cases), notebook 06 and the report. Positive class: IDC+. Intervals come
from resampling cases with replacement, since patches of one case resemble each other; all resamples are computed at once from
case weights.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, log_expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve

from bhi_utils.paths import InputError

#: Order in which tables show the metrics.
NAMES = (
    "auc",
    "auprc",
    "recall",
    "precision",
    "specificity",
    "binary_accuracy",
    "balanced_accuracy",
    "f1",
    "loss",
    "brier",
    "ece",
)
ECE_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Platt scaling (Platt 1999): calibrated logit = ``slope`` · logit + ``intercept``."""

    slope: float
    intercept: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities in [0, 1] of raw logits, any shape."""
        return expit(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)

    def move(self, threshold: float) -> float:
        """The threshold on calibrated probabilities that decides like ``threshold`` on raw ones."""
        return float(self.apply(logit(threshold)))


def fit_calibration(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """Fit Platt scaling by maximum likelihood.

    Args:
        labels: int array (n,), 0 or 1, of validation cases.
        logits: float array (n,).

    Raises:
        InputError: a class is missing, or higher logits do not mean more IDC (slope ≤ 0), so no monotone map exists.
    """
    _check(labels, logits)
    fit = LogisticRegression(C=np.inf).fit(np.asarray(logits, dtype=np.float64)[:, None], labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        raise InputError(
            "The model ranks validation patches no better than chance, so it cannot be calibrated: train it longer or on more cases."
        )
    return Calibration(slope, intercept)


def threshold_for_recall(labels: np.ndarray, probability: np.ndarray, *, recall: float) -> float:
    """The highest threshold at which at least ``recall`` of the positive patches have ``probability >= threshold``.

    It lies half-way down to the next lower probability, so that rounding on another processor does not change an answer.

    Args:
        labels: int array (n,), 0 or 1, of validation cases.
        probability: float array (n,) in [0, 1].
        recall: wanted recall in (0, 1].
    """
    if not 0 < recall <= 1:
        raise InputError(f"A target recall of {recall} is impossible: choose a value above 0 and at most 1, such as 0.93.")
    _check(labels, probability)
    probability = np.asarray(probability, dtype=np.float64)
    positive = np.sort(probability[np.asarray(labels) == 1])[::-1]
    lowest_found = positive[int(np.ceil(recall * len(positive) - 1e-9)) - 1]
    below = probability[probability < lowest_found]
    return float((lowest_found + below.max()) / 2 if len(below) else lowest_found)


def evaluate(frame: pd.DataFrame, *, threshold: float, resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, float | None]]:
    """Every metric of one model on one part, with the 2.5th and 97.5th percentile over resampled cases.

    Args:
        frame: columns ``case``, ``label`` (0 or 1), ``logit`` and ``probability``; one row a patch.
        threshold: a patch counts as IDC+ at ``probability >= threshold``.
        resamples: how often the cases are drawn with replacement; 0 gives values without intervals.
        seed: seed of the draws.

    Returns:
        name to ``{"value", "low", "high"}``; ``low`` and ``high`` are None without resamples and for ``threshold``.
    """
    table = resampled(frame, threshold, resamples, seed)
    result = {name: interval(table[name]) for name in NAMES}
    result["threshold"] = {"value": float(threshold), "low": None, "high": None}
    return result


def difference(
    first: pd.DataFrame, second: pd.DataFrame, *, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Every metric of ``first`` minus that of ``second``, paired: the same cases are drawn for both.

    Args:
        first: columns as for `evaluate`.
        second: the same of another model or another split, with patches of the same cases; the patches may differ.
        threshold: a patch counts as IDC+ at ``probability >= threshold``, in both.
        resamples: how often the cases are drawn with replacement.
        seed: seed of the draws.

    Raises:
        InputError: the two do not have the same cases, or a class is missing.
    """
    if set(first["case"]) != set(second["case"]):
        raise InputError("The two sets of predictions are not of the same cases, so they cannot be compared case by case.")
    one, two = (resampled(frame, threshold, resamples, seed) for frame in (first, second))
    return {name: interval(one[name] - two[name]) for name in NAMES}


def resampled(frame: pd.DataFrame, threshold: float, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Each metric of the frame as it is (entry 0) and of each draw of its cases: float arrays (1 + resamples,)."""
    _check(frame["label"].to_numpy(), frame["logit"].to_numpy())
    # cases by id, so that a draw is the same one for two frames of the same cases
    cases, case = np.unique(frame["case"].to_numpy(), return_inverse=True)
    counts = np.ones((1, len(cases)))
    if resamples:
        draws = np.random.default_rng(seed).integers(0, counts.size, (resamples, counts.size))
        counts = np.vstack([counts, [np.bincount(row, minlength=counts.size) for row in draws]])
    return _weighted(frame, case, counts, threshold)


def interval(values: np.ndarray) -> dict[str, float | None]:
    """Entry 0 of what `resampled` gives, and the 2.5th and 97.5th percentile of the others, if there are any."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5]) if len(values) > 1 else (None, None)
    return {"value": float(values[0]), "low": None if low is None else float(low), "high": None if high is None else float(high)}


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
    index = _bin(probability, bins)
    groups = pd.DataFrame({"bin": index, "probability": probability, "share": labels}).groupby("bin")
    return groups.mean().assign(patches=groups.size()).reset_index(drop=True)


def _check(labels: np.ndarray, scores: np.ndarray) -> None:
    if not np.isfinite(np.asarray(scores, dtype=np.float64)).all():
        raise InputError(
            "The model's output holds values that are not numbers: training diverged, so lower the learning rate and train again."
        )
    if len(np.unique(labels)) < 2:
        raise InputError("Only one class is left in this part, so metrics cannot be computed: add cases or change the split.")


def _bin(probability: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)


def _weighted(frame: pd.DataFrame, case: np.ndarray, counts: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Each metric under each row of case weights. ``counts``: (r, cases); the result's arrays: (r,)."""
    label = frame["label"].to_numpy().astype(bool)
    raw, probability = frame["logit"].to_numpy(dtype=np.float64), frame["probability"].to_numpy(dtype=np.float64)
    cases = counts.shape[1]

    def total(values: np.ndarray) -> np.ndarray:
        return counts @ np.bincount(case, weights=values, minlength=cases)

    answer = probability >= threshold
    tp, fp = total(label & answer), total(~label & answer)
    fn, tn = total(label & ~answer), total(~label & ~answer)
    n = tp + fp + fn + tn
    with np.errstate(invalid="ignore", divide="ignore"):
        auc, auprc = _ranking(label, probability, case, counts)
        recall, specificity = tp / (tp + fn), tn / (tn + fp)
        gap = np.zeros(len(counts))
        index = _bin(probability, ECE_BINS)
        for b in range(ECE_BINS):
            gap += np.abs(total((index == b) * (label - probability)))
        return {
            "auc": auc,
            "auprc": auprc,
            "recall": recall,
            # no patch called IDC+: precision is 0 by convention, as in scikit-learn
            "precision": np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 0.0),
            "specificity": specificity,
            "binary_accuracy": (tp + tn) / n,
            "balanced_accuracy": (recall + specificity) / 2,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "loss": total(-np.where(label, log_expit(raw), log_expit(-raw))) / n,
            "brier": total((probability - label) ** 2) / n,
            "ece": gap / n,
        }


def _ranking(label: np.ndarray, score: np.ndarray, case: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve (ties count one half) and average precision, under each row of case weights."""
    order = np.argsort(-score, kind="stable")
    label, case = label[order], case[order]
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    auc, auprc = np.empty(len(counts)), np.empty(len(counts))
    for row, weights in enumerate(counts):  # one row at a time keeps memory at one weight a patch
        w = weights[case]
        positive = np.add.reduceat(w * label, starts)
        negative = np.add.reduceat(w * ~label, starts)
        above, tp = np.cumsum(positive), positive.sum()
        auc[row] = (positive * (negative.sum() - np.cumsum(negative) + negative / 2)).sum() / (tp * negative.sum())
        called = above + np.cumsum(negative)
        auprc[row] = (positive * above / np.where(called > 0, called, 1)).sum() / tp
    return auc, auprc
