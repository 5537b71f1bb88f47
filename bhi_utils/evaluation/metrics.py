"""Metrics with intervals by case, differences between models, and the counts and curves behind them.

Used by training, the notebooks, the studies and the reports. IDC+ is the positive class. Intervals come from resampling cases with
replacement, since patches of one case resemble each other. A draw is a weight for each case, and `case_table` computes every metric under
all draws at once.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logit, stdtrit

from bhi_utils.core.paths import InputError
from bhi_utils.core.titles import METRICS, Metric, Metrics

NAMES = tuple(METRICS)
RESAMPLES = 2000


ECE_BINS = 10


def evaluate(frame: pd.DataFrame, *, threshold: float, resamples: int = RESAMPLES, seed: int = 0) -> Metrics:
    """Computes every metric of one model on one part, with 95 % intervals over resampled cases.

    Args:
        frame: columns ``case``, ``label`` (0 or 1), ``logit`` and ``probability``; one row a patch.
        threshold: a patch counts as IDC+ at ``probability >= threshold``.
        resamples: how often the cases are drawn with replacement; 0 gives values without intervals.
        seed: seed of the draws.

    Returns:
        every one of `NAMES`. ``low`` and ``high`` are None without resamples, for the calibration slope and intercept and
        for the threshold, and where cases say nothing about the spread (see `scaled`). The value of a calibration slope is None
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
) -> Metrics:
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
    """Returns the number of cases, and each metric under `weights`; without resamples, of the frame as it is only."""
    label = frame["label"].to_numpy()
    check(label, frame["logit"].to_numpy())
    check(label, frame["probability"].to_numpy())
    if frame["probability"].nunique() == 1:
        raise InputError("The model gives every patch the same answer, so it ranks nothing and has no AUC: train it longer.")
    # cases by id, so that a draw is the same one for two frames of the same cases
    cases, case = np.unique(frame["case"].to_numpy(), return_inverse=True)
    counts = weights(len(cases), resamples, seed) if resamples else np.ones((1, len(cases)))
    return len(cases), table(frame, case, counts, threshold=threshold)


def interval(values: np.ndarray, cases: int, scale: str) -> Metric:
    """Turns values from `resampled` into a metric: entry 0 is the value, the others give its interval."""
    value, low, high = float(values[0]), None, None
    if len(values) > 1:
        low, high = scaled(*parts(values, cases), scale=scale)
    return {"value": value if np.isfinite(value) else None, "low": low, "high": high}


def curve_at(labels: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Returns recall and precision at every threshold: columns ``threshold``, ``recall``, ``precision``."""
    from sklearn.metrics import precision_recall_curve  # it loads for a second, and every notebook's banner loads this module

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
    index = bin_of(probability, bins)
    groups = pd.DataFrame({"bin": index, "probability": probability, "share": labels}).groupby("bin")
    return groups.mean().assign(patches=groups.size()).reset_index(drop=True)


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
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=200).fit(raw[:, None], label)
    return float(fit.coef_[0, 0]), intercept


def bin_of(probability: np.ndarray, bins: int) -> np.ndarray:
    """Returns in which of ``bins`` equal ranges of [0, 1] each probability lies; 1 belongs to the last."""
    return np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)


#: The chance that the truth lies outside, both sides together.
LEVEL = 0.05
#: The share of draws in which a metric must exist for it to have an interval.
ENOUGH = 0.5


def draws(cases: int, resamples: int, seed: int) -> np.ndarray:
    """Draws cases with replacement; returns how often each is drawn: float array (resamples, cases)."""
    return np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), resamples).astype(np.float64)


def weights(cases: int, resamples: int, seed: int) -> np.ndarray:
    """Returns the case weights of an interval: all cases once, `draws`, all cases but one: float array (1 + resamples + cases, cases)."""
    return np.vstack([np.ones((1, cases)), draws(cases, resamples, seed), 1 - np.eye(cases)])


def parts(values: np.ndarray, cases: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Splits a metric under `weights` into its value, its draws, and its values without each case."""
    return float(values[0]), values[1 : len(values) - cases], values[len(values) - cases :]


def scaled(value: float, drawn: np.ndarray, left_out: np.ndarray, *, scale: str) -> tuple[float | None, float | None]:
    """Computes an interval by Student's t, with one degree of freedom fewer than cases, on a scale without bounds.

    The standard error is that of the draws or that of leaving out each case (Efron and Stein 1981), whichever is larger: the first is too
    small where a few large cases weigh much. The delta method carries it to the scale, so that a draw at a bound does no harm.

    Args:
        value: the metric of the data.
        drawn: float array (r,), the metric of each draw; NaN where it does not exist there.
        left_out: float array (cases,), the metric without each case.
        scale: ``share`` (0 to 1, by the logit), ``positive`` (by the logarithm) or ``plain``.

    Returns:
        low and high. A share of exactly 0 or 1 has no spread; its bound is Clopper and Pearson's with a trial a case. Both are None where
        the draws say nothing: the metric exists in fewer than half of them, or there is one case only, or no spread.
    """
    cases = len(left_out)
    drawn = drawn[np.isfinite(drawn)] if len(drawn) * ENOUGH <= np.isfinite(drawn).sum() else drawn[:0]
    if len(drawn) < 2 or cases < 2 or not np.isfinite(value):
        return None, None
    if scale == "share" and value in (0.0, 1.0):
        reach = float((LEVEL / 2) ** (1 / cases))
        return (reach, 1.0) if value else (0.0, 1 - reach)
    jackknife = float(np.sqrt((1 - 1 / cases) * np.sum((left_out - value) ** 2)))
    # not a number where a case cannot be left out, since it alone has one of the classes
    error = max(standard_error(drawn, cases), jackknife if np.isfinite(jackknife) else 0.0)
    if error < 1e-12 or (scale == "positive" and value <= 0):
        return None, None
    reach = float(stdtrit(cases - 1, 1 - LEVEL / 2)) * error
    if scale == "share":
        middle, reach = float(logit(value)), reach / (value * (1 - value))
        return float(expit(middle - reach)), float(expit(middle + reach))
    if scale == "positive":
        return float(value * np.exp(-reach / value)), float(value * np.exp(reach / value))
    return float(value - reach), float(value + reach)


def standard_error(drawn: np.ndarray, cases: int) -> float:
    """Returns the standard error of the draws; drawing n cases from n gives a variance that is too small by (n - 1) / n, as for a mean."""
    return float(np.std(drawn, ddof=1) * np.sqrt(cases / (cases - 1)))
