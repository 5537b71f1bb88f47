"""The state of a training that may be killed at any moment: one file, whole or absent, taken up again only where it fits.

Used by phases, which says what a state is made of, by samples for the fingerprint of the data, and by training and pipeline, which
remove what is no longer needed. Only NumPy arrays and JSON: the file says nothing of the Keras backend, and nothing in it can be run.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bhi_utils.core.atomic_files import write_atomic
from bhi_utils.core.paths import InputError, shown

SUFFIX = ".state.npz"
_FACTS = "facts"


def fingerprint(*parts: Any) -> str:
    """Hash of arrays, dataclasses, JSON values, and lists and dictionaries of them."""
    digest = hashlib.sha256()
    _feed(digest, parts)
    return digest.hexdigest()


def save(path: Path, fits: str, facts: Mapping[str, Any], arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Replace the state in ``path`` by another one; a kill or a full disk on the way leaves the earlier one.

    Args:
        path: the file; its name ends in ``SUFFIX``.
        fits: fingerprint of all that the training depends on.
        facts: what JSON can hold, NaN included.
        arrays: lists of arrays by name.

    Raises:
        InputError: the file cannot be written.
    """
    members = {f"{name}/{number:05}": array for name, group in arrays.items() for number, array in enumerate(group)}
    header = json.dumps({"fits": fits, "groups": {name: len(group) for name, group in arrays.items()}, **facts})
    try:
        with write_atomic(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **{_FACTS: np.array(header)}, **members)
            stream.flush()
            os.fsync(stream.fileno())
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; what was saved before is whole, and --resume continues from it.") from error


def load(path: Path, fits: str) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]] | None:
    """The facts and arrays that ``save`` wrote; None, with a printed sentence when there is a file, where it does not fit.

    What a killed process left beside it half written is removed.
    """
    for stray in path.parent.glob(f".{path.name}.*"):
        with suppress(OSError):
            stray.unlink()
    if not path.exists():
        return None
    try:
        # opened here, since NumPy leaves a file open that begins like a zip and is none
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as found:
            facts = json.loads(found[_FACTS].item())
            same = facts["fits"] == fits
            groups = facts["groups"].items() if same else ()
            arrays = {name: [found[f"{name}/{number:05}"] for number in range(count)] for name, count in groups}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error):
        print(f"{shown(path)} is damaged, so it is not used: its part of the training starts anew.")
        return None
    if not same:
        print(f"{shown(path)} comes from other settings, data or code, so it is not used: its part of the training starts anew.")
        return None
    return facts, arrays


def clear(folder: Path) -> None:
    """Remove every state in ``folder``, and the folder when nothing else is in it."""
    with suppress(OSError):
        for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob(f".*{SUFFIX}.*")]:
            path.unlink(missing_ok=True)
        folder.rmdir()


def _feed(digest: Any, part: Any) -> None:
    """Add a value to the digest; every kind opens with a mark of its own, so that none passes for another."""
    if isinstance(part, np.ndarray | np.generic):
        array = np.ascontiguousarray(part)
        digest.update(f"array {array.dtype} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    elif is_dataclass(part):
        _feed(digest, {field.name: getattr(part, field.name) for field in fields(part)})
    elif isinstance(part, list | tuple):
        digest.update(f"list {len(part)}\n".encode())
        for one in part:
            _feed(digest, one)
    elif isinstance(part, dict):
        digest.update(f"dict {len(part)}\n".encode())
        for name in sorted(part):
            _feed(digest, [name, part[name]])
    else:
        digest.update(f"value {json.dumps(part)}\n".encode())
