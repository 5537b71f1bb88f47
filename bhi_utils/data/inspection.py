"""What is in a pack and what is wrong with it: counts, copies, contradictions and doubtful patches. Used by ``bhi index`` and notebook 01.

The measures are simple. They point at patches that are worth a look, and what they do not flag may still be bad: red ink passes for
blood, a fold in pale tissue is pale, and a case that is blurred as a whole has nothing sharp to compare with.
"""

import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils.core import worker_processes
from bhi_utils.data import input_checks, near_duplicates, patch_measures, published
from bhi_utils.data.archive import Pack
from bhi_utils.data.decode import PATCH
from bhi_utils.data.near_duplicates import NearDuplicates
from bhi_utils.data.patch_listing import SAME_POSITION

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
#: What a patch can be flagged as, with the threshold and the measure that is held against it.
FLAGS = {"background": (BACKGROUND, "background"), "pen": (PEN, "ink"), "fold": (FOLD, "fold"), "blur": (BLUR, "relative_sharpness")}

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
        totals, rows = self.facts["totals"], []
        shares = {name: totals["positive"][name] / totals["patches"][name] for name in ("found", "published") if totals["patches"][name]}
        facts: Any = self.facts | {"share": {name: f"{share:.1%}" for name, share in shares.items()}}
        for what, place in published.TEXTS["table"]:
            fact: Any = reduce(lambda found, key: found.get(key), place.split("."), facts)
            if place.startswith(("totals", "share")):
                rows.append((what, *(_number(fact.get(name), sign=name == "difference") for name in ("found", "published", "difference"))))
            elif fact is not None:  # the states of cases that are not compared
                found = f"{len(fact) if isinstance(fact, dict) else fact:,}"
                flag = "threshold" in facts[place.split(".")[0]]
                rows.append((what, f"{found} ({fact / totals['patches']['found']:.2%})" if flag else found, "", ""))
        return pd.DataFrame(rows, columns=["what", "found", "published", "difference"])

    def text(self) -> str:
        """The table with aligned columns, examples of what is wrong, and the verdict, for a terminal of 80 columns."""
        facts, cells = self.facts, self.table()
        rows = [["", *cells.columns[1:]], *cells.to_numpy().tolist()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"  {'  '.join([what.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])])}".rstrip() for what, *numbers in rows]
        lines += [f"  rejected: {entry['path']} ({entry['reason']})" for entry in facts["rejected"]["listed"][:10]]
        for name, what in (("exact_duplicates", "equal"), ("near_duplicates", "alike")):
            for group in [group for group in facts[name]["listed"] if not group.get("one_colour")][:3]:
                lines.append(f"  {what}: {', '.join(group['paths'][:2])}" + (" …" if group["patches"] > 2 else ""))
        note = "Background, ink, folds and blur are simple measures: they say where to look, not what is there."
        return "\n".join([*lines, *textwrap.wrap(note, 80), *textwrap.wrap(facts["verdict"], 80)])


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
        "rejected": rejected(pack.rejected),
        "same_position": same_position(pack.rejected),
        "exact_duplicates": exact(manifest, duplicates),
        "near_duplicates": near(manifest, _near(pack, records, workers)),
        "edge_patches": edges(manifest),
        **{name: flagged(manifest, table, name, *FLAGS[name]) for name in FLAGS},
    }
    facts["verdict"] = f"{published.verdict(facts)} {concerns(facts)}"
    return Inspection(facts, table, duplicates)


def _measured(pack: Pack, workers: int, progress: bool) -> np.ndarray:
    """The records of all patches, in the manifest's order."""
    sizes = pack.manifest[["width", "height"]].to_numpy(np.uint8)
    job = partial(patch_measures.measure_rows, *_place(pack))
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
    read = partial(patch_measures.read_rows, *_place(pack))
    return near_duplicates.find(records, rows, read, workers=workers)


def _place(pack: Pack) -> tuple[str, int]:
    """The file that holds a pack's pixels, and where in it they begin."""
    assert isinstance(pack.patches, np.memmap), "only what lies on disk is inspected"
    return str(pack.patches.filename), pack.patches.offset


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


Facts = dict[str, Any]
#: How much of a list is shown: groups of copies, paths in each, reasons of rejection, rejected files and examples of a flag.
GROUPS, PATHS, REASONS, FILES, EXAMPLES = 100, 20, 20, 100, 20


def rejected(table: pd.DataFrame) -> Facts:
    """Files that could not be used, and why; ``table`` has ``path`` and ``reason``."""
    reasons = sorted(Counter(table["reason"]).items(), key=lambda item: (-item[1], item[0]))
    listed = table[["path", "reason"]].head(FILES).to_dict("records")
    return {"files": len(table), "reasons": dict(reasons[:REASONS]), "further_reasons": len(reasons[REASONS:]), "listed": listed}


