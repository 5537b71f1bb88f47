"""From the tables of an inspection to the facts of ``index.json``, and to the rows of its table.

Used by ``data.inspection``; reads no pixels.

Lists are capped, and the true number stands beside each: a source with a hundred thousand copies still gives a file that can be read.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.data import near_duplicates
from bhi_utils.data.decode import PATCH
from bhi_utils.data.near_duplicates import NearDuplicates
from bhi_utils.data.sources import SAME_POSITION

#: How much of a list is shown: groups of copies, paths in each, reasons of rejection, rejected files and examples of a flag.
GROUPS, PATHS, REASONS, FILES, EXAMPLES = 100, 20, 20, 100, 20

#: How the table words a case's state; see `comparison.STATES`.
_STATES = {
    "as published": "cases as published",
    "fewer": "cases with fewer patches",
    "more": "cases with more patches",
    "missing": "cases missing",
    "not published": "cases not published",
}


def rejected(table: pd.DataFrame) -> dict[str, Any]:
    """Files that could not be used, and why; ``table`` has ``path`` and ``reason``."""
    reasons = sorted(Counter(table["reason"]).items(), key=lambda item: (-item[1], item[0]))
    listed = [{"path": path, "reason": reason} for path, reason in table.head(FILES).itertuples(index=False)]
    return {"files": len(table), "reasons": dict(reasons[:REASONS]), "further_reasons": len(reasons[REASONS:]), "listed": listed}


def same_position(table: pd.DataFrame) -> dict[str, Any]:
    """Positions that have a patch of either class; both are among the rejected files."""
    paths = table.loc[table["reason"].str.startswith(SAME_POSITION), "path"]
    return {"positions": len(paths) // 2, "files": len(paths), "listed": paths.head(FILES).tolist()}


def exact(manifest: pd.DataFrame, groups: pd.DataFrame) -> dict[str, Any]:
    """Patches with equal pixels; ``groups`` is what `archive.duplicates` gives. One colour, bare glass say, is told apart."""
    told, blank = groups[~groups["blank"]], groups[groups["blank"]]
    within, across = told[~told["across_cases"]], told[told["across_cases"]]
    # what misleads most comes first, so that the cap cannot hide it
    shown = groups.sort_values(["blank", "contradictory", "across_cases"], ascending=[True, False, False], kind="stable").head(GROUPS)
    listed = [_group(manifest, rows, one_colour=bool(blank)) for rows, blank in zip(shown["rows"], shown["blank"], strict=True)]
    return {
        "surplus": _surplus(told),
        "within_a_case": {"groups": len(within), "surplus": _surplus(within)},
        "across_cases": {"groups": len(across), "surplus": _surplus(across)},
        "both_labels": {"groups": int(told["contradictory"].sum()), "patches": int(told.loc[told["contradictory"], "patches"].sum())},
        "one_colour": {"groups": len(blank), "surplus": _surplus(blank), "both_labels": int(blank["contradictory"].sum())},
        "groups": len(groups),
        "listed": listed,
    }


def near(manifest: pd.DataFrame, found: NearDuplicates) -> dict[str, Any]:
    """Near duplicates, with what was compared and how."""
    cases, labels = (manifest[name].to_numpy()[found.pairs] for name in ("case", "label"))
    across, both = cases[:, 0] != cases[:, 1], labels[:, 0] != labels[:, 1]
    frame = pd.DataFrame({"group": np.repeat(found.group, 2), "row": found.pairs.ravel()}).drop_duplicates()
    place, label = manifest["case"].to_numpy(), manifest["label"].to_numpy()
    groups = [np.sort(rows) for rows in frame.groupby("group")["row"].unique()]
    groups.sort(key=lambda rows: (-np.ptp(label[rows]), not np.ptp(place[rows]), -len(rows), rows[0]))  # what misleads most comes first
    return {
        "criterion": {
            "rms_at_most": near_duplicates.LEVEL,
            "part_of_contrast_at_most": near_duplicates.PART,
            "descriptors_within": near_duplicates.RADIUS,
            "coarse_rms_at_most": near_duplicates.STRUCTURE,
            "neighbours_at_most": near_duplicates.NEIGHBOURS,
            "contrast_at_least": near_duplicates.PLAIN,
        },
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


def edges(manifest: pd.DataFrame) -> dict[str, Any]:
    """Patches smaller than 50×50, as at the right and lower edge of a slide, by size."""
    odd = manifest.loc[(manifest["width"] < PATCH) | (manifest["height"] < PATCH), ["width", "height"]]
    sizes = odd.value_counts().reset_index().sort_values(["count", "width", "height"], ascending=[False, True, True])
    return {"patches": len(odd), "sizes": {f"{width}×{height}": count for width, height, count in sizes.itertuples(index=False)}}


def flagged(manifest: pd.DataFrame, measures: pd.DataFrame, name: str, threshold: float, column: str, meaning: str) -> dict[str, Any]:
    """Patches with a flag: how many, of how many cases, and the clearest."""
    rows = np.flatnonzero(measures[f"is_{name}"])
    values = measures[column].to_numpy()[rows]
    order = rows[np.argsort(values if name == "blur" else -values, kind="stable")][:EXAMPLES]
    examples = [{"path": manifest["path"].iloc[row], "value": float(measures[column].iloc[row])} for row in order]
    found: dict[str, Any] = {"measure": column, "meaning": meaning, "threshold": threshold}
    found |= {"patches": len(rows), "cases": int(manifest["case"].iloc[rows].nunique())}
    if name == "pen":
        inks = ("ink_cool", "ink_warm", "ink_black")
        most = measures[list(inks)].to_numpy()[rows].argmax(axis=1)
        found["most_of_it"] = dict(zip(inks, np.bincount(most, minlength=len(inks)).tolist(), strict=True))
    if name == "blur":
        found["judged"] = int(measures[column].notna().sum())
    return found | {"examples": examples}


def concerns(facts: dict[str, Any]) -> str:
    """What should be looked at first, in a sentence."""
    exact, near = facts["exact_duplicates"], facts["near_duplicates"]
    found = [
        (facts["rejected"]["files"], "rejected files ({})"),
        (exact["both_labels"]["groups"] + near["both_labels"], "pictures with both labels ({})"),
        (exact["across_cases"]["groups"] + near["across_cases"]["pairs"], "pictures repeated across cases ({})"),
    ]
    parts = [text.format(f"{count:,}") for count, text in found if count]
    if not parts:
        return "Nothing was rejected, contradictory or repeated across cases."
    return f"Look first at what would mislead a model or a test: {', '.join(parts)}."


def rows(facts: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The rows of the table: what, found, published and difference, as texts."""
    totals, exact, near = facts["totals"], facts["exact_duplicates"], facts["near_duplicates"]
    patches = totals["patches"]["found"]
    table = []
    for text, name in {"patches": "patches", "IDC+": "positive", "IDC−": "negative", "cases": "cases"}.items():
        row = totals[name]
        table.append((text, f"{row['found']:,}", _number(row["published"]), _number(row["difference"], sign=True)))
    shares = [totals["positive"][name] / totals["patches"][name] for name in ("found", "published") if totals["patches"][name] is not None]
    table.append(("IDC share", *(f"{share:.1%}" for share in shares), *[""] * (3 - len(shares))))
    more = [(_STATES[state], count) for state, count in facts["states"].items()]
    more += [
        ("skipped: nested second copy", facts["nested_copy"]["files"]),
        ("rejected", facts["rejected"]["files"]),
        ("positions with both labels", facts["same_position"]["positions"]),
        ("exact duplicates", exact["surplus"]),
        ("exact: groups within a case", exact["within_a_case"]["groups"]),
        ("exact: groups across cases", exact["across_cases"]["groups"]),
        ("exact: groups with both labels", exact["both_labels"]["groups"]),
        ("repeated patches of one colour", exact["one_colour"]["surplus"]),
        ("near-duplicate pairs", near["pairs"]),
        ("near: pairs within a case", near["within_a_case"]["pairs"]),
        ("near: pairs across cases", near["across_cases"]["pairs"]),
        ("near: pairs with both labels", near["both_labels"]),
        ("near: patches not compared", near["not_compared"]),
        ("near: patches compared in part", near["crowded"]),
        ("padded edge patches", facts["edge_patches"]["patches"]),
        ("sizes other than 50×50", len(facts["edge_patches"]["sizes"])),
    ]
    table += [(text, f"{count:,}", "", "") for text, count in more]
    flags = (("background", "mostly background"), ("pen", "pen or ink"), ("fold", "fold"), ("blur", "blurred, for their case"))
    return table + [(text, f"{facts[name]['patches']:,} ({facts[name]['patches'] / patches:.2%})", "", "") for name, text in flags]


