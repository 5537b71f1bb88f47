"""What a model has seen: the cases and pixels that it was trained or tuned on. They are kept beside it, so that it is never judged on them.

Used by ``training`` (what a bundle records; what a start from the packaged model must not train on), by ``reports.evaluation_report``, and
by all that shows single answers, which says so. A patch is known by its case's id or by its pixels. Ids count among real or among synthetic
data only, since a synthetic cohort may bear the archive's numbers. Patches of one colour never count, since all bare glass is alike.
"""

import hashlib
import io
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils.core import atomic_files
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, shown
from bhi_utils.core.titles import CLASSES
from bhi_utils.data import splits
from bhi_utils.data.archive import Pack
from bhi_utils.model import bundles

_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model has seen.

    Attributes:
        cases: pairs of a case's id and whether its data are synthetic.
        digests: sorted uint64 array, of every patch's pixels as `digests` gives them.
        recorded: False when the bundle says nothing, so that nothing can be left out.
    """

    cases: frozenset[tuple[int, bool]] = frozenset()
    digests: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    recorded: bool = True

    @classmethod
    def of(cls, bundle: Path) -> "Seen":
        """Reads what the model of a ``.bundle.json`` has seen; see `bundles.read` for errors."""
        return cls.read(bundles.read(bundle)[0], Path(bundle).parent)

    @classmethod
    def read(cls, bundle: bundles.Bundle, folder: Path) -> "Seen":
        """Reads what a bundle's content says, and the file of digests in ``folder``; an older bundle names its cases only.

        Raises:
            InputError: the file of digests is missing or not the one that the bundle names.
        """
        entry = bundle.get("seen")
        if not entry:
            ids = [*bundle.get("train_cases", ()), *bundle.get("validation_cases", ())]
            synthetic = bool(bundle.get("data", {}).get("synthetic"))
            return cls(frozenset((int(case), synthetic) for case in ids), recorded=bool(ids))
        path = Path(folder) / Path(entry["file"]).name
        try:
            data = path.read_bytes()
            known = np.load(io.BytesIO(data), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{shown(path)} cannot be read, though the bundle beside it needs it: copy the three files together."
            ) from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise InputError(f"{shown(path)} is not the file that its bundle names (its hash differs): run notebook 05 again.")
        lists = ((False, entry["real_cases"]), (True, entry["synthetic_cases"]))
        return cls(frozenset((int(case), synthetic) for synthetic, cases in lists for case in cases), known)

    def write(self, folder: Path, name: str) -> bundles.SeenCases:
        """Write ``<name>.seen.npy`` into ``folder``; returns the entry ``seen`` of the bundle that lies there."""
        path = Path(folder) / f"{name}.seen.npy"
        with atomic_files.write_atomic(path) as temporary:
            np.save(temporary, self.digests)
        real, drawn = (sorted(case for case, synthetic in self.cases if synthetic == kind) for kind in (False, True))
        sha256, patches = bundles.sha256(path), len(self.digests)
        return {"file": path.name, "sha256": sha256, "patches": patches, "real_cases": real, "synthetic_cases": drawn}

    def __or__(self, other: "Seen") -> "Seen":
        return Seen(self.cases | other.cases, np.union1d(self.digests, other.digests), self.recorded and other.recorded)

    def pixels(self, patches: np.ndarray) -> np.ndarray:
        """Tells which patches, uint8 (n, 50, 50, 3), have pixels that were seen: bool array (n,). Those of one colour count as unseen."""
        if not len(self.digests):
            return np.zeros(len(patches), bool)
        asked = digests(patches)
        found = self.digests[np.searchsorted(self.digests, asked).clip(max=len(self.digests) - 1)] == asked
        for row in np.flatnonzero(found):
            # more than one colour beside that of its padding
            found[row] = len(np.unique(patches[row].reshape(-1, 3), axis=0)) > 2
        return found

    def cases_in(self, pack: Pack) -> tuple[set[int], set[int]]:
        """Returns the pack's cases that were seen: those known by their id, and the others that hold a patch whose pixels were seen."""
        case, synthetic = pack.manifest["case"].to_numpy(), bool(pack.info["synthetic"])
        by_id = {int(one) for one in np.unique(case) if (int(one), synthetic) in self.cases}
        if not len(self.digests):
            return by_id, set()
        rows = np.flatnonzero(~np.isin(case, list(by_id)))
        starts = tqdm(range(0, len(rows), _CHUNK), desc="Looking for seen pixels", unit="chunk", file=sys.stderr, delay=2)
        hits = [chunk[self.pixels(pack.patches[chunk])] for chunk in (rows[start : start + _CHUNK] for start in starts)]
        return by_id, {int(one) for one in np.unique(case[np.concatenate(hits)])} if hits else set()


