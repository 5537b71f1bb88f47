"""Where patches live in training and in which precision the network computes.

Used by ``training.train_networks`` and by ``studies.benchmark_training``. On a GPU, the patches of training and validation cases are copied
there once, as uint8; batches are row numbers, the compiled step gathers the patches, and the network computes in bfloat16 with float32
weights. On a CPU, NumPy makes the batches and everything is float32. The environment variable ``BHI_PRECISION`` chooses otherwise. The
trained network stays the plain one, from patches to a logit.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from bhi_utils.core import hardware
from bhi_utils.core.paths import InputError
from bhi_utils.training.samples import Samples

#: What ``BHI_PRECISION`` may say: the way of a CPU, or that of a GPU.
FLOAT32, MIXED = "float32", "mixed_bfloat16"
#: Share of a GPU's memory that a backend takes for itself, less a margin: JAX takes three quarters.
_SHARE = 0.7


@dataclass(frozen=True)
class Placement:
    """How patches reach the network.

    Attributes:
        resident: whether they live on the device.
        policy: the precision in which the network computes, as Keras names it.
        why: one clause for people, empty on a plain CPU.
    """

    resident: bool
    policy: str
    why: str = ""


def choose(patches: int, *, batch_size: int, image_size: int) -> Placement:
    """Choose host batches in float32 on a CPU, and resident patches in mixed precision on a GPU that has the memory and is recent enough.

    Args:
        patches: how many would live on the device.
        batch_size: samples a step.
        image_size: side in pixels that the network sees.

    Raises:
        InputError: ``BHI_PRECISION`` has another value than ``float32`` and ``mixed_bfloat16``.
    """
    asked = os.environ.get("BHI_PRECISION", "").strip()
    if asked not in ("", FLOAT32, MIXED):
        raise InputError(f"BHI_PRECISION {asked!r} does not exist: set it to {FLOAT32} or {MIXED}, or unset it.")
    if asked == MIXED:
        return Placement(True, MIXED, "BHI_PRECISION asks for it")
    if not hardware.gpus():
        return Placement(False, FLOAT32)
    if asked:
        return Placement(False, FLOAT32, "BHI_PRECISION asks for it")
    if (card := hardware.card()) is None:
        return Placement(False, FLOAT32, "the GPU does not tell its memory")
    memory, generation, *_ = card
    policy = MIXED if hardware.mixes(generation, batch_size) else FLOAT32
    need = hardware.gpu_memory(patches, batch_size=batch_size, image_size=image_size, mixed=policy == MIXED)
    if need > _SHARE * memory:
        return Placement(False, policy, f"{need / 1e9:.1f} GB would be needed and the GPU has {memory / 1e9:.1f} GB: lower BATCH_SIZE")
    return Placement(True, policy, f"{patches * hardware.PIXELS / 1e6:,.0f} MB on the GPU")


class Resident(keras.layers.Layer):
    """The patches as a weight that never learns; called with row numbers, it gives patches (k, 50, 50, 3) as float32 in 0–255.

    Called with a second row number and a step too, it draws synthetic patches on the line between the two. The step is float32 here
    and float64 in ``training.smote.draw``, a difference of less than 1e-4 on the scale of 0–255.
    """

    def __init__(self, patches: np.ndarray) -> None:
        super().__init__(trainable=False, dtype="float32", name="resident")
        self.table = self.add_weight(
            shape=patches.shape, dtype="uint8", initializer=lambda shape, dtype=None: patches, trainable=False, name="patches"
        )

    def call(self, base, neighbour=None, step=None):
        start = keras.ops.cast(keras.ops.take(self.table, base, axis=0), "float32")
        if neighbour is None:
            return start
        end = keras.ops.cast(keras.ops.take(self.table, neighbour, axis=0), "float32")
        return start + keras.ops.reshape(step, (-1, 1, 1, 1)) * (end - start)


#: From sample numbers to a network's input: patches, or the rows that `Resident` gathers.
Draw = Callable[[np.ndarray], np.ndarray | dict[str, np.ndarray]]


def feeds(model: keras.Model, samples: Samples, valid: np.ndarray, *, resident: bool) -> tuple[keras.Model, Draw, Draw]:
    """What to fit, and what to feed it with.

    Args:
        model: from patches to a logit.
        samples: the training samples.
        valid: int array, rows of the pack for validation.
        resident: whether patches live on the device.

    Returns:
        the network to fit, which shares every weight with ``model``; the inputs of training samples; those of ``valid``.
    """
    if not resident:
        return model, samples.fetch, lambda index: samples.patches[valid[index]]
    # both ends of the line that each sample lies on, and how far along; a real sample is its own line
    base = neighbour = samples.rows
    step = np.zeros(len(base), np.float32)
    if samples.plan is not None:
        base, neighbour = np.concatenate([base, samples.plan.base]), np.concatenate([base, samples.plan.neighbour])
        step = np.concatenate([step, samples.plan.step.astype(np.float32)])
    known = np.unique(np.concatenate([base, neighbour, valid]))
    layer = Resident(np.ascontiguousarray(samples.patches[known]))
    inputs = {"base": keras.Input((), dtype="int32", name="base")}
    if samples.plan is not None:
        inputs |= {"neighbour": keras.Input((), dtype="int32", name="neighbour"), "step": keras.Input((), dtype="float32", name="step")}

    def feed(ends: tuple[np.ndarray, np.ndarray], along: np.ndarray) -> Draw:
        places = [np.searchsorted(known, rows).astype(np.int32) for rows in ends]
        columns = dict(zip(inputs, (*places, along), strict=False))
        return lambda index: {name: column[index] for name, column in columns.items()}

    part = keras.Model(inputs, model(layer(**inputs)), name=f"{model.name}_resident")
    return part, feed((base, neighbour), step), feed((valid, valid), np.zeros(len(valid), np.float32))


@contextmanager
def precision(model: keras.Model, policy: str) -> Iterator[None]:
    """Let ``model`` compute in ``policy`` inside the block: everything from its first convolution to its last feature map.

    Augmentation, scaling, the mean over the map, the logit and with them the loss stay float32, as do all weights. Layers are changed
    in place, before anything is traced, and changed back, so that what is saved is the plain network.
    """
    names = [layer.name for layer in model.layers]
    convolution = next(place for place, layer in enumerate(model.layers) if isinstance(layer, keras.layers.Conv2D))
    layers = model.layers[convolution : names.index("pool")] if policy != FLOAT32 else []
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.dtype_policy = old
