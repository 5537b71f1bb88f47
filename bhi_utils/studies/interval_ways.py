"""Ways from resampled cases to a 95 % interval of a share, which ``studies.interval_coverage`` compares.

The last of `WAYS` is the one that ``evaluation.metrics`` uses.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from bhi_utils.evaluation import intervals


def students_t(value: float, drawn: np.ndarray, left_out: np.ndarray) -> tuple[float, float]:
    """`intervals.scaled` for shares with the draws' own standard error."""
    cases = len(left_out)
    reach = float(stdtrit(cases - 1, 1 - intervals.LEVEL / 2)) * intervals.standard_error(drawn, cases) / (value * (1 - value))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def normal(value: float, drawn: np.ndarray) -> tuple[float, float]:
    """The normal interval on the logit scale: `students_t` without the corrections for few cases."""
    middle, reach = logit(value), ndtri(1 - intervals.LEVEL / 2) * np.nanstd(drawn, ddof=1) / (value * (1 - value))
    return float(expit(middle - reach)), float(expit(middle + reach))


def percentile(drawn: np.ndarray) -> tuple[float, float]:
    """The plain bootstrap: the 2.5th and 97.5th percentile of the draws."""
    low, high = np.nanpercentile(drawn, [50 * intervals.LEVEL, 100 - 50 * intervals.LEVEL])
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
    moved = bias + ndtri([intervals.LEVEL / 2, 1 - intervals.LEVEL / 2])
    low, high = np.percentile(drawn, 100 * ndtr(bias + moved / (1 - acceleration * moved)))
    return float(low), float(high)


#: Ways to an interval of a share, each from the value, the draws and the values without each case.
WAYS: dict[str, Callable[[float, np.ndarray, np.ndarray], tuple[float | None, float | None]]] = {
    "percentile": lambda value, drawn, left_out: percentile(drawn),
    "BCa": bca,
    "logit, normal": lambda value, drawn, left_out: normal(value, drawn),
    "logit, Student's t": students_t,
    "logit, Student's t, larger error": lambda value, drawn, left_out: intervals.scaled(value, drawn, left_out, scale="share"),
}
