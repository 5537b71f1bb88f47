"""What is in a source: every patch of a folder or zip in the archive's layout, by name alone. Used by ``archive``.

The layout is ``<case>/<0 or 1>/<case>_idx5_x<X>_y<Y>_class<C>.png`` at any depth; nothing is unpacked or written.
"""

import hashlib
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhi_utils.decode import Member, file_stamp
from bhi_utils.paths import InputError, shown

LAYOUT = "<case>/<0 or 1>/<case>_idx5_x<X>_y<Y>_class<C>.png"
_NAME = re.compile(r"(.+)_idx5_x([0-9]{1,9})_y([0-9]{1,9})_class([01])\.png", re.IGNORECASE | re.DOTALL)
_CASE, _DIGITS = re.compile(r"[0-9]{1,15}"), re.compile(r"[0-9]+")
#: Part of every key: raise it when the packed form changes, so that old packs are left alone and new ones are made.
_FORMAT = "bhi-pack 3"
#: How the reason begins for which both patches of a position with two labels are rejected; `findings` counts them by it.
SAME_POSITION = "the same position has a patch of class"
#: How a synthetic cohort says what it is: a file of this name at its top, and a zip's comment that begins so.
PHANTOM_MARKER, PHANTOM_FORMAT = "PHANTOM.json", "bhi-phantom"


@dataclass(frozen=True)
class Listing:
    """The index of a source.

    ``kind`` is ``folder`` or ``zip``; ``rejected`` holds (path, reason) rows; ``nested_copy`` counts the files that
    repeat another one's position and class; ``state`` is the zip's, see `zip_state`; ``synthetic`` marks a phantom.
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
        digest = hashlib.sha256(f"{_FORMAT}\n{self.kind}\n{self.synthetic}\n{self.nested_copy}\n".encode())
        for member in self.members:
            digest.update(f"{plain(member.name)}\t{member.size}\t{member.stamp}\n".encode())
        for path, reason in self.rejected:
            digest.update(f"{path}\t{reason}\n".encode())
        return digest.hexdigest()[:32]


def index(source: Path) -> Listing:
    """List the patches of ``source`` and what is wrong with the names, without decoding anything.

    Raises:
        InputError: it is neither folder nor zip, cannot be read, or holds no patch, or patches of one class only.
    """
    rejected: list[tuple[str, str]] = []
    zipped = _is_zip(source)
    state = zip_state(source) if zipped else ()
    infos, synthetic = _directory(source) if zipped else ([], _marked(source))
    found = _zip_members(infos, rejected) if zipped else _files(source, rejected)
    chosen, nested_copy = _choose(found, rejected)
    members = [m for place, name, handle in chosen if (m := _member(place, name, handle, rejected))]
    kind, rows = "zip" if zipped else "folder", tuple(sorted(rejected))
    listing = Listing(source, kind, tuple(sorted(members)), rows, nested_copy, state, synthetic)
    if not members:
        raise InputError(_nothing(listing))
    require_classes(source, {member.label for member in members})
    return listing


def zip_state(path: Path) -> tuple[int, ...]:
    """What of a file's status changes when it is replaced or written to; the last two cannot be set back by a copying tool."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def parse(parts: tuple[str, ...]) -> tuple[int, int, int, int] | str:
    """(case, y, x, label) from a path's last three parts, or the reason why it is no patch of the archive."""
    match = _NAME.fullmatch(parts[-1])
    if not match:
        return f"the name is not {LAYOUT.rsplit('/', 1)[1]}"
    case, x, y, label = match.groups()
    if not _CASE.fullmatch(case):
        return "the case id has more than 15 digits" if _DIGITS.fullmatch(case) else "the case id is not a number"
    if len(parts) < 3 or parts[-2] not in ("0", "1"):
        return f"not in a folder 0 or 1 of its case ({LAYOUT.rsplit('/', 1)[0]})"
    if parts[-2] != label:
        return f"the name says class {label} and the folder {parts[-2]}"
    if parts[-3] != case:
        return f"the name says case {case} and the folder {plain(parts[-3])}"
    return int(case), int(y), int(x), int(label)


