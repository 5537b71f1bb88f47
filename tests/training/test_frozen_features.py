"""Cached features are those of the network, each computed once, and what a killed run leaves behind is used as far as it is whole."""

import os
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from bhi_utils.core.paths import PACKAGE, InputError
from bhi_utils.model import networks
from bhi_utils.model.augment import dihedral
from bhi_utils.training import frozen_features


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return networks.efficientnetb0(image_size=32, weights="none", seed=1)


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 50, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def front(network) -> keras.Model:
    return frozen_features.front(network, "block6d_add")


def source(front, patches, cache, calls=None):
    def fetch(rows):
        if calls is not None:
            calls.extend(rows)
        return patches[rows]

    return frozen_features.FeatureCache(front, fetch, len(patches), identity="these", cache=cache)


def test_outputs_are_those_of_each_view_and_nothing_is_computed_twice(front, patches, tmp_path):
    calls = []
    found = source(front, patches, tmp_path, calls)
    assert found.missing(np.arange(20), 2) == 40
    found.ensure(np.arange(10), 1)
    found.ensure(np.array([3, 12, 3]), 2)
    assert sorted(calls) == sorted([*range(10), 12, 3, 12])
    again = source(front, patches, tmp_path, calls)
    again.ensure(np.array([3, 12]), 2)
    assert len(calls) == 13
    for view in (0, 1):
        expected = front.predict_on_batch(np.ascontiguousarray(dihedral(patches[[3, 12]], view)).astype(np.float32))
        got = again.gather(np.array([3, 12]), np.array([view, view]))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


def test_another_network_size_or_source_never_meets_the_same_files(network, front, patches, tmp_path):
    other = frozen_features.front(networks.efficientnetb0(image_size=32, weights="none", seed=2), "block6d_add")
    folders = {source(front, patches, tmp_path).folder, source(other, patches, tmp_path).folder}
    folders.add(source(frozen_features.front(network, "block5c_add"), patches, tmp_path).folder)
    folders.add(frozen_features.FeatureCache(front, None, len(patches), identity="others", cache=tmp_path).folder)
    assert len(folders) == 4


@pytest.mark.parametrize("damage", ["note cut short", "note missing", "outputs missing", "outputs cut short"])
def test_what_is_damaged_is_computed_again(front, patches, tmp_path, damage):
    calls = []
    source(front, patches, tmp_path, calls).ensure(np.arange(5))
    folder = source(front, patches, tmp_path).folder
    note, outputs = folder / "view_0" / "done.npy", folder / "view_0" / "outputs.npy"
    if damage == "note cut short":
        note.write_bytes(note.read_bytes()[:40])
    elif damage == "outputs cut short":
        outputs.write_bytes(outputs.read_bytes()[:1000])
    else:
        (note if damage == "note missing" else outputs).unlink()
    source(front, patches, tmp_path, calls).ensure(np.arange(5))
    assert len(calls) == 10


def test_a_run_that_is_stopped_keeps_what_it_had_noted(front, patches, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_features, "_NOTE_EVERY", 32)
    calls = []

    class Stopped(BaseException):
        pass

    def fetch(rows):
        if len(calls) >= 2:
            raise Stopped
        calls.append(rows)
        return patches[rows]

    with pytest.raises(Stopped):
        frozen_features.FeatureCache(front, fetch, len(patches), identity="these", cache=tmp_path).ensure(np.arange(70))
    rest = []
    source(front, patches, tmp_path, rest).ensure(np.arange(70))
    assert sorted(rest) == list(range(64, 70))


#: Fills half of a cache's rows; says so and waits wherever the test wants to be asked. The network is a stand-in that needs no Keras model.
CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from bhi_utils.training import frozen_features

class Front:
    name, output_shape, layers = "front", (None, 7, 7, 3), ()
    def get_layer(self, name):
        return type("Layer", (), {"get_config": lambda self: {"height": 50}})()
    def get_weights(self):
        return []
    def predict_on_batch(self, given):
        return given[:, :7, :7]

