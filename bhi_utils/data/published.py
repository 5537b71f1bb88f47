"""Facts that are published of the Breast Histopathology Images archive, shipped with the package as data.

Used by the index of a source, by the splits and by the synthetic cohort of the archive's size.
"""

from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from bhi_utils.core.messages import counted

#: Where people find the archive, and its name there.
ARCHIVE_URL = "https://www.kaggle.com/datasets/paultimothymooney/breast-histopathology-images"
KAGGLE_HANDLE = "paultimothymooney/breast-histopathology-images"


@cache
def _cases() -> pd.DataFrame:
    with (resources.files("bhi_utils.data") / "published_cases.csv").open(encoding="utf-8") as stream:
        counts = pd.read_csv(stream)
    return counts.assign(patches=counts["negative"] + counts["positive"])


def case_table() -> pd.DataFrame:
    """The archive's 279 cases by id: int columns ``case, negative, positive, patches`` (numbers of patches)."""
    return _cases().copy()


def archive_totals() -> dict[str, int]:
    """Numbers of the whole archive: ``patches``, ``negative``, ``positive``, ``cases``."""
    counts = _cases()
    return {**{name: int(counts[name].sum()) for name in ("patches", "negative", "positive")}, "cases": len(counts)}


#: What a case can be beside the published table.
STATES = ("as published", "fewer", "more", "missing", "not published")


def compare(manifest: pd.DataFrame, *, synthetic: bool) -> dict[str, Any]:
    """Set counts beside the published ones.

    Args:
        manifest: one row a patch with ``case`` and ``label``.
        synthetic: whether the patches are drawn; a synthetic cohort with ids of its own is not compared.

    Returns:
        ``compared``; ``totals``: for patches, negative, positive and cases the numbers found, published and their difference;
        ``states``: how many cases are in each of `STATES`; ``cases``: one row a case, those missing included.
    """
    found = manifest.groupby("case", sort=True)["label"].agg(["size", "sum"])
    found = pd.DataFrame({"negative": found["size"] - found["sum"], "positive": found["sum"]}, dtype="int64")
    known = case_table().set_index("case")[["negative", "positive"]]
    compared = not synthetic or bool(found.index.isin(known.index).any())
    whole = archive_totals() if compared else {}
    counts = {"patches": len(manifest), **{name: int(found[name].sum()) for name in found}, "cases": len(found)}
    totals = {
        name: {"found": count, "published": whole.get(name), "difference": count - whole[name] if compared else None}
        for name, count in counts.items()
    }
    table = found.join((known if compared else known.iloc[:0]).add_prefix("published_"), how="outer").sort_index()
    cases = [_case(int(case), *numbers, compared=compared) for case, *numbers in table.itertuples()]
    states = {state: sum(case["state"] == state for case in cases) for state in STATES} if compared else {}
    return {"compared": compared, "totals": totals, "states": states, "cases": cases}


def _case(case: int, *numbers: float, compared: bool) -> dict[str, Any]:
    """A case's row; a number that does not exist is None."""
    negative, positive, negative_published, positive_published = (None if pd.isna(number) else int(number) for number in numbers)
    if not compared:
        state = None
    elif negative_published is None:
        state = "not published"
    elif negative is None:
        state = "missing"
    elif negative > negative_published or positive > positive_published:
        state = "more"
    else:
        state = "as published" if (negative, positive) == (negative_published, positive_published) else "fewer"
    names = ("case", "negative", "positive", "published_negative", "published_positive", "state")
    return dict(zip(names, (case, negative or 0, positive or 0, negative_published, positive_published, state), strict=True))


def verdict(facts: dict[str, Any]) -> str:
    """What the counts say, in a sentence or two."""
    totals, states = facts["totals"], facts["states"]
    of = {name: f"{row['found']:,} of {row['published']:,}" for name, row in totals.items() if row["published"] is not None}
    if not facts["compared"]:
        return "The cohort is synthetic and its case ids are its own, so its counts are not compared with the archive's."
    if states["as published"] == len(facts["cases"]):
        patches, cases = totals["patches"]["found"], totals["cases"]["found"]
        return f"All {counted(patches, 'patch')} of {counted(cases, 'case')} are there, each case with its published counts."
    wrong = []
    for state, text in (("more", "more patches than were published"), ("not published", "an id that is not the archive's")):
        ids = [str(case["case"]) for case in facts["cases"] if case["state"] == state]
        if ids:
            wrong.append(f"{len(ids):,} with {text} ({', '.join(ids[:5])}{', …' if len(ids) > 5 else ''})")
    if not wrong:
        return (
            f"This is a part of the archive, {of['patches']} patches and {of['cases']} cases; no case has more than was published, "
            "so the counts differ because it is a sample and not because something is broken."
        )
    if len(wrong) == 1 and states["not published"] == totals["cases"]["found"]:
        return "No case id is the archive's: this is another collection, and its counts say nothing about the archive."
    return f"Something is wrong with the counts of cases: {' and '.join(wrong)}."
