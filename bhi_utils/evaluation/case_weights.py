"""Every metric of a set of predictions under many weightings of its cases at once.

Used by ``evaluation.metrics``, which draws the weights by resampling cases, and by ``studies.interval_coverage``. A weighting says how
often each case counts: ones give the metric itself, the counts of a draw with replacement give it for that draw. Positive class: IDC+.
"""

import numpy as np
import pandas as pd
from scipy.special import expit, log_expit
from sklearn.linear_model import LogisticRegression

from bhi_utils.core.paths import InputError

ECE_BINS = 10
#: Ranges of the logit, equally full, at whose means the calibration of a draw is fitted; a test holds this to the exact fit.
_RANGES = 1000
#: Scores that are looked at together: a few megabytes for thousands of draws.
_CHUNK = 512


def check(labels: np.ndarray, scores: np.ndarray) -> None:
    """Refuse what no metric can be computed of.

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


def table(frame: pd.DataFrame, case: np.ndarray, counts: np.ndarray, *, threshold: float) -> dict[str, np.ndarray]:
    """Each metric under each row of case weights; NaN where a draw lacks what the metric needs.

    Args:
        frame: columns ``label`` (0 or 1), ``logit`` and ``probability``, one row a patch; see `check`.
        case: int array (n,), the number of each patch's case.
        counts: float array (r, cases), how often each case counts.
        threshold: a patch is called IDC+ at ``probability >= threshold``.

    Returns:
        metric to float array (r,).
    """
    label = frame["label"].to_numpy().astype(bool)
    raw, probability = frame["logit"].to_numpy(dtype=np.float64), frame["probability"].to_numpy(dtype=np.float64)
    cases = counts.shape[1]

    def total(values: np.ndarray) -> np.ndarray:
        return counts @ np.bincount(case, weights=values, minlength=cases)

    answer = probability >= threshold
    tp, fp, fn, tn = total(label & answer), total(~label & answer), total(label & ~answer), total(~label & ~answer)
    n = tp + fp + fn + tn
    gap, index = np.zeros(len(counts)), bin_of(probability, ECE_BINS)
    for b in range(ECE_BINS):
        gap += np.abs(total((index == b) * (label - probability)))
    slope, intercept = recalibration(label, raw, case, counts)
    with np.errstate(invalid="ignore", divide="ignore"):
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
            "calibration_slope": slope,
            "calibration_intercept": intercept,
        }


def concordance(label: np.ndarray, score: np.ndarray, case: np.ndarray, cases: int) -> np.ndarray:
    """How many pairs each two cases order rightly: float array (cases, cases).

    Entry (i, j) counts the pairs of a positive patch of case i and a negative patch of case j in which the positive one scores higher,
    a tie as one half. With it the area under the ROC curve of any weighting is a quadratic form.
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
    """Area under the ROC curve of each weighting; NaN without both classes.

    Args:
        pairs: from `concordance`.
        positive: float array (r,), weighted number of positive patches.
        negative: the same of negative ones.
        counts: float array (r, cases).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("rc,rc->r", counts @ pairs, counts) / (positive * negative)


def average_precision(label: np.ndarray, score: np.ndarray, case: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average precision, as scikit-learn defines it, of each weighting; NaN without a positive patch.

    How many positive and negative patches of each case stand at or above a score is counted once; a weighting then only adds up cases.
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


def recalibration(label: np.ndarray, raw: np.ndarray, case: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Calibration slope and intercept of each weighting (Cox 1958; Van Calster et al. 2019, doi 10.1186/s12916-019-1466-7).

    The slope is b of logit P(IDC+) = a + b · logit: 1 is ideal, below 1 the probabilities are too extreme. The intercept is a with b held
    at 1, calibration in the large: 0 is ideal, below 0 they are too high. Row 0 is fitted to the patches themselves; the others, which
    start from it, to `_RANGES` ranges of the logit.

    Returns:
        two float arrays (r,); NaN where no such number exists, such as the slope of classes that the logits part perfectly.
    """
    exact = [_newton(label[None].astype(float), np.ones((1, len(raw))) * counts[0][case], raw, free=free) for free in (True, False)]
    if len(counts) == 1:
        return exact[0][1], exact[1][0]
    order = np.argsort(raw, kind="stable")
    bins = np.empty(len(raw), int)
    bins[order] = np.arange(len(raw)) * min(_RANGES, len(raw)) // len(raw)
    size, cases = bins.max() + 1, counts.shape[1]
    cell = case * size + bins
    center = np.bincount(bins, weights=raw, minlength=size) / np.bincount(bins, minlength=size)
    patches = counts[1:] @ np.bincount(cell, minlength=cases * size).reshape(cases, size)
    positive = counts[1:] @ np.bincount(cell, weights=label, minlength=cases * size).reshape(cases, size)
    share = positive / np.maximum(patches, 1e-300)
    drawn = [_newton(share, patches, center, free=free, start=start) for free, start in zip((True, False), exact, strict=True)]
    return np.r_[exact[0][1], drawn[0][1]], np.r_[exact[1][0], drawn[1][0]]


def _newton(
    share: np.ndarray, weight: np.ndarray, x: np.ndarray, *, free: bool, start: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regressions of ``share`` (r, k) on ``x`` (k,) with weights (r, k), all by Newton's method: intercepts and slopes (r,)."""
    rows = len(share)
    if start is None:
        a, b = _start(share[0], weight[0], x, free)
    else:
        a, b = float(start[0][0]), float(start[1][0])
    a, b = np.full(rows, a), np.full(rows, b)
    done = np.zeros(rows, bool)
    with np.errstate(all="ignore"):
        for _ in range(30):
            p = expit(a[:, None] + b[:, None] * x)
            error, bent = weight * (share - p), weight * p * (1 - p)
            g0, h00 = error.sum(axis=1), bent.sum(axis=1)
            if free:
                g1, h01, h11 = error @ x, bent @ x, bent @ (x * x)
                determinant = h00 * h11 - h01**2
                step = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
            else:
                step = g0 / h00, np.zeros(rows)
            a, b = a + step[0], b + step[1]
            done = np.abs(step[0]) + np.abs(step[1]) < 1e-9 * (1 + np.abs(a) + np.abs(b))
            if done.all():
                break
    # no convergence: classes parted perfectly, or one of them missing
    return np.where(done, a, np.nan), np.where(done, b, np.nan)


def _start(share: np.ndarray, weight: np.ndarray, x: np.ndarray, free: bool) -> tuple[float, float]:
    if not free:
        mean = np.clip(np.average(share, weights=weight), 1e-6, 1 - 1e-6)
        return float(np.log(mean / (1 - mean)) - np.average(x, weights=weight)), 1.0
    # from the library's own solver, which does not overshoot; Newton's method makes its last digits exact
    fit = LogisticRegression(C=1e6, tol=1e-6).fit(x[:, None], share.round().astype(int), sample_weight=weight)
    return float(fit.intercept_[0]), float(fit.coef_[0, 0])


def bin_of(probability: np.ndarray, bins: int) -> np.ndarray:
    """Which of ``bins`` equal ranges of [0, 1] each probability lies in; 1 belongs to the last."""
    return np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)
