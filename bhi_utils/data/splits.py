"""Which cases train, validate and test a model, and the check that no case is in two parts.

Used by notebook 02, which writes ``splits.csv``, and by every later notebook, which only reads it. The unit is the **case**: a folder of
the archive. Cases are dealt to folds of equal size and mix by a permutation of NumPy's PCG64 and integer arithmetic, so the draw does not
depend on the order of the manifest's rows or the versions of the libraries. The draw of the whole archive into five folds is shipped as
``folds_279.csv``.
"""

import hashlib
import io
import json
from itertools import combinations

import numpy as np
import pandas as pd

from bhi_utils.core import paths
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import published
from bhi_utils.data.archive import per_case

#: The parts of a split, in the order in which tables show them.
PARTS = ("train", "val", "test")
#: Accepted values of the SPLIT parameter.
SCHEMES = ("grouped", "kfold", "official", "runs", "loco", "image")


def check(scheme: str, *, folds: int = 5, fold: int = 0) -> None:
    """Stop when no data could be split so; the arguments are those of `make`.

    Raises:
        InputError: unknown scheme, too few folds, or a fold that the scheme does not have.
    """
    if scheme not in SCHEMES:
        raise InputError(f"SPLIT is {scheme!r}: use one of {', '.join(SCHEMES)}.")
    if scheme == "official":
        return
    if folds < 3:
        raise InputError(f"FOLDS is {folds}: use at least 3, one each for training, validation and test.")
    if scheme == "grouped" and fold != 0:
        raise InputError(f"FOLD is {fold}, but SPLIT='grouped' always tests on fold 0: use SPLIT='kfold' for another fold.")
    if scheme != "loco" and not 0 <= fold < folds:
        raise InputError(f"FOLD is {fold}: with FOLDS={folds} it runs from 0 to {folds - 1}.")


def make(manifest: pd.DataFrame, *, scheme: str = "grouped", seed: int = 0, folds: int = 5, fold: int = 0) -> pd.DataFrame:
    """Give every case to train, validation or test.

    Args:
        manifest: one row a patch with at least ``case`` and ``label`` (0 or 1), in any order.
        scheme: ``kfold`` tests on fold ``fold`` and validates on the next one; ``grouped`` is the same with fold 0; ``runs`` is
            ``kfold`` with whole runs of consecutive case ids, see `runs_of`; ``loco`` leaves one case out: the one at place ``fold``
            among the sorted ids tests, and one of ``folds`` folds of the others validates; ``official`` takes the published lists,
            and a case in none of them is ``unused``; ``image`` shuffles patches, to measure what that leaks and for nothing else.
        seed: another seed gives another draw, equally balanced. The official lists ignore it.
        folds: number of folds; one is the test part, one the validation part, the others are training.
        fold: which fold, or with ``loco`` which case, is the test part.

    Returns:
        ``case, split, fold``, one row a case by id; ``fold`` is -1 for the official lists and for the case that ``loco`` leaves out.
        With ``image``, ``case, x, y, split, fold``, one row a patch in the manifest's order.

    Raises:
        InputError: unknown scheme, too few cases, or a part that is empty or holds one class only.

    >>> make(pd.DataFrame({"case": np.repeat([7, 8, 9], 4), "label": [0, 0, 0, 1] * 3}), folds=3)
       case  split  fold
    0     7    val     1
    1     8   test     0
    2     9  train     2
    """
    check(scheme, folds=folds, fold=fold)
    table = per_case(manifest)
    for name, label in (("IDC−", 0), ("IDC+", 1)):
        if not (manifest["label"] == label).any():
            raise InputError(f"The data hold no {name} patch: a split needs patches of both classes.")
    if scheme == "official":
        splits = _official(table)
        _require_both_classes(manifest, splits, "")
        return splits
    if scheme == "loco" and not 0 <= fold < len(table):
        raise InputError(f"FOLD is {fold}: with {counted(len(table), 'case')} it runs from 0 to {len(table) - 1}.")
    if len(table) < folds + (scheme == "loco"):
        raise InputError(f"The data hold {counted(len(table), 'case')}, fewer than the {folds} folds: add cases or lower FOLDS.")
    if scheme == "image":
        number = image_folds(len(manifest), seed=seed, folds=folds)
        places = manifest[["case", "x", "y"]].reset_index(drop=True)
        return places.assign(split=roles(number, folds, fold), fold=number)
    if scheme == "loco":
        others = table.drop(index=table.index[fold]).reset_index(drop=True)
        number, fold = np.insert(deal(others, folds=folds, seed=seed), fold, -1), -1
    else:
        number = folds_of(table, "runs" if scheme == "runs" else "grouped", folds=folds, seed=seed)
    splits = table[["case"]].assign(split=roles(number, folds, fold), fold=number)
    _require_both_classes(manifest, splits, ", lower FOLDS or try another SEED")
    return splits


