"""The studies of single choices: an arm changes what it says, all answer for the same patches, and a law is fitted as it is written."""

import copy
import json

import numpy as np
import pandas as pd
import pytest

from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.core.run import Run
from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import networks
from bhi_utils.studies import ablations, figures, recipes, study_base

pytestmark = pytest.mark.usefixtures("cache")

TINY = {"IMAGE_SIZE": 64, "CNN_IMAGE_SIZE": 32, "EPOCHS": 2, "FINE_TUNE_RATE": 0.001}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("source")
    return str(synthetic_cohort.write(folder / "small.zip", cases=12, patches_per_case=40, seed=1, nested=False))


@pytest.fixture(scope="module")
def quick():
    """Instead of fine-tuning, which other tests cover: the label and noise, other noise for other values. Gives the rows learned from."""
    learned = []

    def fine_tuned(values, *, weights, seed, answer_views=8):
        def fit(fold):
            learned.append(fold.rows("train"))
            random = np.random.default_rng([seed, len(learned[-1]), *json.dumps(values, sort_keys=True).encode()])
            ways = [""] if answer_views == 1 else ["", f", {answer_views} views"]
            return {
                way: {part: fold.labels(part) + random.normal(size=len(fold.rows(part))) for part in ("val", "test")}
                | {"seconds": np.array(60.0)}
                for way in ways
            }

        return fit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_base, "fine_tuned", fine_tuned)
        yield learned


