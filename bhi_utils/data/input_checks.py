"""Is this a readable patch at the archive's scale? Turns any file into a uint8 50×50 patch or says why not, and doubts what is no H&E.

Used by the interface and by prediction on files and regions. Nothing here raises on bad input: a `Quality` carries either a patch or one
sentence for the person who sent it. ``data.image_files`` decodes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bhi_utils.core.messages import Sentence, say
from bhi_utils.data import image_files
from bhi_utils.data.decode import PATCH, pad

#: Side in pixels of the smallest patch that is still worth an answer.
SMALLEST = 10
#: An image with more pixels than this is far too large for a patch, and is told so.
MAX_PIXELS = 4_000_000
#: A pixel whose darkest channel is at least this (0–255) counts as glass; a patch with this share of it, as empty.
GLASS_LEVEL, GLASS_SHARE = 215, 0.9
#: Mean difference between a pixel's largest and smallest channel below which an image counts as grey.
GREY_LEVEL = 3.0
#: Haematoxylin and eosin absorb green most: of the coloured pixels (not glass, channels so far apart) at least this share has green no
#: more than a little above red and blue. Of the real patches 1 % have less than 0.67, most of them inked; of squares of photographs most.
COLOURED, OVER_RED, OVER_BLUE, FITTING = 12, 4, 8, 0.6
#: Where fewer pixels than this share are coloured, their hue says nothing.
ENOUGH = 0.05
#: Standard deviation of brightness in grey levels under which a patch is plain: 0.1 % of the real ones.
PLAIN = 6.5
#: Mean size of the Laplacian over that deviation under which a patch is blurred: 0.4 % of the real ones are.
BLURRED = 0.25
#: Mean optical density of green over the coloured pixels from which a patch is too dark to be stained tissue: 0.4 % of the real ones.
DARK = 1.4
#: Mean of red minus blue over the coloured pixels under which both look swapped. Of one patch: 0.14 % of the real ones that nothing else
#: speaks against, and 64 % of them with both swapped. Of `TOGETHER` patches or more of one image: no case of 222, and 97 % of them swapped.
SWAPPED, SWAPPED_TOGETHER, TOGETHER = -20.0, -8.0, 10
#: Brightness of the largest channel (0–255) under which the surroundings of an eyepiece's field are, and from which its middle is.
BLACK, BRIGHT = 40, 100
#: Patches that are measured at a time, so that floats of a whole region never exist at once.
_CHUNK = 512


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
    """Turn a file, or a stream of its bytes, into a patch, or say why it cannot be one.

    Accepted are sides of 10 to 50 pixels; what is missing to 50×50 is filled with white at the right and below, as at the edges of the
    archive's slides. Nothing is resized: the models know one scale only.

    Args:
        file: any file, whatever its name says.
    """
    found = image_files.read(file, _wrong_size, bomb="far_too_large")
    if found.array is None:
        return Quality(None, found.problem, size=found.size)
    height, width = found.array.shape[:2]
    whole = (width, height) == (PATCH, PATCH)
    notes = found.notes if whole else (*found.notes, say("padded", width=width, height=height))
    return Quality(pad(found.array), notes=notes, doubts=doubts(found.array, whole=whole), size=found.size)


def _wrong_size(width: int, height: int) -> Sentence | None:
    if width * height > MAX_PIXELS:
        return say("too_large", what=f"{width}×{height}")
    if min(width, height) < SMALLEST:
        return say("too_small", width=width, height=height)
    if max(width, height) <= PATCH:
        return None
    return say("no_patch_but_region" if min(width, height) >= PATCH else "no_patch", width=width, height=height)


def doubts(patch: np.ndarray, *, whole: bool = True) -> tuple[Sentence, ...]:
    """Why an answer for one patch means little; empty for what looks like stained tissue at the archive's scale.

    Args:
        patch: uint8 array (height, width, 3), without padding.
        whole: whether it is 50×50; sharpness of smaller ones is not judged.
    """
    found = measure(patch[None])
    if found["glass"][0] >= GLASS_SHARE:
        return (say("glass"),)
    if eyepiece(patch):
        return (say("eyepiece"),)
    if found["spread"][0] < GREY_LEVEL:
        return (say("grey"),)
    return tuple(say(name) for name, wrong in judged(found).items() if wrong[0] and (whole or name != "blurred"))


def doubted(patches: np.ndarray) -> dict[str, np.ndarray]:
    """Reason to bool array (n,): which of the 50×50 ``patches`` (uint8 (n, 50, 50, 3)) are doubted for it; and the key ``any``.

    They are patches of one image with tissue: emptiness is not judged, and red and blue of many are held together.
    """
    parts = [measure(patches[start : start + _CHUNK]) for start in range(0, max(len(patches), 1), _CHUNK)]
    measured = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    grey, coloured = measured["spread"] < GREY_LEVEL, measured["coloured"] >= ENOUGH
    found = {"grey": grey, **{name: wrong & ~grey for name, wrong in judged(measured).items()}}
    if coloured.sum() >= TOGETHER and measured["redness"][coloured].mean() < SWAPPED_TOGETHER:
        found["swapped"] = coloured & ~grey
    return {**found, "any": np.any(list(found.values()), axis=0)}


def eyepiece(pixels: np.ndarray) -> bool:
    """Whether a picture, uint8 array (height, width, 3), is a round bright field on black, as through a microscope's eyepiece."""
    bright = pixels.max(axis=-1) >= BLACK
    # a few bright points outside, such as hot pixels, do not widen the field
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > 0.02) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return False
    field = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].max(axis=-1)
    height, width = field.shape
    side = max(min(height, width) // 20, 1)
    corners = (field[:side, :side], field[:side, -side:], field[-side:, :side], field[-side:, -side:])
    middle = field[height // 3 : height - height // 3, width // 3 : width - width // 3]
    return all(corner.mean() < BLACK for corner in corners) and float(middle.mean()) >= BRIGHT


def judged(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What was measured, held against the levels: reason, a key of `core.messages.SENTENCES`, to bool array."""
    coloured = found["coloured"] >= ENOUGH
    plain = found["deviation"] < PLAIN
    return {
        "colours": coloured & (found["fitting"] < FITTING),
        "swapped": coloured & (found["redness"] < SWAPPED),
        "dark": coloured & (found["density"] > DARK),
        "plain": plain,
        "blurred": ~plain & (found["detail"] < BLURRED),
    }


def measure(patches: np.ndarray) -> dict[str, np.ndarray]:
    """Float arrays (n,) for patches, uint8 (n, height, width, 3).

    Returns:
        ``glass`` (share of pixels), ``spread`` (mean of largest minus smallest channel), ``coloured`` (share of pixels), ``fitting``
        (share of the coloured ones that haematoxylin and eosin could give), ``redness`` (mean of red minus blue over them), ``density``
        (mean optical density of green over them), ``deviation`` (of brightness) and ``detail`` (mean size of the Laplacian over that).
    """
    red, green, blue = (patches[..., channel].astype(np.int16) for channel in range(3))
    darkest, brightest = patches.min(axis=-1), patches.max(axis=-1)
    spread = brightest - darkest
    coloured = (darkest < GLASS_LEVEL) & (spread >= COLOURED)
    count = np.maximum(np.count_nonzero(coloured, axis=(1, 2)), 1)
    fits = coloured & (green <= red + OVER_RED) & (green <= blue + OVER_BLUE)
    density = np.where(coloured, -np.log((green.astype(np.float32) + 1) / 256), 0)
    grey = patches.mean(axis=-1, dtype=np.float32)
    middle = 4 * grey[:, 1:-1, 1:-1]
    laplacian = middle - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    deviation = grey.std(axis=(1, 2))
    return {
        "glass": (darkest >= GLASS_LEVEL).mean(axis=(1, 2)),
        "spread": spread.mean(axis=(1, 2)),
        "coloured": coloured.mean(axis=(1, 2)),
        "fitting": np.count_nonzero(fits, axis=(1, 2)) / count,
        "redness": np.where(coloured, red - blue, 0).sum(axis=(1, 2)) / count,
        "density": density.sum(axis=(1, 2)) / count,
        "deviation": deviation,
        "detail": np.abs(laplacian).mean(axis=(1, 2)) / np.maximum(deviation, 1e-3),
    }
