"""What is in a pack and what is wrong with it: counts, copies, contradictions and doubtful patches. Used by ``bhi index`` and notebook 01.

The measures are simple. They point at patches that are worth a look, and what they do not flag may still be bad: red ink passes for
blood, a fold in pale tissue is pale, and a case that is blurred as a whole has nothing sharp to compare with.
"""

import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils.core import worker_processes
from bhi_utils.data import input_checks, inspection_facts, near_duplicates, patch_measures, published
from bhi_utils.data.archive import Pack
from bhi_utils.data.decode import PATCH
from bhi_utils.data.near_duplicates import NearDuplicates

#: A patch with at least this share of glass is mostly background: the share that the interface calls empty, too.
BACKGROUND = input_checks.GLASS_SHARE
#: Share of ink pixels from which a patch counts as inked: 50 pixels. In a sample of 13,244 real patches that flags 2.7 %, and looked at one
#: by one nearly all show margin dye, pen or the black rim of a coverslip; at 1 % blood and muscle begin to be among them.
PEN = 0.02
#: Saturation minus brightness that a tenth of a folded patch reaches. In the real sample 14 patches do, 13 of them folded or overlaid; at
#: 0.1 dense nuclei are half of what is flagged.
FOLD = 0.2
#: Sharpness relative to the median of the case's tissue below which a patch is blurred, since stain and scanner set what is sharp.
#: Blurring real patches with a Gaussian of one pixel brings 99 % below; of the real ones as they are, one in ten thousand lies there.
BLUR = 0.65
#: Blur is judged where at least half is tissue without ink, and a case's median is taken where so many patches are judged.
TISSUE, JUDGED = 0.5, 10
#: What a patch can be flagged as, with the threshold, the measure that it is held against, and what that is in words.
FLAGS = {
    "background": (BACKGROUND, "background", "share of the patch that is bright or grey glass, at least"),
    "pen": (PEN, "ink", "share of the patch in a colour that haematoxylin and eosin do not have, at least"),
    "fold": (FOLD, "fold", "saturation minus brightness that a tenth of the patch reaches, neither inked nor background, at least"),
    "blur": (BLUR, "relative_sharpness", "fineness of detail beside the median of the case's tissue, less than"),
}

_CHUNK = 256
#: Below this many patches one process is faster: starting others costs about a second.
_WORTH_WORKERS = 8000


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found.

    Attributes:
        facts: everything in plain numbers, texts and lists: the content of ``index.json``.
        measures: one row a patch in the manifest's order, with its measures and flags.
        duplicates: the groups of patches with equal pixels, from `exact_duplicates`.
    """

    facts: dict[str, Any]
    measures: pd.DataFrame
    duplicates: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """The facts in brief, as a table of texts: ``what``, ``found``, and where they apply ``published`` and ``difference``."""
        return inspection_facts.table(self.facts)

    def text(self) -> str:
        """The table, the first of what is listed and the verdict, for a terminal of 80 columns."""
        return inspection_facts.text(self.facts)


def inspect(pack: Pack, *, workers: int = 0, progress: bool = True) -> Inspection:
    """Look at every patch of a pack once, in ``workers`` processes (0: all cores); the result does not depend on their number."""
    workers = min(workers or (worker_processes.cores() if len(pack.patches) >= _WORTH_WORKERS else 1), worker_processes.MOST)
    records = _measured(pack, workers, progress)
    table, info, manifest = _measures(pack, records), pack.info, pack.manifest
    duplicates = exact_duplicates(pack, digests=records["digest"])
    facts: dict[str, Any] = {
        **{name: info[name] for name in ("source", "kind", "synthetic", "fingerprint")},
        **published.compare(manifest, synthetic=info["synthetic"]),
        "nested_copy": {"files": info["nested_copy"], "every_patch_twice": info["nested_copy"] == info["patches"]},
        "rejected": inspection_facts.rejected(pack.rejected),
        "same_position": inspection_facts.same_position(pack.rejected),
        "exact_duplicates": inspection_facts.exact(manifest, duplicates),
        "near_duplicates": inspection_facts.near(manifest, _near(pack, records, workers)),
        "edge_patches": inspection_facts.edges(manifest),
        **{name: inspection_facts.flagged(manifest, table, name, *FLAGS[name]) for name in FLAGS},
    }
    facts["verdict"] = f"{published.verdict(facts)} {inspection_facts.concerns(facts)}"
    return Inspection(facts, table, duplicates)


def _measured(pack: Pack, workers: int, progress: bool) -> np.ndarray:
    """The records of all patches, in the manifest's order."""
    sizes = pack.manifest[["width", "height"]].to_numpy(np.uint8)
    job = partial(patch_measures.measure_rows, str(pack.patches.filename), pack.patches.offset)
    chunks = [(start, sizes[start : start + _CHUNK]) for start in range(0, len(sizes), _CHUNK)]
    records = np.empty(len(sizes), patch_measures.RECORD)
    with (
        tqdm(total=len(sizes), desc="Measuring", unit="patch", file=sys.stderr, disable=not progress) as bar,
        closing(worker_processes.in_order(job, chunks, workers, fallback="measuring", ahead=4)) as results,
    ):
        for (start, _), found in zip(chunks, results, strict=True):
            records[start : start + len(found)] = found
            bar.update(len(found))
    return records


