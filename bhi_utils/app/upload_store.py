"""Uploads and what is made of them: files are gone when their answer is there, and a region stays in memory for its own window only.

Used by the interface only. The folder of uploads is this process's own, and ``app.gradio_guard`` gives each upload a folder in it that
nobody can guess, so that two windows never share a file.
"""

import os
import shutil
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
#: Seconds by which the beginning of one process may seem to move when the clock is set. Numbers of processes come back, but not so soon.
_CLOCK = 60


def _space() -> str:
    """Which numbering of processes this one lives in: containers that share a temporary folder have one each."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for uploads that belongs to this process; one that the user has named is used as it is, and only emptied of uploads."""
    before = os.environ.get(_VARIABLE)
    if before:
        folder = Path(before)
    else:
        _sweep_orphans(Path(tempfile.gettempdir()))
        process = psutil.Process()
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{process.pid}-{round(process.create_time())}-{_space()}-"))
    os.environ[_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if not before:
            os.environ.pop(_VARIABLE, None)
            shutil.rmtree(folder, ignore_errors=True)


def _sweep_orphans(root: Path) -> None:
    """Delete folders of uploads whose process is gone: one that was killed could not do it."""
    for folder in root.glob(f"{_PREFIX}*-*-*-*"):
        pid, began, space, *_ = folder.name.removeprefix(_PREFIX).split("-")
        if not (pid.isdecimal() and began.isdecimal()) or space != _space() or folder.is_symlink():
            continue
        try:
            alive = abs(psutil.Process(int(pid)).create_time() - int(began)) < _CLOCK
        except psutil.NoSuchProcess:
            alive = False
        except psutil.Error:
            alive = True
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)


class Uploads:
    """The uploads below a folder, each in a folder of its own, and who still needs them. Safe to call from several threads."""

    def __init__(self, root: Path, *, most: int | None = None) -> None:
        self.root, self._most, self._lock = root.resolve(), most or MOST_DISK, threading.Lock()
        #: of each upload that is complete, by its folder: bytes, and when it goes unless somebody needs it then
        self._size: dict[Path, int] = {}
        self._until: dict[Path, float] = {}
        self._used: Counter[Path] = Counter()
        self._arriving = 0

    def arriving(self, size: int) -> bool:
        """Count bytes that come in, or with a minus that no longer do; whether there is room for them."""
        with self._lock:
            self._arriving += size
            return self._arriving + sum(self._size.values()) <= self._most

    def arrived(self, folder: Path, size: int) -> None:
        """An upload is complete."""
        with self._lock:
            self._size[folder], self._until[folder] = size, time.monotonic() + UNASKED

    def asked(self, paths: Iterable[str]) -> None:
        """An answer about these files has been asked for: they go soon, unless ``sweep`` hears that it is still to come."""
        self._extend({Path(path).parent for path in paths}, ASKED)

    def _extend(self, folders: set[Path], seconds: float) -> None:
        with self._lock:
            for folder in folders & set(self._until):
                self._until[folder] = time.monotonic() + seconds

    @contextmanager
    def taken(self, files: Sequence[dict[str, Any]]) -> Iterator[list[Path]]:
        """The paths of uploads; they are deleted when the block ends, whatever happens in it.

        Args:
            files: what Gradio gives for them, each with ``path``; a file outside the folder of uploads is not touched, and left out.
        """
        paths = [Path(file.get("path") or "").resolve() for file in files]
        paths = [path for path in paths if path.parent.parent == self.root]
        with self._lock:
            self._used.update({path.parent for path in paths})
        try:
            yield [path for path in paths if path.is_file()]
        finally:
            for folder in {path.parent for path in paths}:
                with self._lock:
                    self._used[folder] -= 1
                self.discard(folder)

    def sweep(self, needed: Iterable[str] = ()) -> None:
        """Delete what nobody needs any more.

        Args:
            needed: paths in requests that wait or are being answered.
        """
        self._extend({Path(path).parent for path in needed}, ASKED)
        with self._lock:
            due = [folder for folder, until in self._until.items() if until < time.monotonic() and self._used[folder] < 1]
        for folder in due:
            self.discard(folder)

    def clear(self) -> None:
        """Delete all."""
        for folder in list(self._size):
            self.discard(folder)

    def discard(self, folder: Path) -> None:
        """Delete an upload."""
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            for known in (self._size, self._until, self._used):
                known.pop(folder, None)


class Kept:
    """Regions by window, the oldest forgotten first. Safe to call from several threads."""

    def __init__(self, *, most: int | None = None, longest: float | None = None) -> None:
        self._most, self._lock = MOST_BYTES if most is None else most, threading.Lock()
        self._longest = LONGEST if longest is None else longest
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

    def sweep(self) -> None:
        """Forget what nobody has looked at for too long."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        old = time.monotonic() - self._longest
        while self._found:
            used, _, _ = next(iter(self._found.values()))
            heavy = sum(size for _, size, _ in self._found.values()) > self._most and len(self._found) > 1
            if used >= old and not heavy:
                break
            self._found.popitem(last=False)
