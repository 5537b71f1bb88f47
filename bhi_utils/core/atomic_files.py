"""Files and folders that appear whole or not at all, and whether a place can be written before anything is computed.

Used by everything that writes. A file is written beside its place and renamed into it. A folder is built under a lock that a killed
process loses, so that `sweep` can tell what is left behind from what somebody works on.
"""

import glob
import gzip
import io
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from bhi_utils.core.paths import InputError, exists, shown

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted: that serves as the lock
    fcntl = None


def check_space(folder: Path, needed: int, *, advice: str = "free some or set BHI_CACHE to another folder") -> None:
    """Refuse to start what the disk of ``folder`` cannot hold; ``advice`` ends the sentence."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"Not enough disk space in {shown(folder)}: {needed / 1e9:,.2f} GB are needed and {free / 1e9:,.2f} GB are free; {advice}."
        )


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` under a lock that a killed process loses; both go afterwards.

    The lock only tells `sweep` that somebody lives; what keeps processes apart is that each has a folder of its own, and `commit`.
    """
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", suffix=".lock", dir=target.parent)
    lock, temporary = Path(name), Path(name).with_suffix(".part")
    try:
        if fcntl:
            with suppress(OSError):  # a network disk without locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.mkdir()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)
        lock.unlink(missing_ok=True)


def sweep(folder: Path, name: str = "") -> None:
    """Delete what killed builds of ``name``, or all, left in ``folder``: a lock that can be taken (or on Windows deleted) is nobody's."""
    for lock in folder.glob(f".{glob.escape(name)}-*.lock" if name else ".*.lock"):
        with suppress(OSError):
            with open(lock, "rb") as stream:
                if fcntl:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.unlink()
            shutil.rmtree(lock.with_suffix(".part"), ignore_errors=True)


def commit(temporary: Path, folder: Path) -> None:
    """Rename into place. What another process has put there stays, and is not empty; a virus scanner's short grip is waited for."""
    for attempt in range(10):
        if folder.exists():
            return
        try:
            os.rename(temporary, folder)
            return
        except OSError:
            if attempt == 9 and not folder.exists():
                raise
            time.sleep(0.2)


def set_aside(folder: Path) -> None:
    """Make room where a damaged folder lies. It is renamed first, which Windows refuses as long as somebody uses it."""
    aside = folder.with_name(f".{folder.name}-{os.getpid()}.damaged")
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise InputError(f"{shown(folder)} is damaged and in use: close what uses it and retry.") from error
    shutil.rmtree(aside, ignore_errors=True)


def writable(out: Path, *, folder: bool) -> Path:
    """``out`` as an absolute path, taken from the current folder, once it is sure that it can be written; nothing is made yet.

    Called before an hour is spent on what will be written.

    Args:
        out: what a command was told to write.
        folder: whether it is to be a folder, which may be there already, or a file.

    Raises:
        InputError: it is a file and not a folder, or the other way round; or it cannot be written.
    """
    out = place = Path.cwd() / Path(out).expanduser()
    if not folder and out.is_dir():
        raise InputError(f"{shown(out)} is a folder: name a file, such as one within it.")
    while not exists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir() and (folder or place != out):
        raise InputError(f"{shown(place)} is a file: name a folder.")
    try:
        tempfile.TemporaryFile(dir=place if place.is_dir() else place.parent).close()
    except OSError as error:
        raise InputError(f"Cannot write {shown(out)}: {error.strerror or error}; choose another place or check its permissions.") from error
    return out


@contextmanager
def write_atomic(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path``; replaces it when the block ends well and is removed when it does not.

    With ``replace=False``, a file that another process has put there meanwhile stays as it is.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    # a plain name rather than tempfile's: that makes files which only their owner may read
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if replace:
            os.replace(temporary, path)
        else:
            _place(temporary, path)
    except OSError as error:
        raise InputError(f"Cannot write {shown(path)}: {error.strerror or error}; free some disk space or check the folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _place(temporary: Path, path: Path) -> None:
    """Give ``temporary`` the name ``path``, unless that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a disk without hard links
        with suppress(FileExistsError):  # Windows refuses to rename onto a file; elsewhere it is looked for a moment before
            if not path.exists():
                os.rename(temporary, path)


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` (UTF-8, Unix line ends) to ``path``, whole or not at all."""
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_json(path: Path, value: Any) -> Path:
    """Write ``value`` as indented JSON. NaN is refused: a metric that does not exist is ``null``."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


#: Beginnings of texts that a spreadsheet would run as a formula, and of those that `csv_text` has made harmless.
_FORMULA, _HARMLESS = re.compile("'*[=+@\t\r\n-]"), re.compile("'+[=+@\t\r\n-]")


def csv_text(frame: pd.DataFrame) -> str:
    """``frame`` without its index as CSV. A text that a spreadsheet would run, one that begins with = + - @, a tab or a line's end, gets
    an apostrophe in front, which `read_csv` takes away again.
    """
    return _changed(frame, _FORMULA, lambda text: f"'{text}").to_csv(index=False, lineterminator="\n")


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """What `write_csv` has written, by ``pandas.read_csv`` with ``options``."""
    return _changed(pd.read_csv(path, **options), _HARMLESS, lambda text: text[1:])


def _changed(frame: pd.DataFrame, begins: re.Pattern, change: Callable[[str], str]) -> pd.DataFrame:
    """``frame`` with those of its texts changed that begin so; columns without any are left as they are."""
    for name, column in frame.select_dtypes(exclude=["number", "bool"]).items():
        found = [isinstance(one, str) and begins.match(one) is not None for one in column]
        if any(found):
            said = [change(one) if hit else one for one, hit in zip(column, found, strict=True)]
            frame = frame.assign(**{name: pd.Series(said, frame.index, column.dtype)})
    return frame


def write_csv(path: Path, frame: pd.DataFrame) -> Path:
    """Write `csv_text` of ``frame``; a ``.gz`` name is compressed with a fixed time stamp, so equal data gives equal bytes."""
    text = csv_text(frame)
    if Path(path).suffix != ".gz":
        return write_text(path, text)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as stream:
        stream.write(text.encode("utf-8"))
    with write_atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return Path(path)
