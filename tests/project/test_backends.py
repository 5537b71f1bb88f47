"""Any Keras backend: training and prediction without TensorFlow, the same answers on each.

JAX is tested always, PyTorch where it is installed (`make test-backends` installs it). A process has one backend, so each has its own.
"""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bhi_utils.__main__ import main
from bhi_utils.core import hardware
from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation import calibration
from bhi_utils.model import networks, predictor

CHILD = Path(__file__).with_name("backend_child.py")
ARCHIVE, WEIGHTS = os.environ.get("BHI_TEST_ARCHIVE", ""), os.environ.get("BHI_TEST_WEIGHTS", "")
#: On JAX the compilation is what takes time here, not the computation.
QUICK = "--xla_backend_optimization_level=0"
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed"))
    for name in ("jax", "torch")
]


def child(job: str, folder: Path, backend: str, **variables: str) -> dict:
    """What ``backend_child.py`` found in a process that computes with ``backend``."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "BHI_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": "-1", **variables}
    command = [sys.executable, str(CHILD), job, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def start(path: Path) -> Path:
    """A complete weight file of EfficientNetB0: random weights that stand for pretrained ones."""
    keras.utils.set_random_seed(3)
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    normalization = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.float32([0.485, 0.456, 0.406]), np.float32([0.0524, 0.0502, 0.0506]), np.array(0)])
    base.save_weights(path)
    return path


def awaken(model: keras.Model, patches: np.ndarray) -> None:
    """Give a random network statistics of real input, and answers that differ from patch to patch."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(patches.astype(np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def real_patches(count: int) -> np.ndarray:
    """Whole patches from all over the archive."""
    with zipfile.ZipFile(ARCHIVE) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".png"))
        images = (np.asarray(Image.open(opened.open(name)).convert("RGB")) for name in names[:: len(names) // (2 * count)])
        return np.stack([image for image in images if image.shape == (50, 50, 3)][:count])


def phantom_patches(folder: Path) -> np.ndarray:
    source = synthetic_cohort.write(folder / "small.zip", cases=4, patches_per_case=12, seed=2, nested=False)
    return np.array(archive.pack(source, folder / "packed", progress=False).patches[:24])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Both both as bundles, patches, and this process's own answers; the archive's patches and ImageNet's weights where they are."""
    folder = tmp_path_factory.mktemp("saved")
    patches = real_patches(24) if ARCHIVE else phantom_patches(folder)
    np.save(folder / "patches.npy", patches)
    both = [networks.cnn(image_size=32, seed=1), networks.efficientnetb0(image_size=64, weights=WEIGHTS or "none", seed=1)]
    for model in both:
        if model.name == "cnn" or not WEIGHTS:
            awaken(model, patches)
        pooled = keras.Model(model.input, model.get_layer("pool").output).predict_on_batch(patches.astype(np.float32))
        kernel = np.random.default_rng(0).normal(size=(pooled.shape[1], 1)).astype(np.float32)
        answers = pooled @ kernel
        kernel *= 2 / answers.std()
        model.get_layer("logit").set_weights([kernel, -(pooled @ kernel).mean(axis=0)])
        predictor.save_bundle(model, folder, threshold=0.5, calibration=calibration.Calibration(1.0, 0.0), card={})
    child("answer", folder, keras.config.backend())
    return folder


def answers(folder: Path, backend: str) -> dict:
    return pickle.loads((folder / f"answers_{backend}.pickle").read_bytes())


@pytest.mark.skipif(not WEIGHTS, reason="BHI_TEST_WEIGHTS names no ImageNet weight file; a random network magnifies rounding")
@pytest.mark.parametrize("backend", OTHERS)
def test_a_saved_model_answers_alike_on_every_backend(saved, backend):
    child("answer", saved, backend)
    ours, theirs = answers(saved, keras.config.backend()), answers(saved, backend)
    assert ours.keys() == theirs.keys()
    for name in ("cnn.bundle.json", "efficientnetb0.bundle.json"):
        assert np.ptp(ours[name]["probability"]) > 0.5
        np.testing.assert_allclose(theirs[name]["probability"], ours[name]["probability"], atol=1e-4)
        np.testing.assert_allclose(theirs[name]["maps"], ours[name]["maps"], atol=1e-2)
    # patches are in 0–255: a thousandth of a grey level
    for name in [name for name in ours if not name.endswith(".json")]:
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", ["cnn", pytest.param("efficientnetb0", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", OTHERS)
def test_training_and_prediction_need_no_tensorflow_on_another_backend(backend, name, tmp_path):
    if name == "efficientnetb0":
        start(tmp_path / "start.weights.h5")
    found = child(f"train_{name}", tmp_path, backend, XLA_FLAGS=QUICK)
    assert not found["tensorflow"]
    assert f"on {backend}" in found["device"]
    assert len(found["history"]) == 2
    assert np.isfinite([[row["loss"], row["val_loss"], row["val_auc"]] for row in found["history"]]).all()
    # what was trained there is opened here, and the other way round in the test above
    theirs = pd.read_csv(tmp_path / "answers.csv")
    pack = archive.pack(tmp_path / "small.zip", tmp_path, progress=False)
    here = predictor.Predictor.load(tmp_path / f"{name}.bundle.json").predict(pack.patches[:16])
    np.testing.assert_allclose(here["probability"], theirs["probability"], atol=1e-4)
    if backend == "jax":
        assert list((tmp_path / "cache" / "jax").glob("*step*-cache")), "what it compiled is kept for the next process"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_what_jax_compiles_is_kept_in_the_cache_folder_and_read_by_the_next_process(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "BHI_CACHE": str(tmp_path)}
    code = """
        import jax, keras, numpy as np
        from bhi_utils.model import networks
        heard = []
        jax.monitoring.register_event_listener(lambda event, **_: heard.append(event))
        inputs = x = keras.Input((8, 8, 3))
        for width in (4, 8):
            x = keras.layers.BatchNormalization()(keras.layers.Conv2D(width, 3, activation="relu")(x))
        model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
        model.compile("adam", "mse")
        model.fit(np.zeros((4, 8, 8, 3)), np.zeros((4, 1)), verbose=0)
        print(heard.count("/jax/compilation_cache/cache_hits"))
    """

    def run():
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=True)
        return {path.name for path in (tmp_path / "jax").iterdir() if path.name.endswith("-cache")}, int(done.stdout)

    (first, none), (again, hits) = run(), run()
    assert any("step" in name for name in first) and again >= first
    assert hits > none, "the second process reads the step that the first one compiled"


