"""Runs one notebook in a kernel of this very interpreter, and lets a person follow it.

Used by ``runner.pipeline``. The kernel's stderr (progress bars of packing and training) is passed on as it comes, less TensorFlow's
start-up log.
"""

import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import IO, Any, TextIO

import papermill
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from bhi_utils.core.paths import InputError

#: What TensorFlow's C++ side writes before its log level can be set, what ipykernel logs, and tqdm's wish for widgets.
_NOISE = re.compile(
    r"WARNING: All log messages before absl::|[IWE]\d{4} \d\d:\d\d:|To enable the following instructions:"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] |\[IPKernelApp\]|.*(Debugger warning|frozen_modules|DISABLE_FILE_VALIDATION|debugger miss)"
    r"|.*TqdmWarning: IProgress not found|  from \.autonotebook import tqdm"
)
#: A log that is no terminal gets the state of a progress bar at most this often, in seconds.
_EVERY = 20.0


class NotebookFailed(RuntimeError):
    """A notebook stopped with an error that is not the user's input. The message names notebook and cell."""


class LiveStderr:
    """A text stream that shows several progress bars on one line of a terminal, or now and then in a log.

    papermill's bar and the kernel's bars both begin their texts with a carriage return; a line that one of them leaves is blanked
    before the next is written. Plain lines stay.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self._unfinished = ""
        self._width = 0
        self._shown = time.monotonic()

    def write(self, text: str) -> int:
        """Take some output. A text that no line end has closed yet is a bar's state, and a carriage return takes it back."""
        heard = "".join(line for line in text.replace("\r\n", "\n").splitlines(keepends=True) if not _NOISE.match(line))
        *whole, self._unfinished = re.split(r"(?<=[\r\n])", self._unfinished + heard)
        for part in whole:
            if part.endswith("\n") and part.strip():
                self._line(part.rstrip())
        if heard and self._unfinished.strip():
            self._bar(self._unfinished)
        return len(text)

    def flush(self) -> None:
        """Flush the stream beneath."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Whether a person sits before it."""
        return self.stream.isatty()

    def clear(self) -> None:
        """Blank the line that a bar has left."""
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
        self._width, self._unfinished = 0, ""
        self.flush()

    def _line(self, text: str) -> None:
        rest, self._unfinished = self._unfinished, ""
        self.clear()
        self._print(text)
        self._unfinished = rest

    def _bar(self, text: str) -> None:
        if self.isatty():
            room = shutil.get_terminal_size().columns - 1
            self.stream.write("\r" + text[:room].ljust(min(self._width, room)))
            self._width = min(len(text), room)
            self.flush()
        elif time.monotonic() - self._shown > _EVERY:
            self._print(text)

    def _print(self, text: str) -> None:
        self._shown = time.monotonic()
        self.stream.write(text + "\n")
        self.flush()


class _ThisPythonSpecs(KernelSpecManager):
    """Every kernel name means the interpreter that runs now, whatever other kernels named python3 the machine has."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class ThisPythonKernel(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher`` with a folder of its own for temporary files, and keeps its own stderr apart.

    Class attributes of a subclass hold file, folder and, once it has started, the process, because nbclient makes the instance.
    """

    process_stderr: Any = None
    scratch: str = ""
    process: Any = None

    @default("kernel_spec_manager")
    def _this_python(self) -> KernelSpecManager:
        return _ThisPythonSpecs(parent=self)

    async def start_kernel(self, **options: Any) -> None:
        """Start it, its stderr going to the file."""
        environment = {**(options.pop("env", None) or os.environ), **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self.scratch)}
        await super().start_kernel(stderr=self.process_stderr, env=environment, **options)
        type(self).process = getattr(self.provisioner, "process", None)


def execute(source: Path, target: Path, parameters: dict[str, Any], *, label: str, stderr: LiveStderr) -> float:
    """Run the notebook ``source`` in its own folder and write the executed copy, also when it fails.

    Args:
        source: the notebook.
        target: the executed copy; its folder exists.
        parameters: what the cell after ``parameters`` sets; nothing is injected when it is empty.
        label: what the progress bar says.
        stderr: where progress goes.

    Returns:
        the seconds that it took.

    Raises:
        InputError: a cell raised InputError.
        NotebookFailed: a cell raised anything else, or the kernel died or did not start. What it left in its temporary folder is gone.
    """
    started = time.perf_counter()
    bar = {"desc": label, "file": stderr, "leave": False, "bar_format": "{desc} |{bar:20}| cell {n_fmt}/{total_fmt}"}
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="bhi-kernel-", ignore_cleanup_errors=True) as scratch:
        kernel = type("LoggedKernel", (ThisPythonKernel,), {"process_stderr": log, "scratch": scratch})
        try:
            papermill.execute_notebook(
                _literal(source),
                _literal(target),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=bar if stderr.isatty() else False,
                stderr_file=stderr,
                cwd=str(source.parent),
                start_timeout=180,
                kernel_manager_class=kernel,
            )
        except PapermillExecutionError as error:
            if error.ename == "InputError":
                raise InputError(f"{source.stem}: {error.evalue}") from None
            raise NotebookFailed(_explain(source, error)) from error
        except RuntimeError as error:  # DeadKernelError is one, too
            died = isinstance(error, DeadKernelError) or str(error).startswith("Kernel died")  # before it answered
            code = kernel.process.poll() if died and kernel.process else None
            raise NotebookFailed(_explain_death(source, error, died, code, log)) from error
        finally:
            stderr.clear()
    return time.perf_counter() - started


def _literal(path: Path) -> str:
    """``path`` for papermill, which reads braces in a path as a parameter's place."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _explain(source: Path, error: PapermillExecutionError) -> str:
    """Notebook, cell and the last lines of the traceback."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).strip().splitlines()
    tail = "\n".join(f"    {line}" for line in plain[-12:])
    return f"{source.stem} stopped at In [{error.exec_count}] with {error.ename}: {error.evalue}\n{tail}"


def _explain_death(source: Path, error: Exception, died: bool, code: int | None, log: IO[bytes]) -> str:
    """What ended the kernel, and its last words. Only a kill from outside, which is what a system short of memory does, is told as that."""
    log.seek(0)
    said = [line for line in log.read().decode(errors="replace").splitlines() if line.strip() and not _NOISE.match(line)]
    tail = "".join(f"\n    {line}" for line in said[-8:])
    if not died:
        return f"The kernel of {source.stem} could not run the notebook: {error}{tail}"
    if code == -getattr(signal, "SIGKILL", 9):
        return (
            f"The kernel of {source.stem} was killed, most likely for want of memory: lower IMAGE_SIZE or BATCH_SIZE, "
            f"or close other programs.{tail}"
        )
    how = "died" if code is None else f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    return f"The kernel of {source.stem} {how} in the middle of a cell.{tail}"
