"""How fast is the archive's handling, and how does it grow? Every side is measured in one run, several times, and compared by medians.

Used by ``bhi bench`` and by ``notebooks/studies/benchmarks.ipynb``, which shows the recorded result. Commands are timed as whole processes,
from their start to their end, as a person waits for them. Epochs are read from the pack and, as people do who have unpacked the archive,
with Keras' data set for folders.
"""

import gc
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from bhi_utils.core.atomic_files import check_space
from bhi_utils.core.paths import InputError, cache_dir, shown
from bhi_utils.core.run import Run
from bhi_utils.data import archive, decode, patch_listing
from bhi_utils.data.packing import PATCH_BYTES
from bhi_utils.studies.benchmark import facts, measured, on_cores, spread, turns

RESULTS = "benchmarks.json"
#: Numbers of patches at which growth is looked at; the archive's own comes last.
SIZES = (10_000, 50_000, 100_000, 277_524)
BATCH_SIZE = 32
#: An epoch is read again until so many seconds are over: one epoch may be over in an instant.
LEAST = 2.0
#: The sides of the comparison of epochs, as tables and figures name them.
PACK, DIRECTORY = "pack", "image_dataset_from_directory"


def study(run: Run, source: str, *, sizes: Sequence[int] = SIZES, repeats: int = 3) -> dict:
    """Measures everything on two cores and writes ``benchmarks.json`` into the run's artefacts.

    Args:
        run: the study's folder; it needs some 7 GB of scratch space for the whole archive.
        source: a zip in the archive's layout, or ``phantom`` for a synthetic one of the archive's size, which is painted first.
        sizes: numbers of patches; the first whole cases of the source that hold as many are taken.
        repeats: how often each side is measured.

    Returns:
        ``{"command", "commit", "data", "machine", "repeats", "ingest": [...], "epochs": [...]}``; every measurement is ``{"median", "low",
        "high"}`` with the smallest and largest of the repeats.

    Raises:
        InputError: the source is no zip, the disk is too small, or a number is too small.
    """
    if repeats < 1 or not sizes or min(sizes) < 1:
        raise InputError("A benchmark needs at least one repeat and sizes of one patch or more.")
    start = time.perf_counter()
    # for subsets, pack and files
    check_space(run.root, 3 * max(sizes) * PATCH_BYTES + 2 * sum(sizes) * 5_000, advice="free some or pass another --out")
    with on_cores() as used, tempfile.TemporaryDirectory(prefix="bench-", dir=run.root, ignore_cleanup_errors=True) as folder:
        scratch, path = Path(folder), _source(source)
        cases, data = _inventory(path)
        result = facts(f"bhi bench --data {Path(source).name} --sizes {' '.join(map(str, sizes))} --repeats {repeats}", used)
        result |= {"data": data, "repeats": repeats, "batch_size": BATCH_SIZE, "ingest": [], "epochs": []}
        for count in _within(sizes, cases):
            subset = _subset(path, cases, count, scratch)
            print(f"{count:,} patches: index and pack, then epochs", file=sys.stderr, flush=True)
            result["ingest"].append({"patches": count, **_ingest(subset, scratch, repeats)})
            sides = _sides(archive.pack(subset, scratch / "cache", progress=False), scratch / "files")
            rates = turns({name: partial(_epoch_rate, epoch, count) for name, epoch in sides.items()}, repeats)
            result["epochs"].append({"patches": count, **{name: spread(values) for name, values in rates.items()}})
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


def _source(source: str) -> Path:
    if source != "phantom":
        path = archive.find_source(source, cache=cache_dir())
        if not path.is_file():
            raise InputError(f"{shown(path)} is a folder, and the benchmark begins with a zip: pass the archive's zip, or phantom.")
        return path
    from bhi_utils.data.phantom import synthetic_cohort

    path = cache_dir() / "phantom" / f"like-archive-seed0-v{synthetic_cohort.VERSION}.zip"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic_cohort.write_archive(path, seed=0)
    return path


def _inventory(path: Path) -> tuple[pd.Series, dict]:
    """Returns the number of patches of each case, by case, and what the data is."""
    listing = patch_listing.index(path)
    cases = pd.Series([member.case for member in listing.members]).value_counts().sort_index()
    data = {"kind": "phantom" if listing.synthetic else listing.kind, "synthetic": listing.synthetic, "patches": len(listing.members)}
    return cases, data | {"cases": len(cases), "nested_copy": listing.nested_copy, "zip_mb": round(path.stat().st_size / 1e6)}


def _within(sizes: Sequence[int], cases: pd.Series) -> list[int]:
    """Returns how many patches the first whole cases hold that reach each of ``sizes``, or all there are where none can be reached."""
    running = cases.cumsum()
    found = {int(running[running >= size].iloc[0]) for size in sizes if size <= running.iloc[-1]}
    return sorted(found) or [int(running.iloc[-1])]


