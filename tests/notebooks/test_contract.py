"""What every notebook promises a reader, checked on the files as they are committed; nothing is run here."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
#: Figures and bytes; the figures of the results are composed, and more.
LIMITS = {"06": (8, 600_000)}
PARAMETER = re.compile(r"^(?P<name>[A-Z][A-Z0-9_]*): (?P<kind>int|float|str|bool|list) = (?P<value>[^=#|]+)  # (?P<help>[^=#]+)$")
#: Written in parts, so that the test against machine paths does not find its own patterns.
MACHINE = re.compile("|".join(["/" + "home/", "/" + "root/", "/" + "tmp/", "/" + "Users/", r"\b[A-Z]:\\", "/" + "work/", "site-packages"]))


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, 4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_the_walk_is_seven_notebooks_numbered_in_order():
    walk = [path.name for path in NOTEBOOKS if path.parent == ROOT / "notebooks"]
    assert [name[:2] for name in walk] == [f"{number:02}" for number in range(1, 8)]


def test_it_is_short(notebook):
    assert 18 <= len(notebook.cells) <= 30
    lines = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in code(notebook)]
    assert sum(lines) <= 120 and max(lines) <= 15


def test_it_explains_itself_in_400_to_900_words(notebook):
    text = re.sub(r"```.*?```|\]\([^)]*\)|^\|[-: |]+\|$", " ", prose(notebook), flags=re.DOTALL | re.MULTILINE)
    assert 400 <= len(re.findall(r"\w[\w'’.,%×-]*", text)) <= 900


def test_it_calls_functions_and_defines_none(notebook):
    trees = [ast.parse(cell.source) for cell in code(notebook)]
    made = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert not [node for tree in trees for node in ast.walk(tree) if isinstance(node, made)]


def test_it_imports_once_in_its_second_cell(notebook):
    imports = [
        number
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(cell.source)))
    ]
    assert imports == [1]
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(notebook.cells[1].source).body)


def test_it_opens_with_question_table_and_neighbours(notebook, path):
    first = notebook.cells[0].source
    assert notebook.cells[0].cell_type == "markdown"
    if path.parent.name == "notebooks":
        assert first.startswith(f"# {path.name[:2]} · ")
        number = int(path.name[:2])
        for neighbour in (number - 1, number + 1):
            if 1 <= neighbour <= 7:
                assert re.search(rf"\]\({neighbour:02}_\w+\.ipynb\)", first)
    assert "?" in first and "Reads" in first and "Writes" in first
    assert prose(notebook).count("\n# ") == 0, "one title"


def test_it_ends_with_result_limits_and_next(notebook):
    titles = re.findall(r"^(?:##+ |\*\*)(\w+)", prose(notebook), flags=re.MULTILINE)
    assert titles[-3:] == ["Result", "Limits", "Next"]


def test_its_parameters_read_alike_to_python_and_papermill(notebook, path):
    (cell,) = tagged(notebook, "parameters")
    lines = cell.source.splitlines()
    assert 1 <= len(lines) <= 12 and all(PARAMETER.match(line) for line in lines)
    declared = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.AnnAssign)
        value = ast.literal_eval(node.value)
        assert type(value).__name__ == node.annotation.id and "#" not in str(value)
        declared[node.target.id] = (node.annotation.id, value)
    inferred = papermill.inspect_notebook(str(path))
    assert {name: (fact["inferred_type_name"], ast.literal_eval(fact["default"])) for name, fact in inferred.items()} == declared
    assert all(fact["help"] for fact in inferred.values())
    assert declared["OUT"] == ("str", "runs/studies" if path.parent.name == "studies" else "runs/walk") and list(declared)[-1] == "OUT"


def test_it_shows_a_papermill_line_before_the_parameters(notebook):
    position = notebook.cells.index(tagged(notebook, "parameters")[0])
    assert "papermill " in notebook.cells[position - 1].source


def test_the_papermill_line_names_its_own_parameters(notebook, path):
    (lines,) = re.findall(r"^\s*papermill .+$", prose(notebook), flags=re.MULTILINE)
    assert path.name in lines
    assert set(re.findall(r" -p (\w+) ", lines)) <= set(papermill.inspect_notebook(str(path)))


def test_the_banner_follows_the_parameters(notebook, path):
    position = notebook.cells.index(tagged(notebook, "parameters")[0])
    after = next(cell for cell in notebook.cells[position + 1 :] if cell.cell_type == "code")
    own = path.stem if path.parent.name == "studies" else path.name[:2]
    assert f'notebook.banner("{own}", globals()' in after.source


def test_one_result_is_compared_by_nbval(notebook):
    (cell,) = tagged(notebook, "nbval-check-output")
    assert cell.outputs and all(output.output_type in ("display_data", "execute_result", "stream") for output in cell.outputs)


def test_it_is_committed_as_a_fresh_kernel_ran_it(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert notebook.metadata.kernelspec == {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    assert "version" not in notebook.metadata.language_info and set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    assert not tagged(notebook, "injected-parameters")


def test_its_outputs_are_clean_and_small(notebook, path):
    figures, size = LIMITS.get(path.name[:2], (4, 300_000))
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    kinds = [set(output.get("data", {})) for output in outputs]
    assert not any(kind.startswith("application/vnd.jupyter") for found in kinds for kind in found)
    assert sum(bool(found & {"image/png", "image/jpeg", "image/svg+xml"}) for found in kinds) <= figures
    assert path.stat().st_size <= size


def test_its_outputs_name_no_place_of_a_machine(notebook):
    for output in (output for cell in code(notebook) for output in cell.outputs):
        texts = [output.get("text", ""), *(value for kind, value in output.get("data", {}).items() if kind.startswith("text"))]
        assert not MACHINE.search("\n".join(map(str, texts)))


def test_its_links_lead_somewhere(notebook, path):
    for link in re.findall(r"\]\(([^)#\s]+)", prose(notebook)):
        if not re.match(r"https?://|mailto:", link):
            assert (path.parent / link).exists(), link


def test_the_file_is_what_the_command_writes(notebook, path):
    from bhi_utils.runner import clean_outputs

    assert path.read_text(encoding="utf-8") == clean_outputs.to_text(clean_outputs.clean(notebook))
