"""The two networks: a custom CNN and EfficientNetB0, each one Keras graph from a raw 50×50 patch to a logit.

Used by notebook 05, ``training``, ``model.predictor`` and the studies. Both graphs run: patch in 0–255 → augmentation (training only) →
resize → [0,1] → network → last feature map → global average pooling (``pool``) → dropout → one dense unit (``logit``). Nothing but that
mean and that unit follows the last feature map, so the unit applied to each place of the map is the class activation map (Zhou et al. 2016,
arXiv 1512.04150), and the map's mean is the logit.
"""

import ctypes
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bhi_utils.core.paths import InputError, cache_dir, shown
from bhi_utils.model import bundles
from bhi_utils.model.augment import augment_layers

#: Variance of the Normalization layer's first channel: in a complete file, and in Keras' own, which holds the standard deviation.
VARIANCE_COMPLETE, VARIANCE_KERAS = 0.0524, 0.229


def cnn(*, image_size: int, seed: int, filters: tuple[int, ...] = (24, 48, 96, 192), dropout: float = 0.3) -> keras.Model:
    """Builds a custom convolutional network: blocks of two 3×3 convolutions with BatchNorm and ReLU, halved by max pooling.

    Args:
        image_size: side in pixels that patches are resized to.
        seed: seed of weights, augmentation and dropout.
        filters: channels of each block, one block an entry.
        dropout: share of pooled features dropped in training.
    """
    layers = keras.layers
    inputs, x = _head_of_graph(image_size, seed)
    for block, width in enumerate(filters, start=1):
        for part in "ab":
            initializer = keras.initializers.HeNormal(seed=seed + 100 * block + ord(part))
            name = f"block{block}{part}"
            x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=initializer, name=f"{name}_conv")(x)
            # 0.95: a few hundred steps must be enough for the moving statistics that validation uses
            x = layers.BatchNormalization(momentum=0.95, name=f"{name}_bn")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        if block < len(filters):
            x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    return keras.Model(inputs, _classifier(x, dropout, seed), name="cnn")


def efficientnetb0(*, image_size: int, weights: str, seed: int, dropout: float = 0.2, input_range: float = 255.0) -> keras.Model:
    """Builds EfficientNetB0 (Tan & Le 2019, arXiv 1905.11946) on patches; everything learns, see `unfreeze`.

    Keras' EfficientNetB0 expects 0–255 and normalises inside, so a Rescaling in front of it undoes the paper's [0,1].

    Args:
        image_size: side in pixels that patches are resized to, at least 32.
        weights: ``imagenet`` (downloaded by Keras), ``packaged`` (the packaged model's base, with a new classifier), ``none`` (from
            scratch), or a ``.h5`` file without top.
        seed: seed of a random start, augmentation and dropout.
        dropout: share of pooled features dropped in training.
        input_range: what white becomes in front of the base. 255 is what it was trained on; 1 feeds it [0,1] raw, to measure what
            that costs.

    Raises:
        InputError: the weights cannot be had or are not EfficientNetB0's.
    """
    source = None if weights == "none" else _pretrained(weights)
    keras.utils.set_random_seed(seed)  # the application's layers take no seed of their own
    inputs, x = _head_of_graph(image_size, seed)
    x = keras.layers.Rescaling(input_range, name="to_0_255")(x)
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_tensor=x)
    if source is None:
        # a random start in a short run: quick moving statistics, as in `cnn`, and no block skipped at random
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.95
            elif layer.name.endswith("_drop"):
                layer.rate = 0.0
    else:
        # pairs by order, since Keras numbers the names of a second Normalization in one process
        pairs = zip(*([layer for layer in one.layers if layer.weights] for one in (base, source)), strict=True)
        for layer, trained in pairs:
            layer.set_weights(trained.get_weights())
        _complete_normalization(next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization)))
    return keras.Model(inputs, _classifier(base.output, dropout, seed), name="efficientnetb0")


def require_weights(weights: str) -> None:
    """Stop at once, before any training, when EfficientNetB0's weights cannot be had; ``weights`` as in `efficientnetb0`.

    Raises:
        InputError: the weights cannot be downloaded or are not EfficientNetB0's.
    """
    if weights != "none":
        _pretrained(weights)


