"""What a run will cost: it grows with patches and pixels, and depends on the device and the backend."""

import os
import sys

import pytest

from bhi_utils.core import hardware
from bhi_utils.core.paths import InputError
from bhi_utils.runner import preflight


def test_the_cost_grows_with_patches_and_pixels():
    def cost(patches, size):
        values = {"IMAGE_SIZE": size, "WEIGHTS": "file.h5"}
        return preflight.estimate(patches, {"01_x": {"DATA": "a.zip"}, "05_x": values})

    small, large = cost(1_000, 64), cost(100_000, 160)
    for name in ("memory", "disk"):
        assert getattr(small, name) < getattr(large, name)
    assert small.seconds["05_x"] < large.seconds["05_x"]


def test_the_estimate_is_for_the_device_that_computes_and_counts_what_jax_compiles():
    values = {"IMAGE_SIZE": 200, "BATCH_SIZE": 256, "EPOCHS": 30, "FINE_TUNE_BLOCKS": 3, "WEIGHTS": "imagenet", "VIEWS": 0}
    given = {"05_x": values, "06_x": {}, "02_x": {}}
    large, old = hardware.Card(140e9, 9.0, "NVIDIA H200"), hardware.Card(16e9, 7.5, "Tesla T4")
    cpu, t4, h200 = (preflight.estimate(13_244, given, card=card) for card in (None, old, large))
    jax = preflight.estimate(13_244, given, card=large, compiles=True)
    assert cpu.seconds["05_x"] > 2 * t4.seconds["05_x"] > 2 * h200.seconds["05_x"]
    assert cpu.compiling == h200.compiling == 0 and cpu.card_memory == 0
    assert jax.compiling == sum(jax.seconds.values()) - sum(h200.seconds.values())
    assert jax.compiling >= 5 * 57, "the CNN's phase and four of EfficientNetB0, at the least that was seen on an H200"
    assert jax.seconds["02_x"] == h200.seconds["02_x"] and jax.seconds["06_x"] > h200.seconds["06_x"]
    assert h200.memory < cpu.memory, "what lies on the card is not in this machine's memory"
    assert h200.card_memory < t4.card_memory, "bfloat16 takes half"
    assert "on NVIDIA H200 (" in jax.sentence() and "compiling" in jax.sentence() and "of the GPU's" in jax.sentence()
    assert "without a GPU" in cpu.sentence() and "GPU's" not in cpu.sentence() and "compiling" not in cpu.sentence()


def test_the_phases_that_are_compiled_are_those_that_are_trained():
    def compiling(**values):
        return preflight.estimate(1_000, {"05_x": {"WEIGHTS": "imagenet", "VIEWS": 0} | values}, compiles=True).compiling

    cached = compiling(VIEWS=2, FINE_TUNE_BLOCKS=3)
    assert compiling(WEIGHTS="none") == compiling(FINE_TUNE_BLOCKS=0) < cached < compiling(FINE_TUNE_BLOCKS=3)
    assert compiling(FINE_TUNE_BLOCKS=1) == cached, "from the cache all blocks open at once"


@pytest.mark.skipif(sys.platform == "win32", reason="needs an executable script")
def test_a_card_counts_when_the_backend_can_use_it(tmp_path, monkeypatch):
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho '81559, 9.0, Test GPU'\necho '16384, 7.5, Small GPU'\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert hardware.card() == (16384 * 2**20, 7.5, "Small GPU")
    assert hardware.card_in_use() is None


def test_a_disk_that_is_too_small_stops_the_run(tmp_path):
    with pytest.raises(InputError, match="GB are free"):
        preflight.check_disk(1e18, tmp_path / "not" / "yet" / "there")
    preflight.check_disk(1.0, tmp_path)
