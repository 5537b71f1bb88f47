"""A synthetic cohort of H&E-like patches in the archive's own layout, for tests and for a first walk without a download.

Used by ``data.archive`` (data source ``data.phantom.synthetic_cohort``), by ``bhi phantom`` and, for its example patches, by
``app.server``. Nothing in it comes from real tissue: see ``data.phantom.painting``. Equal arguments give equal bytes with equal versions of
NumPy, SciPy and Pillow on one machine, and a case does not depend on how many others there are.
"""

from bhi_utils.core.paths import InputError
from bhi_utils.data.phantom import painting
from bhi_utils.data.phantom.cohort_files import put_copies
from bhi_utils.data.phantom.cohort_files import put_marker
from bhi_utils.data.phantom.cohort_files import sink
from bhi_utils.data.phantom.cohort_files import to_png
from bhi_utils.data.phantom.cohort_files import writing
from bhi_utils.data.phantom.shapes import field
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
import heapq
import itertools
import numpy as np

PATCH = 50
#: The first case's number; those of the real archive lie between 8863 and 16896.
FIRST_CASE = 90001
#: A case with fewer patches has no room for a tumour and its border; the archive's largest has 2,395, and one is painted whole in memory.
FEWEST_PATCHES, MOST_PATCHES = 12, 2400
#: Of the patches that touch the other class, how many carry the wrong label.
BORDER_NOISE = 0.12
#: Every so many cases, the slide's edge cuts through tissue and leaves patches smaller than 50×50.
CUT_EVERY = 6


