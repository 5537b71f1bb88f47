"""Makes an executed notebook fit for git: outputs are kept, and what differs from run to run is removed.

Used by the command ``bhi notebooks`` and by tests. GitHub shows what is left, and the tests compare it with a new run.
"""

import copy

import nbformat
from nbformat import NotebookNode

from bhi_utils.core.paths import InputError

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
#: Kept of the language's metadata; its version is the one of whoever ran the notebook last.
LANGUAGE = ("file_extension", "mimetype", "name", "nbconvert_exporter", "pygments_lexer")
#: Cells that papermill adds.
_ADDED = {"injected-parameters", "papermill-error-cell-tag"}
#: What a widget leaves as text.
_WIDGETS = ("", "HBox", "VBox", "FloatProgress", "IntProgress", "HTML", "Output")


def clean(notebook: NotebookNode) -> NotebookNode:
    """A copy with outputs, tags and cell ids, and without metadata of the run, widgets, stderr and cells that papermill added.

    nbconvert's preprocessors are not used: that for metadata leaves Markdown cells as they are, and the others save one line each.

    Args:
        notebook: an executed notebook, format 4.

    Returns:
        the clean copy, its execution counts 1 to n in the order of the cells.

    Raises:
        InputError: a cell's output is an error.
    """
    made = copy.deepcopy(notebook)
    language = {name: value for name, value in made.metadata.language_info.items() if name in LANGUAGE}
    made.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": language})
    made.cells = [cell for cell in made.cells if not _ADDED & set(cell.metadata.get("tags", []))]
    count = 0
    for cell in made.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
        cell.source = "\n".join(line.rstrip() for line in cell.source.rstrip().splitlines())
        if cell.cell_type == "code":
            cell.execution_count = count = count + 1
            cell.outputs = _outputs(cell.outputs, count)
    nbformat.validate(made)
    return made


def to_text(notebook: NotebookNode) -> str:
    """The notebook as the text of its file, with a line end at the end."""
    return nbformat.writes(notebook) + "\n"


def _outputs(outputs: list[NotebookNode], count: int) -> list[NotebookNode]:
    """The outputs that stay: results, figures and stdout, neighbouring texts joined."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "error":
            raise InputError(f"Cell {count} ended with {output.ename}: {output.evalue}; a notebook with an error is not published.")
        if output.output_type == "stream":
            if output.name == "stdout" and kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
            elif output.name == "stdout":
                kept.append(output)
            continue
        output.metadata = nbformat.from_dict({})
        output.data = {kind: value for kind, value in output.data.items() if not kind.startswith("application/vnd.jupyter.")}
        if output.output_type == "execute_result":
            output.execution_count = count
        if set(output.data) - {"text/plain"} or output.data.get("text/plain", "").split("(")[0] not in _WIDGETS:
            kept.append(output)
    return kept
