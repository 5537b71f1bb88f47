"""Deals cases to folds of equal size and mix. Used by ``data.splits`` and, for folds of single patches, by ``studies.leakage``.

The draw needs nothing but the permutation of NumPy's PCG64 and integer arithmetic, so who is tested does not depend on the version of a
library, as it does with scikit-learn's grouped folds. A test holds one recorded draw.
"""

from importlib import resources
from itertools import combinations

import numpy as np
import pandas as pd

from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError
from bhi_utils.data import published

#: Folds whose numbers of patches of each class are this near to equal (as a share of it) are not evened out any further.
TOLERANCE = 0.01
#: How many draws are tried for such folds before the best one has to do; only a dozen cases or fewer need more than one.
STARTS = 30


def deal(table: pd.DataFrame, *, folds: int, seed: int) -> np.ndarray:
    """Deal cases to folds that agree in number of cases, IDC− patches, IDC+ patches and mix of IDC shares.

    Cases are sorted by IDC share and cut into blocks of ``folds``; each block gives one case to every fold, in random
    order (blocked randomisation). Then two cases change places as long as that evens out the patches: within a block first,
    and anywhere if that leaves a fold more than `TOLERANCE` off. The first of `STARTS` such draws that is within the
    tolerance is taken, else the best. Costs are whole numbers, so every machine takes the same steps.

    Args:
        table: ``case, patches, positive, share`` of each case, from `archive.per_case`.
        folds: number of folds.
        seed: seeds the starting points.

    Returns:
        int array, the fold of each row of ``table``.
    """
    rng = np.random.default_rng(seed)
    positive = [*map(int, table["positive"])]
    counts = (positive, [int(n) - p for n, p in zip(table["patches"], positive, strict=True)])
    best, lowest = [], None
    for _ in range(STARTS):
        shuffled = rng.permutation(len(table))
        order = [*map(int, shuffled[np.argsort(table["share"].to_numpy()[shuffled], kind="stable")])]
        blocks = [order[start : start + folds] for start in range(0, len(order), folds)]
        number = [0] * len(order)
        for block in blocks:
            for case, fold in zip(block, rng.permutation(folds), strict=False):
                number[case] = int(fold)
        sums = [[sum(n for n, f in zip(count, number, strict=True) if f == fold) for fold in range(folds)] for count in counts]
        _even_out(number, sums, counts, [pair for block in blocks for pair in combinations(block, 2)])
        if not _is_even(sums):
            _even_out(number, sums, counts, list(combinations(order, 2)))
        cost = sum(_off(sums, kind, fold) ** 2 for kind in (0, 1) for fold in range(folds))
        if lowest is None or cost < lowest:
            best, lowest = number, cost
        if _is_even(sums):
            break
    return np.array(best, dtype=np.int64)


def _off(sums: list[list[int]], kind: int, fold: int, moved: int = 0) -> int:
    """How far a fold is from an equal share of one class once ``moved`` patches join it, in units that suit both classes."""
    return ((sums[kind][fold] + moved) * len(sums[kind]) - sum(sums[kind])) * sum(sums[1 - kind])


def _is_even(sums: list[list[int]]) -> bool:
    limit = TOLERANCE * sum(sums[0]) * sum(sums[1])
    return all(abs(_off(sums, kind, fold)) <= limit for kind in (0, 1) for fold in range(len(sums[0])))


def _even_out(number: list[int], sums: list[list[int]], counts: tuple[list[int], list[int]], pairs: list[tuple[int, int]]) -> None:
    """Let the ``pairs`` of cases change folds, in place, until no exchange evens out the folds' ``sums`` of patches any more."""
    improved = True
    while improved:
        improved = False
        for first, second in pairs:
            a, b = number[first], number[second]
            moved = [count[second] - count[first] for count in counts]
            now = sum(_off(sums, kind, a) ** 2 + _off(sums, kind, b) ** 2 for kind in (0, 1))
            then = sum(_off(sums, kind, a, moved[kind]) ** 2 + _off(sums, kind, b, -moved[kind]) ** 2 for kind in (0, 1))
            if a != b and then < now:
                for kind in (0, 1):
                    sums[kind][a] += moved[kind]
                    sums[kind][b] -= moved[kind]
                number[first], number[second] = b, a
                improved = True


