"""95 % intervals from resampled cases: the draws, and the ways from them to an interval.

Used by ``evaluation.metrics`` and by the study ``studies.interval_coverage``, which compares the ways on data whose truth is known and
chose the one that metrics use: `scaled`. Patches of one case resemble each other, so cases are drawn, never patches.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

#: The chance that the truth lies outside, both sides together.
LEVEL = 0.05
#: The share of draws in which a metric must exist for it to have an interval.
ENOUGH = 0.5


def draws(cases: int, resamples: int, seed: int) -> np.ndarray:
    """How often each case is drawn when as many cases as there are get drawn with replacement: float array (resamples, cases)."""
    return np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), resamples).astype(np.float64)


def weights(cases: int, resamples: int, seed: int) -> np.ndarray:
    """Every weighting that an interval needs: all cases once, `draws`, and all but one case: float array (1 + resamples + cases, cases)."""
    return np.vstack([np.ones((1, cases)), draws(cases, resamples, seed), 1 - np.eye(cases)])


def parts(values: np.ndarray, cases: int) -> tuple[float, np.ndarray, np.ndarray]:
    """A metric under `weights` as value, draws, and values without each case."""
    return float(values[0]), values[1 : len(values) - cases], values[len(values) - cases :]


def scaled(value: float, drawn: np.ndarray, left_out: np.ndarray, *, scale: str) -> tuple[float | None, float | None]:
    """Student's t with one degree of freedom fewer than cases, around the value on a scale without bounds.

    The standard error is the draws' or that of leaving out each case (Efron and Stein 1981), whichever is larger: the first is too small
    where a few large cases carry much. It is carried to the scale by the delta method, so that a draw at a bound does no harm.

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
    error = max(_error(drawn, cases), _jackknife(value, left_out))
    if error < 1e-12 or (scale == "positive" and value <= 0):
        return None, None
    reach = float(stdtrit(cases - 1, 1 - LEVEL / 2)) * error
    if scale == "share":
        middle, reach = float(logit(value)), reach / (value * (1 - value))
        return float(expit(middle - reach)), float(expit(middle + reach))
    if scale == "positive":
        return float(value * np.exp(-reach / value)), float(value * np.exp(reach / value))
    return float(value - reach), float(value + reach)


def _error(drawn: np.ndarray, cases: int) -> float:
    """Standard error of the draws; drawing n cases from n gives a variance that is too small by (n - 1) / n, as for a mean."""
    return float(np.std(drawn, ddof=1) * np.sqrt(cases / (cases - 1)))


def _jackknife(value: float, left_out: np.ndarray) -> float:
    """Standard error from leaving out each case; 0 where a case cannot be left out, since it alone has one of the classes."""
    spread = np.sqrt((1 - 1 / len(left_out)) * np.sum((left_out - value) ** 2))
    return float(spread) if np.isfinite(spread) else 0.0


def students_t(value: float, drawn: np.ndarray, left_out: np.ndarray) -> tuple[float, float]:
    """`scaled` for shares with the draws' own standard error."""
    cases = len(left_out)
    reach = float(stdtrit(cases - 1, 1 - LEVEL / 2)) * _error(drawn, cases) / (value * (1 - value))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def normal(value: float, drawn: np.ndarray) -> tuple[float, float]:
    """The normal interval on the logit scale: `students_t` without the corrections for few cases."""
    middle, reach = logit(value), ndtri(1 - LEVEL / 2) * np.nanstd(drawn, ddof=1) / (value * (1 - value))
    return float(expit(middle - reach)), float(expit(middle + reach))


def percentile(drawn: np.ndarray) -> tuple[float, float]:
    """The plain bootstrap: the 2.5th and 97.5th percentile of the draws."""
    low, high = np.nanpercentile(drawn, [50 * LEVEL, 100 - 50 * LEVEL])
    return float(low), float(high)


def bca(value: float, drawn: np.ndarray, left_out: np.ndarray) -> tuple[float, float]:
    """Percentiles corrected for bias and acceleration (Efron 1987, doi 10.1080/01621459.1987.10478410).

    Args:
        value: the metric of the data.
        drawn: float array (r,), the metric of each draw.
        left_out: float array (cases,), the metric without each case.
    """
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    gap = left_out.mean() - left_out
    spread = np.sum(gap**2) ** 1.5
    acceleration = np.sum(gap**3) / (6 * spread) if spread else 0.0
    moved = bias + ndtri([LEVEL / 2, 1 - LEVEL / 2])
    low, high = np.percentile(drawn, 100 * ndtr(bias + moved / (1 - acceleration * moved)))
    return float(low), float(high)


#: From the value, the draws and the values without each case to an interval: what the study compares, for a share.
WAYS: dict[str, Callable[[float, np.ndarray, np.ndarray], tuple[float | None, float | None]]] = {
    "percentile": lambda value, drawn, left_out: percentile(drawn),
    "BCa": bca,
    "logit, normal": lambda value, drawn, left_out: normal(value, drawn),
    "logit, Student's t": students_t,
    "logit, Student's t, larger error": lambda value, drawn, left_out: scaled(value, drawn, left_out, scale="share"),
}
