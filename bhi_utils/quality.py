"""Is this a readable patch at the archive's scale? Turns any file or image into a uint8 50×50 patch, or says why not.

Used by the interface and by prediction on files. Nothing here raises on bad input: a ``Quality`` carries either a patch or one sentence for
the person who sent it. ``images`` decodes, ``scope`` doubts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from bhi_utils import images, scope
from bhi_utils.scope import GLASS_LEVEL, GLASS_SHARE
from bhi_utils.words import Sentence, say

__all__ = ["GLASS_LEVEL", "GLASS_SHARE", "MAX_PIXELS", "PATCH", "SMALLEST", "Quality", "check", "check_file"]

#: Side in pixels of the patches that the models are trained on, and the smallest one that is still worth an answer.
PATCH, SMALLEST = 50, 10
#: An image with more pixels than this is far too large for a patch, and is told so.
MAX_PIXELS = 4_000_000


@dataclass(frozen=True)
class Quality:
    """What became of an image.

    Attributes:
        patch: uint8 array (50, 50, 3), or None when the image is refused.
        problem: one sentence that says why it is refused and what to do; empty when it is not.
        notes: sentences on what was done to the image.
        doubts: sentences on why it does not look like stained tissue at the archive's scale, so that an answer means little.
        size: width and height in pixels after the camera's rotation; (0, 0) when the file could not be read.
    """

    patch: np.ndarray | None
    problem: str = ""
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)


def check_file(file: Path | BinaryIO) -> Quality:
    """Check a file, or a stream of its bytes, whatever its name says; see ``check``."""
    return _judged(images.read(file, _wrong_size, bomb="far_too_large"))


def check(image: Image.Image) -> Quality:
    """Turn an image into a patch, or say why it cannot be one.

    Accepted are sides of 10 to 50 pixels; what is missing to 50×50 is filled with white at the right and below, as at
    the edges of the archive's slides. Nothing is resized: the models know one scale only.

    Args:
        image: an image of any mode, also one whose pixels are not decoded yet.
    """
    return _judged(images.decode(image, _wrong_size))


def _judged(pixels: images.Pixels) -> Quality:
    array = pixels.array
    if array is None:
        return Quality(None, pixels.problem, size=pixels.size)
    height, width = array.shape[:2]
    whole, notes = (width, height) == (PATCH, PATCH), pixels.notes
    if not whole:
        notes = (*notes, say("padded", width=width, height=height))
    patch = np.full((PATCH, PATCH, 3), 255, dtype=np.uint8)
    patch[:height, :width] = array
    return Quality(patch, notes=notes, doubts=scope.doubts(array, whole=whole), size=pixels.size)


def _wrong_size(width: int, height: int) -> Sentence | None:
    if width * height > MAX_PIXELS:
        return say("too_large", what=f"{width}×{height}")
    if min(width, height) < SMALLEST:
        return say("too_small", width=width, height=height)
    if max(width, height) <= PATCH:
        return None
    return say("no_patch_but_region" if min(width, height) >= PATCH else "no_patch", width=width, height=height)