folder, me, stop = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def wait(moment):
    if moment == stop:
        (folder / f"{me} waits").touch()
        while not (folder / f"{me} may go on").exists():
            time.sleep(0.02)

make = np.lib.format.open_memmap
def made(*arguments, **options):
    found = make(*arguments, **options)
    wait("created")
    return found

np.lib.format.open_memmap = made
patches = np.random.default_rng(0).integers(1, 256, (40, 50, 50, 3), dtype=np.uint8)
cache = frozen_features.FeatureCache(Front(), lambda rows: patches[rows], 40, identity="these", cache=folder)
rows = np.arange(20) if me == "A" else np.arange(20, 40)
while me == "B" and not (folder / "A waits").exists():
    time.sleep(0.02)
cache.ensure(rows, 2)
wait("filled")
for view in range(2):
    expected = frozen_features.dihedral(patches[rows], view)[:, :7, :7]
    assert (cache.gather(rows, np.full(20, view)) == expected).all(), f"{me} reads other features than it has computed"
again = frozen_features.FeatureCache(Front(), lambda rows: patches[rows], 40, identity="these", cache=folder)
print(again.missing(np.arange(40), 2))
"""


def test_two_processes_that_start_at_once_share_a_cache_and_neither_zeroes_the_other_s_rows(tmp_path):
    """A stops between creating the first view's file and filling it; meanwhile B fills its own rows, and reads them when A has ended."""
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    # the network is a stand-in, and JAX is there sooner than TensorFlow
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}

    def start(name, stop):
        command = [sys.executable, str(tmp_path / "child.py"), str(tmp_path), name, stop]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def await_pause(process, name):
        while not (tmp_path / f"{name} waits").exists() and process.poll() is None:
            time.sleep(0.02)

    with start("A", "created") as first, start("B", "filled") as second:
        try:
            await_pause(first, "A")
            await_pause(second, "B")
            (tmp_path / "A may go on").touch()
            a_said, a_failed = first.communicate(timeout=120)
            (tmp_path / "B may go on").touch()
            b_said, b_failed = second.communicate(timeout=120)
        finally:
            first.kill()
            second.kill()
    assert first.returncode == 0, a_failed
    assert second.returncode == 0, b_failed
    assert a_said.splitlines()[-1] == b_said.splitlines()[-1] == "0", "what either had finished is known to all"


def test_too_little_disk_space_is_said_before_anything_is_computed(front, patches, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match="lower VIEWS or IMAGE_SIZE"):
        source(front, patches, tmp_path, calls).ensure(np.arange(2))
    assert not calls


def test_outputs_beyond_float16_are_refused(front, patches, tmp_path):
    class Loud:
        name, output_shape = "loud", front.output_shape

        def predict_on_batch(self, given):
            return np.full((len(given), *front.output_shape[1:]), 1e6, dtype=np.float32)

        get_layer, get_weights, layers = front.get_layer, front.get_weights, front.layers

    with pytest.raises(InputError, match="float16"):
        source(Loud(), patches, tmp_path).ensure(np.arange(2))


def test_the_cost_of_outputs_is_that_of_those_computed_and_survives_the_process(front, patches, tmp_path):
    made = source(front, patches, tmp_path)
    assert np.isnan(made.cost(5)) and made.filling == 0
    made.ensure(np.arange(10), 2)
    spent = made.filling
    assert spent > 0 and made.cost(20) == pytest.approx(spent) and made.cost(40) == pytest.approx(2 * spent)
    again = source(front, patches, tmp_path)
    again.ensure(np.arange(10), 2)
    assert again.filling == 0 and again.cost(20) == pytest.approx(spent)


def test_another_input_range_is_another_cache(patches, tmp_path):
    fronts = [
        frozen_features.front(networks.efficientnetb0(image_size=32, weights="none", seed=1, input_range=given), "block6d_add")
        for given in (255, 1)
    ]
    assert len({source(each, patches, tmp_path).folder for each in fronts}) == 2