def plain(text: str) -> str:
    """``text`` with unprintable characters escaped, so that every name fits on one line of a UTF-8 table."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def brief(text: str) -> str:
    """``text`` for a sentence: like `plain`, and a very long one without its middle."""
    text = plain(text)
    return text if len(text) <= 200 else f"{text[:80]} … {text[-100:]}"


def require_classes(source: Path, labels: Iterable[int]) -> None:
    """Refuse a source with one class only."""
    labels = set(map(int, labels))
    if len(labels) == 1:
        only = labels.pop()
        raise InputError(f"All patches in {shown(source)} are of class {only}: pass whole cases, with IDC− and IDC+.")


def _is_zip(source: Path) -> bool:
    try:
        if source.is_dir():
            return False
        if not source.exists():
            raise InputError(f"{shown(source)} does not exist: pass a folder or a zip with {LAYOUT}, or phantom.")
        if not source.is_file():
            raise InputError(f"{shown(source)} is neither a folder nor a zip: pass one with {LAYOUT}.")
        if zipfile.is_zipfile(source):
            return True
        with open(source, "rb") as stream:
            begins = stream.read(4) == b"PK\x03\x04"
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"Cannot read {shown(source)}: {why}; check the path and its permissions.") from error
    if begins:
        raise InputError(f"{shown(source)} is a truncated zip, its end is missing: download or copy it again.")
    raise InputError(f"{shown(source)} is not a zip file: pass a folder or a zip with {LAYOUT}.")


def _files(root: Path, rejected: list[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, ...], os.DirEntry]]:
    """Name, path parts and entry of each PNG below ``root``. Linked folders are followed once, hidden ones are not."""
    base = root.resolve()
    followed = {base}
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
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            try:
                leads_on = entry.is_dir()
            except OSError as error:  # a link in a circle, or into a folder that may not be read
                rejected.append((plain("/".join(parts)), f"cannot be read: {error.strerror or error}"))
                continue
            if leads_on:
                target = Path(entry.path).resolve() if entry.is_symlink() else None
                if target not in followed:
                    stack.append(parts)
                if target:
                    followed.add(target)
            elif entry.name.lower().endswith(".png"):
                if entry.is_file():
                    yield "/".join(parts), base.parts + parts, entry
                else:
                    rejected.append((plain("/".join(parts)), "not a regular file"))


def _marked(folder: Path) -> bool:
    """Whether a folder says that it is a synthetic cohort."""
    try:
        return json.loads((folder / PHANTOM_MARKER).read_text(encoding="utf-8")).get("format") == PHANTOM_FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def _directory(path: Path) -> tuple[list[zipfile.ZipInfo], bool]:
    """A zip's directory, and whether it says that it is a synthetic cohort."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            synthetic = archive.comment.startswith(PHANTOM_FORMAT.encode()) or PHANTOM_MARKER in archive.NameToInfo
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"Cannot read {shown(path)}: {why}; check the file and its permissions.") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error) as error:
        raise InputError(f"{shown(path)} is a damaged zip without a readable directory: download it again.") from error
    archive.NameToInfo.clear()
    return infos, synthetic


def _zip_members(infos: list[zipfile.ZipInfo], rejected: list) -> Iterator[tuple[str, tuple[str, ...], zipfile.ZipInfo]]:
    """Name, path parts and directory entry of each PNG in a zip. Unsafe names are listed; nothing is unpacked; ``infos`` ends up empty."""
    infos.reverse()
    while infos:  # an entry takes 700 bytes, and there are half a million: each is let go once its patch is noted
        info = infos.pop()
        name = info.filename.replace("\\", "/")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or re.match(r"[A-Za-z]:", name):
            rejected.append((plain(info.filename), "unsafe zip member: an absolute path"))
        elif ".." in parts:
            rejected.append((plain(info.filename), "unsafe zip member: its path leaves the zip"))
        elif "\0" in info.orig_filename:
            rejected.append((plain(info.orig_filename), "unsafe zip member: a zero byte in its name"))
        elif stat.S_ISLNK(info.external_attr >> 16):
            rejected.append((plain(info.filename), "unsafe zip member: a symbolic link"))
        elif not name.lower().endswith(".png") or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        elif info.flag_bits & 0x1:
            rejected.append((plain(info.filename), "an encrypted zip member"))
        else:
            yield info.filename, parts, info


def _choose(found: Iterable[tuple[str, tuple[str, ...], Any]], rejected: list) -> tuple[list[tuple], int]:
    """One file for each position, the copy nearest to the root, as (place, name, handle); and the number of copies skipped.

    A zip's directory tells when a copy is none, but has other bytes: that is listed. In a folder it would have to be read.
    """
    best: dict[tuple[int, int, int], dict[int, tuple[int, str, Any]]] = {}
    skipped = 0
    for name, parts, handle in found:
        place = parse(parts)
        if isinstance(place, str):
            rejected.append((plain(name), place))
            continue
        labels = best.setdefault(place[:3], {})
        rank = (len(parts), name, handle)
        if place[3] in labels:
            rank, other = sorted((labels[place[3]], rank), key=lambda copy: copy[:2])
            if isinstance(handle, zipfile.ZipInfo) and (other[2].CRC, other[2].file_size) != (rank[2].CRC, rank[2].file_size):
                rejected.append((plain(other[1]), "the same position has another patch of this class, with other bytes"))
            else:
                skipped += 1
        labels[place[3]] = rank
    chosen = []
    for position, labels in best.items():
        for label, (_, name, handle) in labels.items():
            if len(labels) == 1:
                chosen.append(((*position, label), name, handle))
            else:
                rejected.append((plain(name), f"{SAME_POSITION} {1 - label} too"))
    return chosen, skipped


def _member(place: tuple[int, int, int, int], name: str, handle: Any, rejected: list) -> Member | None:
    if isinstance(handle, zipfile.ZipInfo):
        where = (handle.file_size, handle.CRC, handle.header_offset, handle.compress_size, handle.compress_type)
        return Member(*place, name, *where)
    try:
        status = handle.stat()
    except OSError as error:
        rejected.append((plain(name), f"cannot be read: {error.strerror or error}"))
        return None
    return Member(*place, name, status.st_size, file_stamp(status))


def _nothing(listing: Listing) -> str:
    where = shown(listing.source)
    if listing.rejected:
        (path, reason), count = listing.rejected[0], len(listing.rejected)
        return f"No usable patch in {where}: {count} rejected, such as {brief(path)} ({brief(reason)}); the layout is {LAYOUT}."
    if listing.kind == "folder":
        zips = sorted(path.name for path in listing.source.glob("*.zip"))
        if zips:
            return f"{where} holds no patch but {plain(zips[0])}: pass that file, it is read without being unpacked."
        if not any(listing.source.iterdir()):
            return f"{where} is an empty folder: put the archive there ({LAYOUT}), or pass phantom."
    return f"No patch found in {where}: the layout is {LAYOUT}."
