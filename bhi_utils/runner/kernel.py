"""Runs one notebook in a kernel of this very interpreter, and lets a person follow it.

Used by ``runner.pipeline``. What the kernel writes to stderr, such as the progress bars of packing and training, is shown as it comes,
without TensorFlow's start-up log.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TextIO

import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from bhi_utils.core.paths import InputError
from bhi_utils.runner.parameters import for_papermill

#: What TensorFlow's C++ side writes before its log level can be set, what ipykernel logs, and tqdm's wish for widgets.
_NOISE = re.compile(
    r"WARNING: All log messages before absl::|[IWE]\d{4} \d\d:\d\d:|To enable the following instructions:"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] |\[IPKernelApp\]|.*(Debugger warning|frozen_modules|DISABLE_FILE_VALIDATION|debugger miss)"
    r"|.*TqdmWarning: IProgress not found|  from \.autonotebook import tqdm"
)
#: Seconds between two states of a progress bar in a log that is no terminal.
_EVERY = 20.0


class NotebookFailed(RuntimeError):
    """A notebook stopped with an error that is not the user's input. The message names notebook and cell."""


class LiveStderr:
    """A text stream that shows several progress bars on one line of a terminal, or every 20 seconds in a log.

    papermill's bar and the kernel's bars begin their texts with a carriage return. The line that one of them leaves is blanked before
    the next is written. Plain lines stay.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._unfinished = ""
        self._width = 0
        self._shown = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        """Everything else, such as ``isatty``, is the stream's."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Show some output. A text that no line end has closed yet is the state of a bar."""
        heard = "".join(line for line in text.replace("\r\n", "\n").splitlines(keepends=True) if not _NOISE.match(line))
        *whole, bar = re.split(r"(?<=[\r\n])", self._unfinished + heard)
        self._unfinished = bar
        for part in whole:
            if part.endswith("\n") and part.strip():
                self.clear()
                self._print(part.rstrip())
        if heard and bar.strip() and self.stream.isatty():
            room = shutil.get_terminal_size().columns - 1
            self.stream.write("\r" + bar[:room].ljust(min(self._width, room)))
            self._width = min(len(bar), room)
        elif heard and bar.strip() and time.monotonic() - self._shown > _EVERY:
            self._print(bar)
        self.stream.flush()
        return len(text)

    def clear(self) -> None:
        """Blank the line that a bar has left."""
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self.stream.flush()
        self._width = 0

    def _print(self, text: str) -> None:
        self._shown = time.monotonic()
        self.stream.write(text + "\n")


def execute(source: Path, target: Path, parameters: Mapping[str, Any], *, label: str) -> None:
    """Run the notebook ``source`` in its own folder and write the executed copy, also when it fails.

    Args:
        source: the notebook.
        target: the executed copy; its folder exists.
        parameters: what the cell after ``parameters`` sets; nothing is injected when it is empty.
        label: what the progress bar on stderr says.

    Raises:
        InputError: a cell raised InputError.
        NotebookFailed: a cell raised anything else, or the kernel died or did not start. Its temporary files are removed.
    """
    stderr = LiveStderr(sys.stderr)
    bar = {"desc": label, "file": stderr, "leave": False, "bar_format": "{desc} |{bar:20}| cell {n_fmt}/{total_fmt}"}
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="bhi-kernel-", ignore_cleanup_errors=True) as scratch:
        started: list[Any] = []
        try:
            papermill.execute_notebook(
                for_papermill(source),
                for_papermill(target),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=bar if sys.stderr.isatty() else False,
                stderr_file=stderr,
                cwd=str(source.parent),
                start_timeout=180,
                kernel_manager_class=_kernel_manager(log, scratch, started),
            )
        except PapermillExecutionError as error:
            if error.ename == "InputError":
                raise InputError(f"{source.stem}: {error.evalue}") from None
            raise NotebookFailed(_explain(source, error)) from error
        except RuntimeError as error:  # DeadKernelError is one, too
            died = isinstance(error, DeadKernelError) or str(error).startswith("Kernel died")  # before it answered
            code = started[0].poll() if died and started else None
            raise NotebookFailed(_explain_death(source, error, died, code, log)) from error
        finally:
            stderr.clear()


def _kernel_manager(log: IO[bytes], scratch: str, started: list[Any]) -> type[AsyncKernelManager]:
    """The class that starts a notebook's kernel; nbclient makes the instance itself.

    Args:
        log: the file for the process's own stderr, which holds its last words when it dies.
        scratch: the folder for its temporary files.
        started: where the process is added, for its exit code.
    """

    class Manager(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            # Without folders to search, python3 is the running interpreter. With them, a kernel named python3 in JUPYTER_PATH, or outside a
            # virtual environment in the user's own folder, would come first.
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]  # the superclass wraps its own, untyped
            environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)}
            await super().start_kernel(stderr=log, env=environment, **options)
            started.append(getattr(self.provisioner, "process", None))

    return Manager


def _explain(source: Path, error: PapermillExecutionError) -> str:
    """Notebook, cell and the last lines of the traceback."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).strip().splitlines()
    tail = "\n".join(f"    {line}" for line in plain[-12:])
    return f"{source.stem} stopped at In [{error.exec_count}] with {error.ename}: {error.evalue}\n{tail}"


def _explain_death(source: Path, error: Exception, died: bool, code: int | None, log: IO[bytes]) -> str:
    """What ended the kernel, and its last words. A system that is short of memory kills from outside."""
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
