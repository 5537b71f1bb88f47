"""A bundle gives the model's answers again, its evidence averages to the logit, and a foreign or damaged file is refused."""

import json

import numpy as np
import pytest

from bhi_utils.core.paths import InputError
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import networks, predictor


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 50, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["cnn", pytest.param("efficientnetb0", marks=pytest.mark.slow)])
def saved(request, tmp_path_factory):
    weights = {"weights": "none"} if request.param == "efficientnetb0" else {}
    model = getattr(networks, request.param)(image_size=64, seed=2, **weights)
    folder = tmp_path_factory.mktemp(request.param)
    path = predictor.save_bundle(model, folder, threshold=0.4, calibration=Calibration(0.8, -0.5), card={"initialisation": "scratch"})
    return model, path


def test_a_loaded_bundle_answers_as_the_model_did(saved, patches):
    model, path = saved
    loaded = predictor.Predictor.load(path)
    answers = loaded.predict(patches)
    logits = model.predict(patches.astype(np.float32), verbose=0)[:, 0]
    np.testing.assert_allclose(answers["logit"], logits, atol=1e-4)
    np.testing.assert_allclose(answers["probability"], 1 / (1 + np.exp(-logits)), atol=1e-4)
    np.testing.assert_array_equal(answers["predicted_label"], (answers["probability"] >= 0.4).astype(int))
    decided = answers["probability_calibrated"] >= loaded.threshold_calibrated
    np.testing.assert_array_equal(decided, answers["predicted_label"] == 1)
    assert loaded.bundle["initialisation"] == "scratch"


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(0.4, 0.0, "temperature"),
        Calibration(0.8, -0.5),
        Calibration(1e-9, 1.0),
        Calibration(1.0, 0.0, "isotonic", ((-1.0, -2.0), (0.1, -1.9), (0.2, 1.0))),
        Calibration(1.0, 0.0, "isotonic", ((-9.0, 0.5), (9.0, 0.5))),
    ],
    ids=["temperature", "platt", "all but level", "isotonic", "level"],
)
def test_the_calibrated_threshold_gives_the_same_labels_as_the_raw_one(saved, patches, calibration, monkeypatch):
    loaded = predictor.Predictor.load(saved[1])
    patches = patches[:16]  # few, since each is answered again at each threshold
    for threshold in np.sort(loaded.predict(patches)["probability"])[[0, 5, -1]]:  # each the probability of a patch itself
        monkeypatch.setattr(loaded, "calibration", calibration)
        monkeypatch.setattr(loaded, "threshold", float(threshold))
        monkeypatch.setattr(loaded, "threshold_calibrated", calibration.move(threshold))
        table = loaded.predict(patches)
        for scale in ("", "_calibrated"):
            np.testing.assert_array_equal(table[f"probability{scale}"] >= table[f"threshold{scale}"], table["predicted_label"] == 1)
        np.testing.assert_allclose(table["probability_calibrated"], calibration.apply(table["logit"]), atol=1e-12)


def test_the_evidence_map_averages_exactly_to_the_logit(saved, patches):
    answers, maps = predictor.Predictor.load(saved[1]).predict_with_evidence(patches)
    assert maps.shape[0] == len(patches) and maps.shape[1] > 1 and maps.dtype == np.float32
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), answers["logit"], atol=1e-4)


def test_a_saved_model_carries_no_optimizer_state(tmp_path, patches):
    model = networks.cnn(image_size=48, seed=0)
    calibration = Calibration(1.0, 0.0)
    before = predictor.save_bundle(model, tmp_path / "a", threshold=0.5, calibration=calibration, card={})
    model.compile("adam", "mse")
    model.fit(patches[:8], np.zeros((8, 1)), epochs=1, verbose=0)
    after = predictor.save_bundle(model, tmp_path / "b", threshold=0.5, calibration=calibration, card={})
    sizes = [path.with_name("cnn.keras").stat().st_size for path in (before, after)]
    assert sizes[1] < 1.05 * sizes[0]


def test_a_model_file_that_was_exchanged_is_refused(saved, tmp_path):
    _, path = saved
    bundle = json.loads(path.read_text(encoding="utf-8"))
    (tmp_path / bundle["model"]).write_bytes((path.parent / bundle["model"]).read_bytes() + b"x")
    (tmp_path / path.name).write_text(json.dumps(bundle), encoding="utf-8")
    with pytest.raises(InputError, match="its hash differs"):
        predictor.Predictor.load(tmp_path / path.name)


@pytest.mark.parametrize("content", [None, "{", "{}", '{"model": "missing.keras"}'])
def test_a_missing_or_damaged_bundle_is_one_sentence(content, tmp_path):
    path = tmp_path / "x.bundle.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="not a readable bundle"):
        predictor.Predictor.load(path)


def test_patches_of_another_shape_are_one_sentence(saved):
    with pytest.raises(InputError, match="shape"):
        predictor.Predictor.load(saved[1]).predict(np.zeros((1, 64, 64, 3), np.uint8))
