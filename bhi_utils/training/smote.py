"""SMOTE as a plan of synthetic patches, on pixels or on features, and the names of all ways to balance the classes.

Used by notebook 03, ``training.samples``, ``training.frozen_features`` and the studies. SMOTE (Chawla et al. 2002, doi 10.1613/jair.953)
puts a synthetic patch on the line between a patch of the smaller class and one of its nearest neighbours of that class. A plan says which
line and where on it; the pixels are computed when a batch asks for them, so the training set never stands twice in memory.
"""

import hashlib
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from bhi_utils.core.atomic_files import write_atomic
from bhi_utils.core.hardware import version
from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.core.worker_processes import cores

BALANCES = ("none", "class_weight", "oversample", "smote", "feature_smote")
#: Multiplications and additions a second of one core in a search, roughly.
RATE = 3e10
#: Seconds, on one core at that rate, from which a search announces its cost, and from which its result is kept on disk.
ANNOUNCED, KEPT = 5.0, 1.0
#: Part of the kept files' names: raise it when their form changes, or what the search finds.
FORMAT = "bhi-neighbours 1"


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
        label: the smaller class.
    """

    base: np.ndarray
    neighbour: np.ndarray
    step: np.ndarray
    label: int

    def __len__(self) -> int:
        return len(self.base)


def smote_plan(patches: np.ndarray, labels: np.ndarray, *, neighbours: int = 5, seed: int = 0, rows: np.ndarray | None = None) -> SmotePlan:
    """Plan as many synthetic patches of the smaller class as make both classes equal.

    The neighbour search and the random draws follow ``imblearn.over_sampling.SMOTE``, so equal seeds give equal values.

    Args:
        patches: array (n, …): patches in 0–255, or the pooled features of patches; the plan then holds for any other output of the
            network for the same patches.
        labels: int array (n,), 0 or 1.
        neighbours: nearest neighbours to choose from.
        seed: seed of the draws.
        rows: int array, the rows of training cases; all by default. The plan counts rows of ``patches``.

    Raises:
        InputError: a class is missing, or the smaller one has no more than ``neighbours`` patches.

    Example:
        >>> pixels = np.arange(60.0).reshape(20, 3)
        >>> plan = smote_plan(pixels, np.arange(20) < 8, neighbours=2)
        >>> len(plan), plan.label, draw(pixels, plan).shape
        (4, 1, (4, 3))
    """
    rows = np.arange(len(patches)) if rows is None else np.asarray(rows)
    labels = np.asarray(labels)
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
    from sklearn.utils import check_random_state  # it loads for a second, and every notebook's banner loads this module

    random = check_random_state(seed)
    drawn = random.randint(low=0, high=near.size, size=missing)
    step = random.uniform(size=missing)
    base, column = np.divmod(drawn, neighbours)
    return SmotePlan(base=rare[base], neighbour=rare[near[base, column]], step=step, label=label)


def draw(patches: np.ndarray, plan: SmotePlan, rows: np.ndarray | None = None) -> np.ndarray:
    """Synthetic patches of a plan: float32 array (k, 50, 50, 3), unrounded, each pixel between its two parents'.

    Args:
        patches: the array that the plan was made on.
        plan: the plan.
        rows: which of the plan's patches; all of them by default.

    >>> plan = SmotePlan(base=np.array([0]), neighbour=np.array([1]), step=np.array([0.25]), label=1)
    >>> draw(np.array([[0, 0, 0], [200, 100, 40]], np.uint8), plan).tolist()  # a quarter of the way from the first to the second
    [[50.0, 25.0, 10.0]]
    """
    chosen = slice(None) if rows is None else rows
    return blend(patches[plan.base[chosen]], patches[plan.neighbour[chosen]], plan.step[chosen])


def blend(first: np.ndarray, second: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Points on the lines from ``first`` to ``second``: float32 array (k, …), each value between its two parents'.

    Args:
        first: array (k, …) of patches (uint8 or float) or feature maps (float16 or float32).
        second: the same for the other ends.
        step: float64 array (k,) in [0, 1), how far along.
    """
    result = np.empty(first.shape, dtype=np.float32)
    for place in range(0, len(first), 8):  # few at a time, so that what lies between stays in a core's cache
        part = slice(place, place + 8)
        near, far = first[part].astype(np.float32), second[part].astype(np.float32)
        # a difference in float32, a step in float64, rounded once: the order of operations of imbalanced-learn
        result[part] = (far - near) * step[part].reshape(-1, *[1] * (first.ndim - 1)) + near
    return result


def nearest(data: np.ndarray, rows: np.ndarray, *, neighbours: int) -> np.ndarray:
    """The nearest neighbours of each of ``rows`` among the others of them, closest first, as ``imblearn.over_sampling.SMOTE`` finds them.

    A search of the whole archive takes the better part of an hour, so its result is kept in the cache folder, under a hash of all that it
    depends on; the labels are in it through the rows.

    Args:
        data: array (n, …) of patches or features; only ``rows`` are read.
        rows: int array (m,), the rows of the smaller class.
        neighbours: how many are wanted, fewer than m.

    Returns:
        int32 array (m, neighbours), positions in ``rows``.
    """
    count, width = len(rows), int(np.prod(data.shape[1:]))
    # float32 as imbalanced-learn is given it; filled block by block, so that nothing else of that size exists
    flat = np.empty((count, width), dtype=np.float32)
    for place in range(0, count, 256):
        flat[place : place + 256] = data[rows[place : place + 256]].reshape(-1, width)
    # rows that each core converts to float64 at a time: 256 is scikit-learn's own number; less when cores are many, to save memory
    chunk = 256 if count <= 2048 else min(256, max(32, 256 // cores()))
    seconds = 2 * count**2 * width / RATE
    if seconds > KEPT:
        digest = hashlib.sha256(f"{FORMAT} {version('scikit-learn')} {np.__version__} {count} {neighbours} {data.shape[1:]}".encode())
        digest.update(flat.data)
        path = cache_dir() / "neighbours" / f"{digest.hexdigest()[:24]}.npz"
        # absent or damaged: the format carries a checksum. Opened here, since np.load leaves a damaged file open
        with suppress(OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
                return kept["nearest"]
    if seconds > ANNOUNCED:
        print(
            f"SMOTE compares {count:,} patches of the smaller class with each other, {width:,} values each: about "
            f"{seconds / 60 / cores():.1f} min and {max(0.1, flat.nbytes / 1e9):.1f} GB of memory where {cores()} core(s) are free; the "
            "time grows with the square of the patches.",
            flush=True,
        )
    import sklearn
    from sklearn.neighbors import NearestNeighbors

    with sklearn.config_context(pairwise_dist_chunk_size=chunk):
        # the first of each row is taken to be the row itself, as imbalanced-learn takes it
        found = NearestNeighbors(n_neighbors=neighbours + 1).fit(flat).kneighbors(flat, return_distance=False)[:, 1:].astype(np.int32)
    if seconds > KEPT:
        # an hour's work is not thrown away because a file of it cannot be kept
        with suppress(InputError), write_atomic(path) as temporary:
            np.savez(temporary, nearest=found)
    return found
