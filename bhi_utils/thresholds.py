"""From which probability on a patch is called IDC+: rules that choose the threshold on validation cases.

Used by training and the studies.
"""

import numpy as np

from bhi_utils.paths import InputError
from bhi_utils.weighted import check


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
    check(labels, probability)
    probability = np.asarray(probability, dtype=np.float64)
    positive = np.sort(probability[np.asarray(labels) == 1])[::-1]
    lowest_found = positive[int(np.ceil(recall * len(positive) - 1e-9)) - 1]
    below = probability[probability < lowest_found]
    return float((lowest_found + below.max()) / 2 if len(below) else lowest_found)
