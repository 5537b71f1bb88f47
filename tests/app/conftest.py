"""A small but genuine model, served once for all tests of the interface, and a real Chromium."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from scipy.special import expit

from bhi_utils import app, models
from bhi_utils.metrics import Calibration
from bhi_utils.predictor import Predictor, save_bundle

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def patches() -> list[np.ndarray]:
    return [patch for _, patch in app.synthetic_examples()]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, patches) -> Path:
    """An untrained network whose threshold splits the synthetic patches, so that both answers occur."""
    model = models.cnn(image_size=32, seed=0, filters=(8, 16))
    scale = 10.0  # an untrained network's logits lie close together
    layer = model.get_layer("logit")
    layer.set_weights([scale * value for value in layer.get_weights()])
    logits = model.predict_on_batch(np.stack(patches).astype(np.float32))[:, 0]
    card = {
        "initialisation": "scratch",
        "threshold_rule": "highest threshold with recall >= 0.93 on validation cases",
        "data": {"kind": "phantom", "synthetic": True, "cases": 48, "patches": 2880},
    }
    with warnings.catch_warnings():
        # NumPy 2 warns of the way in which Keras 3.15 copies TensorFlow's variables
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return save_bundle(
            keras.Model(model.input, model.output, name="cnn"),
            tmp_path_factory.mktemp("models"),
            threshold=float(expit(np.median(logits))),
            calibration=Calibration(0.7, -0.4),
            card=card,
        )


@pytest.fixture(scope="session")
def predictor(bundle) -> Predictor:
    return Predictor.load(bundle)


@pytest.fixture(scope="session")
def url(bundle) -> Iterator[str]:
    """The page's address. It is served by a process of its own, as `bhi app` does, where Gradio's own warnings are no errors."""
    code = "import sys; from bhi_utils import app, predictor; "
    code += "app.launch(predictor.Predictor.load(sys.argv[1]), port=0, block=True)"
    server = subprocess.Popen([sys.executable, "-c", code, str(bundle)], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    line = server.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    yield found[0]
    server.terminate()
    server.wait(timeout=30)
    server.stdout.close()


@pytest.fixture
def patch_file(tmp_path, patches) -> Path:
    path = tmp_path / "patch.png"
    Image.fromarray(patches[0]).save(path)
    return path


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        reason = "no Chromium on the path: install Debian's `chromium`, or Chrome"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # containers run as root, where Chromium's sandbox does not start
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()
