"""Balancing the classes of the training cases: SMOTE on pixels as a plan, drawn when a batch is made.

Used by notebook 03 and by training. SMOTE (Chawla et al. 2002, doi 10.1613/jair.953) puts a synthetic patch on the line between
a patch of the smaller class and one of its nearest neighbours of that class. A plan holds who lies on which line and where; the
pixels are computed when they are asked for, so that the training set never stands twice in memory.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state

from bhi_utils.paths import InputError


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


def smote_plan(patches: np.ndarray, labels: np.ndarray, *, neighbours: int = 5, seed: int = 0) -> SmotePlan:
    """Plan as many synthetic patches of the smaller class as make both classes equal.

    The neighbour search and the random draws follow ``imblearn.over_sampling.SMOTE``, so equal seeds give equal pixels.

    Args:
        patches: uint8 or float array (n, 50, 50, 3) in 0–255, of training cases only.
        labels: int array (n,), 0 or 1.
        neighbours: nearest neighbours to choose from.
        seed: seed of the draws.

    Raises:
        InputError: a class is missing, or the smaller one has no more than ``neighbours`` patches.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels, minlength=2)
    label = int(np.argmin(counts))
    if counts[label] <= neighbours:
        raise InputError(
            f"SMOTE with {neighbours} neighbours needs more than {neighbours} training patches of each class, but class {label} "
            f"has {counts[label]}: lower the neighbours, add cases, or balance by class_weight."
        )
    rows = np.flatnonzero(labels == label)
    # float32 as imbalanced-learn is given it; on uint8 its subtraction would wrap around
    flat = np.asarray(patches[rows], dtype=np.float32).reshape(len(rows), -1)
    nearest = NearestNeighbors(n_neighbors=neighbours + 1).fit(flat).kneighbors(flat, return_distance=False)[:, 1:]
    missing = int(counts.max() - counts[label])
    random = check_random_state(seed)
    drawn = random.randint(low=0, high=nearest.size, size=missing)
    step = random.uniform(size=missing)
    base, column = np.divmod(drawn, neighbours)
    return SmotePlan(base=rows[base], neighbour=rows[nearest[base, column]], step=step, label=label)


def draw(patches: np.ndarray, plan: SmotePlan, rows: np.ndarray | None = None) -> np.ndarray:
    """The synthetic patches themselves: float32 array (k, 50, 50, 3), unrounded, each pixel between its two parents'.

    Args:
        patches: the array that the plan was made on.
        plan: the plan.
        rows: which of the plan's patches; all of them by default.
    """
    rows = np.arange(len(plan)) if rows is None else np.asarray(rows)
    start = np.asarray(patches[plan.base[rows]], dtype=np.float32)
    end = np.asarray(patches[plan.neighbour[rows]], dtype=np.float32)
    # float64 step, then rounded once: the order of operations of imbalanced-learn
    return (start + plan.step[rows, None, None, None] * (end - start)).astype(np.float32)
