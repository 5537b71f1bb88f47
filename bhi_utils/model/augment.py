"""The paper's augmentations as Keras layers, on raw patches in 0–255, and the eight dihedral views.

Used by ``model.networks`` (inside the graph, training only) and by notebook 04. The feature cache and the app take `dihedral` views, which
are exact. Keras' layers round when they are called on uint8, so ``Rescaling(1.0)`` stands before them and makes it float32.
"""

from collections.abc import Iterable

import keras
import numpy as np

#: Rotation in degrees, either way: the paper's value. The paper does not give the other strengths; the ones below are mild
#: enough that a patch keeps its scale (about 200 µm) and its stain stays plausible.
ROTATION_DEGREES = 15
TRANSLATION = 0.08
ZOOM = 0.1
BRIGHTNESS = 0.08
CONTRAST = 0.15
#: Views of a square patch that turning by right angles and mirroring gives: the dihedral group of order eight.
DIHEDRAL = 8


def transforms(seed: int) -> dict[str, keras.layers.Layer]:
    """Returns one layer for each augmentation, in the order in which the network applies them.

    Args:
        seed: seed of the first layer's generator; each further layer takes the next number.

    Returns:
        name to layer; each takes and gives patches in 0–255, shape (n, 50, 50, 3), and acts only with ``training=True``.

    >>> list(transforms(seed=0))
    ['horizontal flip', 'vertical flip', 'rotation', 'translation', 'zoom', 'brightness', 'contrast']
    """
    angle, shift = ROTATION_DEGREES / 360, TRANSLATION
    layers = keras.layers
    # reflect: no invented black or white border at the edge of the tissue
    made = {
        "horizontal flip": layers.RandomFlip("horizontal", seed=seed, name="flip_horizontal"),
        "vertical flip": layers.RandomFlip("vertical", seed=seed + 1, name="flip_vertical"),
        "rotation": layers.RandomRotation(angle, fill_mode="reflect", seed=seed + 2, name="rotation"),
        "translation": layers.RandomTranslation(shift, shift, fill_mode="reflect", seed=seed + 3, name="translation"),
        "zoom": layers.RandomZoom((-ZOOM, ZOOM), fill_mode="reflect", seed=seed + 4, name="zoom"),
        "brightness": layers.RandomBrightness(BRIGHTNESS, value_range=(0, 255), seed=seed + 5, name="brightness"),
        "contrast": layers.RandomContrast(CONTRAST, value_range=(0, 255), seed=seed + 6, name="contrast"),
    }
    for layer in made.values():
        # Keras marks three of them as not for XLA on every backend, since TensorFlow lacks one kernel: one such layer keeps JAX from
        # compiling the whole step, which then runs operation by operation
        layer.supports_jit = layer.supports_jit or keras.backend.backend() == "jax"
    return made


def augment_layers(seed: int) -> Iterable[keras.layers.Layer]:
    """Returns ``Rescaling(1.0)`` and the seven augmentations, with which a network's graph begins."""
    return [keras.layers.Rescaling(1.0, name="to_float"), *transforms(seed).values()]


def augmenter(seed: int) -> keras.Sequential:
    """Returns the seven augmentations as one model: uint8 or float patches (n, 50, 50, 3) in 0–255 to float32 in 0–255.

    Call it with ``training=True``; with ``training=False``, patches pass through unchanged.

    >>> patch = np.full((1, 50, 50, 3), 200, np.uint8)
    >>> bool((keras.ops.convert_to_numpy(augmenter(seed=0)(patch, training=False)) == 200).all())
    True
    """
    return keras.Sequential([keras.Input((50, 50, 3), dtype="float32", name="patches"), *augment_layers(seed)], name="augmenter")


def dihedral(patches: np.ndarray, view: int) -> np.ndarray:
    """Returns one of the eight turned and mirrored views of each patch; no pixel is interpolated.

    Args:
        patches: array (n, h, w, 3) with h = w.
        view: 0 to 7. 0 leaves the patch as it is; 1 mirrors it left to right, 2 top to bottom, 3 both, which is half a turn; 4 to 7 are
            the same after exchanging rows and columns.

    Returns:
        a view of the same memory, of the same shape and type.

    Example:
        >>> patch = np.arange(4).reshape(1, 2, 2, 1)
        >>> dihedral(patch, 1).ravel().tolist(), dihedral(patch, 4).ravel().tolist()
        ([1, 0, 3, 2], [0, 2, 1, 3])
    """
    patches = patches.swapaxes(1, 2) if view & 4 else patches
    return patches[:, :: -1 if view & 2 else 1, :: -1 if view & 1 else 1]
