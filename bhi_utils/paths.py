"""Where things are: the project's root, a run's folder, and writes that are either whole or absent.

Used by every other module. It knows no notebook's contents, only who writes which artefact.
"""

import gzip
import io
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

#: Which notebook writes which artefact: what a missing file's message names.
WRITERS = {
    "dataset.json": "01_dataset_exploration",
    "manifest.csv.gz": "01_dataset_exploration",
    "rejected.csv": "01_dataset_exploration",
    "splits.csv": "02_case_split",
    "splits.json": "02_case_split",
    "smote.json": "03_preprocessing_smote",
    "training.json": "05_training_cnn_vs_efficientnetb0",
    "predictions.csv.gz": "05_training_cnn_vs_efficientnetb0",
    "checkpoints": "05_training_cnn_vs_efficientnetb0",
    "models": "05_training_cnn_vs_efficientnetb0",
    "metrics.json": "06_metric_figures",
}


class InputError(ValueError):
    """What the user gave is wrong. The message is one sentence that says what and what to do; the command exits with 2."""


def project_root() -> Path:
    """The folder that holds ``notebooks``: the checkout of an editable install, else the current folder."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def cache_dir() -> Path:
    """Where downloads and packed arrays are kept between runs: ``data/`` in the project, or ``BHI_CACHE``."""
    return Path(os.environ.get("BHI_CACHE") or project_root() / "data")


def shown(path: Path) -> str:
    """``path`` as texts and artefacts show it: relative to the project, with forward slashes, where it lies inside."""
    try:
        return Path(path).resolve().relative_to(project_root().resolve()).as_posix()
    except ValueError:
        return Path(path).as_posix()


def exists(path: Path) -> bool:
    """Whether ``path`` is there.

    Raises:
        InputError: it cannot be told, for want of permission or because no file can have such a name.
    """
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"Cannot look for {shown(path)[:200]}: {error.strerror or error}; check the path and its permissions.") from error


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


@dataclass(frozen=True)
class Run:
    """One run's folder. ``root`` holds ``notebooks``, ``artifacts`` and ``figures``."""

    root: Path

    @classmethod
    def open(cls, out: str | Path) -> "Run":
        """The run at ``out``, its folders made. A relative path is taken from the project's root, whatever the kernel's folder."""
        if not str(out).strip():
            raise InputError("OUT is empty: name a folder for the run, such as runs/walk.")
        run = cls(project_root() / Path(out).expanduser())
        try:
            for folder in (run.artifacts, run.models, run.figures, run.notebooks):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot use {shown(run.root)} as a run's folder: {error.strerror}; pass another --out.") from error
        return run

    @property
    def artifacts(self) -> Path:
        """Tables, JSON and models that one notebook leaves for the next."""
        return self.root / "artifacts"

    @property
    def models(self) -> Path:
        """Trained models and their bundles."""
        return self.artifacts / "models"

    @property
    def checkpoints(self) -> Path:
        """States of a training that has not ended."""
        return self.artifacts / "checkpoints"

    @property
    def figures(self) -> Path:
        """Figures as PNG."""
        return self.root / "figures"

    @property
    def notebooks(self) -> Path:
        """The executed notebooks of a batch."""
        return self.root / "notebooks"

    def require(self, name: str) -> Path:
        """The artefact's path.

        Raises:
            InputError: it is missing; the message names the notebook that makes it.
        """
        path = self.artifacts / name
        if not path.exists():
            writer = WRITERS.get(name.split("/")[0], "an earlier notebook")
            raise InputError(f"{shown(path)} is missing: run notebook {writer} first, with the same OUT.")
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write an artefact as JSON."""
        return write_json(self.artifacts / name, value)

    def write_csv(self, name: str, frame: pd.DataFrame) -> Path:
        """Write an artefact as CSV, compressed when the name ends in ``.gz``."""
        return write_csv(self.artifacts / name, frame)

    def read_json(self, name: str) -> Any:
        """Read an artefact that is JSON; a missing one is an InputError, see ``require``."""
        return json.loads(self.require(name).read_text(encoding="utf-8"))

    def read_csv(self, name: str) -> pd.DataFrame:
        """Read an artefact that is a table; a missing one is an InputError, see ``require``."""
        return read_csv(self.require(name))