@pytest.fixture
def unloaded(monkeypatch):
    """As if this process had not loaded Keras."""
    monkeypatch.delitem(sys.modules, "keras")
    return monkeypatch


@pytest.mark.parametrize("command", [["predict", "patch.png", "--csv", "out.csv"], ["app"], ["run", "--dry-run"], ["bench"]])
def test_a_backend_that_does_not_exist_or_is_not_installed_is_one_sentence(command, unloaded, capsys):
    unloaded.setenv("KERAS_BACKEND", "tensorfow")
    assert main(command) == 2
    assert capsys.readouterr().err == "bhi: KERAS_BACKEND 'tensorfow' does not exist here: choose one of tensorflow, jax, torch.\n"
    unloaded.setenv("KERAS_BACKEND", "torch")
    unloaded.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith("bhi: KERAS_BACKEND is torch, which is not installed: run `pip install torch`") and said.count("\n") == 1


def test_the_backend_is_the_one_that_keras_would_choose(unloaded, tmp_path):
    unloaded.delenv("KERAS_BACKEND", raising=False)
    unloaded.setenv("KERAS_HOME", str(tmp_path))
    assert hardware.backend_name() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "torch"}', encoding="utf-8")
    assert hardware.backend_name() == "torch"
    unloaded.setenv("KERAS_BACKEND", "jax")
    assert hardware.backend_name() == "jax"
