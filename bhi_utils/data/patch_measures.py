"""Simple measures of many patches at once: glass, ink, folds, sharpness, and what tells copies from look-alikes.

Used by ``data.inspection`` and, for the variance, by ``data.near_duplicates``. It needs NumPy and Pillow only, because every spawned
worker loads it. Sums are kept in whole numbers, so every processor gives the same values.
"""

from functools import reduce
from hashlib import blake2b

import numpy as np

from bhi_utils.data.decode import PATCH
from bhi_utils.data.input_checks import GLASS_LEVEL

#: A pixel whose darkest channel reaches `GLASS_LEVEL` is bright glass (real tissue and real glass part between 205 and 225); one whose
#: channels differ by less than this holds no dye: shaded glass, an air bubble, the coverslip's rim.
GREY_SPREAD = 20
#: Haematoxylin and eosin both absorb green most, so red and blue lie above it (Schreiber et al. 2024, "H&E Otsu thresholding"). Ink breaks
#: that rule: blue and green ink leaves green far above red, or above it with blue far above both; yellow and brown ink leaves green above
#: blue, with a hue beyond 24° so that fresh blood, which is redder, stays out. The margins, in grey levels, leave real nuclei and eosin
#: alone. Red ink looks like blood and eosin, and is not told apart.
GREEN_OVER_RED, BLUE_OVER_RED, GREEN_OVER_BLUE = 10, 50, 20
#: Black ink absorbs everything alike: no channel reaches the first level, and the channels differ by less than the second.
BLACK_LEVEL, BLACK_SPREAD = 70, 25
#: Side in pixels of the blocks on which folds and coarse structure are measured: wider than a nucleus, narrower than a fold.
BLOCK = 5
#: The measure of a fold is the level of darkness and saturation that this share of the blocks reaches: about one band across a corner.
FOLD_PART = 0.1
#: Numbers in a descriptor, and in the coarse picture of a patch.
DESCRIPTOR, COARSE = 18, (PATCH // BLOCK) ** 2
#: What is measured of a patch; see `measure`.
RECORD = np.dtype(
    [(name, "<f4") for name in ("background", "ink_cool", "ink_warm", "ink_black", "fold", "sharpness", "contrast")]
    + [("descriptor", "<f4", (DESCRIPTOR,)), ("coarse", "u1", (COARSE,)), ("digest", "<u8", (2,))]
)

_SIDE = PATCH // BLOCK
_FREQUENCIES = 4
_COSINES = np.cos(np.pi * (np.arange(_SIDE) + 0.5) * np.arange(_FREQUENCIES)[:, None] / _SIDE) * np.sqrt(2.0)
_COSINES[0] = 1.0
_ABOVE, _RIGHT = np.triu_indices(_FREQUENCIES, 1)
_DIAGONAL = np.arange(1, _FREQUENCIES)


def measure_rows(path: str, offset: int, start: int, sizes: np.ndarray) -> np.ndarray:
    """`measure` of the ``len(sizes)`` patches from row ``start`` of a file whose pixels begin at byte ``offset``."""
    return measure(read_rows(path, offset, range(start, start + len(sizes))), sizes)


def read_rows(path: str, offset: int, rows: range | np.ndarray) -> np.ndarray:
    """Patches, uint8 (k, 50, 50, 3), read rather than mapped: pages of a map would stay counted as this process's memory.

    Raises:
        ValueError: the file ends before that.
    """
    size = PATCH * PATCH * 3
    runs = [(rows.start, len(rows))] if isinstance(rows, range) else [(int(row), 1) for row in rows]
    parts = [np.fromfile(path, np.uint8, count * size, offset=offset + row * size) for row, count in runs]
    return np.concatenate(parts).reshape(len(rows), PATCH, PATCH, 3)


def measure(patches: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Measure patches.

    Args:
        patches: uint8 (k, 50, 50, 3), padded with white where ``sizes`` (uint8 (k, 2), width and height) says that they are smaller.

    Returns:
        array (k,) of `RECORD`: ``background`` is the share of glass, bright or grey; ``ink_cool`` (blue, green), ``ink_warm`` (yellow,
        brown) and ``ink_black`` are shares of ink; ``fold`` is how far saturation exceeds brightness (-1 to 1) in the darkest tenth;
        ``sharpness`` is the Laplacian's energy over the gradient's (0 to about 6, NaN for padded patches); ``contrast`` is the standard
        deviation within the channels, in grey levels; ``descriptor`` is coarse structure whatever the orientation, ``coarse`` the mean
        brightness of each block; ``digest`` is of the pixels.
    """
    found = np.zeros(len(patches), RECORD)
    area = sizes.astype(np.int64).prod(axis=1)
    red, green, blue = (np.ascontiguousarray(patches[..., channel]) for channel in range(3))
    darkest, brightest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    spread = brightest - darkest
    black = (brightest < BLACK_LEVEL) & (spread < BLACK_SPREAD)
    empty = (darkest >= GLASS_LEVEL) | ((spread < GREY_SPREAD) & ~black)
    found["background"] = (np.count_nonzero(empty, axis=(1, 2)) - (PATCH * PATCH - area)) / area
    for name, ink in zip(("ink_cool", "ink_warm", "ink_black"), (*_ink(red, green, blue, black), black), strict=True):
        found[name] = np.count_nonzero(ink, axis=(1, 2)) / area
    blocks = _block_sums(patches)
    found["fold"] = _fold(blocks)
    found["sharpness"] = np.where(area == PATCH * PATCH, _sharpness(red, green, blue), np.nan)
    found["contrast"] = np.sqrt(variance(patches, blocks.sum(axis=(1, 2))))
    found["descriptor"] = _descriptor(blocks)
    found["coarse"] = (blocks.sum(axis=-1) // (3 * BLOCK**2)).reshape(len(blocks), -1)
    found["digest"] = digests(patches, sizes)
    return found


def digests(patches: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A hash of each patch's size and pixels, uint64 (k, 2); equal hashes mean equal pixels."""
    patches = np.ascontiguousarray(patches)
    hashes = [blake2b(patch, digest_size=16, key=size.tobytes()).digest() for patch, size in zip(patches, sizes, strict=True)]
    return np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)


def variance(patches: np.ndarray, sums: np.ndarray | None = None) -> np.ndarray:
    """Variance of each patch's pixels around the mean of their channel, float64 (k,); ``sums`` (k, 3) of the channels if known."""
    flat = patches.reshape(len(patches), -1).astype(np.int32)
    if sums is None:
        sums = patches.sum(axis=(1, 2), dtype=np.int64)
    squares = np.einsum("ij,ij->i", flat, flat).astype(np.int64)
    return (squares - (sums.astype(np.int64) ** 2).sum(axis=1) / PATCH**2) / flat.shape[1]


def _ink(red: np.ndarray, green: np.ndarray, blue: np.ndarray, black: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of cool and of warm ink; a pixel is in one at most, and in none when it is ``black``."""
    r, g, b = (channel.astype(np.int16) for channel in (red, green, blue))
    cool = (g > r) & ((g > r + GREEN_OVER_RED) | (b > r + BLUE_OVER_RED)) & ~black
    over = g - b
    warm = (over > GREEN_OVER_BLUE) & (5 * over > 2 * (r - b)) & ~black & ~cool
    return cool, warm


def _block_sums(patches: np.ndarray) -> np.ndarray:
    """Sums of 5×5 pixels, int32 (k, 10, 10, 3)."""
    lines = patches.reshape(-1, _SIDE, BLOCK, PATCH * 3)
    rows = reduce(np.add, [lines[:, :, line].astype(np.uint16) for line in range(BLOCK)]).reshape(-1, _SIDE, _SIDE, BLOCK, 3)
    return reduce(np.add, [rows[:, :, :, column].astype(np.int32) for column in range(BLOCK)])


def _fold(blocks: np.ndarray) -> np.ndarray:
    """The level of saturation minus brightness that a tenth of the blocks reaches.

    A fold doubles the tissue and with it the absorption: dark and saturated at once (Palokangas et al. 2007; Kothari et al. 2013).
    Brightness is the largest channel, not their mean, because blood is saturated and yet bright.
    """
    top = blocks.max(axis=-1).reshape(len(blocks), -1)
    low = blocks.min(axis=-1).reshape(len(blocks), -1)
    level = (top - low) / np.maximum(top, 1) - top / (255 * BLOCK**2)
    place = level.shape[1] - round(FOLD_PART * level.shape[1])
    return np.partition(level, place, axis=1)[:, place]


def _sharpness(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Energy of the Laplacian, the usual measure of focus (Pech-Pacheco et al. 2000), over that of the gradient.

    The Laplacian alone says how much detail there is, and calls plain stroma blurred; the ratio says how fine it is.
    """
    grey = ((77 * red.astype(np.uint16) + 150 * green.astype(np.uint16) + 29 * blue.astype(np.uint16)) >> 8).astype(np.int16)
    centre = grey[:, 1:-1, 1:-1]
    laplacian = 4 * centre - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    down, across = np.diff(grey, axis=1), np.diff(grey, axis=2)
    fine = _energy(laplacian) / centre[0].size
    coarse = (_energy(down) + _energy(across)) / down[0].size
    return fine / (coarse + 1.0)  # one grey level of noise keeps a patch of a single colour at zero


def _energy(values: np.ndarray) -> np.ndarray:
    """Sum of squares of int16 (k, h, w): exact, as float64 holds every whole number that can occur."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    return np.einsum("ij,ij->i", flat, flat)


def _descriptor(blocks: np.ndarray) -> np.ndarray:
    """Mean colour and the 15 lowest frequencies of brightness, float (k, 18), in grey levels; alike in all eight orientations.

    Each is scaled so that a distance between descriptors is a root mean square difference in grey levels, or a part of it. Turning and
    mirroring change only the signs of cosine coefficients and swap (u, v) with (v, u); so their sizes are taken, larger first.
    """
    means = blocks / BLOCK**2
    colour = means.mean(axis=(1, 2)) / np.sqrt(3.0)
    coefficients = np.abs(_COSINES @ means.mean(axis=-1) @ _COSINES.T) / _SIDE**2
    one, other = coefficients[:, _ABOVE, _RIGHT], coefficients[:, _RIGHT, _ABOVE]
    diagonal = coefficients[:, _DIAGONAL, _DIAGONAL]
    return np.concatenate([colour, np.maximum(one, other), np.minimum(one, other), diagonal], axis=1)
