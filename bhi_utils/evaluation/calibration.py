"""From a logit to a probability that means what it says: calibration, fitted on validation cases.

Used by training, ``model.predictor`` and the studies. Balanced training makes IDC+ look more frequent than it is, and long training makes
answers too sure; calibration takes both back. Every map here rises strictly, so it changes no order and no decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from bhi_utils.core.messages import say, translated
from bhi_utils.core.paths import InputError
from bhi_utils.evaluation.case_weights import check

#: The methods, from stiff to flexible; among equals, `choose` takes the first.
METHODS = ("temperature", "platt", "isotonic")
_NO_SKILL = "The model ranks validation patches no better than chance, so it cannot be calibrated: train it longer or on more cases."


class NoSkill(InputError):
    """The model ranks validation patches no better than chance: no rising map from its logits to probabilities exists."""


@dataclass(frozen=True)
class Calibration:
    """A rising map from logits to calibrated logits: ``slope`` · logit + ``intercept``, or straight lines between ``knots``.

    Attributes:
        slope: of Platt scaling (Platt 1999); 1 / T of temperature scaling (Guo et al. 2017, arXiv 1706.04599).
        intercept: of Platt scaling; 0 for a temperature.
        method: one of `METHODS`.
        knots: of isotonic calibration: pairs of logit and calibrated logit, rising; beyond its ends the map goes on with slope 1.
    """

    slope: float
    intercept: float
    method: str = "platt"
    knots: tuple[tuple[float, float], ...] = ()

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits of raw ones, any shape."""
        raw = np.asarray(logits, dtype=np.float64)
        if not self.knots:
            return self.slope * raw + self.intercept
        x, y = np.array(self.knots).T
        return np.interp(raw, x, y) + np.minimum(raw - x[0], 0) + np.maximum(raw - x[-1], 0)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities in [0, 1] of raw logits, any shape."""
        return expit(self.logits(logits))

    def move(self, threshold: float) -> float:
        """The threshold on calibrated probabilities that decides like ``threshold`` on raw ones."""
        return float(self.apply(logit(threshold)))

    def back(self, threshold: float) -> float:
        """The threshold on raw probabilities that decides like ``threshold`` on calibrated ones: `move` taken back, but for rounding."""
        value = logit(threshold)
        if not self.knots:
            return float(expit((value - self.intercept) / self.slope))
        x, y = np.array(self.knots).T
        return float(expit(np.interp(value, y, x) + min(value - y[0], 0) + max(value - y[-1], 0)))

    def to_json(self) -> dict[str, Any]:
        """What a bundle keeps."""
        plain = {"method": self.method, "slope": self.slope, "intercept": self.intercept}
        return plain | ({"knots": [list(knot) for knot in self.knots]} if self.knots else {})

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Calibration":
        """What a bundle has kept; bundles of earlier versions name no method and are Platt's."""
        knots = tuple((float(x), float(y)) for x, y in kept.get("knots", ()))
        return cls(float(kept["slope"]), float(kept["intercept"]), kept.get("method", "platt"), knots)


def describe(kept: Mapping[str, Any] | str, language: str = "en") -> str:
    """A kept calibration in words, the same wherever one is shown: ``isotonic regression: 9 knots``.

    Args:
        kept: from `Calibration.to_json`; runs of earlier versions hold the words themselves, which stay as they are.
        language: one of ``core.messages.LANGUAGES``.
    """
    if isinstance(kept, str):
        return kept
    found = Calibration.from_json(kept)
    said = say(found.method, temperature=1 / found.slope, slope=found.slope, intercept=found.intercept, knots=len(found.knots))
    return translated(said, language).replace(".", "," if language == "es" else ".")


def fit_calibration(labels: np.ndarray, logits: np.ndarray, *, method: str = "platt") -> Calibration:
    """Fit a calibration by maximum likelihood, or by isotonic regression.

    Args:
        labels: int array (n,), 0 or 1, of validation cases.
        logits: float array (n,).
        method: one of `METHODS`.

    Raises:
        NoSkill: higher logits do not mean more IDC.
        InputError: a class is missing, or the method is unknown.
    """
    check(labels, logits)
    labels, logits = np.asarray(labels).astype(int), np.asarray(logits, dtype=np.float64)
    if method not in METHODS:
        raise InputError(f"There is no calibration {method!r}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}.")
    fit = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        raise NoSkill(_NO_SKILL)
    if method == "platt":
        return Calibration(slope, intercept)
    if method == "temperature":
        found = minimize_scalar(
            lambda power: loss(labels, np.exp(power) * logits), bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}
        )
        return Calibration(float(np.exp(found.x)), 0.0, "temperature")
    return Calibration(1.0, 0.0, "isotonic", _knots(labels, logits))


def _knots(labels: np.ndarray, logits: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Centres of the levels that isotonic regression finds, joined by straight lines.

    That is centred isotonic regression (Oron and Flournoy 2017, doi 10.1080/19466315.2017.1286256). Each level's share has half a patch of
    either class added, so that no probability is 0 or 1; that can put neighbours out of order, which a second regression on the levels
    mends.
    """
    level = IsotonicRegression().fit_transform(logits, labels)
    for _ in range(2):
        _, index = np.unique(level, return_inverse=True)
        patches = np.bincount(index)
        center = np.bincount(index, weights=logits) / patches
        share = (np.bincount(index, weights=labels) + 0.5) / (patches + 1)
        smooth = IsotonicRegression().fit_transform(center, share, sample_weight=patches)
        level = smooth[index]
    # levels that became one keep one knot
    _, index = np.unique(smooth, return_inverse=True)
    x = np.bincount(index, weights=center * patches) / np.bincount(index, weights=patches)
    return tuple(zip(x.tolist(), logit(np.unique(smooth)).tolist(), strict=True))


def loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross-entropy of logits."""
    return float(-np.mean(np.where(np.asarray(labels) == 1, log_expit(logits), log_expit(-np.asarray(logits)))))


def choose(labels: np.ndarray, logits: np.ndarray, cases: np.ndarray, *, folds: int = 5) -> tuple[Calibration, dict[str, float]]:
    """The method that does best on validation cases that it was not fitted on, fitted on all of them.

    Args:
        labels: int array (n,), 0 or 1, of validation cases.
        logits: float array (n,).
        cases: array (n,), whose patch each is; whole cases are left out at a time.
        folds: into how many groups the cases are dealt, at most.

    Returns:
        the calibration, and the cross-validated loss by method, ``none`` for no calibration. With too few cases of both classes to try,
        it is Platt's, and no losses are given.

    Raises:
        InputError: as for `fit_calibration`.
    """
    labels, logits = np.asarray(labels).astype(int), np.asarray(logits, dtype=np.float64)
    parts = min(folds, len(np.unique(cases)))
    fallback = fit_calibration(labels, logits)
    if parts < 2:
        return fallback, {}
    scored: dict[str, np.ndarray] = {"none": logits, **{method: np.empty(len(logits)) for method in METHODS}}
    for train, test in GroupKFold(parts).split(logits, groups=cases):
        try:
            for method in METHODS:
                scored[method][test] = fit_calibration(labels[train], logits[train], method=method).logits(logits[test])
        except InputError:  # what is left without these cases has one class, or no skill
            return fallback, {}
    found = {method: loss(labels, values) for method, values in scored.items()}
    best = min(METHODS, key=lambda method: found[method])
    return fit_calibration(labels, logits, method=best), found
