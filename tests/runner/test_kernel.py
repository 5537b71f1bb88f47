"""One notebook in a kernel of this interpreter: what becomes of its errors, its death and its progress."""

import io
import json
import sys

import pytest
from jupyter_client.manager import AsyncKernelManager

from bhi_utils.core.paths import InputError
from bhi_utils.runner import kernel

FAILING = """from bhi_utils.core.paths import InputError
if FAIL == 'input':
    raise InputError('The file is empty: pass another.')
if FAIL == 'bug':
    1 / 0"""


@pytest.fixture
def execute(write_notebook, tmp_path, monkeypatch):
    """Runs a notebook of one cell; its temporary files go to ``tmp_path/temporary``."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def run(cell, target="out {1}.ipynb", **values):
        path = write_notebook("01_first", "FAIL: str = ''  # how to fail", cell)
        kernel.execute(path, tmp_path / target, values, label="")

    return run


def test_bad_input_is_told_in_its_sentence_and_the_executed_copy_is_written(execute, tmp_path):
    with pytest.raises(InputError, match="^01_first: The file is empty: pass another.$"):
        execute(FAILING, FAIL="input")
    assert "The file is empty" in (tmp_path / "out {1}.ipynb").read_text(encoding="utf-8")


def test_another_error_names_notebook_cell_and_line(execute):
    with pytest.raises(kernel.NotebookFailed, match=r"01_first stopped at In \[3\] with ZeroDivisionError(.|\n)*1 / 0"):
        execute(FAILING, FAIL="bug")


@pytest.mark.parametrize(
    ("last", "said"),
    [
        pytest.param(
            "os.kill(os.getpid(), signal.SIGKILL)",
            "was killed, most likely for want of memory",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no signals"),
        ),
        ("os._exit(9)", "ended with exit code 9 in the middle of a cell"),
    ],
)
def test_a_dead_kernel_is_a_failure_that_names_its_cause_and_leaves_nothing(execute, tmp_path, last, said):
    with pytest.raises(kernel.NotebookFailed, match=f"kernel of 01_first {said}") as caught:
        execute(f"import os, signal, tempfile\nassert os.path.isdir(tempfile.mkdtemp())\n{last}")
    assert ("memory" in str(caught.value)) == ("SIGKILL" in last)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_kernel_that_does_not_start_is_told_in_its_own_words(execute, monkeypatch):
    argv = [sys.executable, "-c", "raise SystemExit('no module named kernel')"]
    monkeypatch.setattr("ipykernel.kernelspec.get_kernel_dict", lambda: {"argv": argv, "display_name": "x", "language": "python"})
    with pytest.raises(kernel.NotebookFailed, match="ended with exit code 1(.|\n)*no module named kernel") as caught:
        execute("")
    assert "memory" not in str(caught.value)


def test_another_error_of_the_runner_is_told_in_its_own_words(execute, monkeypatch):
    def refusing(*_, **__):
        raise RuntimeError("Can only launch a kernel on a local interface.")

    monkeypatch.setattr(AsyncKernelManager, "start_kernel", refusing)
    with pytest.raises(kernel.NotebookFailed, match="could not run the notebook: Can only launch") as caught:
        execute("")
    assert "memory" not in str(caught.value)


def test_the_kernel_is_this_interpreter_whatever_else_is_named_python3(execute, tmp_path, monkeypatch):
    """JUPYTER_PATH comes before the environment's own kernels, and so does the user's folder outside a virtual environment."""
    for variable, below in (("JUPYTER_PATH", "kernels/python3"), ("JUPYTER_DATA_DIR", "kernels/python3")):
        folder = tmp_path / variable / below
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps({"argv": ["/nowhere/python"], "display_name": "x", "language": "python"}))
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    execute(f"import sys\nassert sys.executable == {sys.executable!r}, sys.executable")


class TestLiveStderr:
    NOISE = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\nI0000 00:00:17.5 12 port.cc:153] oneDNN\n"
    )

    def test_a_log_gets_lines_and_the_last_state_of_a_bar(self):
        stream = io.StringIO()
        live = kernel.LiveStderr(stream)
        for text in (self.NOISE, "\rFit:  0%|", "\rFit: 50%|", "\rFit: 100%|", "\n", "a warning\n"):
            live.write(text)
        assert stream.getvalue() == "Fit: 100%|\na warning\n"

    def test_a_terminal_gets_one_line_that_is_blanked_at_the_end(self):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        stream = Terminal()
        live = kernel.LiveStderr(stream)
        live.write("\rcells |####|")
        live.write("\rFit |#|")
        live.write(self.NOISE)
        live.clear()
        assert stream.getvalue() == "\rcells |####|" + "\rFit |#|".ljust(13) + "\r" + " " * 7 + "\r"
