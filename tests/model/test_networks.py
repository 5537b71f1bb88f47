"""Both graphs take raw patches, prepare them as their base was trained, and end so that the evidence map averages to the logit."""

import os
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from bhi_utils.core.paths import InputError
from bhi_utils.model import networks

WEIGHTS = os.environ.get("BHI_TEST_WEIGHTS", "")
needs_weights = pytest.mark.skipif(not WEIGHTS, reason="BHI_TEST_WEIGHTS names no ImageNet weight file")


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 50, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory) -> Path:
    """A file like Keras' own download: random weights, ImageNet's standard deviation in place of the variance."""
    keras.utils.set_random_seed(3)
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(64, 64, 3))
    normalization = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225]), np.array(0)])
    normalization.finalize_state()
    path = tmp_path_factory.mktemp("weights") / "keras_style.weights.h5"
    base.save_weights(path)
    return path


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A random EfficientNetB0; tests may change what of it learns, and nothing else."""
    return networks.efficientnetb0(image_size=32, weights="none", seed=0)


def pooled(model: keras.Model, patches: np.ndarray) -> np.ndarray:
    return keras.Model(model.input, model.get_layer("pool").output).predict(patches, verbose=0)


def resized(patches: np.ndarray, size: int) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.layers.Resizing(size, size)(patches.astype(np.float32)))


@needs_weights
def test_the_base_sees_0_to_255_and_gives_the_reference_features_of_a_complete_file(patches):
    reference = keras.applications.EfficientNetB0(weights=WEIGHTS, include_top=False, input_shape=(96, 96, 3), pooling="avg")
    model = networks.efficientnetb0(image_size=96, weights=WEIGHTS, seed=0)
    np.testing.assert_allclose(pooled(model, patches), reference.predict(resized(patches, 96), verbose=0), atol=2e-4)


@pytest.mark.slow
def test_a_file_like_keras_own_download_gets_the_missing_rescaling(patches, random_weights):
    base = keras.applications.EfficientNetB0(weights=str(random_weights), include_top=False, input_shape=(64, 64, 3))
    scale = 1 / np.sqrt(np.float32([0.229, 0.224, 0.225]))
    # the graph of weights="imagenet": that one layer between Normalization and the stem
    norm = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    rest = keras.Model(norm.output, base.output)
    inputs = keras.Input((64, 64, 3))
    reference = keras.Model(inputs, rest(keras.layers.Rescaling(scale)(norm(keras.layers.Rescaling(1 / 255)(inputs)))))
    expected = reference.predict(resized(patches, 64), verbose=0).mean(axis=(1, 2))
    model = networks.efficientnetb0(image_size=64, weights=str(random_weights), seed=0)
    found = pooled(model, patches)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_weights_trained_on_another_input_scale_are_refused(random_weights, tmp_path):
    other = tmp_path / "other.weights.h5"
    other.write_bytes(random_weights.read_bytes())
    with h5py.File(other, "r+") as file:
        values = []
        file.visititems(lambda _, item: values.append(item) if isinstance(item, h5py.Dataset) and item.shape == (3,) else None)
        for item in values:
            item[...] = 1.0
    with pytest.raises(InputError, match="normalisation variance is 1.0000"):
        networks.efficientnetb0(image_size=64, weights=str(other), seed=0)


@pytest.mark.parametrize(("weights", "sentence"), [("nowhere.h5", "neither a file nor one of"), (__file__, "does not hold the weights")])
def test_weights_that_cannot_be_used_are_one_sentence(weights, sentence):
    with pytest.raises(InputError, match=sentence):
        networks.require_weights(weights)
    with pytest.raises(InputError, match=sentence):
        networks.efficientnetb0(image_size=64, weights=weights, seed=0)


def test_imagenet_without_a_network_names_the_alternatives(monkeypatch, tmp_path):
    # a proxy that refuses every connection stands for a computer without a network; an empty home has no earlier download
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(keras.config, "_KERAS_DIR", str(tmp_path), raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if (Path.home() / ".keras" / "models" / "efficientnetb0_notop.h5").exists():
        pytest.skip("the weights have been downloaded on this computer before")
    with pytest.raises(InputError, match="--weights FILE.h5, or start from the packaged model"):
        networks.require_weights("imagenet")


@pytest.mark.parametrize(
    "build", [lambda: networks.cnn(image_size=48, seed=1), lambda: networks.efficientnetb0(image_size=64, weights="none", seed=1)]
)
def test_patches_pass_unaugmented_outside_training_and_differently_within(build, patches):
    model = build()
    assert model.predict(patches, verbose=0) == pytest.approx(model.predict(patches.astype(np.float32), verbose=0))
    seen = keras.Model(model.input, model.get_layer("contrast").output)
    patches = patches.astype(np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(seen(patches, training=False)), patches)
    augmented = keras.ops.convert_to_numpy(seen(patches, training=True))
    assert augmented.dtype == np.float32 and 0 <= augmented.min() and augmented.max() <= 255
    assert (np.abs(augmented - patches).mean(axis=(1, 2, 3)) > 1).all()


def test_equal_seeds_build_equal_networks():
    for build in (networks.cnn, lambda **k: networks.efficientnetb0(weights="none", **k)):
        first, second, other = (build(image_size=32, seed=seed).get_weights() for seed in (5, 5, 6))
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("blocks", "first"), [(0, "logit"), (1, "block7a_expand_conv"), (2, "block6a_expand_conv"), (7, "stem_conv"), (None, "stem_conv")]
)
def test_whole_blocks_are_unfrozen_from_the_end_and_batchnorm_only_from_scratch(network, blocks, first):
    networks.unfreeze(network, blocks)
    learning = [layer for layer in network.layers if layer.trainable_weights]
    assert learning[0].name == first and learning[-1].name == "logit"
    norms = [layer for layer in learning if isinstance(layer, keras.layers.BatchNormalization)]
    assert bool(norms) == (blocks is None)


def test_a_cnn_has_at_least_four_blocks_with_batchnorm():
    names = [layer.name for layer in networks.cnn(image_size=48, seed=0).layers]
    assert {f"block{block}b_bn" for block in (1, 2, 3, 4)} <= set(names)


@pytest.mark.parametrize("blocks", range(1, 7))
def test_the_cut_in_front_of_the_last_blocks_is_the_end_of_a_block(network, blocks):
    name = networks.cut_name(network, blocks)
    after = [layer.name for layer in network.layers].index(name) + 1
    assert name.startswith(f"block{7 - blocks}") and network.layers[after].name == f"block{8 - blocks}a_expand_conv"


def _shake(model: keras.Model) -> None:
    """Give BatchNorm statistics and factors that are not 0 and 1."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.7, 1.5, weight.shape) for weight in layer.get_weights()])


