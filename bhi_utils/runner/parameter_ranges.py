"""Which values each notebook's parameters may have: one table, read by the runner before anything starts and by every notebook's banner.

Used by ``runner.parameters``, ``runner.pipeline`` and ``notebook``. What the library itself must refuse is asked of the library, so that no
rule stands twice; a test holds the table against the parameters cells.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from bhi_utils.app import start_options
from bhi_utils.core.paths import InputError, exists, project_root
from bhi_utils.data import splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation import thresholds
from bhi_utils.model import bundles
from bhi_utils.training import smote

#: The types that a parameters cell may use, with the words for a value of each.
KINDS = {
    "int": (int, "a whole number"),
    "float": (float, "a finite number"),
    "str": (str, "a text"),
    "bool": (bool, "true or false"),
    "list": (list, "a list such as [1, 2]"),
}


@dataclass(frozen=True)
class Rule:
    """What one parameter may be.

    Attributes:
        kind: its type, a key of `KINDS`.
        allowed: what the sentence tells the user to give; empty where every value of the type will do.
        test: whether a value of that type will do; it may instead raise an InputError with a sentence of its own.
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


FLAG = Rule("bool")
#: ``model.augment.DIHEDRAL``, which this module cannot import: Keras comes with it.
MOST_VIEWS = 8
OUT = Rule("str", "a folder for the run, such as runs/walk", str.strip)
#: Keras and NumPy take seeds of 32 bits, and some layers add a little to theirs.
SEED = _whole(0, 2**31 - 1)
#: With fewer draws a 95 % interval has no ends.
RESAMPLES = _whole(40)
#: Both networks halve the image five times; a patch of 50 pixels gains nothing beyond twenty times its side.
IMAGE_SIZE = _whole(32, 1000)
FOLDS = _asked("int", lambda value: splits.check("kfold", folds=value))
DATA = _words_or_file("phantom", "kaggle", relative_to=(Path.cwd, project_root), folders=True, what="a folder or zip")
WALK_WEIGHTS = _words_or_file("imagenet", bundles.START, "none", what="a weight file")
#: A random network has no features to study, and the packaged model has seen most of the cases.
STUDY_WEIGHTS = _words_or_file("imagenet", what="a weight file")
_STUDY = {"RECOMPUTE": FLAG, "SEED": SEED, "RESAMPLES": RESAMPLES, "OUT": OUT}
_TRAINED = _STUDY | {"DATA": DATA, "WEIGHTS": STUDY_WEIGHTS, "FOLDS": FOLDS}

