"""How many patches a second does the exported file answer, beside the network that it was made from? Used by ``bhi bench --of export``.

Both take turns in one run with the same cores and the same patches, and give logits and evidence maps, as the app does.
"""

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.core.paths import InputError, Run
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import bundles, export
from bhi_utils.model.predictor import Predictor
from bhi_utils.studies.benchmark import facts, pace, spread, turns

RESULTS = "export.json"
#: Patches of one call; patches that a side is given at least each time.
BATCHES, LEAST = (1, 8, 64, 128), 512


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

    predictor = Predictor.load(bundle)
    result = facts(f"bhi bench --of export{bundles.option(bundle)} --repeats {repeats}", os.cpu_count() or 1) | {"model": bundle.name}
    result["machine"]["onnxruntime"] = onnxruntime.__version__
    patches = synthetic_cohort.whole_patches(max(batches)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        start, path = time.perf_counter(), Path(folder) / "model.onnx"
        result["difference"] = export.write(predictor, path)
        result["export_seconds"], result["megabytes"] = time.perf_counter() - start, path.stat().st_size / 1e6
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        asked = {
            "keras": predictor.network.predict_on_batch,
            "onnx": lambda batch: session.run(list(export.OUTPUTS), {export.INPUT: batch}),
        }
        rates = turns(
            {(size, side): partial(pace, asked[side], patches[:size], max(1, least // size)) for size in batches for side in asked}, repeats
        )
    result["batches"] = {}
    for size in batches:
        ratios = [onnx / keras for onnx, keras in zip(rates[size, "onnx"], rates[size, "keras"], strict=True)]
        result["batches"][str(size)] = {side: spread(rates[size, side]) for side in asked} | {"ratio": spread(ratios)}
    run.write_json(RESULTS, result)
    return result


def table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a batch size: patches a second of both sides, and how many times as many the file answers, with its spread."""
    rows = {}
    for size, found in result["batches"].items():
        both, ratio = {"Keras, patches/s": found["keras"]["median"], "ONNX Runtime, patches/s": found["onnx"]["median"]}, found["ratio"]
        rows[int(size)] = both | {"times as many": ratio["median"], "least": ratio["low"], "most": ratio["high"]}
    return pd.DataFrame(rows).T.rename_axis("patches a call")
