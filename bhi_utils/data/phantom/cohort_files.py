"""Writes the files of a synthetic cohort into a zip or a folder, whole or not at all.

Used by ``data.phantom.synthetic_cohort`` and ``data.phantom.synthetic_archive``.
"""

from PIL import Image
from bhi_utils.core import atomic_files
from bhi_utils.core.paths import InputError
from bhi_utils.core.paths import shown
from bhi_utils.data.sources import PHANTOM_FORMAT
from bhi_utils.data.sources import PHANTOM_MARKER
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from typing import Protocol
import io
import json
import numpy as np
import os
import zipfile

#: The name of the second copy's folder, which the real archive has too.
NESTED = "IDC_regular_ps50_idx5"
#: The generator's; a cohort of another one is not taken for this one's.
VERSION = 1
#: Bytes of a patch, generously: in a zip with its two entries' names, and as a file in blocks of 4 KiB.
ZIPPED_BYTES, FILE_BYTES = 6_500, 8_192


class Sink(Protocol):
    """Takes the cohort's files one by one."""

    def __call__(self, name: str, content: bytes) -> None: ...


@contextmanager
def _zip_sink(out: Path, folder: Path) -> Iterator[Sink]:
    """Files go into a zip with fixed dates; the zip appears whole or not at all."""
    temporary = folder / out.name
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = f"{PHANTOM_FORMAT} {VERSION}: synthetic patches, not tissue".encode()

        def put(name: str, content: bytes) -> None:
            # PNGs are compressed already; 1980 is the earliest date that a zip can hold
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, content)

        yield put
    os.replace(temporary, out)


@contextmanager
def _folder_sink(out: Path, folder: Path) -> Iterator[Sink]:
    """Files go into a folder that gets its name when it is complete."""

    def put(name: str, content: bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    yield put
    if out.is_dir():
        out.rmdir()
    os.replace(folder, out)


def to_png(pixels: np.ndarray) -> bytes:
    """A patch as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@contextmanager
def sink(out: Path, patches: int, *, nested: bool) -> Iterator[Sink]:
    """Takes the files of so many patches for ``out``, which appears whole or not at all: a zip when its name ends so, else a folder.

    What a killed process left of an earlier try is swept away.

    Raises:
        InputError: the place is taken, or its disk is too small.
    """
    out = out.absolute()
    zipped = out.suffix.lower() == ".zip"
    if zipped and out.is_dir():
        raise InputError(f"{shown(out)} is a folder, though its name ends in .zip: choose another name.")
    if not zipped and out.exists() and not out.is_dir():
        raise InputError(f"{shown(out)} is a file: choose a folder, or a name that ends in .zip.")
    if not zipped and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{shown(out)} is not empty: choose a new folder for the phantom, or empty this one.")
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.sweep(out.parent, f"bhi-{out.name}")
    atomic_files.check_space(
        out.parent, patches * (1 + nested) * (ZIPPED_BYTES if zipped else FILE_BYTES), advice="choose another place or free some"
    )
    with atomic_files.building(out.with_name(f"bhi-{out.name}")) as folder:
        with (_zip_sink if zipped else _folder_sink)(out, folder) as put:
            yield put


def put_copies(put: Sink, files: Sequence[tuple[str, bytes]], *, nested: bool) -> None:
    """Hand over the files, and again as the nested copy."""
    for prefix in ("", f"{NESTED}/") if nested else ("",):
        for name, content in files:
            put(prefix + name, content)


def put_marker(put: Sink, facts: dict[str, Any]) -> None:
    """Hand over the file that says what the cohort is."""
    facts = {"format": PHANTOM_FORMAT, "version": VERSION, **facts}
    put(PHANTOM_MARKER, (json.dumps(facts, indent=1) + "\n").encode())


@contextmanager
def writing(out: Path, seed: int) -> Iterator[None]:
    """Turns what the disk refuses while ``out`` is written, and a seed that NumPy would refuse, into one sentence."""
    if seed < 0:
        raise InputError(f"A seed is a whole number from 0 on, not {seed}: pass another one.")
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"Cannot write {shown(out)}: {reason}; choose another place or free some space.") from error
