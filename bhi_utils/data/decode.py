"""From the bytes of one patch file to its pixels, or to the reason why not. Used by ``data.packing``, also in its workers.

It imports NumPy and Pillow only: a spawned worker starts as a fresh Python that loads this module and hardly any other of ours.
"""

import io
import os
import stat
import struct
import warnings
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

#: Edge length of a patch in pixels; smaller ones lie at a slide's edge and are padded with white.
PATCH = 50
#: The longest file taken for a patch: raw 50×50 RGB is 7,500 bytes, so this leaves ample room for metadata.
LONGEST = 1 << 20
#: Why files of one position and class are rejected that should be copies of each other, and are not.
CONFLICT = "the same position has another patch of this class, with other bytes"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGB with alpha"}
_STORED, _DEFLATED = 0, 8


class Rejected(ValueError):
    """One patch is unusable; the message is the reason that ``rejected.csv`` shows."""


class SourceChanged(Exception):
    """The source vanished, changed or failed while it was being read, so that no pack of it can be trusted."""


class Member(NamedTuple):
    """One patch of a source and where its bytes are. Sorts by case, then row by row over the slide.

    ``name`` is relative to the source. ``stamp`` tells a changed file from an unchanged one: in a zip it is the
    checksum, else the time and mode. ``copies`` are a folder's files of the same position, class and length.
    """

    case: int
    y: int
    x: int
    label: int
    name: str
    size: int
    stamp: int
    offset: int = 0
    packed: int = 0
    method: int = 0
    copies: tuple["Member", ...] = ()


def file_stamp(status: os.stat_result) -> int:
    """A number that changes with a file's content (its time, upper bits) or readability (its mode, lower 16 bits)."""
    return status.st_mtime_ns << 16 | stat.S_IMODE(status.st_mode)


def decode_chunk(target: str, source: str, zipped: bool, members: list[Member]) -> list[tuple[int, int] | str]:
    """Decode ``members`` of the zip or folder ``source`` in their order, and write the pixels to the file ``target``.

    A worker's results should be small, see ``core.worker_processes``, so the pixels do not come back with them.

    Returns:
        for each member its width and height in pixels, or the reason why it is unusable. The file holds the usable ones, uint8
        (k, 50, 50, 3).

    Raises:
        SourceChanged: the source cannot be read any more, or is not what was indexed.
    """
    found: list[tuple[int, int] | str] = []
    patches = []
    try:
        # Pillow warns about odd metadata; the pixels decide here
        with open(source, "rb") if zipped else nullcontext() as archive, warnings.catch_warnings(action="ignore"):
            for member in members:
                try:
                    data = _zip_member(archive, member) if archive else _file(Path(source), member)
                    _require_equal(Path(source), member.copies, data)
                    pixels = decode(data)
                except Rejected as reason:
                    found.append(str(reason))
                    continue
                patches.append(pad(pixels).tobytes())
                found.append((pixels.shape[1], pixels.shape[0]))
    except OSError as error:
        raise SourceChanged(error.strerror or str(error)) from error
    Path(target).write_bytes(b"".join(patches))
    return found


def pad(patch: np.ndarray) -> np.ndarray:
    """``patch`` (uint8 (h, w, 3), at most 50×50) at the upper left of a white 50×50 square: glass is white."""
    if patch.shape[:2] == (PATCH, PATCH):
        return patch
    return np.pad(patch, ((0, PATCH - patch.shape[0]), (0, PATCH - patch.shape[1]), (0, 0)), constant_values=255)


def decode(data: bytes) -> np.ndarray:
    """The pixels of a PNG, uint8 (h, w, 3). Size and colour type are checked before anything is decompressed.

    Raises:
        Rejected: no whole 8-bit RGB PNG of at most 50×50 pixels.
    """
    _check_png(data)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.asarray(image)
    except Exception as error:  # a damaged file can raise nearly anything in a decoder
        raise Rejected("corrupt PNG: its pixels cannot be decoded") from error


