"""What does SMOTE cost as a plan, beside imbalanced-learn's ``fit_resample``? Both in processes of their own, taking turns in one run.

Used by ``bhi bench --of smote``. A side is given patches that lie in memory already, as an array of float32 or as the open pack, and
what it needs above that is its peak. The neighbour search, which both do alike, is timed apart from the rest. Seconds are those of a
clock on the wall; beside them stand those of the processor, which other programs on the machine disturb less.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from bhi_utils.core import provenance
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.core.provenance import git_commit
from bhi_utils.core.run import Run
from bhi_utils.data import archive, decode, published
from bhi_utils.studies.benchmark import machine, on_cores, spread
from bhi_utils.training import smote

RESULTS = "smote.json"
#: The sides, in the order in which they take turns.
IMBLEARN, PLAN = "imbalanced-learn", "plan"
#: Patches that are drawn at a time.
BATCH_SIZE = 32
NEIGHBOURS = 5
#: What is wanted: the plan's peak memory over imbalanced-learn's, drawing all batches over imbalanced-learn's time without the search.
MEMORY, DRAWING = 1 / 6, 1 / 10
_SIDE = "import sys; from bhi_utils.studies import benchmark_smote; benchmark_smote.side(sys.argv[1], sys.argv[2], int(sys.argv[3]))"


def recorded() -> dict[str, Any]:
    """The result that the repository keeps, of the real sample; its form is that of `study`."""
    return provenance.result(RESULTS)


def estimate(source: str) -> list[smote.Cost]:
    """What the neighbour search will cost for a source, and for the whole archive; nothing is searched."""
    whole = published.archive_totals()
    counts = {_rare(_open(source)), min(whole["negative"], whole["positive"])}
    return [smote.cost(count, decode.PATCH**2 * 3) for count in sorted(counts)]


def study(run: Run, source: str, *, repeats: int = 3, cores: int = 2, seed: int = 0) -> dict[str, Any]:
    """Measure both sides and write ``smote.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        source: a data source, see `archive.find_source`; all of its patches are balanced.
        repeats: how often each side is measured.
        cores: the processor cores that may be used, where the system lets a program choose.
        seed: seed of SMOTE.

    Returns:
        ``{"command", "commit", "data", "machine", "repeats", …, "estimates": [...], "sides": {...}, "ratios": {...}, "equal"}``; every
        measurement is ``{"median", "low", "high"}`` over the repeats, and a ratio compares two neighbours in time.

    Raises:
        InputError: the source has too few patches of a class, or a number is too small.
    """
    if repeats < 1:
        raise InputError("A benchmark needs at least one repeat.")
    start, pack = time.perf_counter(), _open(source)
    if _rare(pack) <= NEIGHBOURS:
        raise InputError(f"SMOTE needs more than {NEIGHBOURS} patches of each class: add cases to the source.")
    data = {name: pack.info[name] for name in ("kind", "synthetic", "patches", "cases", "positive", "fingerprint")}
    versions = {name: importlib.metadata.version(name) for name in ("scikit-learn", "imbalanced-learn")}
    with on_cores(cores) as used:
        costs = estimate(source)
        _say(*(cost.sentence() for cost in costs))
        rounds = [{name: _measure(name, pack.folder, seed) for name in (IMBLEARN, PLAN)} for _ in range(repeats)]
        result = {
            "command": f"bhi bench --of smote --data {Path(source).name} --repeats {repeats}",
            "commit": git_commit(),
            "data": data,
            "machine": machine(used) | versions,
            **{"repeats": repeats, "seed": seed, "neighbours": NEIGHBOURS, "batch_size": BATCH_SIZE},
            "estimates": [{"smaller_class": c.count, "search_seconds": c.seconds, "memory_bytes": c.memory} for c in costs],
        }
    result |= _compared(rounds) | {"seconds": round(time.perf_counter() - start, 1)}
    run.write_json(RESULTS, result)
    return result


def _compared(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The sides' measurements over the repeats, what is compared, and whether all pixels are the same."""
    sides = {
        name: {what: spread([turn[name][what] for turn in rounds]) for what in rounds[0][name] if what not in ("pixels", "synthetic")}
        for name in rounds[0]
    }
    ratios = {
        "memory": spread([turn[PLAN]["peak_extra_bytes"] / turn[IMBLEARN]["peak_extra_bytes"] for turn in rounds]),
        "drawing": spread([turn[PLAN]["drawing_seconds"] / turn[IMBLEARN]["remaining_seconds"] for turn in rounds]),
        "drawing_cpu": spread([turn[PLAN]["drawing_cpu_seconds"] / turn[IMBLEARN]["remaining_cpu_seconds"] for turn in rounds]),
    }
    pixels = {turn[name]["pixels"] for turn in rounds for name in turn}
    return {"sides": sides, "ratios": ratios, "synthetic": rounds[0][PLAN]["synthetic"], "equal": len(pixels) == 1}


