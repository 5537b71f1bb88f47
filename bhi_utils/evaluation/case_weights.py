"""Every metric of a set of predictions under many weightings of its cases at once.

Used by ``evaluation.metrics``, which draws the weights by resampling cases, and by ``studies.interval_coverage``. A weighting says how
often each case counts: ones give the metric itself, the counts of a draw with replacement give the metric of that draw. IDC+ is the
positive class.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, log_expit
from sklearn.linear_model import LogisticRegression

from bhi_utils.core.paths import InputError

ECE_BINS = 10
#: Scores that are looked at together: a few megabytes for thousands of draws.
_CHUNK = 512


def check(labels: np.ndarray, scores: np.ndarray) -> None:
    """Refuses patches that no metric can be computed from.

    Raises:
        InputError: there is no patch, a score is not a number, a label is neither 0 nor 1, or a class is missing.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if not len(labels):
        raise InputError("This part holds no patch, so metrics cannot be computed: add cases or change the split.")
    if not np.isfinite(scores).all():
        raise InputError(
            "The model's output holds values that are not numbers: training diverged, so lower the learning rate and train again."
        )
    if not np.isin(labels, (0, 1)).all():
        raise InputError("A label is neither 0 nor 1, so metrics cannot be computed: check the predictions' column label.")
    if len(np.unique(labels)) < 2:
        raise InputError("Only one class is left in this part, so metrics cannot be computed: add cases or change the split.")


@np.errstate(invalid="ignore", divide="ignore")
def table(frame: pd.DataFrame, case: np.ndarray, counts: np.ndarray, *, threshold: float) -> dict[str, np.ndarray]:
    """Computes every metric under each row of case weights; NaN where a draw lacks what the metric needs.

    Args:
        frame: columns ``label`` (0 or 1), ``logit`` and ``probability``, one row a patch; see `check`.
        case: int array (n,), the number of each patch's case.
        counts: float array (r, cases), how often each case counts.
        threshold: a patch is called IDC+ at ``probability >= threshold``.

    Returns:
        metric to float array (r,); calibration slope and intercept are of the frame as it is: float array (1,).
    """
    label = frame["label"].to_numpy().astype(bool)
    raw, probability = frame["logit"].to_numpy(dtype=np.float64), frame["probability"].to_numpy(dtype=np.float64)
    cases = counts.shape[1]

    def total(values: np.ndarray) -> np.ndarray:
        return counts @ np.bincount(case, weights=values, minlength=cases)

    answer = probability >= threshold
    tp, fp, fn, tn = total(label & answer), total(~label & answer), total(label & ~answer), total(~label & ~answer)
    n = tp + fp + fn + tn
    index = bin_of(probability, ECE_BINS)
    gap = np.sum([np.abs(total((index == one) * (label - probability))) for one in range(ECE_BINS)], axis=0)
    slope, intercept = recalibration(label, raw)
    recall, specificity = tp / (tp + fn), tn / (tn + fp)
    f1, f1_negative = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    return {
        "auc": auc(concordance(label, probability, case, cases), total(label), total(~label), counts),
        "auprc": average_precision(label, probability, case, counts),
        "recall": recall,
        # no patch called IDC+: precision is 0 by convention, as in scikit-learn
        "precision": np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 0.0),
        "specificity": specificity,
        "binary_accuracy": (tp + tn) / n,
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": f1,
        "f1_macro": (f1 + f1_negative) / 2,
        "f1_weighted": ((tp + fn) * f1 + (tn + fp) * f1_negative) / n,
        "loss": total(-np.where(label, log_expit(raw), log_expit(-raw))) / n,
        "brier": total((probability - label) ** 2) / n,
        "ece": gap / n,
        "calibration_slope": np.array([slope]),
        "calibration_intercept": np.array([intercept]),
    }


