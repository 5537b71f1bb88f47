"""Where a model fails: by case, by a case's share of IDC+, by stain, at the border of the labelled region, and on which single patches.

Used by notebook 06, the study of recipes and ``reports.run_report``. It looks at test cases only; it chooses no threshold and deletes no
patch.
"""

from contextlib import suppress
from typing import TypedDict

import numpy as np
import pandas as pd

from bhi_utils.core import titles
from bhi_utils.core.messages import filled
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import splits
from bhi_utils.data.archive import Pack, per_case, rows_of
from bhi_utils.data.slide_grid import around
from bhi_utils.evaluation import metrics

#: The kinds of groups, and their titles in tables and figures.
KINDS = {"share": "IDC share of the case", "stain": "stain of the case", "place": "place in the labelled region", "list": "published lists"}
SHARES = {"under 20 %": 0.2, "20 to 40 %": 0.4, "40 % and more": 1.01}
STAINS = ("bluest third", "middle third", "reddest third")
#: Fewest cases of a group that get intervals.
FEWEST = 5
#: A label is listed for a second look when the model gives the other class at least this calibrated probability, and at least this share of
#: its neighbours carries the other label.
SURE, NEIGHBOURS = 0.9, 0.75


class Group(TypedDict):
    """How many patches, cases and IDC+ patches a group has, and its metrics: None where it lacks a class."""

    patches: int
    cases: int
    positive: int
    auc: titles.Metric | None
    recall: titles.Metric | None
    specificity: titles.Metric | None


class Failures(TypedDict):
    """The content of ``failures.json``: kind to name to group, and what `counted` returns."""

    groups: dict[str, dict[str, Group]]
    suspects: dict[str, float]