def same_position(table: pd.DataFrame) -> Facts:
    """Positions that have a patch of either class; both are among the rejected files."""
    paths = table.loc[table["reason"].str.startswith(SAME_POSITION), "path"]
    return {"positions": len(paths) // 2, "files": len(paths), "listed": paths.head(FILES).tolist()}


def exact(manifest: pd.DataFrame, groups: pd.DataFrame) -> Facts:
    """Patches with equal pixels; ``groups`` is from `inspection.exact_duplicates`. Patches of one colour, such as glass, are told apart."""
    blank, told = groups[groups["blank"]], groups[~groups["blank"]]
    both = told[told["contradictory"]]
    # what misleads most comes first, so that the cap cannot hide it
    shown = groups.sort_values(["blank", "contradictory", "across_cases"], ascending=[True, False, False], kind="stable").head(GROUPS)
    listed = [_group(manifest, rows, one_colour=bool(blank)) for rows, blank in zip(shown["rows"], shown["blank"], strict=True)]
    return {
        "surplus": _surplus(told)["surplus"],
        "within_a_case": _surplus(told[~told["across_cases"]]),
        "across_cases": _surplus(told[told["across_cases"]]),
        "both_labels": {"groups": len(both), "patches": int(both["patches"].sum())},
        "one_colour": _surplus(blank) | {"both_labels": int(blank["contradictory"].sum())},
        "groups": len(groups),
        "listed": listed,
    }


def _surplus(groups: pd.DataFrame) -> dict[str, int]:
    """How many groups there are, and how many patches would go if one of each were kept."""
    return {"groups": len(groups), "surplus": int((groups["patches"] - 1).sum())}


def near(manifest: pd.DataFrame, found: NearDuplicates) -> Facts:
    """Near duplicates, with what was compared and how."""
    case, label = manifest["case"].to_numpy(), manifest["label"].to_numpy()
    across, both = (values[found.pairs[:, 0]] != values[found.pairs[:, 1]] for values in (case, label))
    frame = pd.DataFrame({"group": np.repeat(found.group, 2), "row": found.pairs.ravel()}).drop_duplicates()
    groups = [np.sort(rows) for rows in frame.groupby("group")["row"].unique()]
    groups.sort(key=lambda rows: (-np.ptp(label[rows]), not np.ptp(case[rows]), -len(rows), rows[0]))  # what misleads most comes first
    return {
        "criterion": near_duplicates.CRITERION,
        "pairs": len(found.pairs),
        "within_a_case": {"pairs": int((~across).sum()), "both_labels": int((both & ~across).sum())},
        "across_cases": {"pairs": int(across.sum()), "both_labels": int((both & across).sum())},
        "both_labels": int(both.sum()),
        "turned_or_mirrored": int(found.turned.sum()),
        "patches": int(frame["row"].nunique()),
        "compared": found.compared,
        "not_compared": len(manifest) - found.compared,
        "crowded": found.crowded,
        "groups": len(groups),
        "listed": [_group(manifest, rows) for rows in groups[:GROUPS]],
    }


def _group(manifest: pd.DataFrame, rows: Sequence[int] | np.ndarray, **facts: bool) -> Facts:
    """A group of copies as a list shows it."""
    part = manifest.iloc[list(rows)]
    counts = {"patches": len(part), "cases": int(part["case"].nunique()), "positive": int(part["label"].sum())}
    return counts | facts | {"paths": part["path"].head(PATHS).tolist()}


def edges(manifest: pd.DataFrame) -> Facts:
    """Patches smaller than 50×50, as at the right and lower edge of a slide, by size."""
    odd = manifest.loc[(manifest["width"] < PATCH) | (manifest["height"] < PATCH), ["width", "height"]]
    sizes = odd.value_counts().reset_index().sort_values(["count", "width", "height"], ascending=[False, True, True])
    return {"patches": len(odd), "sizes": {f"{width}×{height}": count for width, height, count in sizes.itertuples(index=False)}}


def flagged(manifest: pd.DataFrame, measures: pd.DataFrame, name: str, threshold: float, column: str) -> Facts:
    """Patches with a flag: how many, of how many cases, and the clearest."""
    rows = np.flatnonzero(measures[f"is_{name}"])
    values = measures[column].to_numpy()[rows]
    order = rows[np.argsort(values if name == "blur" else -values, kind="stable")][:EXAMPLES]
    examples = [{"path": manifest["path"].iloc[row], "value": float(measures[column].iloc[row])} for row in order]
    found: Facts = {"measure": column, "meaning": published.TEXTS["flags"][name], "threshold": threshold}
    found |= {"patches": len(rows), "cases": int(manifest["case"].iloc[rows].nunique())}
    if name == "pen":
        inks = ["ink_cool", "ink_warm", "ink_black"]
        most = measures[inks].to_numpy()[rows].argmax(axis=1)
        found["most_of_it"] = dict(zip(inks, np.bincount(most, minlength=len(inks)).tolist(), strict=True))
    if name == "blur":
        found["judged"] = int(measures[column].notna().sum())
    return found | {"examples": examples}


def concerns(facts: Facts) -> str:
    """What should be looked at first, in a sentence."""
    exact, near = facts["exact_duplicates"], facts["near_duplicates"]
    found = {
        "rejected files": facts["rejected"]["files"],
        "pictures with both labels": exact["both_labels"]["groups"] + near["both_labels"],
        "pictures repeated across cases": exact["across_cases"]["groups"] + near["across_cases"]["pairs"],
    }
    parts = [f"{what} ({count:,})" for what, count in found.items() if count]
    if not parts:
        return "Nothing was rejected, contradictory or repeated across cases."
    return f"Look first at what would mislead a model or a test: {', '.join(parts)}."


def _number(value: int | str | None, *, sign: bool = False) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:+,}".replace("-", "−") if sign and value else f"{value:,}"
