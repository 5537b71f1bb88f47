"""Every rule for the threshold keeps its word on validation cases; a rule that does not exist is one sentence."""

import numpy as np
import pytest

from bhi_utils import metrics, thresholds
from bhi_utils.paths import InputError


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
    assert chosen == thresholds.threshold_for_recall(label, probability, recall=recall)


def test_a_fixed_threshold_asks_no_data():
    assert thresholds.choose([], [], rule="fixed 0.5") == 0.5


def test_rules_read_as_sentences():
    assert thresholds.sentence("recall 0.93") == "highest threshold with recall >= 0.93 on validation cases"
    assert (
        thresholds.sentence("Cost 5") == "threshold with the lowest cost on validation cases, a missed IDC+ costing 5 times a false alarm"
    )
    assert thresholds.sentence("f1", "the out-of-fold answers") == "threshold with the best F1 of IDC+ on the out-of-fold answers"


@pytest.mark.parametrize(
    "rule", ["", "best", "recall", "recall 0", "recall 1.2", "recall x", "f1 0.5", "cost -1", "cost inf", "fixed 2", "a b c d"]
)
def test_a_rule_that_does_not_exist_is_one_sentence(rule):
    with pytest.raises(InputError, match="threshold rule .*choose one such as recall 0.93"):
        thresholds.choose(*answers(), rule=rule)


def test_one_class_and_no_patch_are_one_sentence():
    with pytest.raises(InputError, match="Only one class"):
        thresholds.choose(np.ones(5, int), np.linspace(0, 1, 5), rule="f1")
    with pytest.raises(InputError, match="no patch"):
        thresholds.choose(np.ones(0, int), np.ones(0), rule="youden")


@pytest.mark.parametrize("where", [thresholds.VALIDATION, thresholds.OUT_OF_FOLD])
@pytest.mark.parametrize("rule", ["recall 0.93", "recall 1", "f1", "youden", "cost 0.2", "cost 5", "fixed 0.25"])
def test_a_rules_sentence_can_be_read_again(rule, where):
    found = thresholds.read(thresholds.sentence(rule, where))
    assert found == (*thresholds.parse(rule), None if rule.startswith("fixed") else where)
    assert thresholds.read("one of a test") is None
