"""What is in a source: every patch of a folder or zip that is named as the archive names it. Used by ``data.archive``.

A name, ``<case>_idx5_x<X>_y<Y>_class<C>.png``, says case, place and class, whatever folders it lies in. Nothing is unpacked or written.
A zip is opened only after its directory's entries are counted, here and by ``predict.many_files``: ``zipfile`` makes an object of about 700
bytes of each, so a zip of 400 MB with millions of empty members would cost gigabytes.
"""

import hashlib
import json
import mmap
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import _EndRecData as _end_record  # type: ignore[attr-defined]  # zipfile's own search, without types

from bhi_utils.core.paths import InputError, brief, plain, shown
from bhi_utils.data.decode import CONFLICT, Member, file_stamp

#: How a patch's file is called, and what is asked for where none is found.
PATCH_NAME = "<case>_idx5_x<X>_y<Y>_class<C>.png"
LAYOUT = f"patches named {PATCH_NAME}"
_NAME = re.compile(r"(.+)_idx5_x([0-9]{1,9})_y([0-9]{1,9})_class([01])\.png", re.IGNORECASE | re.DOTALL)
_CASE, _DIGITS = re.compile(r"[0-9]{1,15}"), re.compile(r"[0-9]+")
#: Part of every key and pack. Raise it when the packed form changes, or what is taken for a patch: older packs are then left alone.
FORMAT = "bhi-pack 4"
#: The beginning of the reason for which both patches of a position with two labels are rejected. ``data.inspection`` counts by it.
SAME_POSITION = "the same position has a patch of class"
#: How a synthetic cohort says what it is: a file of this name at its top, and a zip's comment that begins so.
PHANTOM_MARKER, PHANTOM_FORMAT = "PHANTOM.json", "bhi-phantom"

_Rejected = list[tuple[str, str]]
#: A file that may be a patch: its name, the parts of its path, and the fields of `Member` from ``size`` to ``method``.
_Found = tuple[str, tuple[str, ...], tuple[int, int, int, int, int]]


@dataclass(frozen=True)
class Listing:
    """The index of a source.

    Attributes:
        source: its path.
        kind: ``folder`` or ``zip``.
        members: its patches, sorted.
        rejected: path and reason of what was left out.
        nested_copy: how many files repeat another one. In a folder, reading may still show that they differ.
        state: a zip's, see `zip_state`.
        synthetic: whether it is a phantom.
    """

    source: Path
    kind: str
    members: tuple[Member, ...]
    rejected: tuple[tuple[str, str], ...]
    nested_copy: int
    state: tuple[int, ...] = ()
    synthetic: bool = False

    def key(self) -> str:
        """A cheap fingerprint of names, lengths and checksums or times: a changed source gets a pack of its own."""
        digest = hashlib.sha256(f"{FORMAT}\n{self.kind}\n{self.synthetic}\n{self.nested_copy}\n".encode())
        for member in self.members:
            for file in (member, *member.copies):
                digest.update(f"{plain(file.name)}\t{file.size}\t{file.stamp}\n".encode())
        for path, reason in self.rejected:
            digest.update(f"{path}\t{reason}\n".encode())
        return digest.hexdigest()[:32]


def index(source: Path) -> Listing:
    """List the patches of ``source`` and what is wrong with the names, without decoding anything.

    Raises:
        InputError: it is neither folder nor zip, cannot be read, or holds no patch, or patches of one class only.
    """
    rejected: _Rejected = []
    state: tuple[int, ...] = ()
    try:
        if zipped := not source.is_dir():
            infos, synthetic, state = _directory(source)
            found = _zip_members(infos, rejected)
        else:
            synthetic, found = _marked(source), _files(source, rejected)
    except OSError as error:
        raise InputError(f"Cannot read {shown(source)}: {error.strerror or error}; check the path and its permissions.") from error
    members, copies = _choose(found, rejected, zipped=zipped)
    rejected.sort()
    if not members:
        raise InputError(_nothing(source, rejected))
    require_classes(source, {member.label for member in members})
    return Listing(source, "zip" if zipped else "folder", tuple(sorted(members)), tuple(rejected), copies, state, synthetic)


