"""A small genuine model for the benchmarks that need one."""

from pathlib import Path

import pytest

from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import networks
from bhi_utils.model.predictor import save_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """An untrained custom CNN."""
    model = networks.cnn(image_size=32, seed=0, filters=(8, 16))
    return save_bundle(model, tmp_path_factory.mktemp("models"), threshold=0.5, calibration=Calibration(0.7, -0.4), card={})
