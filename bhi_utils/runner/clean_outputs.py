"""Makes an executed notebook and its figures fit for git: outputs kept, everything that differs from run to run taken away, and small.

Used by the command ``bhi notebooks``, by ``notebook`` and by tests. GitHub shows what is left; nbval compares it.
"""

import copy
import hashlib
import json
from typing import Any

import nbformat
from nbformat import NotebookNode

from bhi_utils.core.paths import InputError

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
#: Without the version, which is the one of whoever ran it last.
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
#: Cells that papermill adds.
_ADDED = {"injected-parameters", "papermill-error-cell-tag"}
_WIDGET = "application/vnd.jupyter."


def clean(notebook: NotebookNode) -> NotebookNode:
    """A copy with outputs, tags and cell ids, and without metadata of the run, widgets, stderr and cells that papermill added.

    Args:
        notebook: an executed notebook, format 4.

    Returns:
        the clean copy, its execution counts 1 to n in the order of the cells.

    Raises:
        InputError: a cell's output is an error.
    """
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if not _ADDED & set(cell.metadata.get("tags", []))]
    made.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE})
    made.nbformat, made.nbformat_minor = 4, 5
    count, seen = 0, set()
    for cell in made.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
        cell.source = "\n".join(line.rstrip() for line in cell.source.rstrip().splitlines())
        cell.id = _identity(cell, seen)
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _outputs(cell.outputs, count)
    nbformat.validate(made)
    return made


def to_text(notebook: NotebookNode) -> str:
    """The notebook as the text of its file: sorted keys, one blank of indentation, a line end at the end."""
    return json.dumps(nbformat.v4.rwbase.split_lines(copy.deepcopy(notebook)), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _identity(cell: Any, seen: set[str]) -> str:
    """The cell's own id, or one made of its text when it has none or shares it."""
    identity = cell.get("id", "")
    salt = 0
    while not identity or identity in seen:
        identity = hashlib.sha256(f"{salt}{cell.cell_type}{cell.source}".encode()).hexdigest()[:8]
        salt += 1
    seen.add(identity)
    return identity


def _outputs(outputs: list[Any], count: int) -> list[Any]:
    """The outputs that stay: results, figures and stdout, neighbouring texts joined."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "error":
            raise InputError(f"Cell {count} ended with {output.ename}: {output.evalue}; a notebook with an error is not published.")
        if output.output_type == "stream":
            if output.name != "stdout":
                continue
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        else:
            output.metadata = nbformat.from_dict({})
            output.data = {kind: value for kind, value in output.data.items() if not kind.startswith(_WIDGET)}
            if set(output.data) <= {"text/plain"} and _is_widget(output.data.get("text/plain", "")):
                continue
            if output.output_type == "execute_result":
                output.execution_count = count
        kept.append(output)
    return kept


def _is_widget(text: str) -> bool:
    """Whether a text is all that is left of a widget, or nothing at all."""
    return not text or text.split("(")[0] in ("HBox", "VBox", "FloatProgress", "IntProgress", "HTML", "Output")