def _check_png(data: bytes) -> None:
    """Check size and colour, then every chunk's checksum up to the end mark, on which Pillow does not insist."""
    if not data:
        raise Rejected("empty file")
    if data[:8] != _SIGNATURE:
        raise Rejected("not a PNG image")
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise Rejected("truncated PNG")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if not width or not height:
        raise Rejected("an image without pixels")
    if width > PATCH or height > PATCH:
        raise Rejected(f"{width}×{height} pixels: larger than {PATCH}×{PATCH}")
    if colour != 2 or depth != 8:
        raise Rejected(f"{depth}-bit {_COLOURS.get(colour, 'unknown colour type')}: only 8-bit RGB is used")
    position, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position) if position + 12 <= len(data) else (len(data), b"")
        end = position + 12 + length
        if end > len(data):
            raise Rejected("truncated PNG")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise Rejected("corrupt PNG: a checksum is wrong")
        if kind == b"tRNS":
            raise Rejected("8-bit RGB with a transparent colour: only 8-bit RGB is used")
        if kind == b"IHDR" and position > 8:  # Pillow would believe this one
            raise Rejected("corrupt PNG: it has two headers")
        position = end


def _file(root: Path, member: Member) -> bytes:
    """The bytes of one file, if it is still the file that was indexed."""
    if member.size > LONGEST:
        raise Rejected(f"{member.size} bytes: too long for a patch")
    try:
        with open(root / member.name, "rb") as stream:
            status = os.fstat(stream.fileno())
            # Windows' folder listings round a file's time, so a difference below two seconds means nothing
            if status.st_size != member.size or abs(status.st_mtime_ns - (member.stamp >> 16)) > 2_000_000_000:
                raise SourceChanged(f"{member.name} was changed")
            return stream.read(LONGEST + 1)
    except PermissionError as error:
        raise Rejected("no permission to read the file") from error
    except OSError as error:
        raise SourceChanged(f"{member.name}: {error.strerror or error}") from error


def _require_equal(root: Path, copies: tuple[Member, ...], data: bytes) -> None:
    """Refuse a patch whose bytes are ``data`` where a file that should be its copy has others."""
    for copy in copies:
        try:
            same = _file(root, copy) == data
        except Rejected as reason:
            raise Rejected(f"its copy {copy.name!r} cannot be compared: {reason}") from reason
        if not same:
            raise Rejected(CONFLICT)


def _zip_member(archive: BinaryIO, member: Member) -> bytes:
    """The bytes of one member, read at its offset: no worker parses a directory of half a million names again."""
    if member.size > LONGEST or member.packed > LONGEST:
        raise Rejected(f"{max(member.size, member.packed)} bytes: too long for a patch")
    if member.method not in (_STORED, _DEFLATED):
        raise Rejected(f"zip compression method {member.method} is not supported: use deflate")
    archive.seek(max(member.offset, 0))
    header = archive.read(30)
    if member.offset < 0 or len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Rejected("damaged zip: the member is not where the directory says")
    length, extra = struct.unpack_from("<HH", header, 26)
    if not _is_name(archive.read(length), member.name):
        raise Rejected("damaged zip: the member has another name than in the directory")
    archive.seek(extra, io.SEEK_CUR)
    data = archive.read(member.packed)
    if member.method == _DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise Rejected("damaged zip: the member cannot be decompressed") from error
    if len(data) != member.size or zlib.crc32(data) != member.stamp:
        raise Rejected("damaged zip: the member's length or checksum is wrong")
    return data


def _is_name(raw: bytes, name: str) -> bool:
    """Whether ``raw``, from a member's own header, is the directory's ``name`` as `zipfile` gives it: a directory that points two names
    at one member would make many patches of one.
    """
    names = (raw.partition(b"\0")[0].decode(encoding, "replace") for encoding in ("utf-8", "cp437"))
    return name.replace("\\", "/") in (text.replace("\\", "/") for text in names)