def _subset(path: Path, cases: pd.Series, count: int, scratch: Path) -> Path:
    """Returns a zip of the first cases with ``count`` patches, nested copy included; the source itself when it has no more."""
    if count == cases.sum():
        return path
    chosen = set(cases.index[cases.cumsum() <= count])
    target = scratch / f"{count}.zip"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as part:
        part.comment = whole.comment
        for name in whole.namelist():
            place = patch_listing.parse(tuple(name.split("/")))
            if not isinstance(place, str) and place[0] in chosen:
                part.writestr(name, whole.read(name))
    return target


def _ingest(path: Path, scratch: Path, repeats: int) -> dict:
    """Times ``bhi index`` from nothing, opening its pack again, and unpacking one copy of the zip, which is what people do instead.

    It leaves the pack in ``scratch/cache`` and the unpacked files in ``scratch/files``.
    """
    environment = {**os.environ, "BHI_CACHE": str(scratch / "cache")}
    peaks = []

    def index() -> float:
        shutil.rmtree(scratch / "cache", ignore_errors=True)
        command = [sys.executable, "-m", "bhi_utils", "index", str(path), "--out", str(scratch / "index")]
        seconds, peak = measured(command, environment)
        peaks.append(peak / 1e6)
        return seconds

    def opened() -> float:
        start = time.perf_counter()
        archive.pack(path, scratch / "cache", progress=False)
        return 1000 * (time.perf_counter() - start)

    found = turns({"index": index, "unpack": lambda: _unpack(path, scratch / "files")}, repeats)
    return {
        "zip_mb": round(path.stat().st_size / 1e6, 1),
        "index_and_pack_seconds": spread(found["index"]),
        "peak_uss_mb": spread(peaks),
        "open_again_ms": spread([opened() for _ in range(max(repeats, 5))]),
        "unpack_one_copy_seconds": spread(found["unpack"]),
    }


def _unpack(path: Path, files: Path) -> float:
    """Writes one copy of the patches as files, into ``files/<0 or 1>``; returns the seconds."""
    shutil.rmtree(files, ignore_errors=True)
    members = patch_listing.index(path).members
    for label in "01":
        (files / label).mkdir(parents=True)
    start = time.perf_counter()
    with zipfile.ZipFile(path) as whole:
        for member in members:
            (files / str(member.label) / Path(member.name).name).write_bytes(whole.read(member.name))
    return time.perf_counter() - start


def _sides(pack: archive.Pack, files: Path) -> dict[str, Callable[[], Iterable]]:
    """Returns what begins an epoch of shuffled batches: of the pack, as in training, and of the unpacked files, by Keras."""
    import keras

    from bhi_utils.training.samples import Batches

    labels, size = pack.manifest["label"].to_numpy(), (decode.PATCH, decode.PATCH)
    batches = Batches(lambda index, _: pack.patches[index], labels, batch_size=BATCH_SIZE, seed=0)
    options = {"label_mode": "binary", "image_size": size, "batch_size": BATCH_SIZE, "seed": 0, "verbose": False}
    opened = keras.utils.image_dataset_from_directory(files, **options)

    def drawn() -> Iterable:
        batches.on_epoch_begin()
        return (batches[number] for number in range(len(batches)))

    return {PACK: drawn, DIRECTORY: lambda: opened}


def _epoch_rate(epoch: Callable[[], Iterable], patches: int) -> float:
    """Returns the patches a second of whole epochs in a plain loop, as many of them as fill `LEAST` seconds.

    Making the data set is not counted, which favours the side that lists files first.

    Raises:
        ValueError: an epoch does not have ``patches`` patches.
    """
    gc.collect()
    epochs, start = 0, time.perf_counter()
    while not epochs or time.perf_counter() - start < LEAST:
        seen = sum(len(batch[0]) for batch in epoch())
        if seen != patches:
            raise ValueError(f"An epoch gave {seen} patches, not {patches}.")
        epochs += 1
    return epochs * patches / (time.perf_counter() - start)


def ingest_table(result: Mapping) -> pd.DataFrame:
    """One row a size: seconds of index and pack, peak memory, milliseconds to open again, and seconds to unpack one copy; medians.

    >>> from bhi_utils.core import provenance
    >>> ingest_table(provenance.result(RESULTS)).columns.tolist()
    ['index + pack (s)', 'peak USS (MB)', 'open again (ms)', 'unpack one copy (s)']
    """
    names = {"index_and_pack_seconds": "index + pack (s)", "peak_uss_mb": "peak USS (MB)", "open_again_ms": "open again (ms)"}
    names["unpack_one_copy_seconds"] = "unpack one copy (s)"
    rows = pd.DataFrame(result["ingest"]).set_index("patches")[list(names)]
    return rows.map(lambda cell: cell["median"]).rename(columns=names)


def epochs_table(result: Mapping) -> pd.DataFrame:
    """One row a size: patches a second of an epoch on every side, and how many times faster the pack is; medians."""
    rates = pd.DataFrame(result["epochs"]).set_index("patches").map(lambda cell: cell["median"])
    return rates.assign(**{f"pack ÷ {name}": rates[PACK] / rates[name] for name in rates.columns.drop(PACK)})