def groups(predictions: pd.DataFrame, pack: Pack) -> pd.DataFrame:
    """Adds to one model's predictions the group of each patch by every one of `KINDS`, and the labels of its neighbours on the slide.

    Args:
        predictions: one model's rows on one part.
        pack: the data set, all cases whole.

    Returns:
        the rows with ``share``, ``stain``, ``place`` and ``list`` (texts), ``neighbours`` (how many of the eight places around are in the
        data) and ``disagree`` (how many of these carry the other label).

    Raises:
        InputError: a prediction is of a patch that the data set lacks.
    """
    manifest = pack.manifest
    rows = rows_of(manifest, predictions)
    cases = per_case(manifest).set_index("case").loc[predictions["case"].unique()]
    frame = predictions.reset_index(drop=True)
    case_share = pd.cut(cases["share"], [-0.01, *SHARES.values()], right=False, labels=list(SHARES)).astype(str)
    stain = pd.Series(_redness(pack, rows)).groupby(frame["case"].to_numpy()).mean()
    third = pd.Series(np.minimum(3 * stain.rank(method="first").sub(1) // len(stain), 2).astype(int), index=stain.index)
    listed = {case for ids in splits.official_lists().values() for case in ids}
    neighbours, disagree = around(manifest, rows)
    place = np.select([neighbours == 0, disagree > 0], ["no neighbour in the data", "border"], "interior")
    return frame.assign(
        share=frame["case"].map(case_share),
        stain=frame["case"].map(third).map(dict(enumerate(STAINS))),
        place=place,
        list=np.where(frame["case"].isin(listed), "in a list", "in no list"),
        neighbours=neighbours,
        disagree=disagree,
    )


def _redness(pack: Pack, rows: np.ndarray) -> np.ndarray:
    """Returns mean red minus mean blue of each patch; eosin is pink, haematoxylin blue, and laboratories differ in both."""
    means = [pack.patches[rows[start : start + 2048]].mean(axis=(1, 2), dtype=np.float32) for start in range(0, len(rows), 2048)]
    red, _, blue = np.concatenate(means).T
    return (red - blue).astype(np.float64)


def by_group(grouped: pd.DataFrame, *, threshold: float, resamples: int, seed: int) -> dict[str, dict[str, Group]]:
    """Computes AUC, recall and specificity of every group, with intervals by case.

    Args:
        grouped: from `groups`.
        threshold: a patch is called IDC+ at ``probability >= threshold``.
        resamples: how often the cases are drawn.
        seed: seed of the draws.

    Returns:
        kind to name to group; one of fewer than `FEWEST` cases has no intervals.
    """
    orders = {"share": [*SHARES], "stain": [*STAINS], "place": ["interior", "border"], "list": ["in a list", "in no list"]}
    found: dict[str, dict[str, Group]] = {kind: {} for kind in orders}
    for kind, order in orders.items():
        for name in (*order, *sorted(set(grouped[kind]) - set(order))):
            if (part := grouped[grouped[kind] == name]).size:
                found[kind][name] = _measured(part, threshold, resamples, seed)
    return found


def _measured(part: pd.DataFrame, threshold: float, resamples: int, seed: int) -> Group:
    cases = int(part["case"].nunique())
    found: titles.Metrics = {}
    with suppress(InputError):  # one class, or one answer for all
        found = metrics.evaluate(part, threshold=threshold, resamples=resamples if cases >= FEWEST else 0, seed=seed)
    auc, recall, specificity = (found.get(name) for name in ("auc", "recall", "specificity"))
    positive = int(part["label"].sum())
    return Group(patches=len(part), cases=cases, positive=positive, auc=auc, recall=recall, specificity=specificity)


def by_case(grouped: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """Returns one row a case, the worst AUC first: ``case, patches, positive, auc, recall``; NaN where a case lacks a class."""
    rows = []
    for case, part in grouped.groupby("case"):
        one = _measured(part, threshold, 0, 0)
        positive = part["probability"][part["label"] == 1]
        recall = float((positive >= threshold).mean()) if len(positive) else np.nan
        auc = one["auc"]["value"] if one["auc"] else np.nan
        rows.append({"case": int(case), "patches": len(part), "positive": len(positive), "auc": auc, "recall": recall})
    return pd.DataFrame(rows).sort_values(["auc", "case"], ignore_index=True)


def most_wrong(grouped: pd.DataFrame, *, threshold: float, each: int) -> pd.DataFrame:
    """Returns the missed IDC+ patches of the lowest and the false alarms of the highest probability, at most ``each``, worst first.

    >>> answers = pd.DataFrame({"label": [1, 1, 0, 0], "probability": [0.2, 0.4, 0.3, 0.9], "logit": [-1.4, -0.4, -0.8, 2.2]})
    >>> most_wrong(answers, threshold=0.5, each=1)[["label", "probability"]]
       label  probability
    0      1          0.2
    1      0          0.9
    """
    called = grouped["probability"] >= threshold
    missed = grouped[(grouped["label"] == 1) & ~called].nsmallest(each, "logit")
    alarms = grouped[(grouped["label"] == 0) & called].nlargest(each, "logit")
    return pd.concat([missed, alarms], ignore_index=True)


def suspects(grouped: pd.DataFrame) -> pd.DataFrame:
    """Returns the patches whose label a reader should look at again, since model and neighbours both speak against it.

    The model, which has not seen the case, is sure of the other class, and most labels around are of that class. The list is to be
    reviewed, not deleted: the model may be wrong, and the tumour has a border.

    Returns:
        ``case, x, y, label, probability_calibrated, neighbours, disagree``, the surest first.
    """
    against = np.where(grouped["label"] == 1, 1 - grouped["probability_calibrated"], grouped["probability_calibrated"])
    share = grouped["disagree"] / grouped["neighbours"].clip(lower=1)
    chosen = grouped.assign(against=against)[(against >= SURE) & (grouped["neighbours"] > 0) & (share >= NEIGHBOURS)]
    columns = ["case", "x", "y", "label", "probability_calibrated", "neighbours", "disagree"]
    return chosen.sort_values("against", ascending=False, kind="stable")[columns].reset_index(drop=True)


def counted(suspected: pd.DataFrame, *, of: int) -> dict[str, float]:
    """Returns how many of so many patches `suspects` lists, and by what rule."""
    return {"patches": len(suspected), "of": of, "sure": SURE, "neighbours": NEIGHBOURS}


def write(run: Run, grouped: pd.DataFrame, *, threshold: float, resamples: int, seed: int) -> Failures:
    """Writes ``failures.json``, ``cases.csv`` and ``suspects.csv``; returns the content of the first."""
    suspected = suspects(grouped)
    result: Failures = {
        "groups": by_group(grouped, threshold=threshold, resamples=resamples, seed=seed),
        "suspects": counted(suspected, of=len(grouped)),
    }
    run.write_csv("cases.csv", by_case(grouped, threshold=threshold))
    run.write_csv("suspects.csv", suspected)
    run.write_json("failures.json", result)
    return result


def sentence(result: Failures) -> str:
    """Says how many labels deserve another look, and by what rule.

    >>> print(sentence({"groups": {}, "suspects": {"patches": 3, "of": 700, "sure": 0.9, "neighbours": 0.75}}))
    3 of 700 test patches are listed in suspects.csv for a second look at their label: the calibrated probability of the other class is
    at least 0.9, and so is the label of at least 75% of the patches around. A list to review, not to delete.
    """
    found = result["suspects"]
    listed = filled("{patches:,} of {of:,} test [patch|patches:of] [is|are:patches] listed", **found)
    return (
        f"{listed} in suspects.csv for a second look at their label: the calibrated "
        f"probability of the other class is at least {found['sure']}, and so is the label of at least {found['neighbours']:.0%} of the "
        "patches around. A list to review, not to delete."
    )


def table(result: Failures) -> pd.DataFrame:
    """Returns one row a group: patches, cases, and the metrics as ``value (low–high)``."""
    rows = {}
    for kind, found in result["groups"].items():
        for name, one in found.items():
            cells = {"AUC": titles.cell(one["auc"]), "recall": titles.cell(one["recall"]), "specificity": titles.cell(one["specificity"])}
            rows[KINDS[kind], name] = {"patches": f"{one['patches']:,}", "cases": f"{one['cases']:,}", **cells}
    return pd.DataFrame.from_dict(rows, orient="index")
