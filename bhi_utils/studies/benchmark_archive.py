"""How fast is the archive's handling, and how does it grow? Every side is measured in one run, several times, and compared by medians.

Used by ``bhi bench`` and by ``notebooks/studies/benchmarks.ipynb``, which shows the recorded result. Commands are timed as whole processes,
from their start to their end, as a person waits for them; ``studies.benchmark_loaders`` holds the sides of the comparison of epochs.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from bhi_utils.core import provenance
from bhi_utils.core.atomic_files import check_space
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, cache_dir, shown
from bhi_utils.core.provenance import git_commit
from bhi_utils.core.run import Run
from bhi_utils.data import archive, decode, published, sources
from bhi_utils.data.packing import PATCH_BYTES
from bhi_utils.studies.benchmark import machine, measured, on_cores, spread

RESULTS = "benchmarks.json"
#: Numbers of patches at which growth is looked at; the archive's own comes last.
SIZES = (10_000, 50_000, 100_000, 277_524)
BATCH_SIZE = 32
#: Side in pixels that the paper resizes patches to.
IMAGE_SIZE = 200
#: What is wanted: of the whole archive in seconds, megabytes and milliseconds; of the pack's epoch over another's; of delivery over a step.
SECONDS, MEGABYTES, MILLISECONDS, FASTER, AHEAD = 150, 800, 100, 100, 1
_OPEN = """
import sys, time
from pathlib import Path
from bhi_utils.data import archive
start = time.perf_counter()
archive.pack(Path(sys.argv[1]), Path(sys.argv[2]))
print(1000 * (time.perf_counter() - start))
"""


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
    with on_cores(cores) as used, _scratch(run, sizes) as scratch:
        path = _source(source, seed)
        cases, data = _inventory(path)
        subsets = {count: _subset(path, cases, count, scratch) for count in _within(sizes, cases)}
        result = {"command": _command(path, source, sizes, repeats), "commit": git_commit(), "data": data, "machine": machine(used)}
        result |= {"repeats": repeats, "batch_size": BATCH_SIZE, "image_size": image_size, "ingest": [], "epochs": []}
        for count, subset in subsets.items():
            _say(f"{count:,} patches: index and pack")
            result["ingest"].append({"patches": count, **_ingest(subset, scratch, repeats)})
            _say(f"{count:,} patches: epochs")
            epochs, more = _epochs(subset, scratch, repeats, image_size, seed, first=count == min(subsets))
            result["epochs"].append({"patches": count, **epochs})
            result |= more
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


def _source(source: str, seed: int) -> Path:
    if source != "phantom":
        path = archive.find_source(source, cache=cache_dir())
        if not path.is_file():
            raise InputError(f"{shown(path)} is a folder, and the benchmark begins with a zip: pass the archive's zip, or phantom.")
        return path
    from bhi_utils.data.phantom import synthetic_archive, synthetic_cohort

    path = cache_dir() / "phantom" / f"like-archive-seed{seed}-v{synthetic_cohort.VERSION}.zip"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic_archive.write(path, seed=seed)
    return path


def _inventory(path: Path) -> tuple[pd.Series, dict[str, Any]]:
    """Number of patches of each case, by case; and what the data is."""
    listing = sources.index(path)
    cases = pd.Series([member.case for member in listing.members]).value_counts().sort_index()
    kind = "phantom" if listing.synthetic else listing.kind
    facts = {"kind": kind, "synthetic": listing.synthetic, "patches": len(listing.members), "cases": len(cases)}
    return cases, facts | {"nested_copy": listing.nested_copy, "zip_mb": round(path.stat().st_size / 1e6)}


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
            place = sources.parse(tuple(name.split("/")))
            if not isinstance(place, str) and place[0] in chosen:
                part.writestr(name, whole.read(name))
    return target


def _ingest(path: Path, scratch: Path, repeats: int) -> dict[str, Any]:
    """``bhi index`` from nothing, opening what it packed again, and unpacking one copy of the zip, which is what people do instead.

    It leaves the pack in ``scratch/cache`` and the unpacked files in ``scratch/files``.
    """
    cache, files = scratch / "cache", scratch / "files"
    seconds, memory, opened, unpacked = [], [], [], []
    environment = {**os.environ, "BHI_CACHE": str(cache)}
    for _ in range(repeats):
        shutil.rmtree(cache, ignore_errors=True)
        spent, peak = measured([sys.executable, "-m", "bhi_utils", "index", str(path), "--out", str(scratch / "index")], environment)
        seconds.append(spent)
        memory.append(peak / 1e6)
        shutil.rmtree(files, ignore_errors=True)
        unpacked.append(_unpack(path, files))
    for _ in range(max(repeats, 5)):
        said = subprocess.run(
            [sys.executable, "-c", _OPEN, str(path), str(cache)], capture_output=True, text=True, check=True, env=environment
        )
        opened.append(float(said.stdout))
    return {
        "zip_mb": round(path.stat().st_size / 1e6, 1),
        "index_and_pack_seconds": spread(seconds),
        "peak_uss_mb": spread(memory),
        "open_again_ms": spread(opened),
        "unpack_one_copy_seconds": spread(unpacked),
    }


def _unpack(path: Path, files: Path) -> float:
    """Seconds to write one copy of the patches as files, into ``files/<0 or 1>``."""
    members = sources.index(path).members
    for label in "01":
        (files / label).mkdir(parents=True)
    start = time.perf_counter()
    with zipfile.ZipFile(path) as whole:
        for member in members:
            (files / str(member.label) / Path(member.name).name).write_bytes(whole.read(member.name))
    return time.perf_counter() - start


def _epochs(path: Path, scratch: Path, repeats: int, image_size: int, seed: int, *, first: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Patches a second of an epoch on every side; for the first size, also of delivery at ``image_size`` and of bare training steps."""
    from bhi_utils.studies import benchmark_loaders

    pack = archive.pack(path, scratch / "cache", progress=False)
    count, files = len(pack.patches), scratch / "files"
    own = benchmark_loaders.from_pack(pack, batch_size=BATCH_SIZE, seed=seed)

    def sides(size: int) -> dict[str, Any]:
        options = {"image_size": size, "batch_size": BATCH_SIZE, "seed": seed}
        others = {
            benchmark_loaders.DIRECTORY: benchmark_loaders.from_directory(files, **options),
            benchmark_loaders.GENERATOR: benchmark_loaders.FromFiles(files, **options),
        }
        return {benchmark_loaders.PACK: own, **others}

    def rates(each: dict[str, Any], one: Callable[[Any], float]) -> dict[str, Any]:
        found: dict[str, list[float]] = {name: [] for name in each}
        for _ in range(repeats):  # sides take turns, so that a busy moment of the machine meets all of them
            for name, batches in each.items():
                found[name].append(one(batches))
        return {name: spread(values) for name, values in found.items()}

    epochs = rates(sides(decode.PATCH), lambda batches: benchmark_loaders.epoch_rate(batches, count))
    if not first:
        return epochs, {}
    _say(f"{count:,} patches: delivery at {image_size}×{image_size}, and training steps")
    delivered = rates(sides(image_size), lambda batches: benchmark_loaders.delivered_rate(batches, count, image_size=image_size))
    steps = benchmark_loaders.step_rates(pack, image_size=image_size, batch_size=BATCH_SIZE, steps=2, repeats=repeats)
    return epochs, {"delivered": delivered, "steps": {name: spread(values) for name, values in steps.items()}}


