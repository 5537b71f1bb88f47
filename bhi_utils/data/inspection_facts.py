"""From the tables of an inspection to the facts of ``index.json``, and to the rows of its table.

Used by ``data.inspection``; reads no pixels. Lists are capped, and the true number stands beside each: a source with a hundred thousand
copies still gives a file that can be read. ``index_table.json`` says which fact stands in which row of the table.
"""

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.data import near_duplicates
from bhi_utils.data.decode import PATCH
from bhi_utils.data.near_duplicates import NearDuplicates
from bhi_utils.data.sources import SAME_POSITION

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


def flagged(manifest: pd.DataFrame, measures: pd.DataFrame, name: str, threshold: float, column: str, meaning: str) -> Facts:
    """Patches with a flag: how many, of how many cases, and the clearest."""
    rows = np.flatnonzero(measures[f"is_{name}"])
    values = measures[column].to_numpy()[rows]
    order = rows[np.argsort(values if name == "blur" else -values, kind="stable")][:EXAMPLES]
    examples = [{"path": manifest["path"].iloc[row], "value": float(measures[column].iloc[row])} for row in order]
    found: Facts = {"measure": column, "meaning": meaning, "threshold": threshold}
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


def table(facts: Facts) -> pd.DataFrame:
    """The facts in brief, as texts: ``what, found, published, difference``."""
    totals, rows = facts["totals"], []
    shares = {name: totals["positive"][name] / totals["patches"][name] for name in ("found", "published") if totals["patches"][name]}
    facts = facts | {"share": {name: f"{share:.1%}" for name, share in shares.items()}}
    for what, place in json.loads((resources.files("bhi_utils.data") / "index_table.json").read_text(encoding="utf-8")):
        fact: Any = facts
        for key in place.split("."):
            fact = fact.get(key)
        if place.startswith(("totals", "share")):
            rows.append((what, *(_number(fact.get(name), sign=name == "difference") for name in ("found", "published", "difference"))))
        elif fact is not None:  # the states of cases that are not compared
            found = f"{len(fact) if isinstance(fact, dict) else fact:,}"
            flag = "threshold" in facts[place.split(".")[0]]
            rows.append((what, f"{found} ({fact / totals['patches']['found']:.2%})" if flag else found, "", ""))
    return pd.DataFrame(rows, columns=["what", "found", "published", "difference"])


def _number(value: int | str | None, *, sign: bool = False) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:+,}".replace("-", "−") if sign and value else f"{value:,}"


def text(facts: Facts) -> str:
    """The table with aligned columns, examples of what is wrong, and the verdict, for a terminal of 80 columns."""
    cells = table(facts)
    cells = pd.concat([pd.DataFrame([["", *cells.columns[1:]]], columns=cells.columns), cells])
    widths = [int(cells[name].str.len().max()) for name in cells]
    lines = []
    for what, *numbers in cells.itertuples(index=False):
        aligned = [what.ljust(widths[0]), *(number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))]
        lines.append(("  " + "  ".join(aligned)).rstrip())
    lines += [f"  rejected: {entry['path']} ({entry['reason']})" for entry in facts["rejected"]["listed"][:10]]
    for name, what in (("exact_duplicates", "equal"), ("near_duplicates", "alike")):
        for group in [group for group in facts[name]["listed"] if not group.get("one_colour")][:3]:
            lines.append(f"  {what}: {', '.join(group['paths'][:2])}" + (" …" if group["patches"] > 2 else ""))
    note = "Background, ink, folds and blur are simple measures: they say where to look, not what is there."
    return "\n".join([*lines, *textwrap.wrap(note, 80), *textwrap.wrap(facts["verdict"], 80)])
