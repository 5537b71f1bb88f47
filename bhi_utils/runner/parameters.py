"""What the notebooks' parameters cells declare, which values each parameter may have, and the profiles.

Used by the runner before anything starts, by every notebook's banner, and by studies that read a profile. papermill itself only warns of a
mistyped name, and injects any type. What the library itself must refuse is asked of the library, so no rule stands twice.
"""

import ast
import difflib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
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

#: Parameters that name a file or folder unless their value is one of ``WORDS``.
PATHS = {"DATA", "WEIGHTS", "MODEL"}
WORDS = ("", "phantom", "kaggle", "imagenet", "packaged", "none")
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "list": yaml.safe_load,
}


def for_papermill(path: Path) -> str:
    """``path`` as papermill takes it, which reads braces in a path as the place of a parameter."""
    return str(path).replace("{", "{{").replace("}", "}}")


def declared(notebook: Path) -> dict[str, tuple[str, Any]]:
    """The parameters of a notebook: name to type and default, in the order of its ``parameters`` cell.

    Raises:
        InputError: the file is no notebook, or a declaration is not ``NAME: type = literal  # help``.
    """
    import papermill  # it loads for two seconds, and a notebook's banner, which checks values only, needs none of it

    try:
        inferred = papermill.inspect_notebook(for_papermill(notebook))
        found = {name: (fact["inferred_type_name"], ast.literal_eval(fact["default"])) for name, fact in inferred.items()}
    except Exception as error:  # papermill raises whatever its parser meets
        raise InputError(f"The parameters of {notebook.name} cannot be read ({error}): restore the notebook from git.") from error
    for name, (kind, _) in found.items():
        if kind not in KINDS:
            raise InputError(f"{notebook.name} declares {name} as {kind}: a parameter's type is one of {', '.join(KINDS)}.")
    return found


def assign(values: Mapping[str, Any], declarations: Mapping[str, Mapping[str, tuple[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The values of each notebook: one for every name that it declares.

    Args:
        values: name to value; a text is read as the declared type, other values must be of it already (an int is fine for a float).
        declarations: notebook name to its ``declared`` parameters.

    Returns:
        notebook name to the parameters that it is given.

    Raises:
        InputError: no notebook declares a name, or a value is not of the declared type.
    """
    known = sorted({name for parameters in declarations.values() for name in parameters})
    given: dict[str, dict[str, Any]] = {notebook: {} for notebook in declarations}
    for name, value in values.items():
        takers = [notebook for notebook, parameters in declarations.items() if name in parameters]
        if not takers:
            close = " or ".join(difflib.get_close_matches(name.upper(), known))
            hint = f"did you mean {close}?" if close else f"they have {', '.join(known)}." if known else "they declare none."
            raise InputError(f"No selected notebook has a parameter {name}: {hint}")
        for notebook in takers:
            given[notebook][name] = typed(name, value, declarations[notebook][name][0], notebook=notebook)
    return given


def typed(name: str, value: Any, kind: str, *, notebook: str) -> Any:
    """``value`` as ``kind``, from a text or from a value that is one already.

    >>> typed("EPOCHS", "15", "int", notebook="05")
    15
    >>> typed("SIZES", "[1000, 5000]", "list", notebook="benchmarks")
    [1000, 5000]

    Raises:
        InputError: it is not of that kind.
    """
    if isinstance(value, str) and kind in _READERS:
        with suppress(ValueError, KeyError, yaml.YAMLError):
            value = _READERS[kind](value.strip())
    return of_kind(name, value, kind, notebook=notebook)


def absolute(values: Mapping[str, Any], *, base: Path) -> dict[str, Any]:
    """``values`` with an existing file or folder made absolute, so that a kernel with another current folder finds it."""
    made = dict(values)
    for name in PATHS & values.keys():
        path = base / Path(str(values[name])).expanduser()
        if values[name] not in WORDS and exists(path):
            made[name] = str(path.resolve())
    return made


def profiles() -> dict[str, Path]:
    """The profiles that the package ships: name to file."""
    return {path.stem: path for path in sorted((PACKAGE / "runner" / "profiles").glob("*.yaml"))}


def read_profile(name: str) -> dict[str, Any]:
    """The parameter values of a profile, its paths taken from the project's root.

    Raises:
        InputError: there is no such profile.
    """
    found = profiles()
    if name not in found:
        raise InputError(f"There is no profile {name}: choose one of {', '.join(found)}.")
    return absolute(yaml.safe_load(found[name].read_text(encoding="utf-8")), base=project_root())


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
