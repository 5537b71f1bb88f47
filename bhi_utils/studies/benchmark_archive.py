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
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bhi_utils.core import provenance
from bhi_utils.core.atomic_files import check_space
from bhi_utils.core.paths import InputError, cache_dir, shown
from bhi_utils.core.run import Run
from bhi_utils.data import archive, decode, patch_listing, published
from bhi_utils.data.packing import PATCH_BYTES
from bhi_utils.studies.benchmark import facts, measured, on_cores, pace, spread, turns

if TYPE_CHECKING:
    from bhi_utils.training.samples import Batches

RESULTS = "benchmarks.json"
#: Numbers of patches at which growth is looked at; the archive's own comes last.
SIZES = (10_000, 50_000, 100_000, 277_524)
BATCH_SIZE = 32
#: Side in pixels that the paper resizes patches to.
IMAGE_SIZE = 200
#: An epoch is read again until so many seconds are over: one epoch may be over in an instant.
LEAST = 2.0
#: The sides of the comparison of epochs, as tables and figures name them.
PACK, DIRECTORY = "pack", "image_dataset_from_directory"
#: What is wanted: of the whole archive in seconds, megabytes and milliseconds; of the pack's epoch over another's; of delivery over a step.
SECONDS, MEGABYTES, MILLISECONDS, FASTER, AHEAD = 150, 800, 100, 100, 1


def recorded() -> dict[str, Any]:
    """The result that the repository keeps; its form is that of `study`."""
    return provenance.result(RESULTS)


