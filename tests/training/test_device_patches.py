"""Patches on the device: the same training as from host batches, float32 where it matters, and only where there is room."""

from functools import partial

import keras
import numpy as np
import pytest

from bhi_utils.core import hardware
from bhi_utils.core.paths import InputError
from bhi_utils.data import archive, splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import networks
from bhi_utils.training import device_patches, fit_phases, samples, train_networks

#: Memory and compute capability of a large card of a recent generation.
LARGE = (80e9, 9.0)


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def pack(cache) -> archive.Pack:
    return archive.pack(
        synthetic_cohort.write(cache / "small.zip", cases=8, patches_per_case=14, seed=1, nested=False), cache, progress=False
    )


def fitted(pack, table, mode: str, *, on_device: bool, policy: str = device_patches.FLOAT32) -> tuple[keras.Model, keras.Model, dict]:
    """A small network after two epochs, what was fitted, and its history."""
    train = samples.training_samples(pack, table, mode=mode, seed=0)
    rows = splits.indices(pack.manifest, table, "val")
    model = networks.cnn(image_size=32, seed=0, filters=(4, 8))
    with device_patches.precision(model, policy):
        part, draw, check = device_patches.feeds(model, train, rows, resident=on_device)
        # not Adam, whose steps have one length however small the gradient is: it would make the last bits of a pixel large
        part.compile(keras.optimizers.SGD(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
        batches = samples.Batches(lambda index, _: draw(index), train.labels, batch_size=16, weights=train.weights, seed=3)
        valid = samples.Batches(lambda index, _: check(index), pack.manifest["label"].to_numpy()[rows], batch_size=16)
        history = part.fit(batches, validation_data=valid, epochs=2, shuffle=False, verbose=0).history
    return model, part, history


@pytest.mark.parametrize(
    "mode", [pytest.param("class_weight", marks=pytest.mark.slow), "oversample", pytest.param("smote", marks=pytest.mark.slow)]
)
def test_patches_on_the_device_train_the_network_that_host_batches_train(pack, table, mode):
    (host, _, expected), (device, _, found) = (fitted(pack, table, mode, on_device=on) for on in (False, True))
    # SMOTE's step is float64 on the host, so that its pixels differ in the last bits
    close = 1e-5 if mode == "smote" else 1e-6
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=close, err_msg=name)
    for a, b in zip(host.get_weights(), device.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=close)


def test_synthetic_patches_drawn_on_the_device_are_those_of_the_host_but_for_the_last_bits(pack, table):
    train = samples.training_samples(pack, table, mode="smote", seed=0)
    assert len(train.plan)
    rows = splits.indices(pack.manifest, table, "val")
    echo = keras.Sequential([keras.Input((50, 50, 3)), keras.layers.Rescaling(1.0)])
    part, draw, check = device_patches.feeds(echo, train, rows, resident=True)
    every = np.arange(len(train))
    found = keras.ops.convert_to_numpy(part(draw(every)))
    np.testing.assert_allclose(found, train.fetch(every), atol=1e-4)
    np.testing.assert_array_equal(found[: len(train.rows)], pack.patches[train.rows])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(part(check(np.arange(len(rows))))), pack.patches[rows])


def test_no_patch_of_a_test_case_reaches_the_device(pack, table):
    _, part, _ = fitted(pack, table, "none", on_device=True)
    held = keras.ops.convert_to_numpy(part.get_layer("resident").table)
    allowed = np.concatenate([splits.indices(pack.manifest, table, name) for name in ("train", "val")])
    np.testing.assert_array_equal(held, pack.patches[np.sort(allowed)])


