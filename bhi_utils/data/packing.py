"""Builds a pack: decodes a listing's patches, in parallel, into one array on disk with its tables. Used by ``data.archive``.

A pack is built under a temporary name, its ``pack.json`` comes last, and its folder is renamed into place at the end. So a killed build is
never taken for a pack, and an array that someone has mapped is never replaced, which Windows refuses.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils.core import atomic_files, worker_processes
from bhi_utils.core.paths import InputError, brief, plain, shown
from bhi_utils.data.decode import CONFLICT, PATCH, SourceChanged, decode_chunk
from bhi_utils.data.patch_listing import FORMAT, Listing, require_classes, zip_state

#: Bytes of a packed patch, and what the tables may take beside it.
PATCH_BYTES, ROW_BYTES = PATCH * PATCH * 3, 200
#: The manifest's columns of numbers, and their types.
COLUMNS = {"case": "int64", "x": "int64", "y": "int64", "label": "int8", "width": "int64", "height": "int64"}
_CHUNK = 512
#: Below this many patches one process is faster: starting others costs about a second.
_WORTH_WORKERS = 4000
_SPARE_BYTES = 64 << 20


def build(listing: Listing, folder: Path, *, workers: int = 0, progress: bool = True) -> None:
    """Write the pack of ``listing`` to ``folder``, whole or not at all, in ``workers`` processes (0: all cores where that pays).

    Memory stays bounded by a few chunks of patches for each process.

    Raises:
        InputError: no space, no usable patch, one class only, or the source changed meanwhile.
    """
    packs, count = folder.parent, len(listing.members)
    workers = workers or (worker_processes.cores() if count >= _WORTH_WORKERS else 1)
    try:
        packs.mkdir(parents=True, exist_ok=True)
        atomic_files.sweep(packs)
        atomic_files.check_space(packs, count * (PATCH_BYTES + ROW_BYTES) + _SPARE_BYTES)
        with atomic_files.building(folder) as temporary:
            _write(listing, temporary, workers=min(workers, worker_processes.MOST, -(-count // _CHUNK)), progress=progress)
            atomic_files.commit(temporary, folder)
    except SourceChanged as error:
        raise InputError(f"{shown(listing.source)} changed or failed while it was read ({error}): try again.") from error
    except OSError as error:
        where, why = shown(packs), error.strerror or error
        raise InputError(f"Cannot write to {where}: {why}; free some disk space or set BHI_CACHE elsewhere.") from error


def _write(listing: Listing, folder: Path, *, workers: int, progress: bool) -> None:
    """Fill ``folder``: the array, the tables, and last of all ``pack.json``."""
    rejected = list(listing.rejected)
    with open(folder / "patches.npy", "wb") as stream:
        rows, fingerprint, differing = _write_patches(listing, stream, rejected, workers=workers, progress=progress)
        stream.flush()
        os.fsync(stream.fileno())
    if listing.kind == "zip" and zip_state(listing.source) != listing.state:
        raise SourceChanged("the zip was replaced")
    manifest = pd.DataFrame(rows, columns=["case", "x", "y", "label", "path", "width", "height"])
    require_classes(listing.source, manifest["label"].unique())
    save_manifest(folder, manifest)
    atomic_files.write_csv(folder / "rejected.csv", pd.DataFrame(sorted(rejected), columns=["path", "reason"]))
    fingerprint.update(manifest.drop(columns="path").to_csv(index=False, lineterminator="\n").encode())
    info = {
        "format": FORMAT,
        "source": shown(listing.source),
        "kind": "phantom" if listing.synthetic else listing.kind,
        "synthetic": listing.synthetic,
        "fingerprint": fingerprint.hexdigest(),
        "patches": len(manifest),
        "cases": int(manifest["case"].nunique()),
        "positive": int(manifest["label"].sum()),
        "rejected": len(rejected),
        "nested_copy": listing.nested_copy - differing,
        "padded": int(((manifest["width"] < PATCH) | (manifest["height"] < PATCH)).sum()),
    }
    atomic_files.write_json(folder / "pack.json", info)


def save_manifest(folder: Path, manifest: pd.DataFrame) -> None:
    """Write the manifest as plain arrays: a table of text would take a second to parse for the whole archive.

    ``manifest.npy`` is int64 (columns, n) in the order of `COLUMNS`; ``paths.txt`` has a path a line: no path holds a line break.
    """
    np.save(folder / "manifest.npy", np.stack([manifest[name].to_numpy(np.int64) for name in COLUMNS]))
    atomic_files.write_text(folder / "paths.txt", "\n".join(manifest["path"]))


def load_manifest(folder: Path) -> pd.DataFrame:
    """The manifest that `save_manifest` wrote.

    Raises:
        OSError, ValueError: it is missing or damaged.
    """
    numbers = np.load(folder / "manifest.npy", allow_pickle=False)
    names = np.array((folder / "paths.txt").read_bytes().decode().split("\n"), dtype=object)
    columns = {name: values.astype(dtype, copy=False) for (name, dtype), values in zip(COLUMNS.items(), numbers, strict=True)}
    table = pd.DataFrame({**columns, "path": pd.array(names, dtype="str", copy=False)}, copy=False)
    return table[["case", "x", "y", "label", "path", "width", "height"]]


def _write_patches(
    listing: Listing, stream: BinaryIO, rejected: list[tuple[str, str]], *, workers: int, progress: bool
) -> tuple[list[tuple], "hashlib._Hash", int]:
    """Append the patches to an ``.npy`` stream in the listing's order, and what is unusable to ``rejected``.

    Plain writes rather than a writable map: on a full disk they raise, where a map would kill the process with SIGBUS.

    Returns:
        the manifest's rows; a hash of the pixels; how many files that were listed as copies are none.
    """
    total = len(listing.members)
    chunks = [listing.members[start : start + _CHUNK] for start in range(0, total, _CHUNK)]
    rows, digest, differing = [], hashlib.sha256(), 0
    _write_header(stream, total)
    with tqdm(total=total, desc="Packing", unit="patch", file=sys.stderr, disable=not progress) as bar:
        for chunk, (results, pixels) in zip(chunks, _decoded(listing, chunks, Path(stream.name).parent, workers), strict=True):
            stream.write(pixels)
            digest.update(pixels)
            for member, found in zip(chunk, results, strict=True):
                if isinstance(found, str):
                    others = member.copies if found == CONFLICT else ()
                    rejected.extend((plain(one.name), found) for one in (member, *others))
                    differing += len(others)
                else:
                    rows.append((member.case, member.x, member.y, member.label, plain(member.name), *found))
            bar.update(len(chunk))
    if not rows:
        (path, reason), where = min(rejected), shown(listing.source)
        raise InputError(f"No readable patch in {where}: {len(rejected)} rejected, such as {brief(path)} ({brief(reason)}).")
    stream.seek(0)
    _write_header(stream, len(rows))
    return rows, digest, differing


def _write_header(stream: BinaryIO, count: int) -> None:
    """Write the header of ``count`` patches. NumPy keeps its length alike for every count."""
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (count, PATCH, PATCH, 3)})


def _decoded(listing: Listing, chunks: list[tuple], scratch: Path, processes: int) -> Iterator[tuple[list, bytes]]:
    """For each chunk what `decode.decode_chunk` returns, and the pixels, handed over in files within ``scratch``."""
    source, zipped = str(listing.source.resolve()), listing.kind == "zip"
    calls = [(str(scratch / f"chunk-{number}"), source, zipped, chunk) for number, chunk in enumerate(chunks)]
    with closing(worker_processes.in_order(decode_chunk, calls, processes, fallback="packing")) as results:
        for (target, *_), found in zip(calls, results, strict=True):
            pixels = Path(target).read_bytes()
            os.unlink(target)
            yield found, pixels