def zip_state(path: Path) -> tuple[int, ...]:
    """What of a file's status changes when it is replaced or written to; the last two cannot be set back by a copying tool."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def parse(parts: tuple[str, ...]) -> tuple[int, int, int, int] | str:
    """(case, y, x, label) from a file's name, or the reason why it is no patch of the archive; ``parts`` is its path.

    >>> parse(("8863", "1", "8863_idx5_x101_y51_class1.png"))
    (8863, 51, 101, 1)
    >>> parse(("8863", "0", "8863_idx5_x101_y51_class1.png"))
    'the name says class 1 and the folder 0'
    """
    match = _NAME.fullmatch(parts[-1])
    if not match:
        return f"the name is not {PATCH_NAME}"
    case, x, y, label = match.groups()
    if not _CASE.fullmatch(case):
        return "the case id has more than 15 digits" if _DIGITS.fullmatch(case) else "the case id is not a number"
    if len(parts) > 1 and parts[-2] in ("0", "1") and parts[-2] != label:
        return f"the name says class {label} and the folder {parts[-2]}"
    return int(case), int(y), int(x), int(label)


def require_classes(source: Path, labels: Iterable[int]) -> None:
    """Refuse a source with one class only."""
    labels = set(map(int, labels))
    if len(labels) == 1:
        raise InputError(f"All patches in {shown(source)} are of class {labels.pop()}: pass whole cases, with IDC− and IDC+.")


def _files(root: Path, rejected: _Rejected) -> Iterator[_Found]:
    """Each PNG below a folder. Linked folders are followed once; hidden ones are skipped."""
    base = root.resolve()
    followed: set[Path | None] = {base}
    stack: list[tuple[str, ...]] = [()]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(root.joinpath(*folder)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            where, why = brief(shown(root.joinpath(*folder))), error.strerror or error
            raise InputError(f"Cannot read the folder {where}: {why}; make it readable, or take it out of the source.") from error
        for entry in entries:
            parts = (*folder, entry.name)
            name = "/".join(parts)
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            try:
                if entry.is_dir():
                    target = Path(entry.path).resolve() if entry.is_symlink() else None
                    if target not in followed:
                        stack.append(parts)
                    if target:
                        followed.add(target)
                elif entry.name.lower().endswith(".png"):
                    if entry.is_file():
                        status = entry.stat()
                        yield name, base.parts + parts, (status.st_size, file_stamp(status), 0, 0, 0)
                    else:
                        rejected.append((plain(name), "not a regular file"))
            except OSError as error:  # a link in a circle, or into a folder that may not be read
                rejected.append((plain(name), f"cannot be read: {error.strerror or error}"))


def _marked(folder: Path) -> bool:
    """Whether a folder says that it is a synthetic cohort."""
    try:
        return json.loads((folder / PHANTOM_MARKER).read_text(encoding="utf-8")).get("format") == PHANTOM_FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def _directory(path: Path) -> tuple[list[zipfile.ZipInfo], bool, tuple[int, ...]]:
    """A zip's directory, whether it says that it is a synthetic cohort, and the zip's state before it was read."""
    if not path.exists():
        raise InputError(f"{shown(path)} does not exist: pass a folder or a zip with {LAYOUT}, or phantom.")
    if not path.is_file():
        raise InputError(f"{shown(path)} is neither a folder nor a zip: pass one with {LAYOUT}.")
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as stream:
            if stream.read(4) == b"PK\x03\x04":
                raise InputError(f"{shown(path)} is a truncated zip, its end is missing: download or copy it again.")
        raise InputError(f"{shown(path)} is not a zip file: pass a folder or a zip with {LAYOUT}.")
    state = zip_state(path)
    try:
        with opened_zip(path) as archive:
            infos = archive.infolist()
            synthetic = archive.comment.startswith(PHANTOM_FORMAT.encode()) or PHANTOM_MARKER in archive.NameToInfo
    except TooMany:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error) as error:
        raise InputError(f"{shown(path)} is a damaged zip without a readable directory: download it again.") from error
    archive.NameToInfo.clear()
    return infos, synthetic, state


def _zip_members(infos: list[zipfile.ZipInfo], rejected: _Rejected) -> Iterator[_Found]:
    """Each PNG of a zip's directory; unsafe names are rejected.

    An entry takes 700 bytes, and there are half a million: ``infos`` is emptied on the way.
    """
    infos.reverse()
    while infos:
        info = infos.pop()
        name = info.filename.replace("\\", "/")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or re.match(r"[A-Za-z]:", name):
            reason = "unsafe zip member: an absolute path"
        elif ".." in parts:
            reason = "unsafe zip member: its path leaves the zip"
        elif "\0" in info.orig_filename:
            reason = "unsafe zip member: a zero byte in its name"
        elif stat.S_ISLNK(info.external_attr >> 16):
            reason = "unsafe zip member: a symbolic link"
        elif not name.lower().endswith(".png") or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        elif info.flag_bits & 0x1:
            reason = "an encrypted zip member"
        else:
            yield info.filename, parts, (info.file_size, info.CRC, info.header_offset, info.compress_size, info.compress_type)
            continue
        rejected.append((plain(info.orig_filename if "\0" in info.orig_filename else info.filename), reason))


def _choose(found: Iterable[_Found], rejected: _Rejected, *, zipped: bool) -> tuple[list[Member], int]:
    """One file for each position, of equal ones that nearest to the root; and the number of copies.

    Files of one position and class that differ are all rejected: nobody can tell which is the patch. In a zip the checksums tell, in a
    folder the lengths; a folder's files of equal length are compared when they are read, see `decode.decode_chunk`.
    """
    files: dict[tuple[int, int, int, int], Member | list[Member]] = {}  # a list where they differ
    copies = 0
    for name, parts, where in found:
        place = parse(parts)
        if isinstance(place, str):
            rejected.append((plain(name), place))
            continue
        member, known = Member(*place, name, *where), files.get(place)
        if known is None:
            files[place] = member
        elif isinstance(known, list):
            known.append(member)
        elif known.size != member.size or (zipped and known.stamp != member.stamp):
            files[place] = [known._replace(copies=()), *known.copies, member]
            copies -= len(known.copies)
        else:
            copies += 1
            nearest, other = sorted((known, member), key=_nearness)
            files[place] = nearest if zipped else nearest._replace(copies=(*known.copies, other._replace(copies=())))
    chosen = []
    for place, group in files.items():
        nearest, *others = sorted(group, key=_nearness) if isinstance(group, list) else [group]
        if (*place[:3], 1 - place[3]) in files:
            rejected.append((plain(nearest.name), f"{SAME_POSITION} {1 - place[3]} too"))
        elif others:
            rejected.append((plain(nearest.name), CONFLICT))
        else:
            chosen.append(nearest)
        rejected.extend((plain(other.name), CONFLICT) for other in others)
    return chosen, copies


def _nearness(member: Member) -> tuple[int, str]:
    """Sorts what lies nearer to the source's root first."""
    return member.name.replace("\\", "/").count("/"), member.name