def test_mixed_precision_keeps_weights_scaling_and_logit_in_float32_and_leaves_a_plain_network(pack, table):
    _, _, expected = fitted(pack, table, "none", on_device=False)
    model, part, found = fitted(pack, table, "none", on_device=True, policy=device_patches.MIXED)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0.02)
    assert found["loss"] != expected["loss"]
    assert {str(weight.dtype) for weight in model.weights} - {"uint32", "int64", "int32"} == {"float32"}
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    with device_patches.precision(model, device_patches.MIXED):
        computing = {layer.name: layer.compute_dtype for layer in model.layers}
    assert {computing[name] for name in ("rotation", "resize", "unit_range", "pool", "logit")} == {"float32"}
    assert {kind for name, kind in computing.items() if name.startswith("block")} == {"bfloat16"}


def test_training_through_the_device_leaves_the_network_that_takes_patches(pack, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BHI_PRECISION", device_patches.MIXED)
    train = samples.training_samples(pack, table, mode="none", seed=0)
    recipe = fit_phases.FitSettings(epochs=1, batch_size=16, seed=0, folder=tmp_path)
    monkeypatch.setattr(networks, "cnn", partial(networks.cnn, filters=(4, 8)))
    trained = train_networks.train_cnn(pack, table, train, recipe, image_size=32)
    assert "patches resident, mixed_bfloat16" in capsys.readouterr().out
    trained.model.save(tmp_path / "cnn.keras")
    again = keras.models.load_model(tmp_path / "cnn.keras")
    assert again.input_shape == (None, 50, 50, 3) and {layer.dtype_policy.name for layer in again.layers} == {"float32"}
    batch = pack.patches[:4].astype(np.float32)
    np.testing.assert_array_equal(again.predict_on_batch(batch), trained.model.predict_on_batch(batch))


def test_a_cpu_has_host_batches_in_float32_and_says_nothing(monkeypatch):
    monkeypatch.delenv("BHI_PRECISION", raising=False)
    monkeypatch.setattr(hardware, "gpus", lambda: 0)
    assert device_patches.choose(1000, batch_size=32, image_size=200) == device_patches.Placement(False, "float32", "")


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes this machine's GPU one of the given memory and compute capability."""
    monkeypatch.delenv("BHI_PRECISION", raising=False)
    monkeypatch.setattr(hardware, "gpus", lambda: 1)
    return lambda card: monkeypatch.setattr(hardware, "card", lambda: card)


def test_a_gpu_takes_the_archive_and_can_be_told_not_to(gpu, monkeypatch):
    gpu(LARGE)
    sizes = {"batch_size": 256, "image_size": 200}
    place = device_patches.choose(250_000, **sizes)
    assert place.resident and place.policy == "mixed_bfloat16" and "1,875 MB" in place.why
    monkeypatch.setenv("BHI_PRECISION", "float32")
    place = device_patches.choose(250_000, **sizes)
    assert not place.resident and place.policy == "float32"


@pytest.mark.parametrize(
    ("card", "on_device", "policy", "word"),
    [
        (LARGE, True, "mixed_bfloat16", "on the GPU"),
        ((24e9, 7.5), False, "float32", "lower BATCH_SIZE"),
        ((48e9, 7.5), True, "float32", "on the GPU"),
        ((6e9, 8.6), False, "mixed_bfloat16", "lower BATCH_SIZE"),
        (None, False, "float32", "does not tell"),
    ],
)
def test_what_does_not_fit_stays_on_the_host_and_old_cards_compute_in_float32(gpu, card, on_device, policy, word):
    gpu(card)
    place = device_patches.choose(100_000, batch_size=256, image_size=200)
    assert (place.resident, place.policy) == (on_device, policy) and word in place.why


def test_the_papers_batches_stay_in_float32_on_any_card(gpu):
    gpu(LARGE)
    place = device_patches.choose(200_000, batch_size=8, image_size=200)
    assert place.resident and place.policy == "float32"


def test_an_unknown_precision_is_one_sentence(monkeypatch):
    monkeypatch.setenv("BHI_PRECISION", "float8")
    with pytest.raises(InputError, match="BHI_PRECISION 'float8' does not exist: set it to float32 or mixed_bfloat16"):
        device_patches.choose(10, batch_size=1, image_size=32)
