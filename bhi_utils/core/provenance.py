"""What a result depends on: the code, the notebook, the versions and the commit; and the results that the repository keeps.

Used by the record of a run, by the studies, and by all that keeps an answer and must know when it is out of date.
"""

import ast
import hashlib
import json
import platform
import shlex
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from bhi_utils.core import hardware
from bhi_utils.core.paths import PACKAGE, project_root

#: Whose versions a result depends on, besides the backend's.
PACKAGES = ("keras", "numpy", "pandas", "scikit-learn", "imbalanced-learn", "papermill")


def code_hash(*modules: str) -> str:
    """Returns a hash of the code of ``modules``, of all that they import from the package at any depth, and of the archive's tables.

    Without ``modules``, that is the whole package and the packaged model's bundle. Imports within functions count too.

    Args:
        modules: names below ``bhi_utils``, such as ``training.fit_phases``.

    Raises:
        ValueError: there is no such module.
    """
    for name in modules:
        if not PACKAGE.joinpath(*name.split(".")).with_suffix(".py").is_file():
            raise ValueError(f"bhi_utils.{name} is no module.")
    sources = _needed(modules) if modules else {*PACKAGE.rglob("*.py"), *PACKAGE.glob("trained/*.json")}
    return _digest([*sources, *_matching("data/*.json", "data/*.csv", "plots/*.mplstyle")])


def notebook_hash(notebook: Path) -> str:
    """Returns a hash of a notebook's cells without outputs, of the modules that it imports with their texts, and of the packaged model."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = json.dumps([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    try:
        modules = set().union(*(_imported("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"))
        sources = _needed(modules)
    except SyntaxError:  # a cell of IPython's own commands
        sources = set(PACKAGE.rglob("*.py"))
    texts = {path for source in sources for kind in ("locales", "templates") for path in source.parent.glob(f"{kind}/*")}
    code = _digest([*sources, *texts, *_matching("data/*.json", "data/*.csv", "trained/*.json")])
    return hashlib.sha256(json.dumps([text, code]).encode()).hexdigest()


def _matching(*patterns: str) -> set[Path]:
    """Returns the package's files that match one of ``patterns``."""
    return {path for pattern in patterns for path in PACKAGE.glob(pattern)}


def _needed(modules: Iterable[str]) -> set[Path]:
    """Returns the sources of ``modules`` and of what they import from the package, at any depth."""
    seen, waiting, found = set(), {"", *modules}, set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        # the name of a module, of a folder, or of something within a module
        place = PACKAGE.joinpath(*filter(None, name.split(".")))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                found.add(path)
                waiting |= _imported(path.read_text(encoding="utf-8"))
        waiting = {*waiting, name.rpartition(".")[0]} - seen
    return found


@cache
def _imported(source: str) -> set[str]:
    """Returns the names below ``bhi_utils`` that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("bhi_utils.") for name in found if name.startswith("bhi_utils.")}


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        # read as text: a checkout on Windows may have other line ends
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n{path.read_text(encoding='utf-8')}\n".encode())
    return digest.hexdigest()


def result(name: str) -> dict[str, Any]:
    """Returns a recorded result, the content of ``bhi_utils/results/<name>``: JSON of any form, which the study that wrote it knows."""
    return json.loads((PACKAGE / "results" / name).read_text(encoding="utf-8"))


def command(notebook: str, **given: Any) -> str:
    """Returns the papermill line that computes a study's result again with the parameters that its notebook was ``given``."""
    named = " ".join(f"-p {name} {shlex.quote(str(value))}" for name, value in {"RECOMPUTE": True, **given}.items())
    return f"papermill notebooks/studies/{notebook}.ipynb OUT.ipynb {named}"


def git_commit() -> str | None:
    """Returns the checkout's commit, marked ``-dirty`` when tracked files differ from it; None outside git."""
    ask = ["git", "-C", str(project_root()), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Returns the versions of Python, of Keras' backend and of the packages that results depend on, and the platform."""
    backend = hardware.backend_name()
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}", "backend": backend}
    return found | {package: version for package in (backend, *PACKAGES) if (version := hardware.version(package))}


def paper() -> dict[str, float]:
    """Returns the paper's results by metric.

    >>> paper()["auc"]
    0.9558
    """
    return result("paper.json")["metrics"]