def _nothing(source: Path, rejected: _Rejected) -> str:
    """The sentence on a source without a usable patch."""
    where = shown(source)
    if rejected:
        path, reason = rejected[0]
        return f"No usable patch in {where}: {len(rejected)} rejected, such as {brief(path)} ({brief(reason)}); pass {LAYOUT}."
    if source.is_dir():
        zips_inside = sorted(path.name for path in source.glob("*.zip"))
        if zips_inside:
            return f"{where} holds no patch but {plain(zips_inside[0])}: pass that file, it is read without being unpacked."
        if not any(source.iterdir()):
            return f"{where} is an empty folder: put the archive there ({LAYOUT}), or pass phantom."
    return f"No patch found in {where}: pass {LAYOUT}, in any folders."


#: Most members that any zip may have: the real archive has 555,048.
MOST = 1_000_000
#: Bytes of a directory that are allowed for each member, on average; a fixed part, then its name. And what a short one may have anyway.
_ENTRY, _NAME_AT, _ANYWAY = 46, 300, 65_536


def opened_zip(path: Path, *, most: int = MOST) -> zipfile.ZipFile:
    """Returns the zip at ``path``, opened once it is known to have at most ``most`` members, whatever the file says.

    Raises:
        TooMany: it has more, or its directory is longer than so many members need.
        zipfile.BadZipFile: it is no zip, or its directory holds another number of members than its end says.
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        end = _end_record(stream)
        if end is None:
            raise zipfile.BadZipFile("the end of its directory is missing")
        total, size = end[4], end[5]
        if total > most or size > _ANYWAY + most * (_ENTRY + _NAME_AT):
            raise TooMany(path, total, most)
        counted = _counted(stream, end[9], size, most, wide=end[0] == b"PK\x06\x06")
    if counted > most:
        raise TooMany(path, counted, most)
    if total not in (counted, counted % 65_536):  # some programs write what fits in the two bytes of an end record that is not zip64's
        raise zipfile.BadZipFile("its directory holds another number of members than its end says")
    archive = zipfile.ZipFile(path)
    # a zip that was cut short ends in the middle of another one when that one lies in it uncompressed, and would be taken for it
    with open(path, "rb") as stream:
        if archive.start_dir != end[6] and stream.read(4) == b"PK\x03\x04":
            archive.close()
            raise zipfile.BadZipFile("it was cut short, inside of a zip that it holds")
    return archive


def _counted(stream: BinaryIO, location: int, size: int, most: int, *, wide: bool) -> int:
    """Returns how many members a directory of ``size`` bytes before the end record at ``location`` has; counting ends above ``most``."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # of a zip64 (``wide``), newer versions of zipfile give the place of the record that stands 76 bytes before the end record
        start = location - size - (76 if wide and data[location : location + 4] == b"PK\x05\x06" else 0)
        position, end, counted = start, start + size, 0
        while 0 <= position < end and counted <= most:
            if data[position : position + 4] != b"PK\x01\x02" or position + _ENTRY > end:
                raise zipfile.BadZipFile("its directory is damaged")
            position += _ENTRY + sum(struct.unpack_from("<HHH", data, position + 28))
            counted += 1
    return counted


class TooMany(InputError):
    """A zip has more members than may be looked at."""

    def __init__(self, path: Path, total: int, most: int) -> None:
        self.total = max(total, most + 1)
        super().__init__(f"{shown(path)} is a zip of {self.total:,} members or more, and {most:,} are the most: split it.")
