"""Calibration recovers known distortions, never changes an order or a decision, is chosen on cases left out, and survives a bundle."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from bhi_utils.core.paths import InputError
from bhi_utils.evaluation import calibration
from bhi_utils.evaluation.calibration import METHODS, Calibration, choose, fit_calibration, loss


def answers(distort, seed: int = 1, size: int = 20_000):
    """Labels, distorted logits and cases of answers whose true logits are known."""
    generator = np.random.default_rng(seed)
    true = generator.normal(-1, 1.5, size)
    return (generator.random(size) < expit(true)).astype(int), distort(true), generator.integers(0, 40, size), true


DISTORTIONS = {
    "temperature": lambda true: 2.5 * true,
    "platt": lambda true: 2 * true + 1.5,
    "isotonic": lambda true: np.where(true > -1, 3 * true + 2, 0.5 * true - 0.5),
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_takes_back_the_distortion_that_it_is_made_for(method):
    label, distorted, _, true = answers(DISTORTIONS[method])
    fit = fit_calibration(label, distorted, method=method)
    middle = np.abs(true + 1) < 2.5
    assert np.abs(fit.apply(distorted) - expit(true))[middle].max() < 0.06
    if method != "isotonic":
        expected = {"temperature": (0.4, 0.0), "platt": (0.5, -0.75)}[method]
        assert (fit.slope, fit.intercept) == pytest.approx(expected, abs=0.03)


def test_the_levels_of_isotonic_regression_are_scikit_learns():
    label, distorted, _, _ = answers(DISTORTIONS["isotonic"], size=3000)
    fit = fit_calibration(label, distorted, method="isotonic")
    theirs = IsotonicRegression().fit(distorted, label)
    inner = np.array(fit.knots)[2:-2]
    assert np.abs(expit(inner[:, 1]) - theirs.predict(inner[:, 0])).max() < 0.03


@pytest.mark.parametrize("method", METHODS)
def test_order_and_decisions_stay_and_the_bundle_gives_the_same_map_back(method):
    label, distorted, _, _ = answers(DISTORTIONS["isotonic"], size=2000)
    fit = fit_calibration(label, distorted, method=method)
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


def test_a_calibration_is_described_in_the_readers_language_and_an_earlier_runs_words_stay():
    kept = Calibration(0.7, -0.25).to_json()
    assert calibration.describe(kept) == "Platt: slope 0.7000, intercept -0.2500"
    assert calibration.describe(kept, "es") == "Platt: pendiente 0,7000, ordenada -0,2500"
    assert calibration.describe(Calibration(0.5, 0.0, "temperature").to_json()) == "temperature scaling: temperature 2.0000"
    assert calibration.describe("isotonic regression: 9 knots") == "isotonic regression: 9 knots"


def test_a_bundle_of_an_earlier_version_is_platts():
    assert Calibration.from_json({"slope": 0.5, "intercept": 1}) == Calibration(0.5, 1.0, "platt")


def test_the_temperature_is_that_of_the_lowest_loss():
    label, distorted, _, _ = answers(DISTORTIONS["platt"], size=2000)
    slope = fit_calibration(label, distorted, method="temperature").slope
    assert loss(label, slope * distorted) < min(loss(label, factor * slope * distorted) for factor in (0.99, 1.01))


@pytest.mark.parametrize("method", METHODS)
def test_the_method_is_chosen_on_cases_left_out(method):
    label, distorted, cases, _ = answers(DISTORTIONS[method], size=8000)
    chosen, tried = choose(label, distorted, cases)
    assert set(tried) == {"none", *METHODS} and chosen.method == min(METHODS, key=tried.get)
    assert tried[chosen.method] < tried["none"]
    # a stiffer method that fits as well may win, one that cannot fit may not
    assert METHODS.index(chosen.method) <= METHODS.index(method) or tried[chosen.method] == pytest.approx(tried[method], abs=2e-3)


def test_too_few_cases_to_choose_fall_back_on_platts():
    label, distorted, cases, _ = answers(DISTORTIONS["platt"], size=200)
    assert choose(label, distorted, np.zeros(200))[1] == {}
    cases = np.where(label == 1, 1, 0)  # without one of the two cases only one class is left
    fallback, tried = choose(label, distorted, cases)
    assert fallback == fit_calibration(label, distorted) and tried == {}


def test_no_skill_and_an_unknown_method_are_one_sentence():
    label, distorted, cases, _ = answers(DISTORTIONS["platt"], size=300)
    for call in (lambda: fit_calibration(label, -distorted), lambda: choose(label, -distorted, cases)):
        with pytest.raises(InputError, match="no better than chance"):
            call()
    with pytest.raises(InputError, match="choose temperature, platt or isotonic"):
        fit_calibration(label, distorted, method="beta")


def test_isotonic_calibration_of_a_perfect_ranking_stays_short_of_certainty():
    label = np.r_[np.zeros(20), np.ones(10)].astype(int)
    fit = calibration.fit_calibration(label, logit(np.linspace(0.05, 0.95, 30)), method="isotonic")
    assert 0 < expit(np.array(fit.knots)[:, 1]).min() < 0.05 and 0.9 < expit(np.array(fit.knots)[:, 1]).max() < 1
