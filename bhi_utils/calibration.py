"""From a logit to a probability that means what it says: calibration, fitted on validation cases.

Used by training, ``predictor`` and the studies. Balanced training makes IDC+ look more frequent than it is; calibration takes that back.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from bhi_utils.paths import InputError
from bhi_utils.weighted import check


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
    check(labels, logits)
    fit = LogisticRegression(C=np.inf).fit(np.asarray(logits, dtype=np.float64)[:, None], labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        raise InputError(
            "The model ranks validation patches no better than chance, so it cannot be calibrated: train it longer or on more cases."
        )
    return Calibration(slope, intercept)
