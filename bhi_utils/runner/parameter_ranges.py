"""Which values the notebooks' parameters may have: one table, read by the runner before anything starts and by every notebook's banner.

Used by ``runner.parameters``, ``runner.pipeline`` and ``notebook``. What the library itself refuses is asked of the library, so that no
rule stands twice. A test compares the table with the parameters cells.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from bhi_utils.app import start_options
from bhi_utils.core.paths import PACKAGE, InputError, brief, exists, project_root
from bhi_utils.data import splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation import thresholds
from bhi_utils.model import bundles
from bhi_utils.training import smote

#: The types that a parameters cell may use, with the words for a value of each.
KINDS = {"int": "a whole number", "float": "a finite number", "str": "a text", "bool": "true or false", "list": "a list such as [1, 2]"}


@dataclass(frozen=True)
class Rule:
    """What one parameter may be.

    Attributes:
        kind: its type, a key of `KINDS`.
        allowed: what the error's sentence tells the user to give; empty where any value of the type is allowed.
        test: whether a value of that type is allowed; it may instead raise an InputError with a sentence of its own.
    """

    kind: str
    allowed: str = ""
    test: Callable[[Any], object] = lambda value: True


def _whole(low: int, high: float = float("inf")) -> Rule:
    allowed = f"a whole number from {low} to {high}" if isfinite(high) else f"a whole number from {low} on"
    return Rule("int", allowed, lambda value: low <= value <= high)


def _words_or_file(*words: str, relative_to: Collection[Callable[[], Path]] = (Path.cwd,), folders: bool = False, what: str) -> Rule:
    """One of some words, or a path that exists in the current folder or in another one that the notebook looks into."""

    def there(value: str) -> bool:
        paths = [place() / Path(value).expanduser() for place in relative_to] if value.strip() else []
        return value in words or any(exists(path) and (folders or path.is_file()) for path in paths)

    return Rule("str", ", ".join([*filter(None, words), f"or the path of {what} that exists"]), there)


def _asked(kind: str, check: Callable[[Any], object]) -> Rule:
    """A rule that the library has: ``check`` raises an InputError."""
    return Rule(kind, "what the library says", lambda value: check(value) or True)


_FLAG = Rule("bool")
_SHARE = Rule("float", "a number above 0 and at most 1", lambda value: 0 < value <= 1)
_WHOLE_NUMBERS = yaml.safe_load((PACKAGE / "runner" / "whole_numbers.yaml").read_text(encoding="utf-8"))
#: Parameter to what it may be, in the notebooks of the walk and the studies alike.
RULES: dict[str, Rule] = {
    **{name: _whole(*bounds) for name, bounds in _WHOLE_NUMBERS.items()},
    "ALLOWED_HOST": Rule("str", "a host's name such as hub.example.org, or none", lambda name: not name or start_options.is_host(name)),
    "BALANCE": _asked("str", smote.check_balance),
    "DATA": _words_or_file("phantom", "kaggle", relative_to=(Path.cwd, project_root), folders=True, what="a folder or zip"),
    "FINE_TUNE_RATE": _SHARE,
    "FOLDS": _asked("int", lambda value: splits.check("kfold", folds=value)),
    "KEEP_OPEN": _FLAG,
    "MODEL": _words_or_file("", relative_to=(project_root,), what="a .bundle.json"),
    "OUT": Rule("str", "a folder for the run, such as runs/walk", str.strip),
    "PHANTOM_PATCHES": _whole(synthetic_cohort.FEWEST_PATCHES, synthetic_cohort.MOST_PATCHES),
    "RECOMPUTE": _FLAG,
    "RELEASE": _FLAG,
    "SIZES": Rule("list", "a list of whole numbers from 1 on", lambda value: value and all(type(n) is int and n > 0 for n in value)),
    "SPLIT": _asked("str", splits.check),
    "TARGET_RECALL": _SHARE,
    "THRESHOLD_RULE": _asked("str", thresholds.parse),
    "WEIGHTS": _words_or_file("imagenet", bundles.START, "none", what="a weight file"),
}
#: A random network has no features to study, and the packaged model has seen most of the cases.
_STUDY_WEIGHTS = _words_or_file("imagenet", what="a weight file")
_STUDIES = ("ablations", "benchmarks", "intervals", "leakage", "learning_curve", "paper_comparison", "recipes")


def rules(notebook: str) -> Mapping[str, Rule]:
    """What the parameters of a notebook may be, by name; a notebook of one's own has no rules."""
    if notebook in _STUDIES:
        return {**RULES, "WEIGHTS": _STUDY_WEIGHTS}
    return RULES if notebook[:2].isdecimal() else {}


def key(notebook: str) -> str:
    """What a notebook is called in sentences: its number, or its own name where it has none."""
    return notebook[:2] if notebook[:2].isdecimal() else notebook


def of_kind(name: str, value: Any, kind: str, *, notebook: str) -> Any:
    """``value``, a whole number made float where that is the type.

    Raises:
        InputError: it is not of the type ``kind``.
    """
    value = float(value) if kind == "float" and type(value) is int else value
    # type() and not isinstance(): True is an int to Python, but no number of epochs
    if type(value).__name__ != kind or (kind == "float" and not isfinite(value)):
        raise InputError(f"{name}={brief(repr(value))} is not {KINDS[kind]}, which notebook {key(notebook)} expects.")
    return value


def check(notebook: str, values: Mapping[str, Any]) -> None:
    """Stop unless every parameter of a notebook has a value that it can run with, alone and beside the others.

    Args:
        notebook: a number, a study's name, or the name of a notebook's file without its suffix.
        values: parameter values by name; names without a rule are passed over.

    Raises:
        InputError: a value that is impossible, in one sentence.
    """
    found = rules(notebook)
    for name, value in values.items():
        rule = found.get(name)
        if rule and not rule.test(of_kind(name, value, rule.kind, notebook=notebook)):
            raise InputError(f"{name}={brief(repr(value))} is impossible in notebook {key(notebook)}: give {rule.allowed}.")
    if {"SPLIT", "FOLDS", "FOLD"} <= found.keys() & values.keys():
        splits.check(values["SPLIT"], folds=values["FOLDS"], fold=values["FOLD"])
    if {"WEIGHTS", "BALANCE", "VIEWS", "FINE_TUNE_BLOCKS"} <= found.keys() & values.keys():
        smote.check_balance(values["BALANCE"], weights=values["WEIGHTS"], views=values["VIEWS"])
        if values["WEIGHTS"] != "none" and values["VIEWS"] and values["FINE_TUNE_BLOCKS"] == 7:
            raise InputError("FINE_TUNE_BLOCKS=7 leaves no frozen block whose output could be cached: give 6 or fewer, or set VIEWS to 0.")


def check_together(given: Mapping[str, Mapping[str, Any]]) -> None:
    """Stop where the values of two notebooks of one run cannot go together.

    Args:
        given: notebook's name to all its parameter values.

    Raises:
        InputError: the phantom that 01 draws has fewer cases than 02 deals folds.
    """
    named = {key(name): values for name, values in given.items()}
    drawn, dealt = named.get("01", {}), named.get("02", {})
    cases, folds = drawn.get("PHANTOM_CASES"), dealt.get("FOLDS")
    if cases and folds and cases < folds and drawn["DATA"] == "phantom" and dealt["SPLIT"] != "official":
        raise InputError(f"PHANTOM_CASES={cases} is impossible with FOLDS={folds}: give at least as many cases as folds.")
