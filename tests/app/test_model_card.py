"""The model's page: what the bundle knows, and what it does not."""

import html
import json

import pytest

from bhi_utils.app import model_card, page_html
from bhi_utils.core import messages
from bhi_utils.evaluation import calibration
from bhi_utils.model import bundles


class Model:
    bundle = {"name": "cnn", "calibration": {"method": "platt", "slope": 0.7, "intercept": -0.2, "other": [1, 2]}, "train_cases": [1, 2]}
    threshold, threshold_calibrated = 0.5, 0.4


def test_the_card_says_what_is_not_recorded():
    said = model_card.shown(Model(), "en")
    assert (
        "not recorded" in said and "Platt: slope 0.7000, intercept -0.2000" in said and "no metrics" in said and "Research use only" in said
    )
    Model.bundle |= {"metrics": {"test": {"auc": {"value": None, "low": None, "high": None}, "loss": {"value": 0.3}}}}
    said = model_card.shown(Model(), "es")
    assert "<td>–</td>" in said and "<td>0,300</td>" in said


class Packaged:
    bundle = json.loads(bundles.PACKAGED.read_text(encoding="utf-8"))
    threshold, threshold_calibrated = 0.25, 0.125


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_card_shows_all_that_the_packaged_bundle_knows_under_its_true_name(language):
    said, bundle = model_card.shown(Packaged(), language), Packaged.bundle
    fitted, early = len(bundle["train_cases"]), len(bundle["validation_cases"])
    assert messages.text("card_none", language) not in said
    for key, count in (("fitted_on", fitted), ("early_stopping_on", early)):
        row = f"<th scope=row>{messages.text(key, language)}</th><td>{messages.text('card_cases', language, count=count)}</td>"
        assert row in said
    for part in ("out_of_fold", "early_stopping"):
        recall = messages.number(bundle["metrics"][part]["recall"]["value"], language, digits=3)
        assert f"<th scope=col>{messages.text(part, language)}</th>" in said and f"<td>{recall} (" in said
        assert messages.text(f"note_{part}", language) in html.unescape(said)
    heading = page_html.heading(bundle, language)
    assert f" {fitted} " in heading and str(fitted + early) not in heading
    given = model_card.facts(Packaged(), language)
    assert given["cases"] == {"fitted_on": fitted, "early_stopping_on": early} and not {"train_cases", "validation_cases"} & set(given)


def test_cases_that_the_start_had_seen_are_counted_apart():
    walk = {"train_cases": [1, 2, 3], "validation_cases": [4], "seen": {"real_cases": [7, 8], "synthetic_cases": [1, 2, 3, 4]}}
    assert bundles.served(walk) == {"fitted_on": 3, "early_stopping_on": 1, "known_to_the_start": 2}
    assert bundles.served({}) == {}


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_calibration_is_described_alike_wherever_it_is_shown(language):
    kept = {"method": "isotonic", "slope": 1.0, "intercept": 0.0, "knots": [[-2.0, -1.5], [0.0, 0.1], [3.0, 2.5]]}
    said = calibration.describe(kept, language)
    assert said.startswith({"en": "isotonic regression: ", "es": "regresión isotónica: "}[language]) and " 3 " in said
    model = Packaged()
    model.bundle = Packaged.bundle | {"calibration": kept}
    shown = model_card.shown(model, language)
    assert said in shown and "Platt" not in shown and "1.00" not in said