def digests(patches: np.ndarray) -> np.ndarray:
    """Returns the first eight bytes of each patch's SHA-256, uint64 (n,), of uint8 (n, 50, 50, 3); no two of a million agree by chance."""
    patches = np.ascontiguousarray(patches, dtype=np.uint8)
    return np.frombuffer(b"".join(hashlib.sha256(patch).digest()[:8] for patch in patches), "<u8").astype(np.uint64)


def of_rows(pack: Pack, rows: np.ndarray) -> Seen:
    """Returns what a model has seen that was trained or tuned on these rows of a pack."""
    cases, synthetic = np.unique(pack.manifest["case"].to_numpy()[rows]), bool(pack.info["synthetic"])
    parts = [digests(pack.patches[rows[start : start + _CHUNK]]) for start in range(0, len(rows), _CHUNK)]
    return Seen(frozenset((int(case), synthetic) for case in cases), np.unique(np.concatenate(parts)))


def before(initialisation: str) -> Seen:
    """Returns what a network had seen before its training began: the packaged model's patches if it started there, else nothing."""
    return Seen.of(bundles.packaged()) if initialisation == bundles.START else Seen()


def leave_out(pack: Pack, table: pd.DataFrame, weights: str) -> pd.DataFrame:
    """Returns the split without the cases that ``weights`` were trained on, which become ``unused``; prints how many they are.

    Args:
        pack: the data set.
        table: the split, ``case, split, fold``.
        weights: WEIGHTS of a run; only ``packaged`` has seen patches like these.

    Raises:
        InputError: a part is then empty or holds one class only.
    """
    used = set(table.loc[table["split"] != "unused", "case"])
    by_id, by_pixels = (found & used for found in before(weights).cases_in(pack))
    if not by_id | by_pixels:
        return table
    said = sentence(by_id, by_pixels, len(used))
    result = table.assign(split=table["split"].mask(table["case"].isin(by_id | by_pixels), "unused"))
    counts = splits.summary(pack.manifest, result)
    for part, name in product(splits.PARTS, CLASSES):
        if not counts.loc[part, name]:
            raise InputError(
                f"{said} The {part} part then holds no {name} patch: give data with more new cases, or start elsewhere with "
                "--weights imagenet, none or a file."
            )
    print(said)
    return result


def guard(pack: Pack, weights: str, *, cases: Collection[int] | None = None) -> None:
    """Stop when a network that starts from ``weights`` would be trained or judged on cases that they have seen.

    Args:
        pack: the data set.
        weights: WEIGHTS of a run; only ``packaged`` has seen patches like these.
        cases: the cases in use; all of the pack by default.

    Raises:
        InputError: one of them was seen.
    """
    found = set.union(*before(weights).cases_in(pack)) & ({*pack.manifest["case"]} if cases is None else {*cases})
    if found:
        raise InputError(
            f"The packaged model was trained on {len(found):,} of these cases, such as {min(found)}, so nothing that starts from it can be "
            "trained or measured on them: pass --weights imagenet, none or a file."
        )


def unseen(pack: Pack, seen: Seen) -> tuple[np.ndarray, dict[str, int | str]]:
    """Returns the rows of a pack on which a model may be judged.

    Returns:
        int array of rows, ascending; and what was left out: ``sentence``, and the numbers of cases ``seen_by_id`` and ``seen_by_pixels``.

    Raises:
        InputError: none is left, or only one case, or one class.
    """
    manifest = pack.manifest
    by_id, by_pixels = seen.cases_in(pack)
    total = manifest["case"].nunique()
    said = sentence(by_id, by_pixels, total) if seen.recorded else "The bundle names no case that it was trained on, so none was left out."
    rows = np.flatnonzero(~manifest["case"].isin(by_id | by_pixels))
    left, labels = manifest["case"].iloc[rows].nunique(), manifest["label"].iloc[rows].unique()
    if not left:
        raise InputError(f"{said} None is left to evaluate: give cases that the model has not seen.")
    if len(labels) < 2:
        only = CLASSES[labels[0]]
        raise InputError(f"{said} What is left holds {only} patches only, and metrics need both classes: `bhi predict` answers without.")
    if left < 2:
        raise InputError(f"{said} What is left is one case, and intervals come from resampling cases: give more cases.")
    return rows, {"sentence": said, "seen_by_id": len(by_id), "seen_by_pixels": len(by_pixels)}


def sentence(by_id: set[int], by_pixels: set[int], total: int) -> str:
    """Says in one sentence how many cases were left out, and why."""
    if not by_id | by_pixels:
        return f"None of {counted(total, 'case')} was seen in training."
    reasons = [f"{len(by_id):,} by their id"] if by_id else []
    reasons += [f"{len(by_pixels):,}{' more' if by_id else ''} by patches with equal pixels"] if by_pixels else []
    return f"Left out, as seen in training: {len(by_id | by_pixels):,} of {counted(total, 'case')} ({', '.join(reasons)})."