def unfreeze(model: keras.Model, blocks: int | None, *, batchnorm: bool = False) -> None:
    """Choose what of an EfficientNetB0 learns. The classifier always does.

    Args:
        model: from `efficientnetb0`.
        blocks: how many of the last blocks learn, 0 (frozen base) to 7; the convolution after the last block learns with any of them.
            BatchNorm stays frozen, hence in inference mode. None: everything learns, BatchNorm too (from scratch).
        batchnorm: BatchNorm learns with its block, from each batch's statistics, to measure what that costs.

    Raises:
        InputError: there are not so many blocks.
    """
    if blocks is not None and not 0 <= blocks <= 7:
        raise InputError(f"{blocks} blocks cannot be fine-tuned: EfficientNetB0 has 7, so choose 0 to 7.")
    for layer in model.layers:
        name = layer.name
        if blocks is None or name == "logit":
            layer.trainable = True
        elif isinstance(layer, keras.layers.BatchNormalization) and not batchnorm:
            layer.trainable = False
        elif name.startswith("block"):
            layer.trainable = int(name[5]) > 7 - blocks
        elif name.startswith("top_"):
            layer.trainable = blocks > 0
        elif layer.weights:
            layer.trainable = blocks == 7 and not isinstance(layer, keras.layers.Normalization)


def cut_name(model: keras.Model, blocks: int) -> str:
    """Returns the name of the layer after which the last ``blocks`` blocks begin, 1 to 6; no skip connection crosses that cut."""
    return [layer.name for layer in model.layers if layer.name.startswith(f"block{7 - blocks}")][-1]


