"""The study of leakage on the phantom: what each arm may share between training and test, and that its seed reaches every draw."""

import dataclasses
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bhi_utils.core import provenance
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.studies import leakage, study_base

ARMS = list(leakage.ARMS)
FOLDS = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A phantom whose case ids have gaps: consecutive ones are a single run, which no split by runs could deal."""
    folder = tmp_path_factory.mktemp("source")
    dense = synthetic_cohort.write(folder / "dense.zip", cases=9, patches_per_case=24, seed=1, nested=False)
    with zipfile.ZipFile(dense) as given, zipfile.ZipFile(folder / "small.zip", "w") as made:
        made.comment = given.comment
        for name in (name for name in given.namelist() if name.endswith(".png")):
            case, label, rest = re.fullmatch(r"(\d+)/(.)/\d+(_idx5.*)", name).groups()
            made.writestr(f"{case}0/{label}/{case}0{rest}", given.read(name))
    return folder / "small.zip"


@pytest.fixture(scope="module")
def pack(source) -> archive.Pack:
    return archive.pack(source, source.parent, progress=False)


def mean_colours(fetch, count, *_):
    """The mean colours of a patch's quarters, in place of the frozen network's features."""
    patches = np.asarray(fetch(np.arange(count)), np.float32)
    return patches.reshape(-1, 2, 25, 2, 25, 3).mean(axis=(2, 4)).reshape(count, -1)


def prepared(pack: archive.Pack, seed: int) -> leakage.Material:
    return leakage.prepare(pack, mean_colours, folds=FOLDS, seed=seed)


@pytest.fixture(scope="module")
def material(pack):
    return prepared(pack, seed=0)


def drawn(material: leakage.Material, arm: str, seed: int) -> list[tuple]:
    """Every fold of an arm: training features, tested features, their rows, and which of them are synthetic."""
    return [(train, test, rows, synthetic) for train, _, test, rows, synthetic in leakage._folds(material, arm, seed=seed)]


@pytest.mark.parametrize("arm", ARMS)
def test_each_arm_tests_every_real_patch_once_and_shares_what_its_name_says(material, arm):
    cases, found = material.manifest["case"].to_numpy(), drawn(material, arm, 0)
    rows = np.concatenate([rows[~synthetic] for _, _, rows, synthetic in found])
    assert sorted(rows) == list(range(len(cases)))
    assert any(synthetic.any() for *_, synthetic in found) == ("mixture" in arm)
    real = {row.tobytes(): place for place, row in enumerate(material.real)}
    for train, test, rows, synthetic in found:
        learned = np.array([real[row.tobytes()] for row in train if row.tobytes() in real])
        assert not set(learned) & set(rows[~synthetic])
        shared = np.isin(cases[rows], cases[learned]).any()
        assert shared == ("image" in arm) and (len(train) > len(learned)) == ("SMOTE" in arm) and len(test) == len(rows)


def test_smote_after_the_split_has_no_parent_among_the_tested_and_before_it_has(material):
    for number, (plan, _) in enumerate(material.inside):
        assert (material.folds["case"][np.r_[plan.base, plan.neighbour]] != number).all()
    fold = material.folds["case"]
    assert (fold[material.plan.base] != fold[material.plan.neighbour]).any()


@pytest.mark.parametrize("arm", [arm for arm in ARMS if "before, image" in arm])
def test_the_seed_reaches_the_shuffle_of_real_and_synthetic_patches(material, arm):
    """Material of one seed and a model without draws of its own, so that nothing but this one can differ."""
    one, same, other = (leakage.predict(material, arm, "logistic regression", seed=seed) for seed in (0, 0, 1))
    assert one.equals(same) and not one["row"].equals(other["row"])


def test_seed_0_draws_what_the_recorded_result_was_drawn_with(material):
    count, extra = len(material.manifest), len(material.plan)
    recorded = splits.image_folds(count + extra, seed=extra, folds=FOLDS)[:count]
    for number, (_, _, rows, synthetic) in enumerate(drawn(material, "SMOTE before, image", 0)):
        assert sorted(rows[~synthetic]) == list(np.flatnonzero(recorded == number))
    assert provenance.result(leakage.RESULTS)["parameters"]["seed"] == 0


@pytest.fixture(scope="module")
def again(pack):
    """The same seed once more, and another."""
    return prepared(pack, seed=0), prepared(pack, seed=5)


@pytest.mark.parametrize("arm", ARMS)
def test_another_seed_gives_every_arm_other_draws_and_the_same_seed_the_same_answers(material, again, arm):
    name = "one hidden layer"
    one, same = (leakage.predict(each, arm, name, seed=0) for each in (material, again[0]))
    assert one.equals(same)
    assert not leakage.predict(again[1], arm, name, seed=5)["probability"].equals(one["probability"])
    assert set(one) == {"case", "row", "synthetic", "label", "logit", "probability"} and one["probability"].between(0, 1).all()


def test_an_arm_that_shares_a_case_or_a_parent_against_its_name_is_stopped(material):
    mixed = material.folds | {"case": material.folds["image"]}
    with pytest.raises(ValueError, match="A case is in training and test of the arm 'case'"):
        drawn(dataclasses.replace(material, folds=mixed), "case", 0)
    with pytest.raises(ValueError, match="parent outside"):
        drawn(dataclasses.replace(material, inside=[(material.plan, material.synthetic)] * FOLDS), "SMOTE after, case", 0)


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["mean-colours", "frozen-network"])
def test_the_study_measures_every_arm_with_intervals_and_writes_what_it_returns(source, tmp_path, monkeypatch, request, quick):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    if quick:
        monkeypatch.setattr(study_base, "frozen_features", lambda *_, **__: mean_colours)
    run, weights = Run.open(tmp_path / "run"), "none there" if quick else str(request.getfixturevalue("weights"))
    result = leakage.study(run, str(source), weights=weights, image_size=32, folds=FOLDS, seed=3, resamples=4)
    assert run.read_json("leakage.json") == result and result["parameters"] == {"image_size": 32, "folds": FOLDS, "seed": 3}
    assert set(result["models"]) == set(leakage.HEADS) and set(result) == set(provenance.result(leakage.RESULTS))
    for arms in result["models"].values():
        assert list(arms) == ARMS
        assert all(found["low"] <= found["high"] for arm in arms.values() for found in arm.values())
    assert list(leakage.table(result).index) == ARMS and len(leakage.differences(result)) == len(leakage.PAIRS)
    assert set(leakage.by_neighbour(result)["model"]) == set(leakage.HEADS)
