"""Balancing the classes of the training cases: SMOTE as a plan, on pixels or on features, drawn when a batch is made.

Used by notebook 03, by ``training.samples`` and by training. SMOTE (Chawla et al. 2002, doi 10.1613/jair.953) puts a synthetic patch on the
line between a patch of the smaller class and one of its nearest neighbours of that class. A plan holds who lies on which line and where;
the pixels are computed when they are asked for, so that the training set never stands twice in memory.
"""

import hashlib
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sklearn
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state
from tqdm import tqdm

from bhi_utils.core.atomic_files import write_atomic
from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.core.worker_processes import cores

BALANCES = ("none", "class_weight", "oversample", "smote", "feature_smote")
#: Values that are blended at a time: their buffers of 4 and 8 bytes a value stay in a core's cache.
_BLOCK = 60_000


def check_balance(mode: str, *, weights: str | None = None, views: int | None = None) -> None:
    """Stop when a balance does not exist, or when there will be no features for it.

    Args:
        mode: one of `BALANCES`.
        weights: EfficientNetB0's weights, ``none`` for from scratch; None when they are not known yet.
        views: cached views a patch, 0 for training on patches; None when they are not known yet.

    Raises:
        InputError: the balance is unknown, or is ``feature_smote`` and no pretrained network's features are cached.
    """
    if mode not in BALANCES:
        raise InputError(f"BALANCE {mode!r} does not exist: choose one of {', '.join(BALANCES)}.")
    if mode == "feature_smote" and (weights == "none" or (views is not None and views < 1)):
        raise InputError(
            "BALANCE feature_smote needs the cached features of a pretrained network: "
            "set VIEWS to 1 or more and WEIGHTS to imagenet or a file."
        )


@dataclass(frozen=True)
class SmotePlan:
    """``k`` synthetic patches of class ``label``.

    Attributes:
        base: int array (k,), row of the patch that each line starts from.
        neighbour: int array (k,), row of the patch that it leads to.
        step: float64 array (k,) in [0, 1), how far along.
        label: the class that is made more numerous.
    """

    base: np.ndarray
    neighbour: np.ndarray
    step: np.ndarray
    label: int

    def __len__(self) -> int:
        return len(self.base)


def smote_plan(patches: np.ndarray, labels: np.ndarray, *, neighbours: int = 5, seed: int = 0, rows: np.ndarray | None = None) -> SmotePlan:
    """Plan as many synthetic patches of the smaller class as make both classes equal.

    The neighbour search and the random draws follow ``imblearn.over_sampling.SMOTE``, so equal seeds give equal pixels. A long search
    prints its cost before it starts, and its result is kept in the cache folder, see `bhi_utils.neighbours`.

    Args:
        patches: uint8 or float array (n, 50, 50, 3) in 0–255.
        labels: int array (n,), 0 or 1.
        neighbours: nearest neighbours to choose from.
        seed: seed of the draws.
        rows: int array, the rows of training cases; by default ``patches`` holds nothing else. The plan counts rows of ``patches``.

    Raises:
        InputError: a class is missing, or the smaller one has no more than ``neighbours`` patches.
    """
    rows = np.arange(len(patches)) if rows is None else np.asarray(rows)
    labels = np.asarray(labels)
    if len(labels) != len(patches):
        raise ValueError(f"There are {len(labels):,} labels for {len(patches):,} patches: give one each.")
    counts = np.bincount(labels[rows], minlength=2)
    label = int(np.argmin(counts))
    if not counts[label]:
        raise InputError(f"SMOTE needs training patches of both classes, but class {label} has none: add cases or change the split.")
    if counts[label] <= neighbours:
        raise InputError(
            f"SMOTE with {neighbours} neighbours needs more than {neighbours} training patches of each class, but class {label} "
            f"has {counts[label]}: lower the neighbours, add cases, or balance by class_weight."
        )
    rare, missing = rows[labels[rows] == label], int(counts.max() - counts[label])
    near = nearest(patches, rare, neighbours=neighbours) if missing else np.empty((len(rare), neighbours), dtype=np.int32)
    random = check_random_state(seed)
    drawn = random.randint(low=0, high=near.size, size=missing)
    step = random.uniform(size=missing)
    base, column = np.divmod(drawn, neighbours)
    return SmotePlan(base=rare[base], neighbour=rare[near[base, column]], step=step, label=label)