def _measures(pack: Pack, records: np.ndarray) -> pd.DataFrame:
    """The table of ``measures.csv.gz``: what was measured, rounded to four places, and the four flags."""
    table = pack.manifest[["case", "x", "y", "label"]].copy()
    for name in ("background", "ink_cool", "ink_warm", "ink_black", "fold", "sharpness", "contrast"):
        table[name] = records[name].astype(np.float64).round(4)
    table["ink"] = table[["ink_cool", "ink_warm", "ink_black"]].sum(axis=1).round(4)
    tissue = (table["background"] < TISSUE) & (table["ink"] < PEN) & table["sharpness"].notna()
    sharp = table["sharpness"].where(tissue)
    by_case = sharp.groupby(table["case"])
    usual = by_case.transform("median").where(by_case.transform("count") >= JUDGED, sharp.median() if tissue.any() else np.nan)
    table["relative_sharpness"] = (sharp / usual).round(4)
    background, pen = table["background"] >= BACKGROUND, table["ink"] >= PEN
    fold = (table["fold"] >= FOLD) & ~pen & ~background
    flags = {"background": background, "pen": pen, "fold": fold, "blur": table["relative_sharpness"] < BLUR}
    return table.assign(**{f"is_{name}": flags[name].astype(np.int8) for name in FLAGS})


def _near(pack: Pack, records: np.ndarray, workers: int) -> NearDuplicates:
    """Near duplicates among patches with something to compare: half a patch or more, not mostly glass, not plain."""
    area = pack.manifest["width"].to_numpy() * pack.manifest["height"].to_numpy()
    _, first = np.unique(records["digest"], axis=0, return_index=True)  # of equal patches the first, so that they are not counted again
    fit = (2 * area >= PATCH**2) & (records["background"] < BACKGROUND) & (records["contrast"] >= near_duplicates.PLAIN)
    rows = np.sort(first[fit[first]])
    read = partial(patch_measures.read_rows, str(pack.patches.filename), pack.patches.offset)
    return near_duplicates.find(records, rows, read, workers=workers)


def exact_duplicates(pack: Pack, *, digests: np.ndarray | None = None) -> pd.DataFrame:
    """Find groups of patches with exactly the same pixels, largest first.

    Args:
        pack: the patches.
        digests: `patch_measures.digests` of all of them, where they are known already.

    Returns:
        one row a group: ``patches``, ``cases`` and ``positive`` count its patches, cases and IDC+ patches; ``across_cases`` and
        ``contradictory`` (both labels) say what is wrong with it; ``blank`` marks one single colour, such as bare glass; ``rows`` are its
        row numbers in the manifest.
    """
    sizes = pack.manifest[["width", "height"]].to_numpy(np.uint8)
    digests = patch_measures.digests(pack.patches, sizes) if digests is None else digests
    frame = pack.manifest[["case", "label"]].astype("int64").assign(one=digests[:, 0], other=digests[:, 1], row=np.arange(len(digests)))
    groups = frame[frame.duplicated(["one", "other"], keep=False)].groupby(["one", "other"], sort=False)
    columns = {"patches": ("row", "size"), "cases": ("case", "nunique"), "positive": ("label", "sum"), "rows": ("row", tuple)}
    found = groups.agg(**columns).sort_values("patches", ascending=False, kind="stable", ignore_index=True)
    plain = np.asarray(pack.patches)  # slicing a map is slow
    first = [rows[0] for rows in found["rows"]]
    blank = [not np.ptp(plain[row, : sizes[row, 1], : sizes[row, 0]], axis=(0, 1)).any() for row in first]
    across, both = found["cases"] > 1, found["positive"].between(1, found["patches"] - 1)
    return found.assign(across_cases=across, contradictory=both, blank=np.array(blank, bool), rows=found.pop("rows"))
