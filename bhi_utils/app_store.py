"""Uploads and what is made of them: files are gone when their answer is there, and a region stays in memory for its own window only.

Used by the interface only. The folder of uploads is this process's own, and ``app_guard`` gives each upload a folder in it that nobody can
guess, so that two windows never share a file.
"""

import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

#: Most bytes of regions that are kept in memory, and the seconds after which one that nobody looks at goes.
MOST_BYTES, LONGEST = 2 << 30, 1800
_VARIABLE = "GRADIO_TEMP_DIR"
#: What a folder of uploads is called: then the process that it belongs to, when that one began, and what makes the name its own.
_PREFIX = "bhi-app-"
#: Seconds by which the beginning of one process may seem to move when the clock is set. Numbers of processes come back, but not so soon.
_CLOCK = 60


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for uploads that belongs to this process; one that the user has named is used as it is, and only emptied of uploads."""
    before = os.environ.get(_VARIABLE)
    if before:
        folder = Path(before)
    else:
        _sweep_orphans(Path(tempfile.gettempdir()))
        process = psutil.Process()
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{process.pid}-{round(process.create_time())}-"))
    os.environ[_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if not before:
            os.environ.pop(_VARIABLE, None)
            shutil.rmtree(folder, ignore_errors=True)


def _sweep_orphans(root: Path) -> None:
    """Delete folders of uploads whose process is gone: one that was killed could not do it."""
    for folder in root.glob(f"{_PREFIX}*-*-*"):
        pid, began, *_ = folder.name.removeprefix(_PREFIX).split("-")
        if not (pid.isdecimal() and began.isdecimal()) or folder.is_symlink():
            continue
        try:
            alive = abs(psutil.Process(int(pid)).create_time() - int(began)) < _CLOCK
        except psutil.NoSuchProcess:
            alive = False
        except psutil.Error:
            alive = True
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def taken(files: Sequence[dict[str, Any]], folder: Path) -> Iterator[list[Path]]:
    """The paths of uploads; they are deleted when the block ends, whatever happens in it.

    Args:
        files: what Gradio gives for them, each with ``path``.
        folder: where uploads lie; a file elsewhere is not touched, and left out.
    """
    root = folder.resolve()
    paths = [Path(file.get("path") or "").resolve() for file in files]
    paths = [path for path in paths if path.parent.parent == root]
    try:
        yield [path for path in paths if path.is_file()]
    finally:
        for path in paths:
            shutil.rmtree(path.parent, ignore_errors=True)


class Kept:
    """Regions by window, the oldest forgotten first. Safe to call from several threads."""

    def __init__(self, *, most: int = MOST_BYTES, longest: float = LONGEST) -> None:
        self._most, self._longest, self._lock = most, longest, threading.Lock()
        self._found: OrderedDict[str, tuple[float, int, Any]] = OrderedDict()

    def put(self, window: str, value: Any, size: int) -> None:
        """Keep ``value``, of ``size`` bytes, for ``window`` in place of what it had."""
        with self._lock:
            self._found.pop(window, None)
            self._found[window] = (time.monotonic(), size, value)
            self._sweep()

    def get(self, window: str) -> Any:
        """What ``window`` has, or None."""
        with self._lock:
            self._sweep()
            if window not in self._found:
                return None
            _, size, value = self._found.pop(window)
            self._found[window] = (time.monotonic(), size, value)
            return value

    def drop(self, window: str) -> None:
        """Forget what ``window`` has."""
        with self._lock:
            self._found.pop(window, None)

    def __len__(self) -> int:
        return len(self._found)

    def _sweep(self) -> None:
        old = time.monotonic() - self._longest
        while self._found:
            used, _, _ = next(iter(self._found.values()))
            heavy = sum(size for _, size, _ in self._found.values()) > self._most and len(self._found) > 1
            if used >= old and not heavy:
                break
            self._found.popitem(last=False)
