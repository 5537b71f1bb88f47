"""A network for answers only: each BatchNorm folded into the convolution in front of it.

Used by the feature cache, where the frozen part of EfficientNetB0 runs over every patch, and by everything that answers. In inference
mode BatchNorm is a factor and a shift for each channel, so the convolution's kernel and bias can carry them (Jacob et al. 2018,
arXiv 1712.05877, section 3.2). The answers differ by rounding alone, and the network makes half as many passes over its activations.
"""

from collections import Counter

import keras
import numpy as np

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def fold(model: keras.Model) -> keras.Model:
    """A copy of ``model`` without the BatchNorm layers that follow a convolution, equal to it in inference mode.

    Args:
        model: a functional network with one input and one output, built by ``models``; it is left as it is.

    Returns:
        a network with layers of the same names, whose weights are copies; a folded BatchNorm's place is taken by an identity, so
        that the graph can be cut at the same names. Not for training.
    """
    norms = _norms(model)
    gone = {norm.name for norm in norms.values()}
    made = {id(model.inputs[0]): keras.Input(model.input_shape[1:], dtype="float32", name="patches")}
    start = made[id(model.inputs[0])]
    for layer in model.layers[1:]:
        given = [made[id(one)] for one in layer.input] if isinstance(layer.input, list) else made[id(layer.input)]
        if layer.name in gone:
            copy = keras.layers.Activation("linear", name=layer.name)
        else:
            extra = {"use_bias": True, "bias_initializer": "zeros"} if layer.name in norms else {}
            copy = type(layer).from_config(layer.get_config() | extra)
        made[id(layer.output)] = copy(given)
        if layer.name in norms:
            copy.set_weights(_kernel_and_bias(layer, norms[layer.name]))
        elif layer.weights and layer.name not in gone:
            copy.set_weights(layer.get_weights())
            if isinstance(layer, keras.layers.Normalization):
                copy.finalize_state()  # it computes with copies of its weights
    return keras.Model(start, made[id(model.outputs[0])], name=model.name)


def _norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """By a convolution's name, the BatchNorm that is the only one to take its output."""
    given = [one for layer in model.layers[1:] for one in (layer.input if isinstance(layer.input, list) else [layer.input])]
    uses = Counter(map(id, given))
    before = {id(layer.output): layer.name for layer in model.layers if isinstance(layer, _CONVOLUTIONS) and not layer.use_bias}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return {before[id(norm.input)]: norm for norm in norms if uses[id(norm.input)] == 1 and id(norm.input) in before}


def _kernel_and_bias(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    (kernel,) = convolution.get_weights()
    gamma, beta, mean, variance = (np.asarray(weight) for weight in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    # a depthwise kernel has its channels in the last axis but one
    across = factor[:, None] if isinstance(convolution, keras.layers.DepthwiseConv2D) else factor
    return [np.asarray(kernel) * across, beta - mean * factor]
