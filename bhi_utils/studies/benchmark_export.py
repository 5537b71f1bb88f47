"""How many patches a second does the exported file answer, beside the network that it was made from? Used by ``bhi bench --of export``.

Both take turns in one run with the same cores and the same patches, and give logits and evidence maps, as the app does.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.core import provenance
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError
from bhi_utils.core.provenance import git_commit
from bhi_utils.core.run import Run
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import bundles, export
from bhi_utils.model.predictor import Predictor
from bhi_utils.studies.benchmark import machine, pace, spread

RESULTS = "export.json"
#: Patches of one call; patches that a side is given at least each time.
BATCHES, LEAST = (1, 8, 64, 128), 512
SIDES = ("keras", "onnx")


def recorded() -> dict[str, Any]:
    """The result that the repository keeps; its form is that of `study`."""
    return provenance.result(RESULTS)


def study(run: Run, bundle: Path, *, batches: tuple[int, ...] = BATCHES, least: int = LEAST, repeats: int = 3) -> dict[str, Any]:
    """Export, measure, and write ``export.json`` into the run's artefacts.

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

    predictor, cores = Predictor.load(bundle), os.cpu_count() or 1
    command = f"bhi bench --of export{bundles.option(bundle)} --repeats {repeats}"
    result: dict[str, Any] = {"command": command, "commit": git_commit(), "machine": machine(cores), "model": bundle.name}
    result["machine"]["onnxruntime"] = onnxruntime.__version__
    patches = synthetic_cohort.whole_patches(max(batches)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        start, path = time.perf_counter(), Path(folder) / "model.onnx"
        result["difference"] = export.write(predictor, path)
        result["export_seconds"], result["megabytes"] = time.perf_counter() - start, path.stat().st_size / 1e6
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        asked: dict[str, Callable[[np.ndarray], Any]] = {
            "keras": predictor.network.predict_on_batch,
            "onnx": lambda batch: session.run(list(export.OUTPUTS), {export.INPUT: batch}),
        }
        rates: dict[int, dict[str, list[float]]] = {size: {side: [] for side in SIDES} for size in batches}
        for _ in range(repeats):
            for size, found in rates.items():
                for side, ask in asked.items():
                    found[side].append(pace(ask, patches[:size], max(1, least // size)))
    result["batches"] = {str(size): _compared(found) for size, found in rates.items()}
    run.write_json(RESULTS, result)
    return result


def _compared(found: dict[str, list[float]]) -> dict[str, Any]:
    ratios = [second / first for first, second in zip(*(found[side] for side in SIDES), strict=True)]
    return {side: spread(found[side]) for side in SIDES} | {"ratio": spread(ratios)}


def table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a batch size: patches a second of both sides, and how many times as many the file answers, with its spread."""
    rows = {
        int(size): {
            "Keras, patches/s": found["keras"]["median"],
            "ONNX Runtime, patches/s": found["onnx"]["median"],
            "times as many": found["ratio"]["median"],
            "least": found["ratio"]["low"],
            "most": found["ratio"]["high"],
        }
        for size, found in result["batches"].items()
    }
    return pd.DataFrame(rows).T.rename_axis("patches a call")


def sentence(result: dict[str, Any]) -> str:
    """What was measured, in the words of the README."""
    batches = result["batches"]
    onnx, keras = (_listed([f"{found[side]['median']:.0f}" for found in batches.values()]) for side in ("onnx", "keras"))
    return (
        f"On {counted(result['machine']['cores'], 'core')} ONNX Runtime answers {onnx} patches a second at {_listed(list(batches))} a "
        f"call, the same network in Keras {keras}; probabilities differ by {result['difference']:.0e} at most."
    )


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
