"""95 % intervals from resampled cases: the draws, and how they become an interval.

Used by ``evaluation.metrics``, and by ``studies.interval_coverage``, which shows on simulated cases that `scaled` covers the truth as often
as it promises. Patches of one case resemble each other, so cases are drawn, never patches.
"""

import numpy as np
from scipy.special import expit, logit, stdtrit

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
    error = max(standard_error(drawn, cases), _jackknife(value, left_out))
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


def _jackknife(value: float, left_out: np.ndarray) -> float:
    """Returns the standard error from leaving out each case; 0 where a case cannot be left out, since it alone has one of the classes."""
    spread = np.sqrt((1 - 1 / len(left_out)) * np.sum((left_out - value) ** 2))
    return float(spread) if np.isfinite(spread) else 0.0
