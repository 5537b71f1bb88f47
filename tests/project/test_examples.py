"""The package's examples run, and functions that the notebooks call carry them."""

import ast
import doctest
import importlib
import inspect
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "bhi_utils").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
#: How many of the functions that notebooks call have an example.
AT_LEAST = 20


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_run(name):
    """In this process, where the libraries are loaded already; `pytest --doctest-modules bhi_utils` runs the same ones."""
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted and not found.failed


def called(notebook: Path) -> set[str]:
    """The functions and classes of the package that a notebook calls, as ``bhi_utils.module.name``."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    nodes = [node for cell in cells if cell["cell_type"] == "code" for node in ast.walk(ast.parse("".join(cell["source"])))]
    imports = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    calls = [ast.unparse(node.func).split(".") for node in nodes if isinstance(node, ast.Call)]
    names = {".".join([imports[first], *rest]) for first, *rest in calls if imports.get(first, "").startswith("bhi_utils.")}
    return {name for name in names if name.count(".") >= 2}


def test_functions_that_notebooks_call_carry_an_example():
    found = set()
    for name in set().union(*map(called, (ROOT / "notebooks").rglob("*.ipynb"))):
        module, _, function = name.rpartition(".")
        one = getattr(importlib.import_module(module), function, None) if module.count(".") < 3 else None
        if inspect.isfunction(one) and ">>> " in (one.__doc__ or ""):
            found.add(name)
    assert len(found) >= AT_LEAST, f"only {sorted(found)}"
