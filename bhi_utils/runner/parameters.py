"""What the notebooks' parameters cells declare, and values checked against them before anything runs.

Used by ``runner.pipeline`` and by studies that read a profile. papermill itself only warns of a mistyped name, and injects any type.
"""

import ast
import difflib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import papermill
import yaml

from bhi_utils.core.paths import PACKAGE, InputError, exists, project_root
from bhi_utils.runner.parameter_ranges import KINDS, of_kind

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
