"""The map in bhi_utils/README.md against the tree, and the tests' files against the modules."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "bhi_utils"
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
MODULES = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
FOLDERS = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
#: Tests of the project's files and of the notebooks, which mirror no module.
OTHER_TESTS = {"project", "notebooks"}


def test_each_module_stands_on_the_map_once():
    listed = re.findall(r"^- `([\w/]+\.py)`: ", MAP, flags=re.MULTILINE)
    missing, gone = sorted(MODULES - set(listed)), sorted(set(listed) - MODULES)
    double = sorted({name for name in listed if listed.count(name) > 1})
    assert not (missing or gone or double), f"bhi_utils/README.md lacks {missing}, names {gone} that do not exist, and {double} twice"


def test_each_module_stands_below_the_heading_of_its_folder():
    for part in re.split(r"^## ", MAP, flags=re.MULTILINE)[1:]:
        heading, listed = re.match(r"`(\w+)`", part), re.findall(r"^- `([\w/]+\.py)`: ", part, flags=re.MULTILINE)
        assert {name.split("/")[0] for name in listed if "/" in name} <= ({heading.group(1)} if heading else set()), part[:40]


def test_what_it_names_besides_exists():
    for name in re.findall(r"`([\w./]+)`", MAP.split("## Which notebook")[1]):
        places = (PACKAGE / name, ROOT / name, PACKAGE / f"{name.replace('.', '/')}.py", PACKAGE / name.replace(".", "/"))
        assert any(place.exists() for place in places) or name == "parameters", name


def folders(notebook: Path) -> set[str]:
    """The folders of the package that a notebook imports from."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    trees = [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("bhi_utils.")} & FOLDERS


def test_it_says_which_folders_each_notebook_uses():
    used = {path.name[:2]: folders(path) for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    used["studies"] = set().union(*map(folders, (ROOT / "notebooks/studies").glob("*.ipynb")))
    said = dict(re.findall(r"^\| (\d\d|studies) \| ([a-z ]+) \|$", MAP, flags=re.MULTILINE))
    assert {name: set(text.split()) for name, text in said.items()} == used


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.relative_to(ROOT / "tests").as_posix())
def test_each_file_of_tests_mirrors_a_module(path):
    place = path.relative_to(ROOT / "tests")
    if place.parts[0] in OTHER_TESTS:
        pytest.skip("mirrors no module")
    module = place.with_name(place.name.removeprefix("test_")).as_posix()
    assert module in MODULES, f"bhi_utils/{module} does not exist: name the file after a module of the same folder"