def text(facts: dict[str, Any], table: pd.DataFrame) -> str:
    """The table with aligned columns, examples of what is wrong, and the verdict."""
    table = pd.concat([pd.DataFrame([["", *table.columns[1:]]], columns=table.columns), table])
    widths = [int(table[name].str.len().max()) for name in table]
    lines = []
    for what, *numbers in table.itertuples(index=False):
        cells = [what.ljust(widths[0]), *(number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    lines += [f"  rejected: {entry['path']} ({entry['reason']})" for entry in facts["rejected"]["listed"][:10]]
    for name, what in (("exact_duplicates", "equal"), ("near_duplicates", "alike")):
        for group in [group for group in facts[name]["listed"] if not group.get("one_colour")][:3]:
            lines.append(f"  {what}: {', '.join(group['paths'][:2])}" + (" …" if group["patches"] > 2 else ""))
    note = "Background, ink, folds and blur are simple measures: they say where to look, not what is there."
    return "\n".join([*lines, *textwrap.wrap(note, 80), *textwrap.wrap(facts["verdict"], 80)])


def _number(value: int | None, *, sign: bool = False) -> str:
    return "" if value is None else f"{value:+,}".replace("-", "−") if sign and value else f"{value:,}"


def _surplus(groups: pd.DataFrame) -> int:
    """How many patches would go if one of each group were kept."""
    return int((groups["patches"] - 1).sum())


def _group(manifest: pd.DataFrame, rows: Sequence[int], **facts: Any) -> dict[str, Any]:
    """A group of copies as a list shows it."""
    part = manifest.iloc[list(rows)]
    counts = {"patches": len(part), "cases": int(part["case"].nunique()), "positive": int(part["label"].sum())}
    return counts | facts | {"paths": part["path"].head(PATHS).tolist()}
