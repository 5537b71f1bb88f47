"""Where a model fails: by case, by a case's share of IDC+, by stain, at the border of the labelled region, and on which single patches.

Used by notebook 06, and through its figures and tables by the report. All of it looks at test cases, and changes nothing: it chooses no
threshold and deletes no patch.
"""

from collections.abc import Mapping
from typing import Any

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

#: What `groups` tells apart, and how figures call it.
KINDS = {"share": "IDC share of the case", "stain": "stain of the case", "place": "place in the labelled region", "list": "published lists"}
SHARES = {"under 20 %": 0.2, "20 to 40 %": 0.4, "40 % and more": 1.01}
STAINS = ("bluest third", "middle third", "reddest third")
#: A group needs so many cases for an interval to mean something.
FEWEST = 5
#: How sure an answer must be against its label, and how many of its neighbours must disagree too, for a label to be looked at again.
SURE, NEIGHBOURS = 0.9, 0.75


def groups(predictions: pd.DataFrame, pack: Pack) -> pd.DataFrame:
    """One model's predictions with the group of each patch by every one of `KINDS`, and what its neighbours on the slide are labelled.

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
    """Mean red minus mean blue of each patch: eosin is pink, haematoxylin blue, and scanners and laboratories differ in both."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), 2048):
        part = rows[start : start + 2048]
        mean = pack.patches[part].mean(axis=(1, 2), dtype=np.float32)
        found[start : start + 2048] = mean[:, 0] - mean[:, 2]
    return found


def by_group(grouped: pd.DataFrame, *, threshold: float, resamples: int, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """AUC, recall and specificity of every group, with intervals by case.

    Args:
        grouped: from `groups`.
        threshold: a patch is called IDC+ at ``probability >= threshold``.
        resamples: how often the cases are drawn.
        seed: seed of the draws.

    Returns:
        kind to group to ``patches``, ``cases`` and ``auc, recall, specificity`` as ``{"value", "low", "high"}``; a metric of a group
        that lacks a class is None, and a group of fewer than `FEWEST` cases has no intervals.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    orders = {"share": list(SHARES), "stain": list(STAINS), "place": ["interior", "border"], "list": ["in a list", "in no list"]}
    for kind, order in orders.items():
        present = [name for name in order if (grouped[kind] == name).any()]
        rest = sorted(set(grouped[kind]) - set(order))
        found[kind] = {name: _measured(grouped[grouped[kind] == name], threshold, resamples, seed) for name in (*present, *rest)}
    return found


def _measured(part: pd.DataFrame, threshold: float, resamples: int, seed: int) -> dict[str, Any]:
    cases = int(part["case"].nunique())
    about: dict[str, Any] = {"patches": len(part), "cases": cases, "positive": int(part["label"].sum())}
    try:
        all_metrics = metrics.evaluate(part, threshold=threshold, resamples=resamples if cases >= FEWEST else 0, seed=seed)
    except InputError:  # one class, or one answer for all
        return about | dict.fromkeys(("auc", "recall", "specificity"))
    return about | {name: all_metrics[name] for name in ("auc", "recall", "specificity")}


def by_case(grouped: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """One row a case, the worst AUC first: ``case, patches, positive, auc, recall``; NaN where a case lacks a class."""
    rows = []
    for case, part in grouped.groupby("case"):
        one = _measured(part, threshold, 0, 0)
        positive = part["probability"][part["label"] == 1]
        recall = float((positive >= threshold).mean()) if len(positive) else np.nan
        auc = one["auc"]["value"] if one["auc"] else np.nan
        rows.append({"case": int(case), "patches": len(part), "positive": len(positive), "auc": auc, "recall": recall})
    return pd.DataFrame(rows).sort_values(["auc", "case"], ignore_index=True)


def most_wrong(grouped: pd.DataFrame, *, threshold: float, each: int) -> pd.DataFrame:
    """The missed IDC+ patches of the lowest and the false alarms of the highest probability, at most ``each`` of both, worst first."""
    called = grouped["probability"] >= threshold
    missed = grouped[(grouped["label"] == 1) & ~called].nsmallest(each, "logit")
    alarms = grouped[(grouped["label"] == 0) & called].nlargest(each, "logit")
    return pd.concat([missed, alarms], ignore_index=True)


def suspects(grouped: pd.DataFrame) -> pd.DataFrame:
    """Patches whose label a reader should look at again: model and neighbours both speak against it.

    The model has not seen the case and is sure of the other class, and most labels around carry that class. A list to review, not to
    delete: the model may be wrong twice, and a border runs somewhere.

    Returns:
        ``case, x, y, label, probability_calibrated, neighbours, disagree``, the surest first.
    """
    against = np.where(grouped["label"] == 1, 1 - grouped["probability_calibrated"], grouped["probability_calibrated"])
    share = grouped["disagree"] / grouped["neighbours"].clip(lower=1)
    chosen = grouped.assign(against=against)[(against >= SURE) & (grouped["neighbours"] > 0) & (share >= NEIGHBOURS)]
    columns = ["case", "x", "y", "label", "probability_calibrated", "neighbours", "disagree"]
    return chosen.sort_values("against", ascending=False, kind="stable")[columns].reset_index(drop=True)


def counted(suspected: pd.DataFrame, *, of: int) -> dict[str, Any]:
    """How many of so many patches `suspects` lists, and by what rule."""
    return {"patches": len(suspected), "of": of, "sure": SURE, "neighbours": NEIGHBOURS}


def write(run: Run, grouped: pd.DataFrame, *, threshold: float, resamples: int, seed: int) -> dict[str, Any]:
    """Write ``failures.json``, ``cases.csv`` and ``suspects.csv``; the content of the first."""
    suspected = suspects(grouped)
    result = {
        "groups": by_group(grouped, threshold=threshold, resamples=resamples, seed=seed),
        "suspects": counted(suspected, of=len(grouped)),
    }
    run.write_csv("cases.csv", by_case(grouped, threshold=threshold))
    run.write_csv("suspects.csv", suspected)
    run.write_json("failures.json", result)
    return result


def sentence(result: Mapping[str, Any]) -> str:
    """How many labels deserve another look, and by what rule."""
    found = result["suspects"]
    listed = filled("{patches:,} of {of:,} test [patch|patches:of] [is|are:patches] listed", **found)
    return (
        f"{listed} in suspects.csv for a second look at their label: the calibrated "
        f"probability of the other class is at least {found['sure']}, and so is the label of at least {found['neighbours']:.0%} of the "
        "patches around. A list to review, not to delete."
    )


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row a group: patches, cases, and the metrics as ``value (low–high)``."""
    rows = {}
    for kind, found in result["groups"].items():
        for name, one in found.items():
            cells = {title: titles.cell(one[key]) for key, title in (("auc", "AUC"), ("recall", "recall"), ("specificity", "specificity"))}
            rows[KINDS[kind], name] = {"patches": f"{one['patches']:,}", "cases": f"{one['cases']:,}", **cells}
    return pd.DataFrame.from_dict(rows, orient="index")
