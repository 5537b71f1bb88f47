"""Data that several folders of tests share."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

# before any test's file loads TensorFlow, which reads once which kernels to compute with: tests then compute as notebooks and commands do
import bhi_utils  # noqa: F401
from bhi_utils.data import splits

ROOT = Path(__file__).resolve().parent.parent
#: The files that take longest, by `pytest --durations`: the two workers end together when no long file comes last.
LONGEST = (
    "notebooks/test_walk.py",
    "studies/test_recipes.py",
    "project/test_backends.py",
    "studies/test_benchmark_training.py",
    "studies/test_ablations.py",
    "training/test_checkpoint.py",
    "training/test_train_networks.py",
    "studies/test_benchmark_archive.py",
    "app/test_notebook_frame.py",
    "app/test_tabs.py",
    "app/test_server.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first, each file's in their own order."""
    places = {str(ROOT / "tests" / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))


@pytest.fixture
def write_notebook(tmp_path):
    """Writes a small notebook into ``tmp_path/notebooks`` and returns its path."""
    folder = tmp_path / "notebooks"
    folder.mkdir()

    def write(name: str, parameters: str, *cells: str) -> Path:
        metadata = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
        code = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, cells)]
        path = folder / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {name}"), *code], metadata=metadata), path)
        return path

    return write


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A file's own cache folder, in force while its tests run."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("BHI_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def table(pack):
    """The default split of the file's own ``pack``."""
    return splits.make(pack.manifest, seed=0)


@pytest.fixture(scope="module")
def weights(cache) -> str:
    """A complete weight file: random weights that stand for pretrained ones."""
    import keras

    keras.utils.set_random_seed(3)
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    normalization = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.float32([0.485, 0.456, 0.406]), np.float32([0.0524, 0.0502, 0.0506]), np.array(0)])
    base.save_weights(cache / "random.weights.h5")
    return str(cache / "random.weights.h5")