@contextmanager
def _scratch(run: Run, sizes: Sequence[int]) -> Iterator[Path]:
    """A folder beside the artefacts that is gone afterwards, on a disk with room for subsets, pack and files."""
    check_space(run.root, 3 * max(sizes) * PATCH_BYTES + 2 * sum(sizes) * 5_000, advice="free some or pass another --out")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=run.root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _command(path: Path, source: str, sizes: Sequence[int], repeats: int) -> str:
    given = source if source == "phantom" else path.name
    return f"bhi bench --data {given} --sizes {' '.join(map(str, sizes))} --repeats {repeats}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
    rows = []
    for name, cell in result["delivered"].items():
        ahead = {f"÷ step of {step}": cell["median"] / pace["median"] for step, pace in result["steps"].items()}
        rows.append({"delivered by": name, "patches/s": cell["median"], **ahead})
    return pd.DataFrame(rows).set_index("delivered by")


def sentence(result: dict[str, Any]) -> str:
    """What the largest size costs, in the words of the README."""
    cost, gain = result["ingest"][-1], epochs_table(result).iloc[-1]
    names = [name for name in gain.index if "÷" in name]
    return (
        f"{counted(cost['patches'], 'patch')} on {counted(result['machine']['cores'], 'core')}: indexed and packed in "
        f"{cost['index_and_pack_seconds']['median']:.0f} s with {cost['peak_uss_mb']['median']:.0f} MB of memory, opened again in "
        f"{cost['open_again_ms']['median']:.0f} ms, and read {min(gain[name] for name in names):.0f} times faster than PNG files."
    )


def goals(result: dict[str, Any]) -> pd.DataFrame:
    """What was wanted beside what was measured: ``goal, measured, met``. Those for the whole archive only where it was whole."""
    rows = []
    largest, epoch = result["ingest"][-1], epochs_table(result).iloc[-1]
    if largest["patches"] >= published.archive_totals()["patches"]:
        rows += [
            ("whole archive, index + pack", f"≤ {SECONDS} s", value := largest["index_and_pack_seconds"]["median"], value <= SECONDS),
            ("whole archive, peak private memory", f"≤ {MEGABYTES} MB", value := largest["peak_uss_mb"]["median"], value <= MEGABYTES),
            ("whole archive, opened again", f"≤ {MILLISECONDS} ms", value := largest["open_again_ms"]["median"], value <= MILLISECONDS),
        ]
    for name in (name for name in epoch.index if "÷" in name):
        rows.append((f"epoch, {name}", f"≥ {FASTER} times", epoch[name], epoch[name] >= FASTER))
    slowest = delivery_table(result).iloc[0]
    for name in (name for name in slowest.index if "÷" in name):
        rows.append((f"delivery {name}", f"≥ {AHEAD} times", slowest[name], slowest[name] >= AHEAD))
    return pd.DataFrame(rows, columns=["what", "goal", "measured", "met"]).set_index("what")
