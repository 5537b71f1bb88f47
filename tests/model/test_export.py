"""The ONNX file answers as the network does, says how to read its logits, and is not left behind when it does not."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.special import expit

from bhi_utils.__main__ import main
from bhi_utils.core.paths import InputError
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import export, networks, predictor

pytestmark = pytest.mark.slow

README = Path(__file__).resolve().parent.parent.parent / "README.md"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, weights):
    """Both networks' bundles, by name; the smaller one does where the network does not matter."""
    made = (networks.cnn(image_size=48, seed=2, filters=(8, 16)), networks.efficientnetb0(image_size=64, seed=2, weights=weights))
    folder, about = tmp_path_factory.mktemp("bundles"), {"threshold": 0.4, "calibration": Calibration(0.8, -0.5), "card": {}}
    return {model.name: predictor.save_bundle(model, folder, **about) for model in made}


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles["cnn"]


@pytest.fixture(scope="module", params=["cnn", "efficientnetb0"])
def written(request, bundles, tmp_path_factory):
    """The predictor and its file."""
    out = tmp_path_factory.mktemp("export") / "new" / "model.onnx"
    loaded = predictor.Predictor.load(bundles[request.param])
    assert 0 <= export.write(loaded, out) <= export.TOLERANCE
    return loaded, out


@pytest.mark.parametrize("count", [1, 7])
def test_its_probabilities_and_maps_are_the_networks(written, count):
    loaded, out = written
    patches = np.random.default_rng(count).integers(0, 256, (count, 50, 50, 3)).astype(np.float32)
    logit, evidence = onnxruntime.InferenceSession(out).run(["logit", "evidence"], {"patches": patches})
    frame, maps = loaded.predict_with_evidence(patches)
    assert logit.shape == (count, 1) and logit.std() > 0 or count == 1
    np.testing.assert_allclose(expit(logit[:, 0]), frame["probability"], atol=1e-4)
    np.testing.assert_allclose(evidence, maps, atol=1e-3)
    np.testing.assert_allclose(evidence.mean(axis=(1, 2)), logit[:, 0], atol=1e-4)


def test_its_metadata_turn_a_logit_into_the_bundles_answer(written):
    loaded, out = written
    session = onnxruntime.InferenceSession(out)
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("patches", ["n", 50, 50, 3], "tensor(float)")
    kept = session.get_modelmeta().custom_metadata_map
    assert float(kept["threshold"]) == loaded.threshold == 0.4 and kept["model_sha256"] == loaded.bundle["sha256"]
    assert Calibration.from_json(json.loads(kept["calibration"])) == loaded.calibration
    assert float(kept["threshold_calibrated"]) == loaded.threshold_calibrated and "medical device" in kept["notice"]


def test_it_has_no_layer_that_only_training_uses_and_asks_for_patches_alone(written):
    graph = onnx.load(written[1]).graph
    assert [value.name for value in graph.input] == ["patches"] and {value.name for value in graph.output} == {"logit", "evidence"}
    assert not {"RandomUniform", "RandomUniformLike", "BatchNormalization"} & {node.op_type for node in graph.node}


def test_a_file_that_answers_otherwise_is_not_left_behind(bundle, tmp_path, monkeypatch):
    loaded = predictor.Predictor.load(bundle)
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    (tmp_path / "old.onnx").write_bytes(b"before")
    with pytest.raises(RuntimeError, match="differ by"):
        export.write(loaded, tmp_path / "old.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_another_ending_and_another_backend_are_refused(tmp_path, monkeypatch):
    for wrong in (tmp_path / "model.keras", tmp_path):
        with pytest.raises(InputError, match="ends in .onnx"):
            export.check(wrong)
    monkeypatch.setattr("keras.config.backend", lambda: "jax")
    with pytest.raises(InputError, match="unset KERAS_BACKEND"):
        export.check(tmp_path / "model.onnx")


def test_the_command_writes_it_and_tells_a_careless_user_why_not(bundle, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert main(["export", str(out), "--model", str(bundle)]) == 0 and out.stat().st_size > 1000
    said = capsys.readouterr().out
    assert "probabilities differ by" in said and export.NOTICE in said
    for arguments in ([str(tmp_path)], [str(out), "--model", str(tmp_path / "nothere.bundle.json")]):
        assert main(["export", *arguments]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_readmes_lines_read_the_file(written, monkeypatch):
    loaded, out = written
    monkeypatch.chdir(out.parent)
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL) if "onnx" in block
    ]
    found: dict = {}
    exec(code, found)
    wanted = loaded.predict(np.zeros((1, 50, 50, 3)))["predicted_label"].to_numpy() == 1
    np.testing.assert_array_equal(found["positive"][:, 0], wanted)
