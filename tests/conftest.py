"""Data that several folders of tests share."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

# before any test's file loads TensorFlow, which reads once which kernels to compute with: tests then compute as notebooks and commands do
import bhi_utils  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def write_notebook(tmp_path):
    """Writes a small notebook into ``tmp_path/notebooks`` and returns its path."""
    folder = tmp_path / "notebooks"
    folder.mkdir()

    def write(name: str, parameters: str, *cells: str) -> Path:
        metadata = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
        code = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, cells)]
        path = folder / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {name}"), *code], metadata=metadata), path)
        return path

    return write
