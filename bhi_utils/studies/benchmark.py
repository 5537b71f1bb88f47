"""How to measure: commands as whole processes, memory over all of them, a fixed number of cores, sides that take turns, the spread of runs.

Used by the benchmarks, such as ``studies.benchmark_archive``.
"""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from bhi_utils.core import provenance
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import bundles, export
from bhi_utils.model.predictor import Predictor

#: Seconds between two looks at the memory of a command.
_EVERY = 0.05


def measured(command: Sequence[str], environment: dict[str, str]) -> tuple[float, int]:
    """Returns the seconds that a command takes, and the peak of the unique set size (bytes) summed over its process and all below it.

    Raises:
        RuntimeError: it fails; the message ends with what it printed.
    """
    with tempfile.TemporaryFile("w+") as said:
        start, peak = time.perf_counter(), 0
        with psutil.Popen(command, stdout=said, stderr=said, env=environment) as process:
            while process.poll() is None:
                peak = max(peak, _private(process))
                with suppress(psutil.TimeoutExpired):
                    process.wait(_EVERY)
            seconds = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said.read()[-2000:]}")
    return seconds, peak


def _private(root: psutil.Process | psutil.Popen) -> int:
    """Returns the unique set size of a process and of all that it has started, in bytes; one that ends meanwhile counts as nothing."""
    total = 0
    with suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error):
                total += process.memory_full_info().uss
    return total


@contextmanager
def on_cores(count: int = 2) -> Iterator[int]:
    """Keeps this process and those it starts on ``count`` cores, where the system has such a setting; gives the number in use."""
    if not hasattr(os, "sched_setaffinity"):
        yield os.cpu_count() or 1
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield len(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, before)


def turns(sides: Mapping, repeats: int) -> dict:
    """Returns what each side measures in ``repeats`` rounds: its name to a list. The sides take turns, so that a busy moment meets all.

    Args:
        sides: name to a function that measures once and returns a number.
        repeats: number of rounds.
    """
    found: dict = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def pace(ask: Callable[[np.ndarray], Any], batch: np.ndarray, calls: int) -> float:
    """Returns the patches a second of ``calls`` calls of a network with the same batch, after one that does not count."""
    ask(batch)
    start = time.perf_counter()
    for _ in range(calls):
        ask(batch)
    return len(batch) * calls / (time.perf_counter() - start)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, smallest and largest of several runs.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def facts(command: str, cores: int) -> dict:
    """Returns how a result was made: the command, the commit, and the machine with its cores, processor, system and versions."""
    machine = {"cores": cores, "processor": _processor(), "system": platform.system(), **provenance.versions()}
    return {"command": command, "commit": provenance.git_commit(), "machine": machine}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


EXPORT_RESULTS = "export.json"
#: Patches of one call; patches that a side is given at least each time.
BATCHES, LEAST = (1, 8, 64, 128), 512


def study_export(run: Run, bundle: Path, *, batches: tuple[int, ...] = BATCHES, least: int = LEAST, repeats: int = 3) -> dict:
    """Exports, measures, and writes ``export.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        bundle: the model's bundle.
        batches: how many patches one call takes.
        least: patches that each side is given at least, each time.
        repeats: how often the sides take turns.

    Returns:
        ``{"command", "commit", "machine", "model", "difference", "export_seconds", "batches": {size: {"keras", "onnx", "ratio"}}}``:
        patches a second and, of each turn, onnx over keras, each ``{"median", "low", "high"}``.

    Raises:
        InputError: a number is too small, or the export is not possible.
    """
    if repeats < 1 or least < 1 or min(batches, default=0) < 1:
        raise InputError("A benchmark needs at least one repeat, and batches of one patch or more.")
    import onnxruntime

    predictor = Predictor.load(bundle)
    result = facts(f"bhi bench --of export{bundles.option(bundle)} --repeats {repeats}", os.cpu_count() or 1) | {"model": bundle.name}
    result["machine"]["onnxruntime"] = onnxruntime.__version__
    patches = synthetic_cohort.whole_patches(max(batches)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        start, path = time.perf_counter(), Path(folder) / "model.onnx"
        result["difference"] = export.write(predictor, path)
        result["export_seconds"], result["megabytes"] = time.perf_counter() - start, path.stat().st_size / 1e6
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        asked = {"keras": predictor.network.predict_on_batch}
        asked["onnx"] = lambda batch: session.run(list(export.OUTPUTS), {export.INPUT: batch})
        sides = {(size, side): partial(pace, asked[side], patches[:size], max(1, least // size)) for size in batches for side in asked}
        rates = turns(sides, repeats)
    result["batches"] = {}
    for size in batches:
        ratios = [onnx / keras for onnx, keras in zip(rates[size, "onnx"], rates[size, "keras"], strict=True)]
        result["batches"][str(size)] = {side: spread(rates[size, side]) for side in asked} | {"ratio": spread(ratios)}
    run.write_json(EXPORT_RESULTS, result)
    return result


def export_table(result: Mapping) -> pd.DataFrame:
    """One row a batch size: patches a second of both sides, and how many times as many the file answers, with its spread."""
    rows = {}
    for size, found in result["batches"].items():
        both, ratio = {"Keras, patches/s": found["keras"]["median"], "ONNX Runtime, patches/s": found["onnx"]["median"]}, found["ratio"]
        rows[int(size)] = both | {"times as many": ratio["median"], "least": ratio["low"], "most": ratio["high"]}
    return pd.DataFrame(rows).T.rename_axis("patches a call")
