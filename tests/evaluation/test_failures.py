"""Where a model fails is counted right: groups, neighbours, cases, the most wrong patches, and labels to look at again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bhi_utils import plots
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import splits
from bhi_utils.data.archive import Pack
from bhi_utils.evaluation import failures, metrics


@pytest.fixture(scope="module")
def pack() -> Pack:
    """Eight slides of 6 by 6 patches; the left half of each is IDC+, and the patches of the last four are redder."""
    y, x = np.divmod(np.arange(36), 6)
    one = pd.DataFrame({"x": 50 * x + 1, "y": 50 * y + 1, "label": (x < 3).astype(int), "width": 50, "height": 50})
    official = sorted(splits.official_lists()["test"])[:3]
    manifest = pd.concat([one.assign(case=case) for case in (*official, 1, 2, 3, 4, 5)], ignore_index=True)
    patches = np.full((len(manifest), 50, 50, 3), 120, np.uint8)
    patches[36 * 4 :, ..., 0] = 200
    return Pack(Path("nowhere"), patches, manifest, pd.DataFrame(), {})


@pytest.fixture(scope="module")
def grouped(pack) -> pd.DataFrame:
    logit = 2.0 * (2 * pack.manifest["label"] - 1) + np.random.default_rng(0).normal(0, 1.5, len(pack.manifest))
    # the first patch of the first case, in the corner of the IDC+ half, is labelled IDC− by mistake
    frame = pack.manifest[["case", "x", "y", "label"]].assign(logit=logit)
    frame.loc[0, "logit"] = 6.0
    frame = frame.assign(probability=expit(frame["logit"]), probability_calibrated=expit(frame["logit"]))
    mistaken = pack.manifest.copy()
    mistaken.loc[0, "label"] = frame.loc[0, "label"] = 0
    return failures.groups(frame, replace(pack, manifest=mistaken))


def test_every_patch_is_in_the_group_that_it_belongs_to(grouped, pack):
    assert set(grouped["share"]) == {"40 % and more"}
    assert (grouped["list"] == "in a list").sum() == 3 * 36
    redder = grouped["case"].isin([2, 3, 4, 5])
    assert set(grouped.loc[~redder, "stain"]) == {"bluest third", "middle third"} and "bluest third" not in set(
        grouped.loc[redder, "stain"]
    )
    second = grouped[grouped["case"] == pack.manifest["case"].unique()[1]]
    column = second["x"] // 50
    assert (second["place"] == np.where(column.isin([2, 3]), "border", "interior")).all()
    assert second["neighbours"].iloc[0] == 3 and second["neighbours"].iloc[7] == 8


def test_a_patch_without_neighbours_is_in_neither_place(pack):
    thin = pack.manifest.iloc[::40].reset_index(drop=True)
    frame = thin[["case", "x", "y", "label"]].assign(logit=0.0, probability=0.5, probability_calibrated=0.5)
    found = failures.groups(frame, replace(pack, patches=pack.patches[::40], manifest=thin))
    assert set(found["place"]) == {"no neighbour in the data"} and (found["neighbours"] == 0).all()


@pytest.mark.parametrize("change", [{"case": 999_999}, {"x": 5_001}, {"label": 1}])
def test_a_prediction_of_a_patch_that_the_data_lack_is_refused_and_not_answered_with_another(pack, change):
    rows = pack.manifest[pack.manifest["label"] == 0][["case", "x", "y", "label"]].reset_index(drop=True)
    frame = rows.assign(logit=0.0, probability=0.5, probability_calibrated=0.5)
    for name, value in change.items():
        frame.loc[7, name] = value
    with pytest.raises(InputError, match="The data hold no patch of case .* run notebook 05_training"):
        failures.groups(frame, pack)


def test_two_files_that_contradict_each_other_about_a_place_are_both_found(pack):
    twice = pack.manifest.iloc[[0, *range(36)]].reset_index(drop=True)
    twice.loc[0, "label"] = 0
    frame = twice[["case", "x", "y", "label"]].assign(logit=0.0, probability=0.5, probability_calibrated=0.5)
    found = failures.groups(frame, replace(pack, patches=pack.patches[[0, *range(36)]], manifest=twice))
    assert found["neighbours"].tolist()[:2] == [3, 3] and found["disagree"].tolist()[:2] == [3, 0]


def test_groups_have_the_metrics_of_their_patches_and_one_class_has_none(grouped):
    found = failures.by_group(grouped, threshold=0.5, resamples=50, seed=0)
    part = grouped[grouped["place"] == "border"]
    assert found["place"]["border"]["auc"] == metrics.evaluate(part, threshold=0.5, resamples=50)["auc"]
    assert found["place"]["border"]["patches"] == len(part) and found["list"]["in a list"]["auc"]["low"] is None, "three cases: no interval"
    one = failures.by_group(grouped[grouped["label"] == 1], threshold=0.5, resamples=50, seed=0)
    assert one["list"]["in no list"]["auc"] is None and one["list"]["in no list"]["cases"] == 5


def test_the_label_that_model_and_neighbours_contradict_is_listed(grouped):
    listed = failures.suspects(grouped)
    first = listed.iloc[0]
    assert (first["x"], first["y"], first["label"], first["neighbours"], first["disagree"]) == (1, 1, 0, 3, 3)
    assert len(listed) < 5 and list(listed.columns)[:3] == ["case", "x", "y"]


def test_the_most_wrong_patches_come_worst_first(grouped):
    wrong = failures.most_wrong(grouped, threshold=0.5, each=3)
    missed, alarms = wrong[wrong["label"] == 1], wrong[wrong["label"] == 0]
    assert missed["logit"].is_monotonic_increasing and alarms["logit"].is_monotonic_decreasing and len(wrong) <= 6
    assert (missed["logit"] < 0).all() and alarms["logit"].iloc[0] == 6.0


def test_what_is_written_is_drawn(grouped, tmp_path):
    run = Run.open(tmp_path)
    result = failures.write(run, grouped, threshold=0.5, resamples=50, seed=0)
    cases = run.read_csv("cases.csv")
    assert run.read_json("failures.json") == result and len(cases) == 8 and cases["auc"].is_monotonic_increasing
    assert len(run.read_csv("suspects.csv")) == result["suspects"]["patches"]
    groups = [one for found in result["groups"].values() for one in found.values()]
    assert len(failures.table(result)) == len(groups)
    figure = plots.failures(result, cases, failures.KINDS)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [one["auc"]["value"] for one in groups if one["auc"]]
    case = grouped[grouped["case"] == 3]
    drawn = plots.slide_map(case, threshold=0.5)
    wrong = np.nansum(drawn.axes[2].images[0].get_array().filled(0) > 0)
    assert wrong == ((case["probability"] >= 0.5) != (case["label"] == 1)).sum()
