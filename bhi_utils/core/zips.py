"""Opens a zip only after counting what its directory holds. Used by ``data.sources`` and ``predict.many_files``, for every zip.

``zipfile`` makes an object of about 700 bytes for each entry as soon as it opens a file, so a zip of 400 MB with millions of empty members
would cost gigabytes before anyone can ask how many there are.
"""

import mmap
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO
from zipfile import _EndRecData as _end_record  # type: ignore[attr-defined]  # private, and not in the types

from bhi_utils.core.paths import InputError, shown

#: Most members that any zip may have: the real archive has 555,048.
MOST = 1_000_000
#: Bytes of a directory that are allowed for each member, on average; a fixed part, then its name. And what a short one may have anyway.
_ENTRY, _NAME, _ANYWAY = 46, 300, 65_536


def opened(path: Path, *, most: int = MOST) -> zipfile.ZipFile:
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
        if total > most or size > _ANYWAY + most * (_ENTRY + _NAME):
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