def feature_plan(features: np.ndarray, labels: np.ndarray, *, neighbours: int = 5, seed: int = 0) -> SmotePlan:
    """The same with neighbours that are near in a network's eyes: SMOTE on the frozen base's pooled features.

    The plan then holds for any output of the base for the same patches: `blend` draws from feature maps as it does from pixels.

    Args:
        features: float array (n, d), pooled features of the training patches.
        labels: int array (n,), 0 or 1.
        neighbours: nearest neighbours to choose from.
        seed: seed of the draws.

    Raises:
        InputError: as for `smote_plan`.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise ValueError(f"Features of shape {features.shape} are not pooled: give an array (patches, features).")
    return smote_plan(features, labels, neighbours=neighbours, seed=seed)


def draw(patches: np.ndarray, plan: SmotePlan, rows: np.ndarray | None = None) -> np.ndarray:
    """The synthetic patches themselves: float32 array (k, 50, 50, 3), unrounded, each pixel between its two parents'.

    Args:
        patches: the array that the plan was made on.
        plan: the plan.
        rows: which of the plan's patches; all of them by default.
    """
    rows = slice(None) if rows is None else np.asarray(rows)
    return blend(patches[plan.base[rows]], patches[plan.neighbour[rows]], plan.step[rows])


def blend(first: np.ndarray, second: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Points on the lines from ``first`` to ``second``: float32 array (k, …), each value between its two parents'.

    Args:
        first: array (k, …) of patches (uint8 or float) or feature maps (float16 or float32).
        second: the same for the other ends.
        step: float64 array (k,) in [0, 1), how far along.
    """
    step = np.asarray(step, dtype=np.float64).reshape(-1, *[1] * (first.ndim - 1))
    result = np.empty(first.shape, dtype=np.float32)
    size = max(1, _BLOCK // max(1, int(np.prod(first.shape[1:]))))
    start, line = np.empty((size, *first.shape[1:]), np.float32), np.empty((size, *first.shape[1:]), np.float64)
    for place in range(0, len(first), size):
        part = slice(place, place + size)
        out = result[part]
        near, far = start[: len(out)], line[: len(out)]
        near[...], out[...] = first[part], second[part]
        # a difference in float32, a step in float64, rounded once: the order of operations of imbalanced-learn
        np.subtract(out, near, out=out)
        np.multiply(out, step[part], out=far)
        np.add(far, near, out=far)
        out[...] = far
    return result


#: Multiplications and additions a second that one core is taken to do when it is only asked whether a search is worth a measurement.
RATE = 2e10
#: Searches that take more seconds than these, at that rate on one core, announce their cost; are kept on disk.
ANNOUNCED, KEPT = 5.0, 1.0
#: Rows that are compared among each other in order to measure this machine, at most.
SAMPLE = 2048
#: Rows that are searched between two steps of the progress bar, at least.
SLAB = 4096
#: Part of every key: raise it when the kept files change their form, or the search what it finds.
FORMAT = "bhi-neighbours 1"
#: Rows that are read at a time.
_BLOCK = 256


@dataclass(frozen=True)
class Cost:
    """What a search of ``count`` rows of ``width`` values costs here: ``seconds`` when ``cores`` cores are free, ``memory`` in bytes."""

    count: int
    width: int
    seconds: float
    memory: int
    cores: int

    def sentence(self) -> str:
        return (
            f"SMOTE compares {self.count:,} patches of the smaller class with each other, {self.width:,} values each: about "
            f"{_duration(self.seconds)} and {max(0.1, self.memory / 1e9):.1f} GB of memory where {self.cores} core(s) are free; "
            "the time grows with the square of the patches."
        )


def cost(count: int, width: int) -> Cost:
    """Estimate a search from a smaller one that is measured here, a second or two; the search itself is not started.

    Processor time is taken, since other programs multiply the clock's. A small search spends more on what does not grow with the square,
    so that the estimate is too high rather than too low.

    Args:
        count: rows of the smaller class.
        width: values a row, 7,500 for a patch of 50×50 pixels.
    """
    rows = max(2, min(SAMPLE, count // 4))
    sample = np.random.default_rng(0).random((rows, width), dtype=np.float32)
    search = _Search(sample, 1, _chunk(count))
    search.rows(slice(0, 2))  # the threads are started before the clock
    start = time.process_time()
    search.rows(slice(None))
    seconds = (time.process_time() - start) / cores() * (count / rows) ** 2
    memory = count * width * 4 + cores() * 2 * _chunk(count) * width * 8
    return Cost(count, width, seconds, memory, cores())


def nearest(data: np.ndarray, rows: np.ndarray, *, neighbours: int) -> np.ndarray:
    """The nearest neighbours of each of ``rows`` among the others of them, closest first, as ``imblearn.over_sampling.SMOTE`` finds them.

    Args:
        data: array (n, …) of patches or features; only ``rows`` are read, a few at a time.
        rows: int array (m,), the rows of the smaller class.
        neighbours: how many are wanted, fewer than m.

    Returns:
        int32 array (m, neighbours), positions in ``rows``.
    """
    width = int(np.prod(data.shape[1:]))
    expected = 2 * len(rows) ** 2 * width / RATE
    path = _path(data, rows, neighbours) if expected > KEPT else None
    if path is not None and (known := _read(path, (len(rows), neighbours))) is not None:
        return known
    if expected > ANNOUNCED:
        print(cost(len(rows), width).sentence(), flush=True)
    start = time.perf_counter()
    found = _search(data, rows, neighbours, quiet=expected <= ANNOUNCED)
    if expected > ANNOUNCED:
        print(f"SMOTE's neighbours are found, in {_duration(time.perf_counter() - start)}.", flush=True)
    if path is not None:
        _keep(path, found)
    return found


def _search(data: np.ndarray, rows: np.ndarray, neighbours: int, *, quiet: bool) -> np.ndarray:
    # float32 as imbalanced-learn is given it; filled block by block, so that nothing else of that size exists
    flat = np.empty((len(rows), int(np.prod(data.shape[1:]))), dtype=np.float32)
    for place, block in _blocks(data, rows):
        flat[place : place + len(block)] = block
    search, found = _Search(flat, neighbours, _chunk(len(rows))), np.empty((len(rows), neighbours), dtype=np.int32)
    # even parts, none of them small: for few rows scikit-learn shares the work out differently, and takes another of equally near ones
    slab = max(SLAB, 8 * cores() * _chunk(len(rows)))
    parts = np.array_split(np.arange(len(rows)), max(1, len(rows) // slab))
    with tqdm(total=len(rows), desc="SMOTE's neighbours", unit="patch", file=sys.stderr, mininterval=1, disable=quiet) as bar:
        for part in parts:
            place = slice(part[0], part[-1] + 1)
            found[place] = search.rows(place)
            bar.update(len(part))
    return found


class _Search:
    """scikit-learn's exhaustive search, with buffers that do not grow with the number of cores."""

    def __init__(self, flat: np.ndarray, neighbours: int, chunk: int) -> None:
        self.flat, self.chunk = flat, chunk
        self.index = NearestNeighbors(n_neighbors=neighbours + 1).fit(flat)

    def rows(self, part: slice) -> np.ndarray:
        with sklearn.config_context(pairwise_dist_chunk_size=self.chunk):
            # the first is taken to be the row itself, as imbalanced-learn takes it
            return self.index.kneighbors(self.flat[part], return_distance=False)[:, 1:]


def _chunk(count: int) -> int:
    """Rows that each core converts to float64 at a time. Few rows are searched with scikit-learn's own number, exactly as it would."""
    return 256 if count <= 2048 else min(256, max(32, 256 // cores()))


def _blocks(data: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The rows as float32, flat, a few at a time, each block with its place."""
    for place in range(0, len(rows), _BLOCK):
        part = rows[place : place + _BLOCK]
        yield place, np.asarray(data[part], dtype=np.float32).reshape(len(part), -1)


def _path(data: np.ndarray, rows: np.ndarray, neighbours: int) -> Path:
    """Where the result is kept: a hash of all that it depends on. The labels are in it through the rows whose pixels are read."""
    digest = hashlib.sha256(f"{FORMAT} {sklearn.__version__} {np.__version__} {len(rows)} {neighbours} {data.shape[1:]}".encode())
    for _, block in _blocks(data, rows):
        digest.update(block)
    return cache_dir() / "neighbours" / f"{digest.hexdigest()[:24]}.npz"


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """What is kept at ``path``; None when nothing is, or when it is damaged (the format carries a checksum)."""
    with suppress(OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        # opened here, since np.load leaves a damaged file open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            found = kept["nearest"]
        if found.shape == shape and found.dtype == np.int32 and found.min() >= 0 and found.max() < shape[0]:
            return found
    return None


def _keep(path: Path, found: np.ndarray) -> None:
    try:
        with write_atomic(path) as temporary:
            np.savez(temporary, nearest=found)
    except InputError as error:
        # the work is not thrown away because a file of it cannot be kept
        print(f"SMOTE's neighbours are not kept for the next time: {error}", file=sys.stderr)


def _duration(seconds: float) -> str:
    """Seconds as ``12 s``, ``14 min`` or ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