@pytest.fixture(scope="module")
def made(source, quick, tmp_path_factory):
    """Ablations and a learning curve with two points on a small phantom; the custom CNN is trained in earnest."""
    run = Run.open(tmp_path_factory.mktemp("run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablations, "BASE", ablations.BASE | TINY)
        patch.setattr(ablations, "SHARES", (0.4, 1.0))
        result = ablations.study(run, source, weights="imagenet", per_case=20, resamples=20)
        curve = ablations.learning_curve(run, source, weights="imagenet", resamples=20)
    return run, result, curve


def test_each_question_changes_what_it_asks_about_and_has_its_own_words():
    changed = {name for change in ablations.changes().values() for name in change}
    assert changed <= set(ablations.BASE)
    for change in ablations.changes().values():
        assert len(change) == 1 and all(ablations.BASE[name] != value for name, value in change.items())
    asked = {change["BALANCE"] for (question, _), change in ablations.changes().items() if question == "balance"}
    assert asked | {ablations.BASE["BALANCE"]} == {"none", "class_weight", "oversample", "smote", "feature_smote"}
    sides = {change["IMAGE_SIZE"] for (question, _), change in ablations.changes().items() if question == "resolution"}
    assert sides | {ablations.BASE["IMAGE_SIZE"]} == {96, 128, 160, 200, 224}


def test_every_arm_has_intervals_minutes_and_its_difference_from_the_base(made):
    run, result, _ = made
    assert json.loads((run.artifacts / ablations.RESULTS).read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    names = [(row["question"], row["arm"]) for row in result["arms"]]
    assert set(names) == {("", "base"), ("answer", "mean of eight views"), ("network", "custom CNN"), *ablations.changes()}
    base = result["arms"][0]
    for row in result["arms"]:
        assert row["minutes"] > 0 and row["auc"]["low"] <= row["auc"]["value"] <= row["auc"]["high"], row["arm"]
        if row is not base:
            assert row["difference"]["value"] == pytest.approx(row["auc"]["value"] - base["auc"]["value"])
    value = {row["arm"]: row["auc"]["value"] for row in result["arms"]}
    assert [(row["question"], row["first"], row["second"]) for row in result["pairs"]] == list(ablations.PAIRS)
    for row in result["pairs"]:
        assert row["difference"]["value"] == pytest.approx(value[row["first"]] - value[row["second"]])
        assert row["difference"]["low"] < row["difference"]["value"] < row["difference"]["high"]
    assert list(ablations.pairs_table(result).index) == [f"{first} − {second}" for _, first, second in ablations.PAIRS]
    assert base["difference"] is None and len({round(row["auc"]["value"], 6) for row in result["arms"]}) == len(names)


def test_tables_and_figure_show_every_arm_and_call_none_better_whose_interval_holds_zero(made):
    result = made[1]
    for question in ablations.HERE:
        shown = ablations.table(result, question)
        assert shown.index[0] == f"{ablations.HERE[question]} (base)" and len(shown) == 1 + sum(
            row["question"] == question for row in result["arms"]
        )
    for verdict, row in zip(ablations.verdicts(result)["verdict"], result["arms"][1:], strict=True):
        gap = row["difference"]
        assert (verdict == "not told apart") == (gap["low"] <= 0 <= gap["high"])
    figure = figures.ablations(result)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [row["arm"] for row in result["arms"][1:]]


def test_an_arm_far_from_all_others_is_named_at_the_edge_and_leaves_them_their_room(made):
    changed = copy.deepcopy(made[1])
    for number, row in enumerate(changed["arms"][1:]):
        value = -0.4 if number == 0 else 0.01
        row["difference"] = {"value": value, "low": value - 0.01, "high": value + 0.01}
    axis = figures.ablations(changed).axes[0]
    assert [text.get_text() for text in axis.texts if "◀" in text.get_text()] == ["◀ -0.400 (-0.410 to -0.390)"]
    assert axis.get_xlim() == pytest.approx((-0.023, 0.023))


def test_a_learning_curve_grows_by_cases_and_by_patches_and_ends_in_the_same_point(made):
    run, _, curve = made
    assert (run.artifacts / ablations.CURVE).is_file()
    (fewer, all_cases), (thinner, all_patches) = curve["cases"], curve["patches"]
    assert fewer["cases"] < all_cases["cases"] == thinner["cases"] == all_patches["cases"]
    assert thinner["patches"] < all_patches["patches"] == all_cases["patches"] and all_cases["auc"] == all_patches["auc"]
    assert len(ablations.curve_table(curve)) == 4 and len(figures.learning_curve(curve).axes) == 2
    shown = ablations.curve_result(curve)
    assert list(shown["more"]) == ["cases", "patches"] and list(shown["archive"]) == [279, 277_524]
    assert shown["gain"].to_numpy() == pytest.approx((shown["AUC at the archive"] - shown["AUC here"]).to_numpy(), abs=2e-3)
    assert curve["forecast"]["cases"]["at"] == 279 and curve["forecast"]["patches"]["at"] == 277_524


def test_a_power_law_is_found_again():
    sizes = np.array([10, 40, 160.0])
    # the data, four draws, and three cases left out
    factors = np.array([0.5, 0.4, 0.6, 0.45, 0.55, 0.5, 0.48, 0.52])
    found = ablations.extrapolate(sizes, 1 - factors * sizes[:, None] ** -0.25, 3, at=640)
    assert found["exponent"] == pytest.approx(-0.25) and found["factor"] == pytest.approx(0.5)
    value = 1 - 0.5 * 640**-0.25
    assert found["auc"]["value"] == pytest.approx(value) and 0 < found["auc"]["low"] < value < found["auc"]["high"] < 1


def test_the_published_recipe_and_the_fast_one_learn_the_same_patches_of_one_fold(source, quick, tmp_path, monkeypatch):
    tiny = TINY | {"BALANCE": "class_weight", "BATCH_SIZE": 16, "FINE_TUNE_BLOCKS": 1}
    monkeypatch.setattr(recipes, "settings", lambda recipe: tiny | ({"VIEWS": 2} if recipe == "fast" else {"BALANCE": "smote"}))
    monkeypatch.setattr(recipes, "EPOCHS", 3)
    monkeypatch.setattr(recipes, "PATCHES", 90)
    run = Run.open(tmp_path)
    quick.clear()
    result = recipes.paper_study(run, source, weights="imagenet", number=3, resamples=20)
    fast, paper = quick
    assert len(fast) == 90 and set(fast) == set(paper)
    values = result["values"]
    assert (values["fast"]["VIEWS"], values["paper"]["VIEWS"], values["paper"]["BALANCE"]) == (2, 0, "smote")
    reached = {name: found["auc"]["value"] for name, found in result["models"].items()}
    gap = reached["fast"] - reached["paper"]
    assert result["difference"]["auc"]["value"] == pytest.approx(gap) and min(result["minutes"].values()) >= 0
    shown = recipes.paper_table(result)
    assert shown.loc["fast − paper", "AUC"].startswith(f"{gap:+.3f} (") and (result["epochs"], result["patches"]) == (3, 90)
    assert list(shown.index) == ["recipe paper", "recipe fast", "fast − paper"]
    monkeypatch.setattr(recipes, "PATCHES", 90_000)
    with pytest.raises(InputError, match="90,000 training patches must be there"):
        recipes.paper_study(run, source, weights="imagenet", number=3)


@pytest.mark.slow
def test_what_the_ablations_change_changes_the_network(weights):
    patches = np.random.default_rng(0).integers(0, 256, (4, 50, 50, 3)).astype(np.float32)
    usual, raw = (networks.efficientnetb0(image_size=48, weights=weights, seed=0, input_range=given) for given in (255, 1))
    assert not np.allclose(usual.predict_on_batch(patches), raw.predict_on_batch(patches))
    networks.unfreeze(usual, 1, batchnorm=True)
    learning = {layer.name for layer in usual.layers if layer.trainable and layer.name.endswith("_bn")}
    assert learning == {"block7a_expand_bn", "block7a_bn", "block7a_project_bn", "top_bn"}


def test_a_sampled_data_set_keeps_every_case_and_has_a_fingerprint_of_its_own(source):
    whole = archive.pack(archive.find_source(source, cache=cache_dir()), cache_dir())
    few, again, other = (study_base.sampled(whole, 7, seed=seed) for seed in (0, 0, 1))
    counts = few.manifest.groupby("case").size()
    assert set(counts.index) == set(whole.manifest["case"]) and (counts == 7).all() and few.info["patches"] == len(few.manifest)
    np.testing.assert_array_equal(few.patches, again.patches)
    assert few.info["fingerprint"] == again.info["fingerprint"] and few.info["positive"] == few.manifest["label"].sum()
    assert len({pack.info["fingerprint"] for pack in (whole, few, other)}) == 3 and not np.array_equal(few.patches, other.patches)
    place = ["case", "x", "y"]
    rows = pd.MultiIndex.from_frame(whole.manifest[place]).get_indexer(pd.MultiIndex.from_frame(few.manifest[place]))
    np.testing.assert_array_equal(few.patches, whole.patches[rows])
    all_of_them = study_base.sampled(whole, 10_000, seed=0)
    pd.testing.assert_frame_equal(all_of_them.manifest, whole.manifest)
