"""Facts that are published of the Breast Histopathology Images archive, shipped with the package as data.

Used by the index of a source, by the splits and by the synthetic cohort of the archive's size.
"""

import json
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.core.paths import PACKAGE

#: Where people find the archive, and its name there.
ARCHIVE_URL = "https://www.kaggle.com/datasets/paultimothymooney/breast-histopathology-images"
KAGGLE_HANDLE = "paultimothymooney/breast-histopathology-images"
#: Sentences and titles on the content of a source: of the index's table, its flags, its verdict, and what Kaggle may refuse.
TEXTS: dict[str, Any] = json.loads((PACKAGE / "data" / "texts.json").read_text(encoding="utf-8"))
#: What a case can be beside the published table.
STATES = ("as published", "fewer", "more", "missing", "not published")


def case_table() -> pd.DataFrame:
    """The archive's 279 cases by id: int columns ``case, negative, positive, patches`` (numbers of patches).

    >>> case_table().head(1).to_dict("records")
    [{'case': 8863, 'negative': 772, 'positive': 207, 'patches': 979}]
    """
    counts = pd.read_csv(PACKAGE / "data" / "published_cases.csv")
    return counts.assign(patches=counts["negative"] + counts["positive"])


def archive_totals() -> dict[str, int]:
    """Numbers of the whole archive: ``patches``, ``negative``, ``positive``, ``cases``."""
    counts = case_table()
    return {**{name: int(counts[name].sum()) for name in ("patches", "negative", "positive")}, "cases": len(counts)}


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
    both = found.join((known if compared else known.iloc[:0]).add_prefix("published_"), how="outer").sort_index().astype("Int64")
    cases = both.assign(state=_states(both) if compared else None).reset_index().astype(object)
    cases = cases.fillna({"negative": 0, "positive": 0}).replace({pd.NA: None}).to_dict("records")
    states = {state: sum(case["state"] == state for case in cases) for state in STATES} if compared else {}
    return {"compared": compared, "totals": totals, "states": states, "cases": cases}


def _states(both: pd.DataFrame) -> np.ndarray:
    """One of `STATES` for each row of ``negative, positive, published_negative, published_positive``."""
    counts = both.to_numpy(np.float64, na_value=np.nan)
    found, known = counts[:, :2], counts[:, 2:]
    tests = [np.isnan(known[:, 0]), np.isnan(found[:, 0]), (found > known).any(axis=1), (found < known).any(axis=1)]
    return np.select(tests, ["not published", "missing", "more", "fewer"], "as published")


def verdict(facts: dict[str, Any]) -> str:
    """What the counts say, in a sentence or two."""
    states, found = facts["states"], facts["totals"]["cases"]["found"]
    if not facts["compared"]:
        kind = "synthetic"
    elif states["as published"] == len(facts["cases"]):
        kind = "whole"
    elif not states["more"] and not states["not published"]:
        kind = "part"
    elif states["not published"] == found:
        kind = "other"
    else:
        ids = {state: [str(case["case"]) for case in facts["cases"] if case["state"] == state] for state in TEXTS["wrong"]}
        wrong = [
            f"{len(some):,} with {TEXTS['wrong'][state]} ({', '.join(some[:5])}{', …' if len(some) > 5 else ''})"
            for state, some in ids.items()
            if some
        ]
        return f"Something is wrong with the counts of cases: {' and '.join(wrong)}."
    return TEXTS["verdicts"][kind].format(**facts["totals"])
