"""The patches of a source as one array and one table: found, checked, packed once, opened in milliseconds afterwards.

Used by the notebooks, the command ``bhi index`` and everything that needs pixels. ``data.patch_listing`` lists what there is,
``data.decode`` reads it and ``data.packing`` writes it.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.core import atomic_files
from bhi_utils.core.paths import InputError, cache_dir, exists, project_root, shown
from bhi_utils.core.run import WRITERS, Run
from bhi_utils.data import packing, patch_listing
from bhi_utils.data.decode import PATCH


@dataclass(frozen=True, eq=False)
class Pack:
    """A packed source.

    Attributes:
        folder: where it lies.
        patches: read-only map of uint8 (n, 50, 50, 3).
        manifest: one row a patch: ``case, x, y, label, path, width, height``, sorted by case, y, x; sizes as before padding.
        rejected: ``path, reason`` of what was left out.
        info: the source, its kind, the content's fingerprint and the counts.
    """

    folder: Path
    patches: np.ndarray
    manifest: pd.DataFrame
    rejected: pd.DataFrame
    info: dict[str, Any]


def open_source(source: str, *, phantom: Mapping[str, int] | None = None) -> Pack:
    """The pack of a data source in the project's cache: `find_source`, then `pack`, with the arguments and errors of both."""
    return pack(find_source(source, cache=cache_dir(), phantom=phantom), cache_dir())


def find_source(source: str, *, cache: Path, phantom: Mapping[str, int] | None = None) -> Path:
    """Where the patches of a data source are.

    Args:
        source: ``phantom`` writes a synthetic cohort below ``cache`` once, and ``kaggle`` downloads the archive there once; else a folder
            or a zip. A relative path is looked for in the current folder, then in the project's.
        cache: folder for what is written or downloaded.
        phantom: ``cases``, ``patches_per_case`` and ``seed`` of the synthetic cohort, where they differ from the defaults.

    Raises:
        InputError: there is no such folder or zip, or it cannot be downloaded.
    """
    text = str(source).strip()
    if text == "phantom":
        return _phantom(cache, **(phantom or {}))
    if text == "kaggle":
        from bhi_utils.data import kaggle_download

        return kaggle_download.fetch(Path(cache) / "kaggle")
    if not text:
        raise InputError(f"DATA is empty: pass phantom, kaggle, or a folder or zip with {patch_listing.LAYOUT}.")
    path = Path(text).expanduser()
    for candidate in (path, project_root() / path):
        if exists(candidate):
            return candidate
    raise InputError(f"{shown(path)} does not exist: pass phantom, kaggle, or a folder or zip with {patch_listing.LAYOUT}.")


def _phantom(cache: Path, *, cases: int = 48, patches_per_case: int = 60, seed: int = 0) -> Path:
    """The synthetic cohort of these numbers below ``cache``, drawn if it is not there."""
    from bhi_utils.data.phantom import synthetic_cohort

    version = "" if synthetic_cohort.VERSION == 1 else f"-v{synthetic_cohort.VERSION}"
    target = Path(cache) / "phantom" / f"phantom-{cases}x{patches_per_case}-seed{seed}{version}.zip"
    if not target.is_file():
        # another process may be faster, and be reading what it has made
        with atomic_files.write_atomic(target, replace=False) as temporary:
            synthetic_cohort.write(temporary, cases=cases, patches_per_case=patches_per_case, seed=seed)
    return target


def pack(source: Path, cache: Path, *, workers: int = 0, progress: bool = True) -> Pack:
    """Index, check and decode ``source`` into ``<cache>/packs/<key>``, or open that pack if it exists.

    ``workers`` is a number of processes; 0 takes all cores when there are patches enough to be worth starting them.

    Raises:
        InputError: the source is missing, damaged or without usable patches, or the disk is full.
    """
    source, packs = Path(source), Path(cache) / "packs"
    # a zip whose pack is noted need not have its half million names read again
    note = packs.parent / "known" / f"{blake2b(f'{patch_listing.FORMAT} {source.resolve()}'.encode(), digest_size=16).hexdigest()}.json"
    found = _noted(note, source, packs)
    if found is None:
        listing = patch_listing.index(source)
        folder = packs / listing.key()
        try:
            found = open_pack(folder)
        except InputError:
            if exists(folder):
                atomic_files.set_aside(folder)  # damaged
            packing.build(listing, folder, workers=workers, progress=progress)
            found = open_pack(folder)
        if listing.state:
            with suppress(InputError):  # a full disk: the note saves time and is no part of the pack
                atomic_files.write_json(note, {"state": listing.state, "pack": folder.name})
    # equal content may have been packed from another place
    return replace(found, info={**found.info, "source": shown(source)})


