"""Calibration recovers known distortions, never changes an order or a decision, and survives a bundle, those of earlier versions too."""

import json

import numpy as np
import pytest
from scipy.special import expit

from bhi_utils.core.paths import InputError
from bhi_utils.evaluation import calibration
from bhi_utils.evaluation.calibration import Calibration, fit_calibration

#: As bundles of each version hold them.
KEPT = {
    "platt": Calibration(0.7, -0.25),
    "temperature": Calibration(0.5, 0.0, "temperature"),
    "isotonic": Calibration(1.0, 0.0, "isotonic", ((-3.0, -2.0), (-1.0, -1.9), (0.1, -0.5), (0.2, 1.0), (4.0, 2.5))),
}


def answers(distort, seed: int = 1, size: int = 20_000):
    """Labels and distorted logits of answers whose true logits are known."""
    generator = np.random.default_rng(seed)
    true = generator.normal(-1, 1.5, size)
    return (generator.random(size) < expit(true)).astype(int), distort(true), true


@pytest.mark.parametrize(("factor", "shift"), [(2.5, 0.0), (2.0, 1.5), (0.6, -1.0)])
def test_a_distortion_is_taken_back(factor, shift):
    label, distorted, true = answers(lambda true: factor * true + shift)
    fit = fit_calibration(label, distorted)
    assert np.abs(fit.apply(distorted) - expit(true))[np.abs(true + 1) < 2.5].max() < 0.06
    assert (fit.slope, fit.intercept) == pytest.approx((1 / factor, -shift / factor), abs=0.05)


@pytest.mark.parametrize("method", KEPT)
def test_order_and_decisions_stay_and_the_bundle_gives_the_same_map_back(method):
    fit, (_, distorted, _) = KEPT[method], answers(lambda true: 2 * true, size=2000)
    grid = np.linspace(-30, 30, 4001)
    assert (np.diff(fit.logits(grid)) > 0).all() and (0 < fit.apply(grid[::400])).all()
    np.testing.assert_array_equal(fit.apply(distorted) >= fit.move(0.7), expit(distorted) >= 0.7)
    for threshold in (0.01, 0.3, 0.7, 0.99):
        assert fit.back(fit.move(threshold)) == pytest.approx(threshold, abs=1e-9)
        np.testing.assert_array_equal(fit.apply(distorted) >= threshold, expit(distorted) >= fit.back(threshold))
    assert fit.back(0.0) == 0 and fit.back(1.0) == 1
    again = Calibration.from_json(json.loads(json.dumps(fit.to_json())))
    assert again == fit
    words = {"temperature": "temperature scaling: ", "platt": "Platt: ", "isotonic": "isotonic regression: "}
    assert calibration.describe(fit.to_json()).startswith(words[method])


def test_an_isotonic_bundle_of_an_earlier_version_answers_by_straight_lines_between_its_knots():
    fit = KEPT["isotonic"]
    np.testing.assert_allclose(fit.logits(np.array([-5.0, -3.0, -2.0, 0.15, 4.0, 6.0])), [-4.0, -2.0, -1.95, 0.25, 2.5, 4.5])


def test_a_calibration_is_described_in_the_readers_language_and_an_earlier_runs_words_stay():
    kept = KEPT["platt"].to_json()
    assert calibration.describe(kept) == "Platt: slope 0.7000, intercept -0.2500"
    assert calibration.describe(kept, "es") == "Platt: pendiente 0,7000, ordenada -0,2500"
    assert calibration.describe(KEPT["temperature"].to_json()) == "temperature scaling: temperature 2.0000"
    assert calibration.describe("isotonic regression: 9 knots") == "isotonic regression: 9 knots"


def test_a_bundle_of_an_earlier_version_is_platts():
    assert Calibration.from_json({"slope": 0.5, "intercept": 1}) == Calibration(0.5, 1.0, "platt")


def test_no_skill_is_one_sentence():
    label, distorted, _ = answers(lambda true: 2 * true, size=300)
    with pytest.raises(InputError, match="no better than chance"):
        fit_calibration(label, -distorted)