def official_lists() -> dict[str, list[int]]:
    """The published case lists: ``train``, ``val`` and ``test`` (Cruz-Roa 2014, as re-created by Janowczyk 2016).

    >>> {part: len(cases) for part, cases in official_lists().items()}
    {'train': 84, 'val': 29, 'test': 49}
    """
    lists = json.loads((paths.PACKAGE / "data" / "official_split.json").read_text(encoding="utf-8"))
    return {part: lists[part] for part in PARTS}


def _official(table: pd.DataFrame) -> pd.DataFrame:
    part_of = {case: part for part, ids in official_lists().items() for case in ids}
    split = table["case"].map(part_of).fillna("unused")
    if absent := [part for part in PARTS if part not in set(split)]:
        advice = "use SPLIT='grouped', or data with cases of all three lists"
        raise InputError(f"The official {absent[0]} list has no case in these data: {advice}.")
    return pd.DataFrame({"case": table["case"], "split": split, "fold": -1})


def _require_both_classes(manifest: pd.DataFrame, splits: pd.DataFrame, advice: str) -> None:
    counts = summary(manifest, splits)
    for part in PARTS:
        for column in ("IDC−", "IDC+"):
            if not counts.loc[part, column]:
                raise InputError(f"The {part} part holds no {column} patch: add cases with both classes{advice}.")


def parts(manifest: pd.DataFrame, splits: pd.DataFrame) -> np.ndarray:
    """The part of every patch: a string array, one entry a row of ``manifest``.

    Raises:
        InputError: the manifest has a case or patch that the split does not know, so the split was made from other data.

    >>> parts(pd.DataFrame({"case": [7, 7, 9]}), pd.DataFrame({"case": [7, 9], "split": ["train", "test"]})).tolist()
    ['train', 'train', 'test']
    """
    place = _place(splits)
    found = manifest[place].merge(splits[[*place, "split"]], on=place, how="left", validate="many_to_one")["split"]
    if (strange := found.isna().to_numpy()).any():
        what = "A patch" if len(place) > 1 else f"Case {manifest.loc[strange, 'case'].min()}"
        raise InputError(f"{what} is not in splits.csv: the data changed, so run notebook 02_case_split again.")
    return found.to_numpy(dtype=str)


def _place(splits: pd.DataFrame) -> list[str]:
    """The columns that say whose part a row gives: a patch's in a split by image, else a case's."""
    return [name for name in ("case", "y", "x") if name in splits]


def indices(manifest: pd.DataFrame, splits: pd.DataFrame, part: str) -> np.ndarray:
    """Row numbers of a part's patches, ascending; they address the pack's ``patches`` as well.

    Raises:
        InputError: the split was made from other data, or ``part`` is no part.

    >>> indices(pd.DataFrame({"case": [7, 9, 7]}), pd.DataFrame({"case": [7, 9], "split": ["train", "test"]}), "train").tolist()
    [0, 2]
    """
    if part not in (*PARTS, "unused"):
        raise InputError(f"{part!r} is no part of a split: use {', '.join(PARTS)} or unused.")
    return np.flatnonzero(parts(manifest, splits) == part)


