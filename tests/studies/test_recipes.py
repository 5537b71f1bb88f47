"""The recipes' study: a profile is what is trained, every model answers for the same patches, a release knows what it has seen."""

import json
import os

import numpy as np
import pytest

from bhi_utils.core import provenance
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation import failures
from bhi_utils.model import bundles
from bhi_utils.model.predictor import Predictor
from bhi_utils.runner import parameters
from bhi_utils.studies import figures, recipes, study_base

WEIGHTS = os.environ.get("BHI_TEST_WEIGHTS", "")
TINY = {"IMAGE_SIZE": 64, "CNN_IMAGE_SIZE": 32, "BALANCE": "class_weight", "BATCH_SIZE": 32, "EPOCHS": 3}
TINY |= {"FINE_TUNE_BLOCKS": 1, "FINE_TUNE_RATE": 0.001, "VIEWS": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study and a release on a small phantom."""
    if not WEIGHTS:
        pytest.skip("BHI_TEST_WEIGHTS names no ImageNet weight file")
    folder = tmp_path_factory.mktemp("recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BHI_CACHE", str(folder / "cache"))
        patch.setattr(recipes, "settings", lambda recipe: TINY)
        patch.setattr(study_base, "PROBE_SIZE", 64)
        source = synthetic_cohort.write(folder / "small.zip", cases=12, patches_per_case=40, seed=1, nested=False)
        run = Run.open(folder / "run")
        result = recipes.study(run, str(source), weights=WEIGHTS, number=3, resamples=20, names=("fast", "probe", "colour"))
        files = recipes.release(run, str(source), weights=WEIGHTS, folder=folder / "trained")
        yield run, result, files, str(source)


def test_a_recipe_is_what_its_profile_says():
    for recipe, profile in recipes.PROFILES.items():
        kept = recipes.settings(recipe)
        assert kept.items() <= parameters.read_profile(profile).items() and {"IMAGE_SIZE", "BALANCE", "EPOCHS", "BATCH_SIZE"} <= set(kept)
    paper = recipes.settings("paper")
    assert (paper["IMAGE_SIZE"], paper["BATCH_SIZE"], paper["EPOCHS"], paper["BALANCE"]) == (200, 8, 15, "smote")


def test_every_model_answers_each_patch_once_and_the_result_is_whole(made):
    run, result, *_ = made
    answers = run.read_csv("out_of_fold.csv.gz")
    for _, frame in answers.groupby("model"):
        assert sorted(frame["row"]) == list(range(result["data"]["patches"]))
    assert set(result["models"]) == {"fast", "fast, 8 views", "probe", "colour"} == set(answers["model"])
    assert set(result["differences"]) == {"fast − probe", "fast, 8 views − fast"}
    assert json.loads((run.artifacts / recipes.RESULTS).read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    for name, curve in result["curve"].items():
        assert [row["recall"] for row in curve] == sorted(row["recall"] for row in curve), name
        assert all(0 < row["precision"] <= 1 for row in curve)


def test_labels_of_every_case_are_doubted_by_the_first_model(made):
    run, result, *_ = made
    listed, found = run.read_csv("suspects.csv"), result["suspects"]
    assert found["model"] == "fast" and found["patches"] == len(listed) and found["of"] == result["data"]["patches"]
    answers = run.read_csv("out_of_fold.csv.gz").query("model == 'fast'")
    against = np.where(answers["label"] == 1, 1 - answers["probability_calibrated"], answers["probability_calibrated"])
    assert len(listed) <= (against >= failures.SURE).sum()
    assert (listed["disagree"] / listed["neighbours"] >= failures.NEIGHBOURS).all()


def test_parts_fitted_apart_are_the_same_fits(made, tmp_path, monkeypatch):
    whole, source = made[1], made[3]
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recipes, "settings", lambda recipe: TINY)
    monkeypatch.setattr(recipes, "CNN", {"CNN_EPOCHS": 4})
    run = Run.open(tmp_path / "run")
    apart = recipes.study(run, source, weights=WEIGHTS, number=3, resamples=20, names=("cnn", "colour"), results="custom_cnn.json")
    assert apart["models"]["colour"]["auc"] == pytest.approx(whole["models"]["colour"]["auc"])
    assert set(apart["differences"]) == {"cnn − colour", "cnn, 8 views − colour"}
    assert apart["parameters"]["values"] == TINY | {"CNN_EPOCHS": 4} and whole["parameters"]["values"] == TINY
    assert not apart["curve"] and apart["suspects"]["model"] == "cnn" and (run.artifacts / "custom_cnn.json").is_file()
    goals = recipes.goals(whole | {"differences": whole["differences"] | apart["differences"]})
    for column, way in (("one view", "cnn"), ("eight views", "cnn, 8 views")):
        gap = apart["models"][way]["auc"]["value"] - apart["models"]["colour"]["auc"]["value"]
        assert goals.loc["CNN over colour", column] == pytest.approx(gap)


def test_tables_and_figure_show_what_the_result_holds(made):
    result = made[1]
    shown = recipes.table(result)
    assert list(shown.index) == [recipes.NAMES[name] for name in result["models"]]
    assert shown.iloc[0]["pooled AUC"].startswith(f"{result['models']['fast']['auc']['value']:.3f} (")
    assert len(recipes.differences(result)) == len(result["differences"])
    goals = recipes.goals(result)
    gain = result["models"]["fast"]["auc"]["value"] - result["models"]["probe"]["auc"]["value"]
    assert goals.loc["gain over the probe", "one view"] == pytest.approx(gain)
    reached = goals[["one view", "eight views"]].max(axis=1) >= goals["wanted"]
    assert list(goals["reached"]) == ["yes" if one else "no" for one in reached] and np.isnan(goals["one view"].iloc[-1])
    figure = figures.recipes(result)
    assert len(figure.axes) == 2 and figure.axes[0].get_yticklabels()[0].get_text().startswith("EfficientNetB0")


def test_a_release_answers_knows_its_cases_and_quotes_out_of_fold_metrics(made):
    run, result, files, _ = made
    bundle = next(path for path in files if path.name.endswith(".bundle.json"))
    content = json.loads(bundle.read_text(encoding="utf-8"))
    cases = set(run.read_csv("out_of_fold.csv.gz")["case"])
    assert set(content["train_cases"]) | set(content["validation_cases"]) == cases
    assert not set(content["train_cases"]) & set(content["validation_cases"])
    assert content["metrics"]["out_of_fold"]["auc"] == result["models"]["fast"]["auc"]
    assert content["metrics"]["early_stopping"]["recall"]["value"] >= 0.93
    assert content["threshold_rule"] == {"rule": "recall", "value": 0.93, "where": "early_stopping"}
    answer = Predictor.load(bundle).predict(np.full((2, 50, 50, 3), 200, dtype=np.uint8))
    assert np.isfinite(answer["probability"]).all()


def test_a_release_of_other_data_than_the_study_is_refused(made, tmp_path, monkeypatch):
    run = made[0]
    monkeypatch.setenv("BHI_CACHE", str(tmp_path))
    other = synthetic_cohort.write(tmp_path / "other.zip", cases=10, patches_per_case=20, seed=2, nested=False)
    with pytest.raises(InputError, match="made from other data"):
        recipes.release(run, str(other), weights=WEIGHTS, folder=tmp_path)


def test_the_record_in_the_package_is_of_real_patches_and_a_clean_commit():
    kept = recipes.recorded()
    assert kept["data"]["synthetic"] is False and kept["commit"] and "-dirty" not in kept["commit"]
    profile = parameters.read_profile(recipes.PROFILES["fast"])
    assert kept["parameters"]["values"] == {name: profile[name] for name in profile if name not in ("DATA", "WEIGHTS")} | recipes.CNN
    assert kept["resamples"] >= 2000
    whole, apart = provenance.result(recipes.RESULTS), provenance.result(recipes.CNN_RESULTS)
    same = ("data", "resamples")
    assert {name: apart[name] for name in same} == {name: whole[name] for name in same} and "-dirty" not in apart["commit"]
    first, second = (result["parameters"] | result["parameters"]["values"] for result in (whole, apart))
    differing = {name for name in first | second if first.get(name) != second.get(name)}
    assert differing <= {"values", "CNN_IMAGE_SIZE", "CNN_EPOCHS"}
    assert apart["models"]["colour"]["auc"]["value"] == pytest.approx(whole["models"]["colour"]["auc"]["value"], abs=1e-4)
    assert set(kept["models"]) == set(recipes.NAMES)
    packaged = json.loads(bundles.PACKAGED.read_text(encoding="utf-8"))
    assert packaged["metrics"]["out_of_fold"] == {name: kept["models"]["fast"][name] for name in packaged["metrics"]["out_of_fold"]}