def _measure(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """One side in a fresh process, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", _SIDE, name, str(folder), str(seed)]
        said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "BHI_CACHE": cache}, encoding="utf-8")
    if said.returncode:
        raise RuntimeError(f"{name} ended with {said.returncode}: {said.stderr[-2000:]}")
    found = json.loads(said.stdout.splitlines()[-1])
    _say(f"{name}: " + ", ".join(f"{what} {value:,.3g}" for what, value in found.items() if what != "pixels"))
    return found


def side(name: str, folder: str, seed: int) -> None:
    """Measure one side in this process, and print it as one line of JSON."""
    pack = archive.open_pack(Path(folder))
    labels = pack.manifest["label"].to_numpy()
    print(json.dumps({IMBLEARN: _imblearn, PLAN: _plan}[name](pack.patches, labels, seed)))


def _imblearn(patches: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    from imblearn.over_sampling import SMOTE
    from sklearn.neighbors import NearestNeighbors

    spent = []

    class Timed(NearestNeighbors):
        def fit(self, *arguments, **options):
            return self._timed(super().fit, *arguments, **options)

        def kneighbors(self, *arguments, **options):
            return self._timed(super().kneighbors, *arguments, **options)

        def _timed(self, method, *arguments, **options):
            start = _now()
            found = method(*arguments, **options)
            spent.append(_now() - start)
            return found

    flat = np.empty((len(patches), patches[0].size), np.float32)
    for place in range(0, len(flat), 256):
        flat[place : place + 256] = patches[place : place + 256].reshape(-1, flat.shape[1])
    before, start = _level(), _now()
    balanced, _ = SMOTE(random_state=seed, k_neighbors=Timed(n_neighbors=NEIGHBOURS + 1)).fit_resample(flat, labels)
    rest, extra = _now() - start - sum(spent), _peak() - before
    digest = hashlib.sha256()
    for place in range(len(flat), len(balanced), BATCH_SIZE):
        digest.update(np.ascontiguousarray(balanced[place : place + BATCH_SIZE]))
    found = _named("search", sum(spent)) | _named("remaining", rest)
    return found | {"peak_extra_bytes": extra, "synthetic": len(balanced) - len(flat), "pixels": digest.hexdigest()}


def _plan(patches: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    for place in range(0, len(patches), 256):
        patches[place : place + 256].max()  # the map's pages are in memory before, as the other side's array is
    before, start = _level(), _now()
    plan = smote.smote_plan(patches, labels, neighbours=NEIGHBOURS, seed=seed)
    searched = _now()
    # the same plan once more: its neighbours, where the search was long enough to be kept, come from the disk
    plan = smote.smote_plan(patches, labels, neighbours=NEIGHBOURS, seed=seed)
    again = _now()
    batches = [np.arange(place, min(place + BATCH_SIZE, len(plan))) for place in range(0, len(plan), BATCH_SIZE)]
    for batch in batches:
        smote.draw(patches, plan, batch)
    drawn, extra = _now(), _peak() - before
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(smote.draw(patches, plan, batch))
    found = _named("search", searched - start) | _named("search_again", again - searched) | _named("drawing", drawn - again)
    return found | {"peak_extra_bytes": extra, "synthetic": len(plan), "pixels": digest.hexdigest()}


def _now() -> np.ndarray:
    """Seconds by the clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def _named(what: str, spent: np.ndarray) -> dict[str, float]:
    return {f"{what}_seconds": float(spent[0]), f"{what}_cpu_seconds": float(spent[1])}


def _level() -> int:
    """Bytes of memory that this process holds now; where the system lets a program, its peak is counted from here."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return psutil.Process().memory_info().rss


def _peak() -> int:
    """The most bytes of memory that this process has held."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _open(source: str) -> archive.Pack:
    return archive.pack(archive.find_source(source, cache=cache_dir()), cache_dir())


def _rare(pack: archive.Pack) -> int:
    """Patches of the smaller class."""
    return int(min(pack.info["positive"], pack.info["patches"] - pack.info["positive"]))


def _say(*texts: str) -> None:
    for text in texts:
        print(text, file=sys.stderr, flush=True)


def table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a side: seconds of the search and of everything else, with the processor's, and peak memory above its input; medians."""
    rows = {}
    for name, cells in result["sides"].items():
        value = {what: cell["median"] for what, cell in cells.items()}
        rest = "drawing" if name == PLAN else "remaining"
        rows[name] = {
            "search (s)": value["search_seconds"],
            "search again (s)": value.get("search_again_seconds"),
            "the rest (s)": value[f"{rest}_seconds"],
            "the rest (CPU s)": value[f"{rest}_cpu_seconds"],
            "peak memory (MB)": value["peak_extra_bytes"] / 1e6,
        }
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def goals(result: dict[str, Any]) -> pd.DataFrame:
    """What was wanted beside what was measured: ``goal, measured, met``."""
    ratio = {name: cell["median"] for name, cell in result["ratios"].items()}
    rows = [
        ("every synthetic pixel is imbalanced-learn's", "yes", "yes" if result["equal"] else "no", result["equal"]),
        ("peak memory, plan ÷ imbalanced-learn", "≤ 1/6", f"1/{1 / ratio['memory']:.1f}", ratio["memory"] <= MEMORY),
        ("drawing ÷ imbalanced-learn without its search", "≤ 1/10", f"1/{1 / ratio['drawing']:.1f}", ratio["drawing"] <= DRAWING),
        ("the same in processor time", "≤ 1/10", f"1/{1 / ratio['drawing_cpu']:.1f}", ratio["drawing_cpu"] <= DRAWING),
    ]
    return pd.DataFrame(rows, columns=["what", "goal", "measured", "met"]).set_index("what")


def sentence(result: dict[str, Any]) -> str:
    """What the plan saves, in the words of the README."""
    plan, less = result["sides"][PLAN], {name: 1 / cell["median"] for name, cell in result["ratios"].items()}
    same = "the same" if result["equal"] else "OTHER"
    return (
        f"SMOTE on {result['data']['patches']:,} patches gives {same} pixels as imbalanced-learn with 1/{less['memory']:.1f} of its peak "
        f"memory ({plan['peak_extra_bytes']['median'] / 1e6:.0f} MB), and draws all {result['synthetic']:,} synthetic patches in "
        f"{plan['drawing_seconds']['median']:.2f} s, 1/{less['drawing']:.0f} of imbalanced-learn's time without the neighbour search; the "
        f"search takes {plan['search_seconds']['median']:.0f} s on {counted(result['machine']['cores'], 'core')} and is kept on disk."
    )