@dataclass(frozen=True)
class Slide:
    """One synthetic case.

    Attributes:
        case: its number.
        image: uint8 array (height, width, 3): the tissue's bounding box.
        origin: x and y of the image's top left corner on the slide, multiples of 50.
        cells: int array (n, 2), row and column of each patch on the image's grid.
        labels: int8 array (n,), 1 where the patch is labelled IDC.
    """

    case: int
    image: np.ndarray
    origin: tuple[int, int]
    cells: np.ndarray
    labels: np.ndarray

    def patches(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each patch's path in the archive's layout and its pixels, sorted by path."""
        named = []
        for (row, column), label in zip(self.cells, self.labels, strict=True):
            x, y = self.origin[0] + PATCH * column + 1, self.origin[1] + PATCH * row + 1
            pixels = self.image[PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
            named.append((f"{self.case}/{label}/{self.case}_idx5_x{x}_y{y}_class{label}.png", pixels))
        yield from sorted(named, key=lambda item: item[0])


def _block_mean(canvas: np.ndarray) -> np.ndarray:
    """Mean of each cell of the grid of patches."""
    height, width = canvas.shape
    return canvas.reshape(height // PATCH, PATCH, width // PATCH, PATCH).mean(axis=(1, 3))


def _grow(height: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` cells that water would leave last, flowing down from the summit: a connected bool array."""
    taken, seen = np.zeros(height.shape, bool), np.zeros(height.shape, bool)
    start = np.unravel_index(height.argmax(), height.shape)
    seen[start] = True
    queue = [(-height[start], *start)]
    for _ in range(count):
        _, row, column = heapq.heappop(queue)
        taken[row, column] = True
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= near[0] < height.shape[0] and 0 <= near[1] < height.shape[1] and not seen[near]:
                seen[near] = True
                heapq.heappush(queue, (-height[near], *near))
    return taken


def _border(labels: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Which taken cells have a neighbour of the other class; bool array."""
    border = np.zeros(taken.shape, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            near = np.roll(labels, step, axis), np.roll(taken, step, axis)
            # roll wraps around: the cells that it brings from the far side are no neighbours
            far = [slice(None), slice(None)]
            far[axis] = 0 if step == 1 else -1
            near[1][tuple(far)] = False
            border |= taken & near[1] & (near[0] != labels)
    return border


def noisy_labels(rng: np.random.Generator, truth: np.ndarray, taken: np.ndarray, *, balanced: bool = False) -> np.ndarray:
    """``truth`` with some labels wrong along the tumour's border, as where a pathologist's outline crosses a patch.

    With ``balanced``, as many become negative as positive, so that their number stays.
    """
    flipped = _border(truth, taken) & (rng.random(truth.shape) < BORDER_NOISE)
    if balanced:
        sides = [rng.permutation(np.flatnonzero(flipped & side)) for side in (truth, ~truth)]
        fewer = min(map(len, sides))
        flipped = np.isin(np.arange(truth.size), np.concatenate([side[:fewer] for side in sides])).reshape(truth.shape)
        return truth ^ flipped
    labels = truth ^ flipped
    return labels if len(np.unique(labels[taken])) == 2 else truth


def draw_tissue(rng: np.random.Generator, count: int, *, room: float = 1.7) -> tuple[np.ndarray, np.ndarray]:
    """Tissue of ``count`` patches in its bounding box: bool array of cells; float canvas, positive on tissue.

    It grows on a canvas ``room`` times as wide as a square of as many patches: with little room, pieces are blocks with round corners,
    and less glass is painted.
    """
    side = PATCH * int(np.ceil(room * np.sqrt(count)))
    y, x = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    squeeze = rng.uniform(0.8, 1.25)
    canvas = field(rng, (side, side), side / 5) + 0.3 * field(rng, (side, side), 45)
    canvas -= 4 * (x**2 * squeeze + y**2 / squeeze)
    height = _block_mean(canvas)
    taken = _grow(height, count)
    # low enough that a patch is seldom all glass
    canvas += 0.3 - np.quantile(height[taken], 0.08)
    rows, columns = np.flatnonzero(taken.any(1)), np.flatnonzero(taken.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return taken[top:bottom, left:right], canvas[PATCH * top : PATCH * bottom, PATCH * left : PATCH * right]


def draw_tumour(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A float canvas that is highest where the tumour is, see `outline`."""
    return field(rng, shape, max(shape) / 3) + 0.12 * field(rng, shape, 40)


def outline(invasive: np.ndarray, taken: np.ndarray, positive: int) -> tuple[np.ndarray, float]:
    """Which cells are tumour when ``positive`` of the taken ones are, and the canvas' level at the tumour's edge."""
    mean = _block_mean(invasive)
    # beyond either end when none or all of them are
    ordered = np.sort(mean[taken])
    ordered = np.r_[ordered[0] - 2, ordered, ordered[-1] + 2]
    level = (ordered[-positive - 1] + ordered[-positive - 2]) / 2
    return mean > level, level


def cut_edge(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The image without part of its last row or column of patches, where the slide ends."""
    lost = PATCH - int(rng.integers(7, 46))
    return image[:-lost] if rng.random() < 0.5 else image[:, :-lost]


def whole_patches(count: int, *, seed: int = 1) -> np.ndarray:
    """The first patches of full size of as many slides as it takes: uint8 array (count, 50, 50, 3). For benchmarks and comparisons."""
    found: list[np.ndarray] = []
    for index in itertools.count():
        found += [pixels for _, pixels in draw_slide(index, patches=200, seed=seed).patches() if pixels.shape == (50, 50, 3)]
        if len(found) >= count:
            return np.stack(found[:count])


def draw_slide(index: int, *, patches: int, seed: int) -> Slide:
    """The cohort's slide number ``index``, counted from 0.

    Args:
        index: which case.
        patches: mean number of patches of a case, 12 or more; a case has up to 30 % more or fewer.
        seed: the cohort's seed.
    """
    rng = np.random.default_rng([seed, index])
    count = int(rng.integers(np.ceil(0.7 * patches), np.floor(1.3 * patches) + 1))
    taken, tissue = draw_tissue(rng, count)
    invasive = draw_tumour(rng, tissue.shape)
    # the archive's cases: 27 % in the median, here between 5 and 70 %
    positive = int(np.clip(round(count * (0.05 + 0.65 * rng.beta(1.3, 2.4))), 1, count - 1))
    truth, level = outline(invasive, taken, positive)
    labels = noisy_labels(rng, truth, taken)
    image = painting.paint(rng, painting.draw_style(rng), tissue, invasive - level)
    if index % CUT_EVERY == CUT_EVERY // 2 - 1:
        image = cut_edge(rng, image)
    x, y = (PATCH * int(step) for step in rng.integers(0, 20, 2))
    return Slide(FIRST_CASE + index, image, (x, y), np.argwhere(taken), labels[taken].astype(np.int8))


def write(out: Path, *, cases: int = 48, patches_per_case: int = 60, seed: int = 0, nested: bool = True) -> Path:
    """Write a synthetic cohort, whole or not at all.

    Args:
        out: a zip when its name ends in ``.zip`` (an existing one is replaced), else a new or empty folder.
        cases: how many cases.
        patches_per_case: their mean number of patches; a case has up to 30 % more or fewer.
        seed: seed of everything random.
        nested: also write the second copy of every patch that the real archive holds.

    Returns:
        ``out``.

    Raises:
        InputError: the numbers are too small, or ``out`` is taken or cannot be written.
    """
    out = Path(out)
    patches = positive = 0
    with writing(out, seed):
        if cases < 1:
            raise InputError(f"A phantom needs at least one case, not {cases}: raise the number of cases.")
        if patches_per_case < FEWEST_PATCHES:
            raise InputError(f"A phantom case needs at least {FEWEST_PATCHES} patches, not {patches_per_case}: raise the patches per case.")
        if patches_per_case > MOST_PATCHES:
            raise InputError(f"A phantom case has at most {MOST_PATCHES:,} patches, not {patches_per_case:,}: take more cases instead.")
        with sink(out, cases * patches_per_case, nested=nested) as put:
            for index in range(cases):
                slide = draw_slide(index, patches=patches_per_case, seed=seed)
                files = [(name, to_png(pixels)) for name, pixels in slide.patches()]
                put_copies(put, files, nested=nested)
                patches, positive = patches + len(files), positive + int(slide.labels.sum())
            parameters = {"cases": cases, "patches_per_case": patches_per_case, "seed": seed, "nested": nested}
            put_marker(put, {"parameters": parameters, "patches": patches, "positive": positive})
    return out