@pytest.mark.parametrize("name", [pytest.param("efficientnetb0", marks=pytest.mark.slow), "cnn"])
def test_a_folded_network_answers_as_the_one_it_was_made_from_and_leaves_it_alone(network, patches, name):
    model = keras.models.clone_model(network) if name == "efficientnetb0" else networks.cnn(image_size=32, seed=0, filters=(4, 8))
    _shake(model)
    before = [np.array(weight) for weight in model.get_weights()]
    folded = networks.fold(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    given = patches[:8].astype(np.float32)
    np.testing.assert_allclose(folded.predict_on_batch(given), model.predict_on_batch(given), rtol=1e-3, atol=1e-4)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batchnorm_whose_convolution_has_another_reader_stays(patches):
    inputs = keras.Input((50, 50, 3))
    convolved = keras.layers.Conv2D(4, 3, use_bias=False, padding="same")(inputs)
    normed = keras.layers.BatchNormalization()(convolved)
    model = keras.Model(inputs, keras.layers.Add()([convolved, normed]))
    _shake(model)
    folded = networks.fold(model)
    given = patches[:2].astype(np.float32)
    np.testing.assert_allclose(folded.predict_on_batch(given), model.predict_on_batch(given), rtol=1e-5, atol=1e-3)
    assert any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