def concordance(label: np.ndarray, score: np.ndarray, case: np.ndarray, cases: int) -> np.ndarray:
    """Counts the pairs of patches that are ordered rightly, by case: float array (cases, cases).

    Entry (i, j) counts the pairs of a positive patch of case i and a negative patch of case j in which the positive one scores higher; a
    tie counts one half. `auc` computes the area under the ROC curve of any weighting from it.
    """
    label = np.asarray(label, dtype=bool)
    positive, owner = score[label], case[label]
    order = np.argsort(positive)
    positive, owner = positive[order], owner[order]
    # negatives by case, each case's in rising order
    negative, other = score[~label], case[~label]
    order = np.lexsort((negative, other))
    negative, ends = negative[order], np.searchsorted(other[order], np.arange(cases + 1))
    found = np.zeros((cases, cases))
    for j in range(cases):
        one = negative[ends[j] : ends[j + 1]]
        if len(one):
            below = np.searchsorted(one, positive, side="left") + np.searchsorted(one, positive, side="right")
            found[:, j] = np.bincount(owner, weights=below / 2, minlength=cases)
    return found


def auc(pairs: np.ndarray, positive: np.ndarray, negative: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Computes the area under the ROC curve of each weighting; NaN without both classes.

    Args:
        pairs: from `concordance`.
        positive: float array (r,), weighted number of positive patches.
        negative: the same of negative ones.
        counts: float array (r, cases).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("rc,rc->r", counts @ pairs, counts) / (positive * negative)


def average_precision(label: np.ndarray, score: np.ndarray, case: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Computes average precision, as scikit-learn defines it, of each weighting; NaN without a positive patch.

    The positive and negative patches of each case at or above each score are counted once; a weighting only adds up cases.
    """
    order = np.argsort(-score, kind="stable")
    label, case = label[order], case[order]
    # patches of equal score count together, at the last place of them; only places with a positive patch matter
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    group = np.repeat(np.arange(len(last)), np.diff(np.r_[-1, last]))
    levels = np.unique(group[label])
    level = np.searchsorted(levels, group)
    counts = counts.astype(np.float32)  # whole numbers below 2^24 stay exact, in half the time
    cases, found, above = counts.shape[1], np.zeros(len(counts)), np.zeros(len(counts), np.float32)
    carried = np.zeros((2, cases, 1), np.float32)
    for start in range(0, len(levels), _CHUNK):
        stop = min(start + _CHUNK, len(levels))
        part = slice(*np.searchsorted(level, (start, stop)))
        cell = (label[part] * cases + case[part]) * (stop - start) + level[part] - start
        steps = np.bincount(cell, minlength=2 * cases * (stop - start)).reshape(2, cases, stop - start)
        reached = carried + np.cumsum(steps, axis=2, dtype=np.float32)
        carried = reached[:, :, -1:]
        negative, positive = counts @ reached[0], counts @ reached[1]
        gained = np.diff(positive, axis=1, prepend=above[:, None])
        found += np.einsum("rl,rl->r", gained, np.divide(positive, np.maximum(positive + negative, 1), dtype=np.float64))
        above = positive[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return found / above


def recalibration(label: np.ndarray, raw: np.ndarray) -> tuple[float, float]:
    """Calibration slope and intercept (Cox 1958; Van Calster et al. 2019, doi 10.1186/s12916-019-1466-7).

    The slope is b of logit P(IDC+) = a + b · logit: 1 is ideal, below 1 the probabilities are too extreme. The intercept is a with b held
    at 1, calibration in the large: 0 is ideal, below 0 they are too high.

    Args:
        label: bool array (n,) with both classes.
        raw: float array (n,), logits.

    Returns:
        both numbers; the slope is NaN where the logits part the classes perfectly, since no finite one fits best.
    """
    reach = 100 + float(np.abs(raw).max())
    intercept = float(brentq(lambda a: expit(raw + a).mean() - label.mean(), -reach, reach, xtol=1e-13, rtol=1e-14))
    if raw[label].min() >= raw[~label].max() or raw[label].max() <= raw[~label].min():
        return np.nan, intercept
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=200).fit(raw[:, None], label)
    return float(fit.coef_[0, 0]), intercept


def bin_of(probability: np.ndarray, bins: int) -> np.ndarray:
    """Returns in which of ``bins`` equal ranges of [0, 1] each probability lies; 1 belongs to the last."""
    return np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)
