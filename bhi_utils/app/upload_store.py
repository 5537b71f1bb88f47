"""Uploads and what is made of them: files are gone when their answer is there, and a region stays in memory for its own window only.

Used by the interface only. The folder of uploads is this process's own, and ``app.gradio_guard`` gives each upload a folder in it that
nobody can guess, so that two windows never share a file.
"""

import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

#: Most bytes of regions that are kept in memory, and the seconds after which one that nobody looks at goes.
MOST_BYTES, LONGEST = 2 << 30, 1800
#: Most bytes of uploads on the disk; the seconds after which one goes that nobody asks about, and one whose answer has ended without it.
MOST_DISK, UNASKED, ASKED = 4 << 30, 300, 20
_VARIABLE = "GRADIO_TEMP_DIR"
#: What a folder of uploads is called: then the process that it belongs to, when that one began, where its number counts, and what makes
#: the name its own.
_PREFIX = "bhi-app-"
#: Seconds by which the beginning of one process may seem to move when the clock is set; a number of a process is not given anew so soon.
_CLOCK = 60
#: The numbering of processes that this one lives in: containers that share a temporary folder have one each.
_NUMBERING = Path("/proc/self/ns/pid")
_SPACE = _NUMBERING.stat().st_ino if _NUMBERING.exists() else 0


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for uploads that belongs to this process; one that the user has named is used as it is, and only emptied of uploads."""
    if named := os.environ.get(_VARIABLE):
        yield Path(named)
        return
    _sweep_orphans(Path(tempfile.gettempdir()))
    process = psutil.Process()
    prefix = f"{_PREFIX}{process.pid}-{round(process.create_time())}-{_SPACE}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        os.environ[_VARIABLE] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop(_VARIABLE, None)


def _sweep_orphans(root: Path) -> None:
    """Deletes folders of uploads whose process is gone: one that was killed could not do it."""
    # 0 for a process that is gone, None for one that may not be asked
    began = {process.pid: process.info["create_time"] for process in psutil.process_iter(["create_time"])}
    for folder in root.glob(f"{_PREFIX}*-*-{_SPACE}-*"):
        pid, created, *_ = folder.name.removeprefix(_PREFIX).split("-")
        if pid.isdecimal() and created.isdecimal() and not folder.is_symlink():
            known = began.get(int(pid), 0)
            if known is not None and abs(known - int(created)) >= _CLOCK:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Upload:
    """A complete upload: its bytes, when it goes unless somebody needs it, and how many are reading it."""

    size: int
    until: float
    readers: int = 0


class Uploads:
    """The uploads below a folder, each in a folder of its own, and who still needs them. Safe to call from several threads."""

    def __init__(self, root: Path, *, most: int | None = None) -> None:
        self.root, self._most, self._lock = root.resolve(), most or MOST_DISK, threading.RLock()
        self._kept: dict[Path, _Upload] = {}
        self._arriving = 0

    def arriving(self, size: int) -> bool:
        """Counts bytes that come in, or with a minus that no longer do; returns whether there is room for them."""
        with self._lock:
            self._arriving += size
            return self._arriving + sum(one.size for one in self._kept.values()) <= self._most

    def arrived(self, folder: Path, size: int) -> None:
        """An upload is complete."""
        with self._lock:
            self._kept[folder] = _Upload(size, time.monotonic() + UNASKED)

    def asked(self, paths: Iterable[str]) -> None:
        """An answer about these files has been asked for: they go soon, unless ``sweep`` hears that it is still to come."""
        with self._lock:
            for folder in {Path(path).parent for path in paths} & self._kept.keys():
                self._kept[folder].until = time.monotonic() + ASKED

    @contextmanager
    def taken(self, files: Sequence[dict[str, Any]]) -> Iterator[list[Path]]:
        """Gives the paths of uploads, and deletes them when the block ends, whatever happens in it.

        Args:
            files: what Gradio gives for them, each with ``path``; a file outside the folder of uploads is not touched, and left out.
        """
        paths = [Path(file.get("path") or "").resolve() for file in files]
        paths = [path for path in paths if path.parent.parent == self.root]
        with self._lock:
            read = [self._kept[folder] for folder in {path.parent for path in paths} & self._kept.keys()]
            for one in read:
                one.readers += 1
        try:
            yield [path for path in paths if path.is_file()]
        finally:
            for one in read:
                one.readers -= 1
            for path in paths:
                self.discard(path.parent)

    def sweep(self, needed: Iterable[str] = ()) -> None:
        """Deletes what nobody needs any more.

        Args:
            needed: paths in requests that wait or are being answered.
        """
        self.asked(needed)
        with self._lock:
            due = [folder for folder, one in self._kept.items() if one.until < time.monotonic() and not one.readers]
        for folder in due:
            self.discard(folder)

    def clear(self) -> None:
        """Deletes all."""
        for folder in list(self._kept):
            self.discard(folder)

    def discard(self, folder: Path) -> None:
        """Deletes an upload."""
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            self._kept.pop(folder, None)


class Kept:
    """Regions by window, the oldest forgotten first. Safe to call from several threads."""

    def __init__(self, *, most: int | None = None, longest: float | None = None) -> None:
        self._most, self._lock = MOST_BYTES if most is None else most, threading.RLock()
        self._longest = LONGEST if longest is None else longest
        self._found: OrderedDict[str, tuple[float, int, Any]] = OrderedDict()

    def put(self, window: str, value: Any, size: int) -> None:
        """Keeps ``value``, of ``size`` bytes, for ``window`` in place of what it had."""
        with self._lock:
            self.drop(window)
            self._found[window] = (time.monotonic(), size, value)
            self.sweep()

    def get(self, window: str) -> Any:
        """What ``window`` has, or None."""
        with self._lock:
            self.sweep()
            if window in self._found:
                _, size, value = self._found[window]
                self.put(window, value, size)
                return value
            return None

    def drop(self, window: str) -> None:
        """Forgets what ``window`` has."""
        with self._lock:
            self._found.pop(window, None)

    def __len__(self) -> int:
        return len(self._found)

    def sweep(self) -> None:
        """Forgets what nobody has looked at for too long, and the oldest when all take too much memory; the newest stays."""
        with self._lock:
            while self._found:
                used, _, _ = next(iter(self._found.values()))
                heavy = len(self._found) > 1 and sum(size for _, size, _ in self._found.values()) > self._most
                if used >= time.monotonic() - self._longest and not heavy:
                    break
                self._found.popitem(last=False)
