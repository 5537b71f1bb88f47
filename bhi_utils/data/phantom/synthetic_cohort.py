"""Synthetic cohorts of H&E-like patches in the archive's own layout: a small one, and one with the archive's cases and counts.

Used by ``data.archive`` (the source ``phantom``), by ``bhi phantom`` and by the app for its examples. Nothing here comes from real tissue,
see ``data.phantom.painting``. Equal arguments give equal bytes with equal versions of NumPy, SciPy and Pillow on one machine. A case does
not depend on how many others there are.
"""

import heapq
import io
import itertools
import json
import os
import sys
import zipfile
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from bhi_utils.core import atomic_files, worker_processes
from bhi_utils.core.paths import InputError, shown
from bhi_utils.data import published
from bhi_utils.data.decode import PATCH
from bhi_utils.data.patch_listing import PHANTOM_FORMAT, PHANTOM_MARKER
from bhi_utils.data.phantom import painting
from bhi_utils.data.phantom.painting import field

#: The generator's version. A cohort of another version is not reused.
VERSION = 1
#: The name of the second copy's folder, which the real archive has too.
NESTED = "IDC_regular_ps50_idx5"
#: The first case's number; those of the real archive lie between 8863 and 16896.
FIRST_CASE = 90001
#: A case with fewer patches has no room for a tumour and its border; the archive's largest has 2,395, and one is painted whole in memory.
FEWEST_PATCHES, MOST_PATCHES = 12, 2400
#: Of the patches that touch the other class, how many carry the wrong label.
BORDER_NOISE = 0.12
#: Every so many cases, the slide's edge cuts through tissue and leaves patches smaller than 50×50.
CUT_EVERY = 6
#: Bytes of a patch, rounded up: in a zip with its two entries' names, and as a file in blocks of 4 KiB.
_ZIPPED_BYTES, _FILE_BYTES = 6_500, 8_192

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
#: Names and contents.
Files = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Slide:
    """One synthetic case, or one piece of its tissue.

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

    def patches(self) -> list[tuple[str, np.ndarray]]:
        """Each patch's path in the archive's layout and its pixels, sorted by path."""
        named = []
        for (row, column), label in zip(self.cells, self.labels, strict=True):
            x, y = self.origin[0] + PATCH * column + 1, self.origin[1] + PATCH * row + 1
            pixels = self.image[PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
            named.append((f"{self.case}/{label}/{self.case}_idx5_x{x}_y{y}_class{label}.png", pixels))
        return sorted(named, key=lambda item: item[0])

    def files(self) -> Files:
        """Each patch's path and the bytes of its PNG, sorted by path."""
        found = []
        for name, pixels in self.patches():
            Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG", compress_level=1)
            found.append((name, buffer.getvalue()))
        return found


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


def noisy_labels(rng: np.random.Generator, truth: np.ndarray, taken: np.ndarray, *, balanced: bool) -> np.ndarray:
    """``truth`` with some labels wrong along the tumour's border, as where a pathologist's outline crosses a patch.

    With ``balanced``, as many labels become negative as positive, so that the case's counts stay.
    """
    sides = truth, ~truth
    border = np.any([taken & side & ndimage.binary_dilation(taken & ~side) for side in sides], axis=0)
    flipped = border & (rng.random(truth.shape) < BORDER_NOISE)
    if balanced:
        drawn = [rng.permutation(np.flatnonzero(flipped & side)) for side in sides]
        fewer = min(map(len, drawn))
        return truth ^ np.isin(np.arange(truth.size), np.r_[drawn[0][:fewer], drawn[1][:fewer]]).reshape(truth.shape)
    labels = truth ^ flipped
    return labels if len(np.unique(labels[taken])) == 2 else truth