def _head_of_graph(image_size: int, seed: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = x = keras.Input((50, 50, 3), dtype="float32", name="patches")
    for layer in augment_layers(seed):
        x = layer(x)
    x = keras.layers.Resizing(image_size, image_size, interpolation="bilinear", name="resize")(x)
    return inputs, keras.layers.Rescaling(1 / 255, name="unit_range")(x)


def _classifier(x: keras.KerasTensor, dropout: float, seed: int) -> keras.KerasTensor:
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return keras.layers.Dense(1, kernel_initializer=initializer, name="logit")(x)


def _pretrained(weights: str) -> keras.Model:
    """Returns EfficientNetB0 without top, its weights loaded."""
    if weights == bundles.START:
        whole = keras.saving.load_model(bundles.read(bundles.packaged())[1], compile=False, safe_mode=True)
        return keras.Model(whole.input, whole.get_layer("pool").input)
    if weights != "imagenet" and not Path(weights).is_file():
        raise InputError(f"--weights {weights} is neither a file nor one of imagenet, packaged and none: check the path.")
    try:
        return keras.applications.EfficientNetB0(weights=weights, include_top=False, input_shape=(224, 224, 3))
    except Exception as error:  # Keras raises a plain Exception when the download fails
        raise InputError(
            "The ImageNet weights could not be downloaded: give a local file with --weights FILE.h5, or start from the "
            "packaged model with --weights packaged, or from scratch with --weights none."
            if weights == "imagenet"
            else f"{shown(Path(weights))} does not hold the weights of EfficientNetB0 without top: give the file that "
            "keras.applications saves, or --weights imagenet, packaged or none."
        ) from error


def _complete_normalization(layer: keras.layers.Layer) -> None:
    """Make the Normalization layer divide by ImageNet's standard deviation, whichever of the two kinds of file it came from.

    Keras' own download stores the standard deviation as variance, and ``weights="imagenet"`` adds a Rescaling by one over its root.
    Squaring the stored value is the same function without the further layer.
    """
    mean, variance, count = layer.get_weights()
    if np.isclose(variance[0], VARIANCE_KERAS, rtol=0.02):
        variance = variance**2
    elif not np.isclose(variance[0], VARIANCE_COMPLETE, rtol=0.02):
        raise InputError(
            f"The weight file's normalisation variance is {variance[0]:.4f}, neither {VARIANCE_COMPLETE} nor {VARIANCE_KERAS}: it was "
            "trained on another input scale, so use ImageNet weights of EfficientNetB0."
        )
    layer.set_weights([mean, variance, count])
    layer.finalize_state()  # the layer computes with copies of its weights


def fold(model: keras.Model) -> keras.Model:
    """Returns a copy of a network without the BatchNorm layers that follow a convolution, equal to it in inference mode but for rounding.

    Args:
        model: a functional network with one input, built by this module; it stays as it is.

    Returns:
        a network with layers of the same names, whose weights are copies. An identity stands in a folded BatchNorm's place, so the graph
        can be cut at the same names. It is not for training.
    """
    norms = _norms(model)
    gone = {norm.name for norm in norms.values()}

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in gone:
            return keras.layers.Activation("linear", name=layer.name)
        extra = {"use_bias": True, "bias_initializer": "zeros"} if layer.name in norms else {}
        return type(layer).from_config(layer.get_config() | extra)

    # a BatchNorm is called with a mask of None, which an identity does not take
    folded = keras.models.clone_model(model, clone_function=copied, call_function=lambda layer, *given, **_: layer(*given))
    for layer in model.layers:
        if layer.weights and layer.name not in gone:
            copy, norm = folded.get_layer(layer.name), norms.get(layer.name)
            copy.set_weights(_kernel_and_bias(layer, norm) if norm else layer.get_weights())
            if isinstance(layer, keras.layers.Normalization):
                copy.finalize_state()  # it computes with copies of its weights
    return folded


def _norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Returns by a convolution's name the BatchNorm that is the only layer to take its output."""
    uses = Counter(id(one) for layer in model.layers[1:] for one in (layer.input if isinstance(layer.input, list) else [layer.input]))
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    before = {id(layer.output): layer.name for layer in model.layers if isinstance(layer, kinds) and not layer.use_bias}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return {before[id(norm.input)]: norm for norm in norms if uses[id(norm.input)] == 1 and id(norm.input) in before}


def _kernel_and_bias(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    (kernel,) = convolution.get_weights()
    gamma, beta, mean, variance = (np.asarray(weight) for weight in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    # a depthwise kernel has its channels in the last axis but one
    across = factor[:, None] if isinstance(convolution, keras.layers.DepthwiseConv2D) else factor
    return [np.asarray(kernel) * across, beta - mean * factor]


#: glibc's numbers of two parameters of its allocator, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def answers(model: keras.Model, batch: np.ndarray, *, whole: int) -> Any:
    """Runs ``model.predict_on_batch``; on JAX, which compiles the network anew for each length, always with as many samples.

    Args:
        model: any network with one input.
        batch: array (n, …).
        whole: on JAX, a shorter batch is filled up to this length with its last sample, whose answers are dropped again.
    """
    count = len(batch)
    if keras.config.backend() != "jax" or count >= whole:
        return model.predict_on_batch(batch)
    filled = model.predict_on_batch(batch[np.minimum(np.arange(whole), count - 1)])
    return keras.tree.map_structure(lambda part: part[:count], filled)


def keep_memory() -> None:
    """Undo what TensorFlow does to the C library's memory allocator when a training starts: a no-op wherever that does not apply.

    TensorFlow's generator data sets tell glibc to hand freed memory back from 128 kB on. So each step gives the memory of its feature
    maps back and asks for it again, and zeroing it took a fifth of a step's processor time (two cores, three blocks at 128 px).
    """
    if keras.config.backend() != "tensorflow" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library than glibc may have none, or one that does nothing
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)


# JAX keeps what it compiles in the cache folder, for the next process, unless JAX_COMPILATION_CACHE_DIR names another folder. That is set
# when this module is loaded, since JAX looks for the folder when it compiles for the first time, whoever asks for that.
if keras.config.backend() == "jax":
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # JAX names its settings at run time
        jax.config.update("jax_compilation_cache_dir", str((cache_dir() / "jax").resolve()))
        # a training step takes a minute; what compiles within a tenth of a second is not worth a file
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