def _noted(note: Path, source: Path, packs: Path) -> Pack | None:
    """The pack of a zip that has not been touched since it was noted; None for folders, whose every file could have changed."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # `InputError` is a ValueError
        noted = json.loads(note.read_text(encoding="utf-8"))
        if source.is_file() and tuple(noted["state"]) == patch_listing.zip_state(source):
            return open_pack(packs / noted["pack"])
    return None


def open_pack(folder: Path) -> Pack:
    """Open a pack without reading its pixels.

    Raises:
        InputError: it is missing or not whole.
    """
    folder = Path(folder)
    try:
        info = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
        patches = np.load(folder / "patches.npy", mmap_mode="r", allow_pickle=False)
        manifest = packing.load_manifest(folder)
        rejected = atomic_files.read_csv(folder / "rejected.csv", dtype="str", keep_default_na=False)
        whole = patches.shape == (info["patches"], PATCH, PATCH, 3) and patches.dtype == np.uint8
        whole = whole and len(manifest) == info["patches"]
        whole = whole and info["format"] == patch_listing.FORMAT
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(f"No whole pack in {shown(folder)}: run notebook 01_dataset_exploration again.") from error
    if not whole:
        raise InputError(f"The pack in {shown(folder)} is damaged or of another version: run notebook 01_dataset_exploration again.")
    return Pack(folder, patches, manifest, rejected, info)


def describe(pack: Pack) -> dict[str, Any]:
    """The content of ``dataset.json``: what was packed, where the pack lies, and its fingerprint."""
    return {**{name: fact for name, fact in pack.info.items() if name != "format"}, "pack": shown(pack.folder)}


def open_dataset(run: Run) -> Pack:
    """The pack that notebook 01 of this run has made.

    Raises:
        InputError: notebook 01 has not run, or its pack is gone or has another content.
    """
    path = run.require("dataset.json")
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))
        folder, expected, source = project_root() / dataset["pack"], dataset["fingerprint"], dataset["source"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{shown(path)} is damaged: run notebook 01_dataset_exploration again.") from error
    found = open_pack(folder)
    if found.info["fingerprint"] != expected:
        raise InputError(f"{shown(path)} does not fit its pack: run notebook 01_dataset_exploration again.")
    return replace(found, info={**found.info, "source": source})


def require_data(run: Run, name: str, fingerprint: str | None) -> None:
    """Stop where an artefact was made from other data than those of the run's ``dataset.json``.

    Args:
        run: the run.
        name: the artefact.
        fingerprint: of the data that it was made from, None where it does not say.

    Raises:
        InputError: the two differ, or the artefact does not say.
    """
    if fingerprint != run.read_json("dataset.json")["fingerprint"]:
        what = f"{shown(run.artifacts / name)} was made from other data than dataset.json names"
        raise InputError(f"{what}: run notebook {WRITERS[name]} again, with the same OUT.")


def rows_of(manifest: pd.DataFrame, patches: pd.DataFrame) -> np.ndarray:
    """The manifest's row of each of ``patches``, int array; both have ``case, x, y, label``.

    Raises:
        InputError: the manifest lacks one of them, so the table was made from other data.
    """
    place = ["case", "x", "y", "label"]
    rows = pd.MultiIndex.from_frame(manifest[place]).get_indexer(pd.MultiIndex.from_frame(patches[place]))
    if (rows < 0).any():
        case, x, y, label = patches[place].iloc[int(np.argmin(rows))]
        what = f"The data hold no patch of case {case} at x={x}, y={y} with label {label}: the predictions were made from other data"
        raise InputError(f"{what}, so run notebook 05_training_cnn_vs_efficientnetb0 again.")
    return rows


def per_case(manifest: pd.DataFrame) -> pd.DataFrame:
    """Patches, IDC+ patches and IDC share (0–1) of each case, by case number.

    >>> per_case(pd.DataFrame({"case": [7, 7, 9], "label": [0, 1, 0]})).to_numpy().tolist()
    [[7.0, 2.0, 1.0, 0.5], [9.0, 1.0, 0.0, 0.0]]
    """
    table = manifest.groupby("case", sort=True)["label"].agg(patches="size", positive="sum").reset_index()
    table["positive"] = table["positive"].astype("int64")
    return table.assign(share=table["positive"] / table["patches"])
