"""Out of fold: each patch is answered once, by a model that has not seen its case, with what that fold's validation cases decided."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss, roc_auc_score

from bhi_utils.core.paths import InputError
from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation.calibration import fit_calibration
from bhi_utils.training import cross_validation


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> archive.Pack:
    cache = tmp_path_factory.mktemp("cache")
    return archive.pack(
        synthetic_cohort.write(cache / "small.zip", cases=12, patches_per_case=30, seed=1, nested=False), cache, progress=False
    )


@pytest.fixture(scope="module")
def dealt(pack, tmp_path_factory) -> list[cross_validation.Fold]:
    return cross_validation.deal(pack, tmp_path_factory.mktemp("folds"), folds=4, seed=0)


@pytest.fixture(scope="module")
def frame(pack, dealt):
    arm = cross_validation.linear(cross_validation.colour_histograms(pack.patches))
    return cross_validation.out_of_fold(dealt, arm, recall=0.9)[""]


def test_each_patch_is_answered_once_by_a_fold_that_did_not_train_on_its_case(pack, dealt, frame):
    assert sorted(frame["row"]) == list(range(len(pack.manifest)))
    for fold in dealt:
        cases = set(frame.loc[frame["fold"] == fold.number, "case"])
        used = {part: set(pack.manifest["case"].to_numpy()[fold.rows(part)]) for part in ("train", "val", "test")}
        assert cases == used["test"] and not used["test"] & (used["train"] | used["val"])
        assert not used["train"] & used["val"]


def test_folds_keep_their_checkpoints_apart(dealt):
    assert len({fold.folder for fold in dealt}) == len(dealt)


def test_the_threshold_and_calibration_come_from_validation_rows_alone(dealt):
    fold = dealt[0]
    random = np.random.default_rng(0)
    valid = random.normal(size=len(fold.rows("val"))) + fold.labels("val")
    one = cross_validation.answers(fold, {"val": valid, "test": random.normal(size=len(fold.rows("test")))}, recall=0.8)
    other = cross_validation.answers(fold, {"val": valid, "test": random.normal(size=len(fold.rows("test")))}, recall=0.8)
    threshold = one["logit"] - one["margin"]
    np.testing.assert_allclose(threshold, (other["logit"] - other["margin"]).iloc[0])
    assert (valid[fold.labels("val") == 1] >= threshold.iloc[0]).mean() >= 0.8
    calibration = fit_calibration(fold.labels("val"), valid)
    np.testing.assert_allclose(one["probability_calibrated"], calibration.apply(one["logit"]))


def test_a_network_without_skill_says_the_share_of_idc_of_its_validation_rows(dealt):
    parts = []
    for fold in dealt:
        backwards = {part: -5.0 * fold.labels(part) + 1e-3 * np.arange(len(fold.rows(part))) for part in ("val", "test")}
        parts.append(cross_validation.answers(fold, backwards, recall=0.9))
        np.testing.assert_allclose(parts[-1]["probability_calibrated"], fold.labels("val").mean())
    found = cross_validation.pooled(pd.concat(parts, ignore_index=True), resamples=50)
    assert found["auc"]["low"] < 0.5 < found["auc"]["high"] and found["auc"]["value"] == pytest.approx(0.5, abs=0.15)
    constant = dealt[0]
    flat = {part: np.zeros(len(constant.rows(part))) for part in ("val", "test")}
    assert cross_validation.answers(constant, flat, recall=0.9)["probability_calibrated"].nunique() == 1


def test_pooled_metrics_rank_by_calibrated_answers_and_decide_by_each_folds_threshold(frame):
    found = cross_validation.pooled(frame, resamples=50)
    called = frame["margin"] >= 0
    positive = frame["label"] == 1
    assert found["recall"]["value"] == pytest.approx((called & positive).sum() / positive.sum())
    assert found["precision"]["value"] == pytest.approx((called & positive).sum() / called.sum())
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(frame["label"], frame["probability_calibrated"]))
    assert found["brier"]["value"] == pytest.approx(brier_score_loss(frame["label"], frame["probability_calibrated"]))
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]


def test_each_fold_is_ranked_by_its_own_logits(frame):
    expected = [roc_auc_score(part["label"], part["logit"]) for _, part in frame.groupby("fold")]
    found = cross_validation.by_fold(frame)
    assert found["fold_auc"] == pytest.approx(expected) and found["mean_fold_auc"] == pytest.approx(np.mean(expected))


def test_paired_differences_are_those_of_the_values(frame):
    worse = frame.assign(margin=-frame["margin"], probability_calibrated=1 - frame["probability_calibrated"])
    found = cross_validation.paired(frame, worse, resamples=20)
    expected = cross_validation.pooled(frame, resamples=0)["auc"]["value"] - cross_validation.pooled(worse, resamples=0)["auc"]["value"]
    assert found["auc"]["value"] == pytest.approx(expected) and found["auc"]["low"] <= found["auc"]["high"]


def test_fewer_cases_and_fewer_patches_are_parts_of_more_and_leave_validation_and_test_alone(dealt):
    fold = dealt[1]
    for kind in ("cases", "patches"):
        half, all_but_few = (cross_validation.thinned(fold, seed=3, **{kind: share}) for share in (0.5, 0.9))
        assert set(half.rows("train")) < set(all_but_few.rows("train")) < set(fold.rows("train"))
        for part in ("val", "test"):
            np.testing.assert_array_equal(half.rows(part), fold.rows(part))
    few = cross_validation.thinned(fold, seed=3, cases=0.5)
    assert len(few.cases("train")) == round(0.5 * len(fold.cases("train")))
    assert set(fold.rows("train")[np.isin(fold.pack.manifest["case"].to_numpy()[fold.rows("train")], few.cases("train"))]) == set(
        few.rows("train")
    )
    thin = cross_validation.thinned(fold, seed=3, patches=0.25)
    assert set(thin.cases("train")) == set(fold.cases("train")) and len(thin.labels("train")) == len(thin.rows("train"))
    counted = cross_validation.thinned(fold, seed=3, count=17)
    assert len(counted.rows("train")) == 17 and len(set(counted.rows("train"))) == 17
    with pytest.raises(InputError, match="9,999 training patches must be there"):
        cross_validation.thinned(fold, seed=3, count=9999)


def test_a_thinned_fold_trains_on_its_rows_alone_and_its_seconds_are_kept(dealt, tmp_path):
    def arm(fold):
        seen.append(fold.rows("train"))
        return {
            "": {part: fold.labels(part) + random.normal(size=len(fold.rows(part))) for part in ("val", "test")}
            | {"seconds": np.array(7.5)}
        }

    seen, random = [], np.random.default_rng(0)
    thin = [cross_validation.thinned(fold, seed=0, count=9) for fold in dealt]
    first = cross_validation.out_of_fold(thin, arm, recall=0.5, keep=tmp_path)[""]
    again = cross_validation.out_of_fold(thin, arm, recall=0.5, keep=tmp_path)[""]
    assert [len(rows) for rows in seen] == [9] * len(dealt) and set(first["seconds"]) == {7.5}
    assert first.equals(again)


def test_a_histogram_of_each_colour_adds_up_to_one(pack):
    found = cross_validation.colour_histograms(pack.patches[:5])
    assert found.shape == (5, 3 * cross_validation.BINS)
    np.testing.assert_allclose(found.reshape(5, 3, -1).sum(axis=2), 1, rtol=1e-6)
    flat = np.full((1, 50, 50, 3), (0, 128, 255), dtype=np.uint8)
    assert np.flatnonzero(cross_validation.colour_histograms(flat)[0]).tolist() == [
        0,
        cross_validation.BINS + 8,
        3 * cross_validation.BINS - 1,
    ]


def test_a_study_that_was_stopped_goes_on_with_the_folds_it_has(dealt, tmp_path):
    fitted = []

    def arm(fold):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(fold.number)
        random = np.random.default_rng(fold.number)
        return {"": {part: fold.labels(part) + random.normal(size=len(fold.rows(part))) for part in ("val", "test")}}

    with pytest.raises(KeyboardInterrupt):
        cross_validation.out_of_fold(dealt, arm, recall=0.9, keep=tmp_path)
    stopped = list(fitted)
    fitted.clear()
    found = cross_validation.out_of_fold(dealt[:3], arm, recall=0.9, keep=tmp_path)[""]
    assert stopped == [0, 1] and fitted == [2]
    np.testing.assert_allclose(found["probability"], expit(found["logit"]))


def test_no_fold_at_all_is_one_sentence():
    with pytest.raises(InputError, match="no fold to fit"):
        cross_validation.out_of_fold([], lambda fold: {}, recall=0.9)