def roles(number: np.ndarray, folds: int, fold: int) -> np.ndarray:
    """Part of each entry: fold ``fold`` tests, the next one validates, the others train.

    >>> roles(np.array([0, 1, 2, 3, 4]), folds=5, fold=4).tolist()
    ['val', 'train', 'train', 'train', 'test']
    """
    return np.select([number == fold, number == (fold + 1) % folds], ["test", "val"], "train")


def published_folds() -> pd.DataFrame:
    """The shipped assignment of the archive's 279 cases to five folds with seed 0: ``case, grouped, runs``."""
    with (resources.files("bhi_utils.data") / "folds_279.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(stream)


def shipped_folds(table: pd.DataFrame, name: str, folds: int, seed: int) -> np.ndarray | None:
    """The shipped folds, where ``table`` is the whole archive and the draw is the one that was recorded."""
    counts = ["case", "patches", "positive"]
    whole = table[counts].reset_index(drop=True).equals(published.case_table()[counts])
    return published_folds()[name].to_numpy() if whole and (folds, seed) == (5, 0) else None


def folds_of(table: pd.DataFrame, scheme: str, *, folds: int, seed: int) -> np.ndarray:
    """Fold of each case, int array. With the scheme ``runs``, whole runs of consecutive ids stay together; with ``grouped`` they need not.

    Raises:
        InputError: there are fewer runs than folds.
    """
    shipped = shipped_folds(table, scheme, folds, seed)
    if shipped is not None:
        return shipped
    if scheme == "grouped":
        return deal(table, folds=folds, seed=seed)
    run = runs_of(table["case"].to_numpy())
    groups = table.assign(run=run).groupby("run")[["patches", "positive"]].sum().reset_index()
    if len(groups) < folds:
        few = f"The data's cases form {counted(len(groups), 'run')} of consecutive ids, fewer than the {folds} folds"
        raise InputError(f"{few}: use SPLIT='kfold', or lower FOLDS.")
    number = deal(groups.assign(share=groups["positive"] / groups["patches"]), folds=folds, seed=seed)
    return number[np.searchsorted(groups["run"], run)]


def runs_of(cases: np.ndarray) -> np.ndarray:
    """Number of the run of consecutive ids that each case belongs to, int array like ``cases``.

    Ids of the archive that are absent here join their neighbours all the same: a sample has the runs of the whole. Neighbouring
    numbers may be sections of one person's tumour; nobody outside the archive's makers knows.
    """
    known = np.union1d(cases, published.case_table()["case"])
    return np.cumsum(np.r_[True, np.diff(known) != 1])[np.searchsorted(known, cases)]


def folds_without(table: pd.DataFrame, place: int, *, folds: int, seed: int) -> np.ndarray:
    """Fold of each case but the one at ``place``, whose fold is -1."""
    number = deal(table.drop(index=table.index[place]).reset_index(drop=True), folds=folds, seed=seed)
    return np.insert(number, place, -1)


def image_folds(count: int, *, seed: int = 0, folds: int = 5) -> np.ndarray:
    """Folds of shuffled patches, int array (count,), as many projects draw them. To measure leakage only."""
    return np.random.default_rng(seed).permutation(count) * folds // max(count, 1)


def image_level(count: int, *, seed: int = 0, folds: int = 5) -> np.ndarray:
    """A split by image at the shares of a grouped one: the part of each patch. To measure leakage only."""
    return roles(image_folds(count, seed=seed, folds=folds), folds, 0)