def summary(manifest: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """One row a part: ``cases, patches, IDC−, IDC+, IDC share``; ``unused`` only where there is such a case.

    >>> manifest = pd.DataFrame({"case": [7, 7, 8, 9], "label": [0, 1, 0, 0]})
    >>> summary(manifest, pd.DataFrame({"case": [7, 8, 9], "split": ["train", "val", "test"]})).reset_index()
        part  cases  patches  IDC−  IDC+  IDC share
    0  train      1        2     1     1        0.5
    1    val      1        1     1     0        0.0
    2   test      1        1     1     0        0.0
    """
    part_of = parts(manifest, splits)
    names = [*PARTS, *(["unused"] if (part_of == "unused").any() else [])]
    columns = {"cases": ("case", "nunique"), "patches": ("label", "size"), "IDC−": ("negative", "sum"), "IDC+": ("label", "sum")}
    table = manifest.assign(negative=1 - manifest["label"]).groupby(part_of).agg(**columns)
    table = table.reindex(pd.Index(names, name="part"), fill_value=0)
    return table.assign(**{"IDC share": table["IDC+"] / table["patches"]})


def assert_disjoint(splits: pd.DataFrame) -> None:
    """Stop unless every case stands in exactly one part.

    Raises:
        InputError: the split is one by image.
        ValueError: a case is listed twice, or a part has an unknown name.

    >>> assert_disjoint(pd.DataFrame({"case": [7, 7], "split": ["train", "test"]}))
    Traceback (most recent call last):
    ValueError: Case 7 is listed twice in the split: a case belongs to one part only.
    """
    if len(_place(splits)) > 1:
        raise InputError(
            "SPLIT='image' puts patches of one case into several parts, so nothing may be trained on it: notebooks/studies/leakage.ipynb "
            "measures what it leaks; for results use grouped, kfold, runs, loco or official."
        )
    twice = splits.loc[splits["case"].duplicated(), "case"]
    if len(twice):
        raise ValueError(f"Case {twice.iloc[0]} is listed twice in the split: a case belongs to one part only.")
    unknown = set(splits["split"]) - {*PARTS, "unused"}
    if unknown:
        raise ValueError(f"The split names an unknown part {sorted(unknown)[0]!r}.")


def save(run: Run, splits: pd.DataFrame, *, manifest: pd.DataFrame, scheme: str, seed: int, folds: int, fold: int) -> dict:
    """Write ``splits.csv``, and ``splits.json`` with the SHA-256 of its bytes; returns the content of the latter."""
    if scheme != "image":
        assert_disjoint(splits)
    counts = summary(manifest, splits)[["cases", "patches", "IDC+"]].rename(columns={"IDC+": "positive"})
    path = run.write_csv("splits.csv", splits.sort_values(_place(splits)))
    about = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "scheme": scheme,
        "seed": seed,
        "folds": folds,
        "fold": fold,
        "counts": json.loads(counts.to_json(orient="index")),
    }
    run.write_json("splits.json", about)
    return about


