"""The state of a training, saved after each epoch: one killed at any moment goes on to the result that it would have had.

Used by ``training.fit_phases``, which asks for it; by ``training.samples`` for the fingerprint of the data; and by what removes states that
are no longer needed. A state is one file, whole or absent, and used only where it fits. It holds NumPy arrays and JSON only, so nothing in
it can be run.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bhi_utils.core.atomic_files import write_atomic
from bhi_utils.core.paths import InputError, shown

if TYPE_CHECKING:
    import keras

SUFFIX = ".state.npz"


def fingerprint(*parts: Any) -> str:
    """Hash of JSON values, arrays and dataclasses, and of lists and dictionaries of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def save_training(
    path: Path, fits: str, facts: Mapping[str, Any], best: list[np.ndarray], network: "keras.Model", optimizer: "keras.Optimizer"
) -> None:
    """Save all that the rest of a training depends on; of a phase that has ended, not the optimizer.

    Args:
        path: the file, see `save`.
        fits: fingerprint of all that the training depends on.
        facts: ``rows`` (a row an epoch), ``seconds`` and whether the phase has ``ended``.
        best: the weights of the best epoch so far.
        network: the whole network. Seed generators are among its variables, but not among its weights.
        optimizer: of the phase.
    """
    groups = {"model": arrays(network.variables), "best": best, "optimizer": [] if facts["ended"] else arrays(optimizer.variables)}
    save(path, fits, facts, groups)


def restore_training(path: Path, fits: str, network: "keras.Model", optimizer: "keras.Optimizer") -> dict[str, Any] | None:
    """Put a saved state into network and optimizer; returns the facts and ``best`` of `save_training`, or None where no state fits."""
    found = load(path, fits)
    if found is None:
        return None
    facts, groups = found
    pairs = [*zip(network.variables, groups["model"], strict=True), *zip(optimizer.variables, groups["optimizer"], strict=False)]
    for variable, array in pairs:
        variable.assign(array)
    return {**facts, "best": groups["best"]}


def arrays(variables: "list[keras.Variable]") -> list[np.ndarray]:
    """Returns variables' values."""
    import keras

    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def save(path: Path, fits: str, facts: Mapping[str, Any], groups: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Replace the state in ``path`` by another one; a kill or a full disk on the way leaves the earlier one whole.

    Args:
        path: the file; its name ends in ``SUFFIX``.
        fits: fingerprint of all that the training depends on.
        facts: what JSON can hold, NaN included.
        groups: lists of arrays by name.

    Raises:
        InputError: the file cannot be written.
    """
    members: dict[str, Any] = {f"{name}/{number:05}": array for name, group in groups.items() for number, array in enumerate(group)}
    header = json.dumps({"fits": fits, "groups": {name: len(group) for name, group in groups.items()}, **facts})
    try:
        with write_atomic(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, facts=np.array(header), **members)
            stream.flush()
            os.fsync(stream.fileno())
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; what was saved before is whole, and --resume continues from it.") from error


def load(path: Path, fits: str) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]] | None:
    """Returns the facts and arrays that ``save`` wrote, or None: there is no file, or it does not fit or is damaged, which is printed."""
    if not path.exists():
        return None
    try:
        # opened here, since NumPy leaves a file open that begins like a zip and is none
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as found:
            facts = json.loads(found["facts"].item())
            same = facts["fits"] == fits
            counts = facts["groups"].items() if same else ()
            groups = {name: [found[f"{name}/{number:05}"] for number in range(count)] for name, count in counts}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error):
        print(f"{shown(path)} is damaged, so it is not used: its part of the training starts anew.")
        return None
    if not same:
        print(f"{shown(path)} comes from other settings, data or code, so it is not used: its part of the training starts anew.")
        return None
    return facts, groups


def clear(folder: Path) -> None:
    """Remove every state in ``folder``, half-written ones too, and the folder when nothing else is in it."""
    with suppress(OSError):
        for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob(f".*{SUFFIX}.*")]:
            path.unlink(missing_ok=True)
        folder.rmdir()


def _plain(part: Any) -> Any:
    """What stands for an array or a dataclass in the text that `fingerprint` hashes."""
    return vars(part) if is_dataclass(part) else [str(part.dtype), part.shape, hashlib.sha256(part.tobytes()).hexdigest()]
