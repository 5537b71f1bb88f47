"""What is kept of an executed notebook, and what is removed."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bhi_utils.core.paths import InputError
from bhi_utils.runner import clean_outputs


def executed():
    """A notebook as papermill leaves it."""
    cells = [
        new_markdown_cell("# 01"),
        new_code_cell("SEED = 0", metadata={"tags": ["parameters"], "papermill": {"duration": 1}}, execution_count=4),
        new_code_cell("SEED = 1", metadata={"tags": ["injected-parameters"]}, execution_count=5),
        new_code_cell("table  \n", metadata={"execution": {"iopub.status.busy": "2026"}}, execution_count=9),
    ]
    cells[3].outputs = [
        new_output("stream", name="stderr", text="50%|"),
        new_output("stream", name="stdout", text="a\n"),
        new_output("stream", name="stdout", text="b\n"),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "HBox(children=())"}),
        new_output("execute_result", data={"text/plain": "7"}, execution_count=9, metadata={"took": 3}),
    ]
    metadata = {"papermill": {"duration": 3}, "widgets": {}, "language_info": {"name": "python", "version": "3.11.7"}}
    return new_notebook(cells=cells, metadata={**metadata, "kernelspec": {"name": "mine", "display_name": "Mine"}})


def test_outputs_stay_and_what_differs_between_runs_goes():
    made = clean_outputs.clean(executed())
    assert made.metadata == {"kernelspec": clean_outputs.KERNELSPEC, "language_info": {"name": "python"}}
    assert [cell.metadata for cell in made.cells] == [{}, {"tags": ["parameters"]}, {}]
    assert [cell.execution_count for cell in made.cells[1:]] == [1, 2]
    assert made.cells[2].source == "table"
    stream, result = made.cells[2].outputs
    assert (stream.name, stream.text) == ("stdout", "a\nb\n")
    assert (result.data, result.execution_count, result.metadata) == ({"text/plain": "7"}, 2, {})


def test_cleaning_twice_changes_nothing_and_leaves_the_original_alone():
    notebook = executed()
    before = nbformat.writes(notebook)
    once = clean_outputs.clean(notebook)
    assert nbformat.writes(notebook) == before
    assert clean_outputs.to_text(clean_outputs.clean(once)) == clean_outputs.to_text(once)
    assert [cell.id for cell in once.cells] == [notebook.cells[i].id for i in (0, 1, 3)]


def test_the_text_ends_with_one_line_end_and_reads_back():
    made = clean_outputs.clean(executed())
    text = clean_outputs.to_text(made)
    assert text.endswith("}\n") and not text.endswith("\n\n") and nbformat.reads(text, 4) == made


def test_a_notebook_with_an_error_is_refused():
    notebook = executed()
    notebook.cells[3].outputs = [new_output("error", ename="ValueError", evalue="no", traceback=[])]
    with pytest.raises(InputError, match="ValueError: no"):
        clean_outputs.clean(notebook)
