"""Data that several of the unit tests' files share; each file has its own, made once."""

import keras
import numpy as np
import pandas as pd
import pytest

from bhi_utils import splits


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A file's own cache folder, in force while its tests run."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("BHI_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def table(pack) -> pd.DataFrame:
    """The default split of the file's own ``pack``."""
    return splits.make(pack.manifest, seed=0)


@pytest.fixture(scope="module")
def weights(cache) -> str:
    """A complete weight file: random weights that stand for pretrained ones."""
    keras.utils.set_random_seed(3)
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    normalization = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.float32([0.485, 0.456, 0.406]), np.float32([0.0524, 0.0502, 0.0506]), np.array(0)])
    base.save_weights(cache / "random.weights.h5")
    return str(cache / "random.weights.h5")
