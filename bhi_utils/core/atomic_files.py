"""Files and folders that appear whole or not at all, and checks that a place can be written before anything is computed.

Used by everything that writes. A file is written beside its place and renamed into it. A folder is built under a lock that a killed
process loses, so that `sweep` can tell what is left behind from what somebody works on.
"""

import glob
import gzip
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
    fcntl = None  # type: ignore[assignment]  # a module elsewhere


def check_space(folder: Path, needed: int, *, advice: str = "free some or set BHI_CACHE to another folder") -> None:
    """Raises an InputError that ends in ``advice`` when the disk of ``folder`` has fewer than ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"Not enough disk space in {shown(folder)}: {needed / 1e9:,.2f} GB are needed and {free / 1e9:,.2f} GB are free; {advice}."
        )


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """Makes a temporary folder beside ``target``, and a lock that a killed process loses; both go at the end.

    The lock only tells `sweep` that somebody works there. Processes do not meet, since each has a folder of its own, see `commit`.
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
    """Deletes what killed builds of ``name``, or all, left in ``folder``: a lock that can be taken (or on Windows deleted) is nobody's."""
    for lock in folder.glob(f".{glob.escape(name)}-*.lock" if name else ".*.lock"):
        with suppress(OSError):
            with open(lock, "rb") as stream:
                if fcntl:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.unlink()
            shutil.rmtree(lock.with_suffix(".part"), ignore_errors=True)


def commit(temporary: Path, folder: Path) -> None:
    """Renames into place, unless another process has put the folder there. A virus scanner's short grip is waited for."""
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
    """Deletes a damaged folder. It is renamed first, which Windows refuses as long as somebody uses it."""
    aside = folder.with_name(f".{folder.name}-{os.getpid()}.damaged")
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise InputError(f"{shown(folder)} is damaged and in use: close what uses it and retry.") from error
    shutil.rmtree(aside, ignore_errors=True)


def writable(out: Path, *, folder: bool) -> Path:
    """Returns ``out`` as an absolute path, taken from the current folder, once it is sure that it can be written; nothing is made yet.

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
    """Gives a temporary path beside ``path``; it takes that name when the block ends well and is removed when it does not.

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
    """Gives ``temporary`` the name ``path``, unless that is taken."""
    with suppress(FileExistsError):
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links; Windows refuses to rename onto a file, elsewhere it is looked for a moment before
            if not path.exists():
                os.rename(temporary, path)


def write_text(path: Path, text: str) -> Path:
    """Writes ``text`` (UTF-8, Unix line ends), whole or not at all; returns ``path``."""
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_json(path: Path, value: Any) -> Path:
    """Writes ``value`` as indented JSON; returns ``path``. NaN is refused: a metric that does not exist is ``null``."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


#: Beginnings of texts that a spreadsheet would run as a formula, and of those that `csv_text` has made harmless.
_FORMULA, _HARMLESS = re.compile("'*[=+@\t\r\n-]"), re.compile("'+[=+@\t\r\n-]")


def csv_text(frame: pd.DataFrame) -> str:
    """Returns ``frame`` as CSV without its index.

    A text that a spreadsheet would run, one that begins with = + - @, a tab or a line's end, gets an apostrophe in front; `read_csv`
    takes it away again.
    """
    return _changed(frame, _FORMULA, lambda text: f"'{text}").to_csv(index=False, lineterminator="\n")


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Returns what `write_csv` has written; ``options`` are those of ``pandas.read_csv``."""
    return _changed(pd.read_csv(path, **options), _HARMLESS, lambda text: text[1:])


def _changed(frame: pd.DataFrame, begins: re.Pattern[str], change: Callable[[str], str]) -> pd.DataFrame:
    """Returns ``frame`` with ``change`` made to its texts that begin so."""
    texts = frame.select_dtypes(exclude=["number", "bool"])
    said = {
        name: pd.Series([change(one) if isinstance(one, str) and begins.match(one) else one for one in column], frame.index, column.dtype)
        for name, column in texts.items()
    }
    return frame.assign(**said)


def write_csv(path: Path, frame: pd.DataFrame) -> Path:
    """Writes `csv_text` of ``frame``; returns ``path``. A ``.gz`` name is compressed without a time stamp: equal data, equal bytes."""
    if Path(path).suffix != ".gz":
        return write_text(path, csv_text(frame))
    with write_atomic(path) as temporary, open(temporary, "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
            stream.write(csv_text(frame).encode())
    return Path(path)
