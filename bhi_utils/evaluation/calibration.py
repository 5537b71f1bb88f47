"""Calibration: turns a network's logits into probabilities that agree with how often IDC+ occurs, fitted on validation cases.

Used by training, ``model.predictor`` and the studies. Balanced training makes IDC+ look more frequent than it is, and long training makes
answers too sure; calibration corrects both. A calibration rises strictly, so it changes no order and no decision.
"""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
from scipy.special import expit, logit

from bhi_utils.core.messages import say, translated
from bhi_utils.core.paths import InputError
from bhi_utils.evaluation.metrics import check


class NoSkill(InputError):
    """The model ranks validation patches no better than chance: no rising map from its logits to probabilities exists."""


class KeptCalibration(TypedDict):
    """A `Calibration` as bundles and runs keep it. One without a method is of an early version, and Platt's."""

    method: NotRequired[str]
    slope: float
    intercept: float
    knots: NotRequired[list[list[float]]]


@dataclass(frozen=True)
class Calibration:
    """Platt scaling (Platt 1999): the calibrated logit is ``slope`` · logit + ``intercept``.

    Bundles of earlier versions may hold temperature scaling (an intercept of 0) or isotonic regression (straight lines between ``knots``);
    they open and answer as before.

    Attributes:
        slope: above 0; of a temperature T, 1 / T.
        intercept: 0 for a temperature.
        method: ``platt``, ``temperature`` or ``isotonic``.
        knots: of isotonic regression only: pairs of logit and calibrated logit, rising; the slope beyond the outer ones is 1.
    """

    slope: float
    intercept: float
    method: str = "platt"
    knots: tuple[tuple[float, float], ...] = ()

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """Returns the calibrated logits of raw ones, any shape."""
        raw = np.asarray(logits, dtype=np.float64)
        if not self.knots:
            return self.slope * raw + self.intercept
        x, y = np.array(self.knots).T
        return np.interp(raw, x, y) + np.minimum(raw - x[0], 0) + np.maximum(raw - x[-1], 0)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Returns calibrated probabilities in [0, 1] of raw logits, any shape.

        >>> Calibration(slope=0.5, intercept=-1.0).apply(np.array([-2.0, 2.0, 6.0])).round(3).tolist()
        [0.119, 0.5, 0.881]
        """
        return expit(self.logits(logits))

    def move(self, threshold: float) -> float:
        """Returns the threshold on calibrated probabilities that decides like ``threshold`` on raw ones."""
        return float(self.apply(logit(threshold)))

    def back(self, threshold: float) -> float:
        """Returns the threshold on raw probabilities that decides like ``threshold`` on calibrated ones; `move` is its inverse."""
        value = logit(threshold)
        if not self.knots:
            return float(expit((value - self.intercept) / self.slope))
        x, y = np.array(self.knots).T
        return float(expit(np.interp(value, y, x) + min(value - y[0], 0) + max(value - y[-1], 0)))

    def to_json(self) -> KeptCalibration:
        """Returns what a bundle keeps."""
        kept: KeptCalibration = {"method": self.method, "slope": self.slope, "intercept": self.intercept}
        return kept | {"knots": [list(knot) for knot in self.knots]} if self.knots else kept

    @classmethod
    def from_json(cls, kept: KeptCalibration) -> "Calibration":
        """Reads what a bundle has kept."""
        knots = tuple((float(x), float(y)) for x, y in kept.get("knots", ()))
        return cls(float(kept["slope"]), float(kept["intercept"]), kept.get("method", "platt"), knots)


def describe(kept: KeptCalibration | str, language: str = "en") -> str:
    """Returns a kept calibration in words: ``Platt: slope 0.7000, intercept -0.2500``.

    Args:
        kept: from `Calibration.to_json`; runs of earlier versions hold the words themselves, which stay as they are.
        language: one of ``core.messages.LANGUAGES``.

    >>> describe({"method": "platt", "slope": 0.7, "intercept": -0.25})
    'Platt: slope 0.7000, intercept -0.2500'
    """
    if isinstance(kept, str):
        return kept
    found = Calibration.from_json(kept)
    said = say(found.method, temperature=1 / found.slope, slope=found.slope, intercept=found.intercept, knots=len(found.knots))
    return translated(said, language).replace(".", "," if language == "es" else ".")


def fit_calibration(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """Fit Platt scaling by maximum likelihood.

    Args:
        labels: int array (n,), 0 or 1, of validation cases.
        logits: float array (n,).

    Raises:
        NoSkill: higher logits do not mean more IDC.
        InputError: a class is missing, or a logit is not a number.

    >>> fit_calibration(np.array([0, 0, 1, 0, 1, 1]), np.array([-4.0, -2.0, -1.0, 1.0, 2.0, 4.0])).slope < 1  # the logits were too sure
    True
    """
    from sklearn.linear_model import LogisticRegression  # it loads for a second, and who only applies a calibration needs none of it

    check(labels, logits)
    fit = LogisticRegression(C=np.inf).fit(np.asarray(logits, dtype=np.float64)[:, None], np.asarray(labels).astype(int))
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        raise NoSkill(
            "The model ranks validation patches no better than chance, so it cannot be calibrated: train it longer or on more cases."
        )
    return Calibration(slope, intercept)
