"""Small sources of patches, as folders and zips, for the tests of ``data`` and of the commands."""

import io
import os
import struct
import sys
import textwrap
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from bhi_utils.core.paths import PACKAGE
from bhi_utils.data import archive

Files = dict[str, bytes]
PACK_FILES = {"manifest.npy", "pack.json", "patches.npy", "paths.txt", "rejected.csv"}


def name(case: object, label: int, x: int = 1, y: int = 1, prefix: str = "") -> str:
    return f"{prefix}{case}/{label}/{case}_idx5_x{x}_y{y}_class{label}.png"


@cache
def png(seed: int = 0, size: tuple[int, int] = (50, 50), mode: str = "RGB") -> bytes:
    """An image of ``size`` (width, height) that differs by seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, depth: int = 8, colour: int = 2, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def good(prefix: str = "") -> Files:
    """Two cases with both classes, eight patches."""
    places = [(case, k // 2, 1 + 50 * k, 51) for case in (8863, 10253) for k in range(4)]
    return {name(*place, prefix=prefix): png(i) for i, place in enumerate(places)}


def as_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED, *, more: tuple[tuple[str, bytes], ...] = ()) -> Path:
    """A zip of ``files``, and of ``more``, whose names may be there already."""
    with zipfile.ZipFile(path, "w", method) as target, warnings.catch_warnings(action="ignore"):
        for member, data in (*files.items(), *more):
            target.writestr(zipfile.ZipInfo(member), data, compress_type=method)
    return path


def as_folder(path: Path, files: Files) -> Path:
    for member, data in files.items():
        (path / member).parent.mkdir(parents=True, exist_ok=True)
        (path / member).write_bytes(data)
    return path


def packed(source: Path, tmp_path: Path, **options) -> archive.Pack:
    return archive.pack(source, tmp_path / "cache", progress=False, **options)


def reasons(pack: archive.Pack) -> dict[str, str]:
    return dict(pack.rejected.itertuples(index=False))


def script(tmp_path: Path, body: str, *arguments: object) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(body), encoding="utf-8")
    return [sys.executable, str(path), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
