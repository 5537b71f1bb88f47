"""Metrics agree with scikit-learn and with a worked confusion matrix; intervals come from cases; thresholds keep their promise."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn import metrics as sk

from bhi_utils import metrics
from bhi_utils.paths import InputError


def scored(cases: int = 20, patches: int = 40, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    case = np.repeat(np.arange(cases), patches)
    label = (generator.random(case.size) < generator.uniform(0.1, 0.6, cases)[case]).astype(int)
    logit = 1.5 * label - 1 + generator.normal(0, 1, case.size) + generator.normal(0, 0.7, cases)[case]
    logit = np.round(logit, 1)  # ties
    return pd.DataFrame({"case": case, "label": label, "logit": logit, "probability": expit(logit)})


def test_every_metric_equals_scikit_learns():
    frame = scored()
    y, p = frame.label, frame.probability
    answer = p >= 0.4
    ours = {name: m["value"] for name, m in metrics.evaluate(frame, threshold=0.4, resamples=0).items()}
    theirs = {
        "auc": sk.roc_auc_score(y, p),
        "auprc": sk.average_precision_score(y, p),
        "recall": sk.recall_score(y, answer),
        "precision": sk.precision_score(y, answer),
        "specificity": sk.recall_score(y, answer, pos_label=0),
        "binary_accuracy": sk.accuracy_score(y, answer),
        "balanced_accuracy": sk.balanced_accuracy_score(y, answer),
        "f1": sk.f1_score(y, answer),
        "loss": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, p),
        "threshold": 0.4,
    }
    ece = ours.pop("ece")
    assert ours == pytest.approx(theirs, rel=1e-12)
    table = metrics.reliability(y, p)
    assert ece == pytest.approx((np.abs(table.probability - table.share) * table.patches).sum() / len(frame))


def test_sensitivity_and_specificity_of_a_known_confusion_matrix_are_not_swapped():
    # 8 of 10 IDC+ found, 30 of 90 IDC− called IDC+
    label = np.r_[np.ones(10), np.zeros(90)].astype(int)
    probability = np.r_[np.full(8, 0.9), np.full(2, 0.1), np.full(30, 0.9), np.full(60, 0.1)]
    frame = pd.DataFrame({"case": 1, "label": label, "logit": np.log(probability / (1 - probability)), "probability": probability})
    result = metrics.evaluate(frame, threshold=0.5, resamples=0)
    assert result["recall"]["value"] == pytest.approx(0.8)
    assert result["specificity"]["value"] == pytest.approx(60 / 90)
    assert result["precision"]["value"] == pytest.approx(8 / 38)
    assert metrics.confusion(label, probability, threshold=0.5).tolist() == [[60, 30], [2, 8]]


def test_intervals_equal_those_of_a_plain_loop_over_resampled_cases():
    frame = scored(cases=8, patches=15)
    result = metrics.evaluate(frame, threshold=0.5, resamples=50, seed=4)
    groups = [group for _, group in frame.groupby("case")]
    draws = np.random.default_rng(4).integers(0, 8, (50, 8))
    samples = [pd.concat([groups[i] for i in row]) for row in draws]
    for name, loop in {
        "auc": [sk.roc_auc_score(s.label, s.probability) for s in samples],
        "auprc": [sk.average_precision_score(s.label, s.probability) for s in samples],
        "recall": [sk.recall_score(s.label, s.probability >= 0.5) for s in samples],
    }.items():
        assert [result[name]["low"], result[name]["high"]] == pytest.approx(np.percentile(loop, [2.5, 97.5]))


def test_intervals_by_case_are_wider_than_by_patch():
    frame = scored()
    by_case = metrics.evaluate(frame, threshold=0.5)["auc"]
    by_patch = metrics.evaluate(frame.assign(case=np.arange(len(frame))), threshold=0.5)["auc"]
    assert by_case["high"] - by_case["low"] > 1.3 * (by_patch["high"] - by_patch["low"])


@pytest.mark.parametrize("recall", [0.5, 0.93, 1.0])
def test_threshold_reaches_the_recall_and_no_higher_one_does(recall):
    frame = scored()
    threshold = metrics.threshold_for_recall(frame.label, frame.probability, recall=recall)
    positive = frame.probability[frame.label == 1]
    assert (positive >= threshold).mean() >= recall
    lowest_found = positive[positive >= threshold].min()
    assert (positive > lowest_found).mean() < recall
    assert not frame.probability.between(threshold, lowest_found, inclusive="left").any()


def test_calibration_recovers_a_known_distortion_and_moves_the_threshold_with_it():
    generator = np.random.default_rng(1)
    true_logit = generator.normal(-1, 1.5, 40_000)
    label = (generator.random(true_logit.size) < expit(true_logit)).astype(int)
    distorted = 2 * true_logit + 1.5
    fit = metrics.fit_calibration(label, distorted)
    assert (fit.slope, fit.intercept) == pytest.approx((0.5, -0.75), abs=0.03)
    decided = expit(distorted) >= 0.7
    np.testing.assert_array_equal(fit.apply(distorted) >= fit.move(0.7), decided)


def test_no_patch_called_positive_gives_precision_zero_not_nan():
    result = metrics.evaluate(scored(), threshold=1.1, resamples=20)
    assert result["precision"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(("change", "sentence"), [({"label": 1}, "Only one class"), ({"logit": np.nan}, "not numbers")])
def test_one_class_and_nan_are_one_sentence(change, sentence):
    with pytest.raises(InputError, match=sentence):
        metrics.evaluate(scored().assign(**change), threshold=0.5)


def test_a_model_without_skill_cannot_be_calibrated():
    frame = scored()
    with pytest.raises(InputError, match="no better than chance"):
        metrics.fit_calibration(frame.label, -frame.logit)
