"""Metrics agree with scikit-learn and with worked examples; intervals come from cases; what does not exist is said, never made up."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from bhi_utils.core import titles
from bhi_utils.core.paths import InputError
from bhi_utils.evaluation import metrics


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
        "f1_macro": sk.f1_score(y, answer, average="macro"),
        "f1_weighted": sk.f1_score(y, answer, average="weighted"),
        "loss": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, p),
        "threshold": 0.4,
    }
    ece, slope, intercept = (ours.pop(name) for name in ("ece", "calibration_slope", "calibration_intercept"))
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert slope == pytest.approx(LogisticRegression(C=np.inf, tol=1e-12).fit(frame[["logit"]], y).coef_[0, 0], rel=1e-6)
    # in the large: with this intercept added, mean probability and share of IDC+ are equal
    assert expit(frame.logit + intercept).mean() == pytest.approx(y.mean(), rel=1e-9)
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


def test_every_draw_equals_scikit_learn_on_the_resampled_cases():
    frame = scored(cases=8, patches=15)
    cases, case = np.unique(frame.case, return_inverse=True)
    counts = metrics.draws(8, 15, seed=4)
    drawn = metrics.table(frame, case, np.vstack([np.ones(8), counts]), threshold=0.5)
    for row, count in enumerate(counts, start=1):
        sample = frame.loc[np.repeat(frame.index, count[case].astype(int))]
        y, p = sample.label, sample.probability
        assert drawn["auc"][row] == pytest.approx(sk.roc_auc_score(y, p))
        assert drawn["auprc"][row] == pytest.approx(sk.average_precision_score(y, p))
        assert drawn["f1_weighted"][row] == pytest.approx(sk.f1_score(y, p >= 0.5, average="weighted"))
        assert drawn["loss"][row] == pytest.approx(sk.log_loss(y, p))
    assert len(drawn["calibration_slope"]) == len(drawn["calibration_intercept"]) == 1, "they are not fitted to each draw"


def test_average_precision_without_ties_and_over_many_chunks_equals_scikit_learns():
    generator = np.random.default_rng(0)
    label, score, case = generator.random(4000) < 0.4, generator.random(4000), generator.integers(0, 7, 4000)
    assert metrics.average_precision(label, score, case, np.ones((1, 7)))[0] == pytest.approx(
        sk.average_precision_score(label, score), rel=1e-6
    )


def test_an_interval_is_students_t_on_the_logit_scale_with_the_larger_error():
    # worked by hand: value 0.9, ten cases, draws of 0.87 and 0.93; leaving out a case changes nothing, or as much as it can
    drawn, same = np.array([0.87, 0.93] * 500), np.full(10, 0.9)
    low, high = metrics.scaled(0.9, drawn, same, scale="share")
    reach = stats.t.ppf(0.975, 9) * np.std(drawn, ddof=1) * np.sqrt(10 / 9) / (0.9 * 0.1)
    assert (low, high) == pytest.approx((1 / (1 + np.exp(reach) / 9), 1 / (1 + np.exp(-reach) / 9)))
    left_out = same + np.array([0.02, -0.02] * 5)
    low, high = metrics.scaled(0.9, drawn, left_out, scale="plain")
    assert high - 0.9 == pytest.approx(0.9 - low) == pytest.approx(stats.t.ppf(0.975, 9) * np.sqrt(0.9 * 10 * 0.02**2))


def test_intervals_by_case_are_wider_than_by_patch():
    frame = scored()
    by_case = metrics.evaluate(frame, threshold=0.5, resamples=300)["auc"]
    by_patch = metrics.evaluate(frame.assign(case=np.arange(len(frame))), threshold=0.5, resamples=300)["auc"]
    assert by_case["high"] - by_case["low"] > 1.3 * (by_patch["high"] - by_patch["low"])


def test_differences_are_paired_and_each_model_keeps_its_threshold():
    first = scored()
    second = first.assign(logit=first.logit - 1, probability=expit(first.logit - 1))
    gap = metrics.difference(first, second, threshold=(0.5, float(expit(-1.0))), resamples=50)
    # the second ranks and, at its own threshold, decides exactly as the first
    assert gap["auc"] == gap["recall"] == {"value": 0.0, "low": None, "high": None}
    assert gap["calibration_intercept"]["value"] == pytest.approx(-1) and gap["brier"]["low"] < gap["brier"]["value"] < gap["brier"]["high"]


class TestWhatDoesNotExist:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"label": 1}, "Only one class"),
            ({"logit": np.nan}, "not numbers"),
            ({"probability": np.nan}, "not numbers"),
            ({"label": np.nan}, "neither 0 nor 1"),
            ({"logit": 0.3, "probability": 0.57}, "same answer"),
        ],
    )
    def test_one_class_nan_and_constant_answers_are_one_sentence(self, change, sentence):
        for measure in (metrics.evaluate, lambda frame, **_: metrics.difference(scored(), frame)):
            with pytest.raises(InputError, match=sentence):
                measure(scored().assign(**change), threshold=0.5)

    def test_an_empty_part_is_one_sentence(self):
        with pytest.raises(InputError, match="holds no patch"):
            metrics.evaluate(scored().iloc[:0], threshold=0.5)

    def test_a_case_without_positives_counts_and_draws_without_any_are_left_out(self):
        frame = scored(cases=6)
        frame.loc[frame.case > 0, "label"] = 0  # only case 0 has positives: about a third of the draws have none
        result = metrics.evaluate(frame, threshold=0.5, resamples=400)
        assert result["auc"]["value"] == pytest.approx(sk.roc_auc_score(frame.label, frame.probability))
        assert result["auc"]["low"] < result["auc"]["value"] < result["auc"]["high"]
        # and with too few draws left there is no interval
        assert metrics.scaled(0.8, np.r_[[np.nan] * 6, 0.7, 0.8, 0.9], np.full(6, 0.8), scale="share") == (None, None)

    def test_one_case_has_values_and_no_intervals(self):
        result = metrics.evaluate(scored().assign(case=1), threshold=0.5, resamples=50)
        assert result["auc"]["value"] > 0.5 and result["auc"]["low"] is None and result["loss"]["high"] is None

    def test_no_patch_called_positive_gives_precision_zero_without_an_interval(self):
        assert metrics.evaluate(scored(), threshold=1.1, resamples=20)["precision"] == {"value": 0.0, "low": None, "high": None}

    def test_a_share_of_one_keeps_a_bound_by_the_number_of_cases(self):
        recall = metrics.evaluate(scored(), threshold=0.0, resamples=20)["recall"]
        assert recall == {"value": 1.0, "low": pytest.approx(stats.beta.ppf(0.025, 20, 1)), "high": 1.0}

    def test_classes_parted_perfectly_have_no_slope(self):
        frame = scored()
        frame = frame.assign(logit=2.0 * frame.label - 1 + frame.logit / 100)
        result = metrics.evaluate(frame.assign(probability=expit(frame.logit)), threshold=0.5, resamples=20)
        assert result["calibration_slope"] == {"value": None, "low": None, "high": None}
        assert titles.cell(result["calibration_slope"]) == "–" and result["auc"]["value"] == 1.0

    def test_all_answers_tied_but_one_count_one_half(self):
        frame = scored()
        probability = np.full(len(frame), 0.4)
        probability[np.flatnonzero(frame.label == 1)[0]] = 0.6
        result = metrics.evaluate(frame.assign(probability=probability, logit=logit(probability)), threshold=0.5, resamples=20)
        assert result["auc"]["value"] == pytest.approx(sk.roc_auc_score(frame.label, probability))


def test_cells_read_well():
    assert titles.cell({"value": 0.9123, "low": 0.88, "high": 0.94}) == "0.912 (0.880–0.940)"
    assert titles.cell({"value": -0.2, "low": -0.3, "high": 0.1}) == "-0.200 (-0.300 to 0.100)"
    assert titles.cell({"value": 0.01, "low": -0.02, "high": 0.04}, sign=True) == "+0.010 (-0.020 to +0.040)"
    assert titles.cell({"value": 0.5, "low": None, "high": None}) == "0.500" and titles.cell(None) == "–"