#: Notebook, by its number or a study's name, to the rule of each parameter.
TABLE: dict[str, dict[str, Rule]] = {
    "01": {
        "DATA": DATA,
        "PHANTOM_CASES": _whole(1),
        "PHANTOM_PATCHES": _whole(synthetic_cohort.FEWEST_PATCHES, synthetic_cohort.MOST_PATCHES),
        "SEED": SEED,
        "WORKERS": _whole(0),
        "OUT": OUT,
    },
    "02": {"SPLIT": _asked("str", splits.check), "FOLDS": FOLDS, "FOLD": _whole(0), "SEED": SEED, "OUT": OUT},
    "03": {"IMAGE_SIZE": IMAGE_SIZE, "SMOTE_NEIGHBOURS": _whole(1), "SHOWN_PATCHES": _whole(50), "SEED": SEED, "OUT": OUT},
    "04": {"DRAWS": _whole(1, 20), "PREVIEW_PATCHES": _whole(1, 200), "SEED": SEED, "OUT": OUT},
    "05": {
        "IMAGE_SIZE": IMAGE_SIZE,
        "CNN_IMAGE_SIZE": IMAGE_SIZE,
        "WEIGHTS": WALK_WEIGHTS,
        "BALANCE": _asked("str", smote.check_balance),
        "BATCH_SIZE": _whole(1),
        "EPOCHS": _whole(1),
        "FINE_TUNE_BLOCKS": _whole(0, 7),
        "FINE_TUNE_RATE": Rule("float", "a number above 0 and at most 1", lambda value: 0 < value <= 1),
        "VIEWS": _whole(0, MOST_VIEWS),
        "THRESHOLD_RULE": _asked("str", thresholds.parse),
        "SEED": SEED,
        "OUT": OUT,
    },
    "06": {"RESAMPLES": RESAMPLES, "SHOWN": _whole(1, 20), "SEED": SEED, "OUT": OUT},
    "07": {
        "MODEL": _words_or_file("", relative_to=(project_root,), what="a .bundle.json"),
        "PATCHES": _whole(2, 40),
        "PORT": _whole(0, 65535),
        "ALLOWED_HOST": Rule("str", "a host's name such as hub.example.org, or none", lambda name: not name or start_options.is_host(name)),
        "KEEP_OPEN": FLAG,
        "SEED": SEED,
        "OUT": OUT,
    },
    "ablations": _TRAINED | {"PER_CASE": _whole(1)},
    "benchmarks": {
        "RECOMPUTE": FLAG,
        "DATA": DATA,
        "SIZES": Rule("list", "a list of whole numbers from 1 on", lambda value: value and all(type(n) is int and n > 0 for n in value)),
        "REPEATS": _whole(1),
        "OUT": OUT,
    },
    "intervals": _STUDY | {"SIMULATIONS": _whole(1)},
    "leakage": _TRAINED | {"IMAGE_SIZE": IMAGE_SIZE},
    "learning_curve": _TRAINED,
    "paper_comparison": {"OUT": OUT},
    "recipes": _TRAINED | {"TARGET_RECALL": Rule("float", "a number above 0 and at most 1", lambda value: 0 < value <= 1), "RELEASE": FLAG},
}


def key(notebook: str) -> str:
    """A notebook's key in `TABLE`: its number, or its own name where it has none."""
    return notebook[:2] if notebook[:2].isdecimal() else notebook


def of_kind(name: str, value: Any, kind: str, *, notebook: str) -> Any:
    """``value``, a whole number made float where that is the type.

    Raises:
        InputError: it is not of the type ``kind``.
    """
    value = float(value) if kind == "float" and type(value) is int else value
    expected, words = KINDS[kind]
    # type() and not isinstance(): True is an int to Python, but no number of epochs
    if type(value) is not expected or (kind == "float" and not isfinite(value)):
        raise InputError(f"{name}={_brief(value)} is not {words}, which notebook {key(notebook)} expects.")
    return value


def check(notebook: str, values: Mapping[str, Any]) -> None:
    """Stop unless every parameter of a notebook has a value that it can run with, alone and beside the others.

    Args:
        notebook: a number, a study's name, or the name of a notebook's file without its suffix.
        values: parameter values by name; names that the table lacks are passed over.

    Raises:
        InputError: a value that is impossible, in one sentence.
    """
    rules = TABLE.get(key(notebook), {})
    for name, rule in rules.items():
        if name in values and not rule.test(of_kind(name, values[name], rule.kind, notebook=notebook)):
            raise InputError(f"{name}={_brief(values[name])} is impossible in notebook {key(notebook)}: give {rule.allowed}.")
    if {"SPLIT", "FOLDS", "FOLD"} <= rules.keys() & values.keys():
        splits.check(values["SPLIT"], folds=values["FOLDS"], fold=values["FOLD"])
    if {"WEIGHTS", "BALANCE", "VIEWS", "FINE_TUNE_BLOCKS"} <= rules.keys() & values.keys():
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
    if None not in (cases, folds) and cases < folds and drawn["DATA"] == "phantom" and dealt["SPLIT"] != "official":
        raise InputError(f"PHANTOM_CASES={cases} is impossible with FOLDS={folds}: give at least as many cases as folds.")


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"