def load(run: Run) -> pd.DataFrame:
    """Read the run's split: ``case, split, fold``.

    Raises:
        InputError: it is missing, or ``splits.csv`` is not the file whose hash ``splits.json`` records.
    """
    content = run.require("splits.csv").read_bytes()
    if hashlib.sha256(content).hexdigest() != run.read_json("splits.json").get("sha256"):
        where = paths.shown(run.artifacts / "splits.csv")
        raise InputError(f"{where} was changed after it was written (its SHA-256 differs): run notebook 02_case_split again.")
    splits = pd.read_csv(io.BytesIO(content))
    assert_disjoint(splits)
    return splits


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
    rng, share = np.random.default_rng(seed), table["share"].to_numpy()
    counts = [[*map(int, table["positive"])], [*map(int, table["patches"] - table["positive"])]]
    totals = [sum(count) for count in counts]
    # patches in a unit that suits both classes: an equal share of either is `equal` of them
    weights = [[n * folds * total for n in count] for count, total in zip(counts, totals[::-1], strict=True)]
    equal, limit = totals[0] * totals[1], TOLERANCE * totals[0] * totals[1]
    best, lowest = [], None
    for _ in range(STARTS):
        shuffled = rng.permutation(len(table))
        order = shuffled[np.argsort(share[shuffled], kind="stable")].tolist()
        blocks = [order[start : start + folds] for start in range(0, len(order), folds)]
        number = [0] * len(order)
        for block in blocks:
            for case, fold in zip(block, rng.permutation(folds).tolist(), strict=False):
                number[case] = fold
        off = [[sum(n for n, f in zip(weight, number, strict=True) if f == fold) - equal for fold in range(folds)] for weight in weights]
        _even_out(number, off, weights, [pair for block in blocks for pair in combinations(block, 2)])
        if max(map(abs, off[0] + off[1])) > limit:
            _even_out(number, off, weights, list(combinations(order, 2)))
        cost = sum(one**2 for one in off[0] + off[1])
        if lowest is None or cost < lowest:
            best, lowest = number, cost
        if max(map(abs, off[0] + off[1])) <= limit:
            break
    return np.array(best, dtype=np.int64)


def _even_out(number: list[int], off: list[list[int]], weights: list[list[int]], pairs: list[tuple[int, int]]) -> None:
    """Let the ``pairs`` of cases change folds, in place, until no exchange brings the folds nearer to equal shares.

    Args:
        number: the fold of each case.
        off: for IDC+ and IDC−, how far each fold is from an equal share.
        weights: for IDC+ and IDC−, what each case adds to its fold.
        pairs: cases that may change places.
    """
    improved = True
    while improved:
        improved = False
        for first, second in pairs:
            a, b = number[first], number[second]
            moved = [weight[second] - weight[first] for weight in weights]
            now = sum(one[a] ** 2 + one[b] ** 2 for one in off)
            then = sum((one[a] + more) ** 2 + (one[b] - more) ** 2 for one, more in zip(off, moved, strict=True))
            if a != b and then < now:
                for one, more in zip(off, moved, strict=True):
                    one[a] += more
                    one[b] -= more
                number[first], number[second] = b, a
                improved = True


def roles(number: np.ndarray, folds: int, fold: int) -> np.ndarray:
    """Part of each entry: fold ``fold`` tests, the next one validates, the others train.

    >>> roles(np.array([0, 1, 2, 3, 4]), folds=5, fold=4).tolist()
    ['val', 'train', 'train', 'train', 'test']
    """
    return np.select([number == fold, number == (fold + 1) % folds], ["test", "val"], "train")


def shipped_folds(table: pd.DataFrame, name: str, folds: int, seed: int) -> np.ndarray | None:
    """The shipped folds, where ``table`` is the whole archive and the draw is the one that was recorded: five folds with seed 0."""
    counts = ["case", "patches", "positive"]
    if (folds, seed) != (5, 0) or not table[counts].reset_index(drop=True).equals(published.case_table()[counts]):
        return None
    return pd.read_csv(paths.PACKAGE / "data" / "folds_279.csv")[name].to_numpy()


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


def image_folds(count: int, *, seed: int = 0, folds: int = 5) -> np.ndarray:
    """Folds of shuffled patches, int array (count,), as many projects draw them. To measure leakage only."""
    return np.random.default_rng(seed).permutation(count) * folds // max(count, 1)


def image_level(count: int, *, seed: int = 0, folds: int = 5) -> np.ndarray:
    """A split by image at the shares of a grouped one: the part of each patch. To measure leakage only.

    >>> image_level(5, seed=1).tolist()
    ['train', 'test', 'val', 'train', 'train']
    """
    return roles(image_folds(count, seed=seed, folds=folds), folds, 0)
