"""How fast is the interface, and does it hold under load? Used by ``bhi bench --of app``.

A server of its own is started, as a user starts it, and asked on loopback: one patch at a time, a region, a thousand files, and fifty
clients at once, each of which knows what it must hear. The bare network does the same work in this process beside it, at its best batch
size.
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from gradio_client import Client, handle_file
from PIL import Image

from bhi_utils.app import start_options
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import bundles
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict import regions
from bhi_utils.studies.benchmark import facts, pace, spread, turns

RESULTS = "app.json"
#: Files that a zip may hold at most.
FILES = 1000
#: Patches of one call of the bare network; its best counts.
BATCHES = (8, 16, 32, 64, 128)
#: How often region, zip and bare network take turns; patches that the bare network is given at least each time.
REPEATS, LEAST = 3, 1024


def study(
    run: Run, bundle: Path, *, single: int = 100, clients: int = 50, requests: int = 2000, region: int = 2500, files: int = FILES
) -> dict:
    """Measures, and writes ``app.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        bundle: the model's bundle.
        single: patches asked for one after the other.
        clients: clients that ask at once.
        requests: how many requests they send in all.
        region: patches with tissue of the region, at least.
        files: patches of the zip, at most 1,000.

    Raises:
        InputError: a number is too small.
    """
    if min(single, clients, requests, region, files) < 1 or files > FILES or requests < clients:
        raise InputError(f"Every number must be at least 1, files at most {FILES}, and no client may go without a request.")
    start_options.stop_by_signal()  # or a benchmark that is ended would leave its folder and its server
    start = time.perf_counter()
    patches = synthetic_cohort.whole_patches(max(files, single, 64))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = _region(region)
        Image.fromarray(large).save(folder / "region.png")
        paths = [str(folder / f"patch-{number}.png") for number in range(len(patches))]
        for path, patch in zip(paths, patches, strict=True):
            Image.fromarray(patch).save(path)
        with zipfile.ZipFile(folder / "files.zip", "w") as made:
            for path in paths[:files]:
                made.write(path, Path(path).name)
        with _server(bundle) as (url, ready):
            result = facts(f"bhi bench --of app{bundles.option(bundle)}", os.cpu_count() or 1)
            result |= {"model": bundle.name, "ready_seconds": ready, "patch_ms": _single(url, paths[:single])}
            result |= _turns(url, folder, bundle, _tissue(large))
            expected = Predictor.load(bundle).predict(patches[:64])["logit"].to_numpy()
            result["load"] = _load(url, paths[:64], expected, clients, requests)
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


def _region(count: int) -> np.ndarray:
    """Returns a drawn slide, laid edge to edge until it holds ``count`` patches with tissue."""
    slide = synthetic_cohort.draw_slide(0, patches=300, seed=1).image
    slide = slide[: slide.shape[0] // 50 * 50, : slide.shape[1] // 50 * 50]
    times = math.ceil(math.sqrt(count / len(_tissue(slide))))
    return np.tile(slide, (times, times, 1))


def _tissue(region: np.ndarray) -> np.ndarray:
    """Returns the patches of a region that hold tissue."""
    tiles = regions.cut(region)
    assert isinstance(tiles, regions.Tiles)
    return tiles.patches


@contextmanager
def _server(bundle: Path) -> Iterator[tuple[str, float]]:
    """Starts the interface; gives its address and the seconds until the page was there."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "bhi_utils", "app", "--model", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8") as process:
        try:
            found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout or ())), None)
            if found is None:
                raise RuntimeError("The interface did not start.")
            yield found[0], time.perf_counter() - start
        finally:
            process.terminate()


def _client(url: str) -> Client:
    # plain http needs no certificates, which the client would load anew for each request, for longer than the answer takes
    return Client(url, verbose=False, analytics_enabled=False, ssl_verify=False)


def _single(url: str, paths: list[str]) -> dict[str, float]:
    """Asks for one patch after the other; returns milliseconds of an answer."""
    client, spent = _client(url), []
    for path in paths:
        start = time.perf_counter()
        answer = client.predict(handle_file(path), api_name="/predict")
        spent.append(1000 * (time.perf_counter() - start))
        assert not answer["problem"], answer["problem"]
    return {"median": float(np.median(spent)), "p95": float(np.quantile(spent, 0.95)), "most": max(spent)}


def _turns(url: str, folder: Path, bundle: Path, patches: np.ndarray) -> dict:
    """Times the region and the zip through the API, and the bare network as it was saved; they take turns."""
    model = keras.saving.load_model(bundles.read(bundle)[1], compile=False, safe_mode=True)
    # XLA is slower for batches on a CPU, and compiles anew for each length
    model.jit_compile = False
    counts: dict[str, int] = {}

    def seconds(name: str, given: dict | list[dict]) -> float:
        start = time.perf_counter()
        answer = _client(url).predict(given, api_name=f"/{name}")
        counts[name] = answer["patches" if name == "region" else "count"]
        return time.perf_counter() - start

    region, files = (handle_file(str(folder / name)) for name in ("region.png", "files.zip"))
    sides = {"region": partial(seconds, "region", region), "files": partial(seconds, "files", [files])}
    inputs = {str(size): patches[:size].astype(np.float32) for size in BATCHES}
    rates = {size: partial(pace, model.predict_on_batch, batch, max(1, LEAST // len(batch))) for size, batch in inputs.items()}
    found = {name: spread(each) for name, each in turns(sides | rates, REPEATS).items()}
    result: dict = {}
    for name, count in counts.items():
        result[name] = {"patches": count, "seconds": found[name], "patches_per_second": count / found[name]["median"]}
    batches = {size: found[size] for size in rates}
    best = max(batches, key=lambda size: batches[size]["median"])
    return result | {"bare": {"batches": batches, "best_batch": int(best), "best": batches[best]["median"]}}


def _load(url: str, paths: list[str], expected: np.ndarray, clients: int, requests: int) -> dict:
    """Lets many clients ask at once; returns how many answers were lost, or differ from the ``expected`` logit of their file."""
    opened = [_client(url) for _ in range(clients)]
    start = time.perf_counter()

    def ask(number: int) -> str:
        which = number % len(paths)
        try:
            answer = opened[number % clients].predict(handle_file(paths[which]), api_name="/predict")
            right = abs(answer["logit"] - expected[which]) < 1e-2
        except Exception:  # whatever went wrong, the answer is lost
            return "lost"
        return "right" if right else "mixed"

    with ThreadPoolExecutor(clients) as pool:
        found = Counter(pool.map(ask, range(requests)))
    seconds = time.perf_counter() - start
    rates = {"seconds": seconds, "requests_per_second": requests / seconds}
    return {"clients": clients, "requests": requests, **rates, "lost": found["lost"], "mixed": found["mixed"]}


def table(result: Mapping) -> pd.DataFrame:
    """Patches a second of each way of use, beside the bare network's."""
    bare = result["bare"]
    rows = {
        "one patch after another, through the API": 1000 / result["patch_ms"]["median"],
        f"{result['load']['clients']} clients at once": result["load"]["requests_per_second"],
        f"a region of {counted(result['region']['patches'], 'patch')}": result["region"]["patches_per_second"],
        f"{counted(result['files']['patches'], 'file')} in a zip": result["files"]["patches_per_second"],
        f"the bare network, batches of {bare['best_batch']}": bare["best"],
    }
    return pd.DataFrame({"patches/s": rows, "of the bare network": {name: rate / bare["best"] for name, rate in rows.items()}})
