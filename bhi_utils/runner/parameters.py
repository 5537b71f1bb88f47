"""What the notebooks' parameters cells declare, and values checked against them before anything runs.

Used by ``runner.pipeline``. papermill itself only logs a warning for a mistyped name and injects a value of any type.
"""

import ast
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill
import yaml

from bhi_utils.core.paths import PACKAGE, InputError, exists, project_root
from bhi_utils.runner.parameter_ranges import KINDS, of_kind

#: Parameters that name a file or folder unless their value is one of ``WORDS``.
PATHS = ("DATA", "WEIGHTS", "MODEL")
WORDS = ("", "phantom", "kaggle", "imagenet", "packaged", "none")
_INT = re.compile(r"[+-]?[0-9]+(_[0-9]+)*")


def declared(notebook: Path) -> dict[str, tuple[str, Any]]:
    """The parameters of a notebook: name to (type, default), in the order of its ``parameters`` cell.

    Raises:
        InputError: the file is no notebook, or a declaration is not ``NAME: type = literal  # help``.
    """
    try:
        inferred = papermill.inspect_notebook(str(notebook).replace("{", "{{").replace("}", "}}"))
        found = {name: (fact["inferred_type_name"], ast.literal_eval(fact["default"])) for name, fact in inferred.items()}
    except Exception as error:  # papermill raises whatever its parser meets
        raise InputError(f"The parameters of {notebook.name} cannot be read ({error}): restore the notebook from git.") from error
    for name, (kind, _) in found.items():
        if kind not in KINDS:
            raise InputError(f"{notebook.name} declares {name} as {kind}: a parameter's type is one of {', '.join(KINDS)}.")
    return found


def assign(
    values: Mapping[str, Any], declarations: Mapping[str, Mapping[str, tuple[str, Any]]], *, everywhere: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Give each value to every notebook that declares its name.

    Args:
        values: name to value; a text is read as the declared type, other values must be of it already (an int is fine for a float).
        declarations: notebook name to its ``declared`` parameters.
        everywhere: names known to notebooks that are not selected: a profile's value for one of these is no mistake.

    Returns:
        notebook name to the parameters that it is given.

    Raises:
        InputError: no notebook declares a name, or a value is not of the declared type.
    """
    known = sorted({name for parameters in declarations.values() for name in parameters})
    given: dict[str, dict[str, Any]] = {notebook: {} for notebook in declarations}
    for name, value in values.items():
        takers = [notebook for notebook, parameters in declarations.items() if name in parameters]
        if not takers and name not in everywhere:
            raise InputError(f"No selected notebook has a parameter {name}: {_suggest(name, known)}")
        for notebook in takers:
            given[notebook][name] = typed(name, value, declarations[notebook][name][0], notebook=notebook)
    return given


def typed(name: str, value: Any, kind: str, *, notebook: str) -> Any:
    """``value`` as ``kind``, from a text or from a value that is one already.

    Raises:
        InputError: it is not of that kind.
    """
    return of_kind(name, _parse(value, kind) if isinstance(value, str) else value, kind, notebook=notebook)


def _parse(text: str, kind: str) -> Any:
    """``text`` as ``kind`` if it reads as one, else unchanged."""
    text = text if kind == "str" else text.strip()
    if kind == "int" and _INT.fullmatch(text):
        return int(text)
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if kind == "float":
            return float(text)
        if kind == "list":
            return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        pass
    return text


def absolute(values: Mapping[str, Any], *, base: Path) -> dict[str, Any]:
    """``values`` with an existing file or folder made absolute, so that a kernel with another current folder finds it."""
    made = dict(values)
    for name in PATHS:
        value = values.get(name)
        if isinstance(value, str) and value not in WORDS and exists(base / Path(value).expanduser()):
            made[name] = str((base / Path(value).expanduser()).resolve())
    return made


def profiles() -> dict[str, Path]:
    """The profiles that the package ships: name to file."""
    return {path.stem: path for path in sorted((PACKAGE / "runner" / "profiles").glob("*.yaml"))}


def read_profile(name: str) -> dict[str, Any]:
    """The parameter values of a profile, its paths taken from the project's root.

    Raises:
        InputError: there is no such profile, or it is not a mapping of names to values.
    """
    found = profiles()
    if name not in found:
        raise InputError(f"There is no profile {name}: choose one of {', '.join(found)}.")
    try:
        values = yaml.safe_load(found[name].read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"The profile {found[name].name} is not valid YAML ({error}): restore it from git.") from error
    if not isinstance(values, dict):
        raise InputError(f"The profile {found[name].name} must map parameter names to values: restore it from git.")
    return absolute({str(key): value for key, value in values.items()}, base=project_root())


def _suggest(name: str, known: Sequence[str]) -> str:
    """What the user may have meant."""
    close = difflib.get_close_matches(name.upper(), known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"they have {', '.join(known)}." if known else "they declare none."
