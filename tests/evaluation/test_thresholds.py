"""Every rule for the threshold keeps its word on validation cases; a rule that does not exist is one sentence."""

import json

import numpy as np
import pytest

from bhi_utils.core.paths import InputError
from bhi_utils.evaluation import metrics, thresholds


def answers(seed: int = 0, size: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label = (generator.random(size) < 0.3).astype(int)
    return label, np.round(np.clip(0.25 * label + generator.normal(0.35, 0.2, size), 0, 1), 2)


WORTH = {
    "f1": lambda tn, fp, fn, tp: 2 * tp / (2 * tp + fp + fn),
    "youden": lambda tn, fp, fn, tp: tp / (tp + fn) + tn / (tn + fp),
    "cost 5": lambda tn, fp, fn, tp: -(5 * fn + fp),
    "cost 0.2": lambda tn, fp, fn, tp: -(0.2 * fn + fp),
}


@pytest.mark.parametrize("rule", WORTH)
@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_does_better_by_the_rule(rule, seed):
    label, probability = answers(seed)

    def worth(threshold):
        return WORTH[rule](*metrics.confusion(label, probability, threshold=threshold).ravel())

    chosen = thresholds.choose(label, probability, rule=rule)
    assert worth(chosen) == pytest.approx(max(worth(at) for at in np.unique(probability)))
    assert chosen not in probability or chosen == probability.min(), "it lies between two answers"


@pytest.mark.parametrize("recall", [0.01, 0.5, 0.93, 1.0])
def test_recall_reaches_what_was_wanted_and_no_higher_threshold_does(recall):
    label, probability = answers()
    positive = probability[label == 1]
    chosen = thresholds.choose(label, probability, rule=f"recall {recall}")
    assert (positive >= chosen).mean() >= recall > (positive >= np.nextafter(positive[positive >= chosen].min(), 2)).mean()


def test_a_fixed_threshold_asks_no_data():
    assert thresholds.choose([], [], rule="fixed 0.5") == 0.5


@pytest.mark.parametrize("where", thresholds.WHERE)
@pytest.mark.parametrize("rule", ["recall 0.93", "recall 1", "f1", "youden", "cost 0.2", "cost 5", "fixed 0.25"])
def test_a_rule_is_kept_as_data_and_chooses_what_its_text_does(rule, where):
    kept = json.loads(json.dumps(thresholds.kept(rule, where)))
    assert kept["where"] == where and thresholds.written(kept) == rule
    assert thresholds.parse(kept) == kept and thresholds.kept(kept, where) == kept
    assert thresholds.choose(*answers(), rule=kept) == thresholds.choose(*answers(), rule=rule)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_a_number_that_numpy_computed_is_a_number(kind):
    label, probability = answers()
    chosen = thresholds.choose(label, probability, rule={"rule": "recall", "value": kind(0.9375)})
    assert chosen == thresholds.choose(label, probability, rule="recall 0.9375")
    assert json.loads(json.dumps(thresholds.kept({"rule": "recall", "value": kind(0.9375)})))["value"] == 0.9375


def test_rules_read_as_sentences():
    assert thresholds.sentence(thresholds.kept("recall 0.93")) == "highest threshold with recall >= 0.93 on validation cases"
    cost = "threshold with the lowest cost on validation cases, a missed IDC+ costing 5 times a false alarm"
    assert thresholds.sentence(thresholds.kept("Cost 5")) == cost
    found = thresholds.sentence(thresholds.kept("f1", "out_of_fold"))
    assert found == "threshold with the best F1 of IDC+ on the out-of-fold answers"


def test_the_sentence_of_an_earlier_versions_bundle_stays_as_it_is():
    assert thresholds.sentence("highest threshold with recall >= 0.93 out of fold") == "highest threshold with recall >= 0.93 out of fold"


@pytest.mark.parametrize(
    "rule",
    ["", "best", "recall", "recall 0", "recall 1.2", "recall x", "f1 0.5", "cost -1", "cost inf", "fixed 2", "a b c d"]
    + [{}, {"rule": "recall"}, {"rule": "recall", "value": None}, {"rule": "f1", "value": 0.5}, {"rule": "recall", "value": np.nan}],
)
def test_a_rule_that_does_not_exist_is_one_sentence(rule):
    with pytest.raises(InputError, match="threshold rule .*choose one such as recall 0.93"):
        thresholds.choose(*answers(), rule=rule)


def test_one_class_and_no_patch_are_one_sentence():
    with pytest.raises(InputError, match="Only one class"):
        thresholds.choose(np.ones(5, int), np.linspace(0, 1, 5), rule="f1")
    with pytest.raises(InputError, match="no patch"):
        thresholds.choose(np.ones(0, int), np.ones(0), rule="youden")
