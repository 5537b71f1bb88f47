"""Balancing the classes of the training cases: SMOTE as a plan, on pixels or on features, drawn when a batch is made.

Used by notebook 03, by ``samples`` and by training. SMOTE (Chawla et al. 2002, doi 10.1613/jair.953) puts a synthetic patch on the line
between a patch of the smaller class and one of its nearest neighbours of that class. A plan holds who lies on which line and where; the
pixels are computed when they are asked for, so that the training set never stands twice in memory.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_random_state

from bhi_utils.neighbours import nearest
from bhi_utils.paths import InputError

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
