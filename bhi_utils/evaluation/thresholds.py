"""Thresholds: named rules that choose, on validation cases, the probability from which a patch is called IDC+.

Used by training, notebook 06, the studies and whatever shows a bundle. People write a rule as ``recall 0.93``; bundles and results keep it
as data, ``{"rule": "recall", "value": 0.93, "where": "validation"}``.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np

from bhi_utils.core.paths import InputError
from bhi_utils.evaluation.metrics import check

#: Rule to its sentence, which follows "the"; ``{}`` stands for the rule's number.
RULES = {
    "recall": "highest threshold with recall >= {} on {where}",
    "f1": "threshold with the best F1 of IDC+ on {where}",
    "youden": "threshold with the highest recall + specificity (Youden) on {where}",
    "cost": "threshold with the lowest cost on {where}, a missed IDC+ costing {} times a false alarm",
    "fixed": "fixed threshold {}",
}
#: Where thresholds are chosen, and `RULES`' ``{where}`` for it.
WHERE = {
    "validation": "validation cases",
    "out_of_fold": "the out-of-fold answers",
    "early_stopping": "the cases that served for early stopping only",
}
#: Rules that need a number, and the range that it must lie in.
_NUMBERS = {"recall": (0.0, 1.0), "cost": (0.0, np.inf), "fixed": (0.0, 1.0)}


class Rule(TypedDict):
    """A rule as data: one of `RULES`, its number where it has one, and, once it has been used, one of `WHERE`."""

    rule: str
    value: NotRequired[float]
    where: NotRequired[str]


def parse(rule: str | Rule) -> Rule:
    """Returns a rule as data.

    Args:
        rule: ``recall R`` (0 < R ≤ 1), ``f1``, ``youden``, ``cost C`` (a missed IDC+ costs C > 0 times a false alarm) or ``fixed T``
            (0 < T ≤ 1); or a rule that is data already.

    Returns:
        the rule as data; what is data already keeps its ``where``.

    Raises:
        InputError: it is none of these.

    >>> parse("recall 0.93")
    {'rule': 'recall', 'value': 0.93}
    """
    given: Any = dict(rule) if isinstance(rule, Mapping) else dict(zip(("rule", "value", "more"), str(rule).lower().split(), strict=False))
    name, known = given.get("rule"), "recall 0.93, f1, youden, cost 5 or fixed 0.5"
    if name not in RULES or ("value" in given) != (name in _NUMBERS) or "more" in given:
        raise InputError(f"There is no threshold rule {rule!r}: choose one such as {known}.")
    if name not in _NUMBERS:
        return given
    try:
        number = float(given["value"])
    except (TypeError, ValueError):
        number = np.nan
    low, high = _NUMBERS[name]
    if not low < number <= high or not np.isfinite(number):
        upper = f" and at most {high:g}" if np.isfinite(high) else ""
        raise InputError(f"The threshold rule {rule!r} is impossible: its number must be above {low:g}{upper}; choose one such as {known}.")
    return given | {"value": number}


def kept(rule: str | Rule, where: str = "validation") -> Rule:
    """Returns the rule as bundles and results keep it: as data, with ``where`` the threshold was chosen, one of `WHERE`."""
    return parse(rule) | {"where": where}


def written(rule: Rule) -> str:
    """Returns a rule as people write it: ``recall 0.93``.

    >>> written({"rule": "recall", "value": 0.93, "where": "validation"})
    'recall 0.93'
    """
    return f"{rule['rule']} {rule['value']:g}" if "value" in rule else rule["rule"]


def sentence(rule: str | Rule) -> str:
    """Returns a kept rule in words that follow "the". Bundles of earlier versions hold the words themselves, which stay as they are.

    >>> sentence({"rule": "recall", "value": 0.93, "where": "validation"})
    'highest threshold with recall >= 0.93 on validation cases'
    """
    if isinstance(rule, str):
        return rule
    return RULES[rule["rule"]].format(f"{rule.get('value', 0):g}", where=WHERE[rule["where"]])


def choose(labels: np.ndarray, probability: np.ndarray, *, rule: str | Rule) -> float:
    """Chooses the threshold by a rule on validation cases; a patch is called IDC+ at ``probability >= threshold``.

    Except for ``fixed``, the threshold lies half-way down to the next lower probability, so that rounding on another processor does not
    change an answer. Among equally good thresholds, ``recall`` takes the highest and the other rules the lowest, which finds most IDC+.

    Args:
        labels: int array (n,), 0 or 1, of validation cases.
        probability: float array (n,) in [0, 1].
        rule: see `parse`.

    Raises:
        InputError: the rule is not known, or the labels are of one class.

    >>> choose(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9]), rule="recall 1")
    0.5
    """
    asked = parse(rule)
    name, number = asked["rule"], asked.get("value", 0.0)
    if name == "fixed":
        return number
    check(labels, probability)
    labels, probability = np.asarray(labels).astype(bool), np.asarray(probability, dtype=np.float64)
    order = np.argsort(-probability, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(probability[order]) != 0, True])
    tp, fp = np.cumsum(labels[order])[last], np.cumsum(~labels[order])[last]
    positive, negative = labels.sum(), (~labels).sum()
    worth = {
        # whole numbers decide, so that 93 of 100 are 93 %
        "recall": tp >= np.ceil(number * positive - 1e-9),
        "f1": 2 * tp / (tp + fp + positive),
        "youden": tp / positive - fp / negative,
        "cost": -(number * (positive - tp) + fp),
    }
    value = worth[name].astype(np.float64)
    best = np.flatnonzero(value >= value.max() - 1e-12 * max(1.0, abs(value.max())))
    chosen = last[best[0] if name == "recall" else best[-1]]
    found = probability[order]
    return float((found[chosen] + found[chosen + 1]) / 2 if chosen + 1 < len(found) else found[chosen])
