"""A small but genuine model, served once for all tests of the interface, and a real Chromium."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from scipy.special import expit

from bhi_utils.app import server
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import networks
from bhi_utils.model.predictor import Predictor, save_bundle

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def patches() -> list[np.ndarray]:
    return server.synthetic_examples()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, patches) -> Path:
    """An untrained network whose threshold splits the synthetic patches, so that both answers occur."""
    model = networks.cnn(image_size=32, seed=0, filters=(8, 16))
    scale = 10.0  # an untrained network's logits lie close together
    layer = model.get_layer("logit")
    layer.set_weights([scale * value for value in layer.get_weights()])
    logits = model.predict_on_batch(np.stack(patches).astype(np.float32))[:, 0]
    interval = {"value": 0.93, "low": 0.9, "high": 0.95}
    card = {
        "initialisation": "scratch",
        "threshold_rule": {"rule": "recall", "value": 0.93, "where": "validation"},
        "train_cases": [90001, 99901, 99902],
        "data": {"kind": "phantom", "synthetic": True, "cases": 48, "patches": 2880},
        "metrics": {"test": {"auc": interval, "recall": interval, "precision": {"value": 0.5, "low": 0.4, "high": 0.6}}},
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


@contextmanager
def serving(bundle: Path, tmp_path_factory, **variables: str) -> Iterator[tuple[str, Path]]:
    """The page's address and its folder of uploads. It is served by a process of its own, as `bhi app` does."""
    uploads = tmp_path_factory.mktemp("uploads")
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(uploads), "BHI_CACHE": str(tmp_path_factory.mktemp("cache")), **variables}
    command = [sys.executable, "-m", "bhi_utils", "app", "--model", str(bundle), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
    for line in server.stdout:
        if found := re.search(r"http://\S+", line):
            break
    yield found[0], uploads
    server.terminate()
    server.wait(timeout=120)
    server.stdout.close()


@pytest.fixture(scope="session")
def served(bundle, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    with serving(bundle, tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="session")
def secured_url(bundle, tmp_path_factory) -> Iterator[str]:
    """A page that asks for ``me`` and ``secret``."""
    with serving(bundle, tmp_path_factory, BHI_USER="me", BHI_PASSWORD="secret") as found:
        yield found[0]


@pytest.fixture(scope="session")
def url(served) -> str:
    return served[0]


@pytest.fixture(scope="session")
def region_file(tmp_path_factory) -> Path:
    """A synthetic slide of some 60 patches."""
    path = tmp_path_factory.mktemp("region") / "region.png"
    Image.fromarray(synthetic_cohort.draw_slide(1, patches=60, seed=5).image).save(path)
    return path


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