def draw_tissue(rng: np.random.Generator, count: int, *, room: float = 1.7) -> Arrays:
    """Tissue of ``count`` patches in its bounding box.

    It grows on a canvas ``room`` times as wide as a square of as many patches. With little room, pieces are blocks with round corners, and
    less glass is painted.

    Returns:
        bool array of the cells with tissue; float canvas, positive on tissue; float canvas, highest where the tumour is.
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
    tissue = canvas[PATCH * top : PATCH * bottom, PATCH * left : PATCH * right]
    tumour = field(rng, tissue.shape, max(tissue.shape) / 3) + 0.12 * field(rng, tissue.shape, 40)
    return taken[top:bottom, left:right], tissue, tumour


def paint_piece(rng: np.random.Generator, tissue: Arrays, positive: int, *, style: painting.Style | None, cut: bool) -> Arrays:
    """Paint a piece of tissue.

    Args:
        rng: the case's generator.
        tissue: from `draw_tissue`.
        positive: how many of its patches the tumour covers; with a given ``style``, as many are labelled IDC.
        style: the case's style; None draws one.
        cut: whether the slide ends within the last row or column of patches.

    Returns:
        ``image``, ``cells`` and ``labels`` of a `Slide`.
    """
    taken, canvas, tumour = tissue
    mean = _block_mean(tumour)
    # the tumour's edge lies between two patches, and beyond either end when none or all of them are tumour
    ordered = np.sort(mean[taken])
    ordered = np.r_[ordered[0] - 2, ordered, ordered[-1] + 2]
    level = (ordered[-positive - 1] + ordered[-positive - 2]) / 2
    labels = noisy_labels(rng, mean > level, taken, balanced=style is not None)
    image = painting.paint(rng, style or painting.draw_style(rng), canvas, tumour - level)
    if cut:
        lost = PATCH - int(rng.integers(7, 46))
        image = image[:-lost] if rng.random() < 0.5 else image[:, :-lost]
    return image, np.argwhere(taken), labels[taken].astype(np.int8)


def whole_patches(count: int, *, seed: int = 1) -> np.ndarray:
    """The first patches of full size of as many slides as it takes: uint8 array (count, 50, 50, 3). For benchmarks and comparisons."""
    drawn = (pixels for index in itertools.count() for _, pixels in draw_slide(index, patches=200, seed=seed).patches())
    whole = (pixels for pixels in drawn if pixels.shape == (PATCH, PATCH, 3))
    return np.stack(list(itertools.islice(whole, count)))


def draw_slide(index: int, *, patches: int, seed: int) -> Slide:
    """The cohort's slide number ``index``, counted from 0.

    Args:
        index: which case.
        patches: mean number of patches of a case, 12 or more; a case has up to 30 % more or fewer.
        seed: the cohort's seed.
    """
    rng = np.random.default_rng([seed, index])
    count = int(rng.integers(np.ceil(0.7 * patches), np.floor(1.3 * patches) + 1))
    tissue = draw_tissue(rng, count)
    # the archive's cases: 27 % in the median, here between 5 and 70 %
    positive = int(np.clip(round(count * (0.05 + 0.65 * rng.beta(1.3, 2.4))), 1, count - 1))
    image, cells, labels = paint_piece(rng, tissue, positive, style=None, cut=index % CUT_EVERY == CUT_EVERY // 2 - 1)
    x, y = (PATCH * int(step) for step in rng.integers(0, 20, 2))
    return Slide(FIRST_CASE + index, image, (x, y), cells, labels)


def write(out: Path, *, cases: int = 48, patches_per_case: int = 60, seed: int = 0, nested: bool = True) -> Path:
    """Write a synthetic cohort, whole or not at all.

    Args:
        out: a zip when its name ends in ``.zip`` (an existing one is replaced), else a new or empty folder.
        cases: how many cases.
        patches_per_case: their mean number of patches; a case has up to 30 % more or fewer.
        seed: seed of everything random, 0 or more.
        nested: also write the second copy of every patch that the real archive holds.

    Returns:
        ``out``.

    Raises:
        InputError: a number is out of range, or ``out`` is taken or cannot be written.
    """
    if cases < 1:
        raise InputError(f"A phantom needs at least one case, not {cases}: raise the number of cases.")
    if patches_per_case < FEWEST_PATCHES:
        raise InputError(f"A phantom case needs at least {FEWEST_PATCHES} patches, not {patches_per_case}: raise the patches per case.")
    if patches_per_case > MOST_PATCHES:
        raise InputError(f"A phantom case has at most {MOST_PATCHES:,} patches, not {patches_per_case:,}: take more cases instead.")
    slides = (draw_slide(index, patches=patches_per_case, seed=seed).files() for index in range(cases))
    parameters = {"cases": cases, "patches_per_case": patches_per_case, "seed": seed, "nested": nested}
    return write_files(out, slides, expected=cases * patches_per_case, parameters=parameters, nested=nested)


def write_files(out: Path, cases: Iterable[Files], *, expected: int, parameters: dict[str, int | bool], nested: bool = True) -> Path:
    """Write the files of a cohort and the one that says what it is, whole or not at all.

    What a killed process left of an earlier try is deleted.

    Args:
        out: a zip when its name ends in ``.zip``, else a folder.
        cases: each case's files, name and content.
        expected: about how many patches these are.
        parameters: what the cohort was drawn with, its ``seed`` included.
        nested: also write the second copy of every patch.

    Raises:
        InputError: the seed is negative, the place is taken or cannot be written, or its disk is too small.
    """
    if parameters["seed"] < 0:
        raise InputError(f"A seed is a whole number from 0 on, not {parameters['seed']}: pass another one.")
    place = Path(out).absolute()
    zipped = place.suffix.lower() == ".zip"
    try:
        if zipped and place.is_dir():
            raise InputError(f"{shown(place)} is a folder, though its name ends in .zip: choose another name.")
        if not zipped and place.exists() and not place.is_dir():
            raise InputError(f"{shown(place)} is a file: choose a folder, or a name that ends in .zip.")
        if not zipped and place.is_dir() and any(place.iterdir()):
            raise InputError(f"{shown(place)} is not empty: choose a new folder for the phantom, or empty this one.")
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.sweep(place.parent, f"bhi-{place.name}")
        needed = expected * (1 + nested) * (_ZIPPED_BYTES if zipped else _FILE_BYTES)
        atomic_files.check_space(place.parent, needed, advice="choose another place or free some")
        with atomic_files.building(place.with_name(f"bhi-{place.name}")) as folder:
            made = folder / place.name
            _put(made, zipped, _named(cases, parameters, nested))
            if place.is_dir():
                place.rmdir()
            os.replace(made, place)
    except OSError as error:
        raise InputError(f"Cannot write {shown(place)}: {error.strerror or error}; choose another place or free some space.") from error
    return Path(out)


def _named(cases: Iterable[Files], parameters: dict[str, int | bool], nested: bool) -> Iterator[tuple[str, bytes]]:
    """Every file of the cohort, name and content; the one that says what it is comes last."""
    patches = positive = 0
    for files in cases:
        patches += len(files)
        positive += sum(name.endswith("class1.png") for name, _ in files)
        for prefix in ("", f"{NESTED}/") if nested else ("",):
            yield from ((prefix + name, content) for name, content in files)
    facts = {"format": PHANTOM_FORMAT, "version": VERSION, "parameters": parameters, "patches": patches, "positive": positive}
    yield PHANTOM_MARKER, (json.dumps(facts, indent=1) + "\n").encode()


def _put(made: Path, zipped: bool, files: Iterable[tuple[str, bytes]]) -> None:
    """Write ``files`` into the zip or folder ``made``."""
    with zipfile.ZipFile(made, "w") if zipped else nullcontext() as archive:
        if archive:
            archive.comment = f"{PHANTOM_FORMAT} {VERSION}: synthetic patches, not tissue".encode()
        for name, content in files:
            if archive:
                # a fixed date, so that equal cohorts are equal files; PNGs are compressed already
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.create_system, entry.external_attr = 3, 0o100644 << 16
                archive.writestr(entry, content)
            else:
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(content)


#: A piece of tissue has at most so many patches, and a process that paints one takes so many bytes, measured and rounded up.
LARGEST_PIECE, PAINTING_BYTES = 600, 600_000_000
#: Glass between two pieces, in patches, and the room that a piece grows in, see `draw_tissue`.
_GAP, _ROOM = 2, 1.12


def draw_case(case: int, *, negative: int, positive: int, seed: int) -> list[Slide]:
    """The pieces of tissue of one case, from left to right.

    Args:
        case: its id; with the seed it sets everything random.
        negative: its number of patches labelled IDC−.
        positive: its number of patches labelled IDC+.
        seed: the cohort's seed.

    Returns:
        one `Slide` a piece; the pieces share the case's stain and do not overlap on its slide.
    """
    rng, total = np.random.default_rng([seed, case]), negative + positive
    style = painting.draw_style(rng)
    sizes = [len(part) for part in np.array_split(np.arange(total), -(-total // LARGEST_PIECE))]
    pieces, left = [], PATCH * int(rng.integers(0, 10))
    for number, size in enumerate(sizes):
        rest = sum(sizes[number + 1 :])
        # a tumour may fill one piece and spare the next
        inside = int(rng.integers(max(0, positive - rest), min(size, positive) + 1))
        positive -= inside
        tissue = draw_tissue(rng, size, room=_ROOM)
        cut = not rest and case % CUT_EVERY == 0
        painted = paint_piece(rng, tissue, inside, style=style, cut=cut)
        pieces.append(Slide(case, painted[0], (left, PATCH * int(rng.integers(0, 10))), *painted[1:]))
        left += PATCH * (tissue[0].shape[1] + _GAP)
    return pieces


def write_archive(out: Path, *, counts: pd.DataFrame | None = None, seed: int = 0, workers: int = 0, progress: bool = True) -> Path:
    """Write a cohort with the archive's cases and counts, nested copy included, whole or not at all.

    Equal seeds give equal bytes, with any number of workers.

    Args:
        out: a zip when its name ends in ``.zip`` (an existing one is replaced), else a new or empty folder.
        counts: ``case, negative, positive`` of each case; by default the published ones of all 279.
        seed: seed of everything random, 0 or more.
        workers: number of processes, 0 for as many as there are cores and free memory for.
        progress: whether a bar shows on stderr.

    Returns:
        ``out``.

    Raises:
        InputError: ``out`` is taken or cannot be written, or the disk is too small.
    """
    counts = published.case_table() if counts is None else counts
    processes, total = _processes(workers, len(counts)), int(counts[["negative", "positive"]].to_numpy().sum())
    parameters = {"like_archive": True, "cases": len(counts), "seed": seed}
    with closing(_painted(Path(out).absolute(), counts, seed, processes, total, progress)) as cases:
        return write_files(out, cases, expected=total, parameters=parameters)


def _processes(asked: int, cases: int) -> int:
    """How many processes paint: as many as asked for, else one a core that finds memory."""
    fit = psutil.virtual_memory().available // PAINTING_BYTES
    return max(1, min(asked or min(worker_processes.cores(), fit), cases, worker_processes.MOST))


def _painted(out: Path, counts: pd.DataFrame, seed: int, processes: int, total: int, progress: bool) -> Generator[Files, None, None]:
    """Each case's files, in the order of ``counts``. Processes hand them over in a folder beside ``out``."""
    with atomic_files.building(out.with_name(f"bhi-{out.name}")) as scratch:
        calls = [(str(scratch / f"{row.case}"), int(row.case), int(row.negative), int(row.positive), seed) for row in counts.itertuples()]
        try:
            with (
                closing(worker_processes.in_order(_files_to, calls, processes)) as results,
                tqdm(total=total, desc="Painting", unit="patch", file=sys.stderr, disable=not progress) as bar,
            ):
                for (target, *_), lengths in zip(calls, results, strict=True):
                    with open(target, "rb") as stream:
                        yield [(name, stream.read(length)) for name, length in lengths]
                    os.unlink(target)
                    bar.update(len(lengths))
        except (BrokenProcessPool, MemoryError) as error:
            raise InputError(f"A process that paints ended early, perhaps for want of memory; {shown(out)} is not written.") from error


def _files_to(target: str, case: int, negative: int, positive: int, seed: int) -> list[tuple[str, int]]:
    """Write one case's files, sorted by path, one after the other into ``target`` and return their names and lengths.

    Megabytes sent through the pool's pipe could block it when a worker dies.
    """
    files = sorted(file for piece in draw_case(case, negative=negative, positive=positive, seed=seed) for file in piece.files())
    Path(target).write_bytes(b"".join(content for _, content in files))
    return [(name, len(content)) for name, content in files]