def study(
    run: Run, source: str, *, sizes: Sequence[int] = SIZES, repeats: int = 3, image_size: int = IMAGE_SIZE, cores: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Measure everything and write ``benchmarks.json`` into the run's artefacts.

    Args:
        run: the study's folder; it needs some 7 GB of scratch space for the whole archive.
        source: a zip in the archive's layout, or ``phantom`` for a synthetic one of the archive's size, which is painted first.
        sizes: numbers of patches; the first whole cases of the source that hold as many are taken.
        repeats: how often each side is measured.
        image_size: side in pixels of the patches that are delivered to a network.
        cores: the processor cores that may be used, where the system lets a program choose.
        seed: seed of the orders.

    Returns:
        ``{"command", "commit", "data", "machine", "repeats", "ingest": [...], "epochs": [...], "delivered": {...}, "steps": {...}}``; every
        measurement is ``{"median", "low", "high"}`` with the smallest and largest of the repeats.

    Raises:
        InputError: the source is no zip, the disk is too small, or a number is too small.
    """
    if repeats < 1 or not sizes or min(sizes) < 1:
        raise InputError("A benchmark needs at least one repeat and sizes of one patch or more.")
    start = time.perf_counter()
    # for subsets, pack and files
    check_space(run.root, 3 * max(sizes) * PATCH_BYTES + 2 * sum(sizes) * 5_000, advice="free some or pass another --out")
    with on_cores(cores) as used, tempfile.TemporaryDirectory(prefix="bench-", dir=run.root, ignore_cleanup_errors=True) as folder:
        scratch, path = Path(folder), _source(source, seed)
        cases, data = _inventory(path)
        given = source if source == "phantom" else path.name
        result = facts(f"bhi bench --data {given} --sizes {' '.join(map(str, sizes))} --repeats {repeats}", used) | {"data": data}
        result |= {"repeats": repeats, "batch_size": BATCH_SIZE, "image_size": image_size, "ingest": [], "epochs": []}
        for count in _within(sizes, cases):
            subset = _subset(path, cases, count, scratch)
            print(f"{count:,} patches: index and pack, then epochs", file=sys.stderr, flush=True)
            result["ingest"].append({"patches": count, **_ingest(subset, scratch, repeats)})
            pack = archive.pack(subset, scratch / "cache", progress=False)
            epochs = {name: partial(_epoch_rate, side, count) for name, side in _sides(pack, scratch, decode.PATCH, seed).items()}
            result["epochs"].append({"patches": count, **_spread(turns(epochs, repeats))})
            if "steps" not in result:  # of the smallest size
                sides = _sides(pack, scratch, image_size, seed)
                delivered = {name: partial(_delivered_rate, side, count, image_size) for name, side in sides.items()}
                result |= {"delivered": _spread(turns(delivered, repeats)), "steps": _steps(pack, image_size, repeats)}
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


def _spread(found: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    return {name: spread(values) for name, values in found.items()}


def _source(source: str, seed: int) -> Path:
    if source != "phantom":
        path = archive.find_source(source, cache=cache_dir())
        if not path.is_file():
            raise InputError(f"{shown(path)} is a folder, and the benchmark begins with a zip: pass the archive's zip, or phantom.")
        return path
    from bhi_utils.data.phantom import synthetic_cohort

    path = cache_dir() / "phantom" / f"like-archive-seed{seed}-v{synthetic_cohort.VERSION}.zip"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic_cohort.write_archive(path, seed=seed)
    return path


def _inventory(path: Path) -> tuple[pd.Series, dict[str, Any]]:
    """Number of patches of each case, by case; and what the data is."""
    listing = patch_listing.index(path)
    cases = pd.Series([member.case for member in listing.members]).value_counts().sort_index()
    data = {"kind": "phantom" if listing.synthetic else listing.kind, "synthetic": listing.synthetic, "patches": len(listing.members)}
    return cases, data | {"cases": len(cases), "nested_copy": listing.nested_copy, "zip_mb": round(path.stat().st_size / 1e6)}


def _within(sizes: Sequence[int], cases: pd.Series) -> list[int]:
    """The true numbers of patches of the first cases that hold each of ``sizes``; what the source does not hold is left out."""
    running = cases.cumsum()
    found = {int(running[running >= size].iloc[0]) for size in sizes if size <= running.iloc[-1]}
    return sorted(found) or [int(running.iloc[-1])]


def _subset(path: Path, cases: pd.Series, count: int, scratch: Path) -> Path:
    """A zip of the first cases with ``count`` patches, nested copy included; the source itself when it has no more."""
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


def _ingest(path: Path, scratch: Path, repeats: int) -> dict[str, Any]:
    """``bhi index`` from nothing, opening what it packed again, and unpacking one copy of the zip, which is what people do instead.

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
    """Seconds to write one copy of the patches as files, into ``files/<0 or 1>``."""
    shutil.rmtree(files, ignore_errors=True)
    members = patch_listing.index(path).members
    for label in "01":
        (files / label).mkdir(parents=True)
    start = time.perf_counter()
    with zipfile.ZipFile(path) as whole:
        for member in members:
            (files / str(member.label) / Path(member.name).name).write_bytes(whole.read(member.name))
    return time.perf_counter() - start


def _sides(pack: archive.Pack, scratch: Path, image_size: int, seed: int) -> dict[str, Any]:
    """Two data sets of shuffled batches of every patch: the pack's as training draws them, and Keras' own of the unpacked files."""
    import keras

    files = keras.utils.image_dataset_from_directory(
        scratch / "files", label_mode="binary", image_size=(image_size, image_size), batch_size=BATCH_SIZE, seed=seed, verbose=False
    )
    return {PACK: _from_pack(pack, seed), DIRECTORY: files}


def _from_pack(pack: archive.Pack, seed: int) -> "Batches":
    from bhi_utils.training.samples import Batches, Samples

    labels = pack.manifest["label"].to_numpy()
    rows = np.arange(len(labels))
    samples = Samples(pack.patches, rows, labels, np.ones(len(labels), np.float32), None, rows)
    return Batches(lambda index, _: samples.fetch(index), labels, batch_size=BATCH_SIZE, seed=seed)


def _epoch_rate(batches: Any, patches: int) -> float:
    """Patches a second of whole epochs in a plain loop, as many of them as fill `LEAST` seconds.

    Making the data set is not counted, which favours the sides that list files first.

    Raises:
        ValueError: an epoch does not have ``patches`` patches.
    """
    gc.collect()
    epochs, start = 0, time.perf_counter()
    while not epochs or time.perf_counter() - start < LEAST:
        seen = sum(len(batch[0]) for batch in _epoch(batches))
        if seen != patches:
            raise ValueError(f"An epoch gave {seen} patches, not {patches}.")
        epochs += 1
    return epochs * patches / (time.perf_counter() - start)


def _epoch(batches: Any) -> Iterable:
    if not hasattr(batches, "on_epoch_begin"):  # TensorFlow's data set
        return batches
    batches.on_epoch_begin()
    return (batches[number] for number in range(len(batches)))


def _delivered_rate(batches: Any, patches: int, image_size: int) -> float:
    """Patches a second through Keras' own loop into a model that resizes them and computes next to nothing."""
    from keras import Input, Sequential, layers

    sink = Sequential([Input((None, None, 3)), layers.Resizing(image_size, image_size), layers.GlobalAveragePooling2D(), layers.Dense(1)])
    sink.compile(loss="mse", jit_compile=False)
    sink.evaluate(batches, steps=2, verbose=0)  # compiles
    start = time.perf_counter()
    sink.evaluate(batches, verbose=0)
    return patches / (time.perf_counter() - start)


def _steps(pack: archive.Pack, image_size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Patches a second of bare training steps on one batch that lies ready: the pace that a loader has to keep.

    ``custom CNN`` learns everything; ``EfficientNetB0, frozen`` learns its classifier only, the quickest step that it has.
    """
    import keras

    from bhi_utils.model import networks

    batch = np.asarray(pack.patches[:BATCH_SIZE], np.float32)
    labels = pack.manifest["label"].to_numpy(np.float32)[:BATCH_SIZE, None]
    sides = {"custom CNN": networks.cnn(image_size=image_size, seed=0)}
    sides["EfficientNetB0, frozen"] = networks.efficientnetb0(image_size=image_size, weights="none", seed=0)
    networks.unfreeze(sides["EfficientNetB0, frozen"], 0)
    for network in sides.values():
        network.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)

    def rate(network: keras.Model) -> float:
        return pace(lambda patches: network.train_on_batch(patches, labels), batch, 2)

    return _spread(turns({name: partial(rate, network) for name, network in sides.items()}, repeats))


def ingest_table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a size: seconds of index and pack, peak memory, milliseconds to open again, and seconds to unpack one copy; medians."""
    names = {"index_and_pack_seconds": "index + pack (s)", "peak_uss_mb": "peak USS (MB)", "open_again_ms": "open again (ms)"}
    names["unpack_one_copy_seconds"] = "unpack one copy (s)"
    rows = [{"patches": row["patches"], **{title: row[name]["median"] for name, title in names.items()}} for row in result["ingest"]]
    return pd.DataFrame(rows).set_index("patches")


def epochs_table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a size: patches a second of an epoch on every side, and how many times faster the pack is; medians."""
    rows = []
    for row in result["epochs"]:
        rates = {name: cell["median"] for name, cell in row.items() if name != "patches"}
        own, *others = rates
        rows.append({"patches": row["patches"], **rates, **{f"pack ÷ {name}": rates[own] / rates[name] for name in others}})
    return pd.DataFrame(rows).set_index("patches")


def delivery_table(result: dict[str, Any]) -> pd.DataFrame:
    """Patches a second that each side delivers at the network's size, then of training steps, and how far each side is ahead of them."""
    rows = {}
    for name, cell in result["delivered"].items():
        ahead = {f"÷ step of {step}": cell["median"] / pace["median"] for step, pace in result["steps"].items()}
        rows[name] = {"patches/s": cell["median"], **ahead}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("delivered by")


def goals(result: dict[str, Any]) -> pd.DataFrame:
    """What was wanted beside what was measured: ``goal, measured, met``. Those for the whole archive only where it was whole."""
    rows = []
    largest, epoch, slowest = result["ingest"][-1], epochs_table(result).iloc[-1], delivery_table(result).iloc[0]
    if largest["patches"] >= published.archive_totals()["patches"]:
        rows += [
            ("whole archive, index + pack", f"≤ {SECONDS} s", value := largest["index_and_pack_seconds"]["median"], value <= SECONDS),
            ("whole archive, peak private memory", f"≤ {MEGABYTES} MB", value := largest["peak_uss_mb"]["median"], value <= MEGABYTES),
            ("whole archive, opened again", f"≤ {MILLISECONDS} ms", value := largest["open_again_ms"]["median"], value <= MILLISECONDS),
        ]
    for what, ratios, wanted in (("epoch,", epoch, FASTER), ("delivery", slowest, AHEAD)):
        rows += [(f"{what} {name}", f"≥ {wanted} times", ratio, ratio >= wanted) for name, ratio in ratios.items() if "÷" in name]
    return pd.DataFrame(rows, columns=["what", "goal", "measured", "met"]).set_index("what")
