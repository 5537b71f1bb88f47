"""How many patches a second do the networks learn and answer on this device, and how much sooner is recipe fast done than recipe paper?

Used by ``bhi bench --of training``. The recipes train the same patches for equal epochs to equal depths, taking turns in one run; the
filling of the cache and the planning of SMOTE count. Networks start from random weights unless others are given: time is the same.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from bhi_utils.core import hardware, provenance
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.core.provenance import git_commit
from bhi_utils.core.run import Run
from bhi_utils.data import archive
from bhi_utils.data.archive import Pack
from bhi_utils.runner import parameters
from bhi_utils.studies import benchmark_recipes
from bhi_utils.studies.benchmark import machine, on_cores
from bhi_utils.studies.benchmark_recipes import STEPS
from bhi_utils.studies.recipes import PROFILES

RESULTS = "training_speed.json"
#: Side in pixels that the paper resizes patches to.
IMAGE_SIZE = 200
#: Fixed patches that the recipes learn from and are validated on after each epoch; the paper's epochs.
TRAIN, VALID, EPOCHS = 1000, 200, 15
#: Batch sizes of the table, without and with a GPU.
BATCHES = {False: (8, 32), True: (32, 128, 256, 512)}
#: What is wanted: recipe fast's time over recipe paper's; patches a second on an H100; minutes of so many epochs over so many patches.
RATIO, LEARNING, ANSWERING, MINUTES = 1 / 6, 4000, 12000, 25
LONG_EPOCHS, LONG_PATCHES = 30, 190_000


def recorded() -> dict[str, Any]:
    """The result that the repository keeps; its form is that of `study`."""
    return provenance.result(RESULTS)


def study(
    run: Run,
    source: str,
    *,
    weights: str = "",
    batches: Sequence[int] = (),
    epochs: int = EPOCHS,
    blocks: int = 0,
    repeats: int = 3,
    image_size: int = IMAGE_SIZE,
    patches: tuple[int, int] = (TRAIN, VALID),
    cores: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both and write ``training_speed.json`` into the run's artefacts.

    Args:
        run: the study's folder, and for scratch: recipe fast's cache lies there and is filled anew each time.
        source: a data source, see `archive.find_source`.
        weights: as for ``models.efficientnetb0``, pretrained; random ones in the form of such a file by default.
        batches: batch sizes of the table.
        epochs: epochs of either recipe; 0 leaves the recipes out.
        blocks: last blocks that phase 2 fine-tunes in either recipe, 1 to 6; 0 takes what the profile of recipe fast says.
        repeats: how often each side is measured.
        image_size: side in pixels that the network sees.
        patches: how many training and validation patches the recipes have.
        cores: the processor cores that may be used where there is no GPU.
        seed: seed of the choice of patches and of the training.

    Returns:
        ``{"command", "commit", "data", "machine", …, "throughput": [...], "recipes": {...}}``; every measurement is
        ``{"median", "low", "high"}`` over the repeats, and a ratio compares two neighbours in time.

    Raises:
        InputError: the source has too few patches, or a number is too small.
    """
    if repeats < 1 or epochs < 0 or any(size < 1 for size in batches):
        raise InputError("A benchmark needs at least one repeat, batches of one patch or more, and 0 epochs or more.")
    if not 0 <= blocks <= 6:
        raise InputError(f"{blocks} blocks cannot be fine-tuned behind a cache: give 1 to 6, or 0 for those of recipe fast.")
    start, path = time.perf_counter(), archive.find_source(source, cache=cache_dir())
    pack = archive.pack(path, cache_dir())
    blocks = blocks or int(parameters.read_profile(PROFILES["fast"])["FINE_TUNE_BLOCKS"])
    command = _command(source if source == "phantom" else path.name, weights, batches, epochs, blocks, repeats)
    fixed, table = benchmark_recipes.fixed_patches(pack, *patches, seed=seed)
    with on_cores(cores if hardware.card() is None else os.cpu_count() or 1) as used, _scratch(run) as folder:
        gpu = bool(hardware.gpus())
        options = {"weights": weights or benchmark_recipes.random_weights(folder), "blocks": blocks, "image_size": image_size, "seed": seed}
        result = {"command": command, "commit": git_commit(), "data": _facts(pack), "machine": machine(used)}
        result["machine"] |= {"device": hardware.device_line(), "gpu": gpu}
        result |= {"repeats": repeats, "image_size": image_size, "weights": Path(weights).name or "random", "blocks": blocks}
        result["throughput"] = benchmark_recipes.throughput(fixed, table, batches or BATCHES[gpu], repeats, **options)
        if epochs:
            result["recipes"] = benchmark_recipes.recipes(fixed, table, folder, epochs, repeats, **options)
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


@contextmanager
def _scratch(run: Run) -> Iterator[Path]:
    """A folder beside the artefacts that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=run.root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _facts(pack: Pack) -> dict[str, Any]:
    return {name: pack.info[name] for name in ("kind", "synthetic", "patches", "cases", "fingerprint")}


def _command(source: str, weights: str, batches: Sequence[int], epochs: int, blocks: int, repeats: int) -> str:
    sizes = f" --sizes {' '.join(map(str, batches))}" if batches else ""
    start = f" --weights {Path(weights).name}" if weights else ""
    return f"bhi bench --of training --data {source}{start}{sizes} --epochs {epochs} --blocks {blocks} --repeats {repeats}"


def table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a way to feed the network and a batch size: patches a second of every step; medians."""
    names = {key: title.format(result["blocks"]) for key, title in STEPS.items()}
    index = ["patches", "precision", "batch_size"]
    rows = [{**{name: cell[name] for name in index}, **{names[key]: cell[key]["median"] for key in STEPS}} for cell in result["throughput"]]
    return pd.DataFrame(rows).set_index(index)


def recipes_table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a recipe: what it does, and its seconds; empty where the recipes were left out."""
    found = result.get("recipes", {})
    rows = []
    for name in PROFILES if found else ():
        values, seconds = found[name]["settings"], found[name]["seconds"]
        row = {"recipe": name, **{key: values[key] for key in ("balance", "batch_size", "views", "epochs", "samples")}}
        rows.append({**row, "seconds": seconds["median"], "low": seconds["low"], "high": seconds["high"]})
    return pd.DataFrame(rows).set_index("recipe") if rows else pd.DataFrame()


def best(result: dict[str, Any]) -> tuple[float, float]:
    """Patches a second of the quickest row, learning as deep as the recipe goes, and answering."""
    return tuple(max(cell[step]["median"] for cell in result["throughput"]) for step in ("last_blocks", "inference"))


def minutes(result: dict[str, Any]) -> float:
    """Minutes of `LONG_EPOCHS` epochs over `LONG_PATCHES` patches at the quickest row's pace, all as deep as the recipe goes."""
    return LONG_EPOCHS * LONG_PATCHES / best(result)[0] / 60


def goals(result: dict[str, Any]) -> pd.DataFrame:
    """What was wanted beside what was measured: ``goal, measured, met``. Patches a second only where an H100 was at work."""
    rows = []
    if "recipes" in result:
        ratio = result["recipes"]["ratio"]["median"]
        rows.append(("time of recipe fast ÷ paper", f"≤ {RATIO:.3f}", ratio, ratio <= RATIO))
    if result["machine"]["gpu"] and "H100" in result["machine"]["device"]:
        learning, answering = best(result)
        rows += [
            ("training, patches/s", f"≥ {LEARNING:,}", learning, learning >= LEARNING),
            ("inference, patches/s", f"≥ {ANSWERING:,}", answering, answering >= ANSWERING),
            (f"{LONG_EPOCHS} epochs × {LONG_PATCHES:,} patches, min", f"≤ {MINUTES}", spent := minutes(result), spent <= MINUTES),
        ]
    return pd.DataFrame(rows, columns=["what", "goal", "measured", "met"]).set_index("what")


def sentence(result: dict[str, Any]) -> str:
    """What was measured, in the words of the README."""
    learning, answering = best(result)
    place = "the GPU" if result["machine"]["gpu"] else counted(result["machine"]["cores"], "core")
    spent = minutes(result)
    said = f"On {place} at {result['image_size']} px: {learning:,.0f} patches a second in training, {answering:,.0f} in inference; "
    said += f"{LONG_EPOCHS} epochs over {LONG_PATCHES:,} patches take {f'{spent:.0f} min' if spent < 120 else f'{spent / 60:.0f} h'}."
    if "recipes" in result:
        found = result["recipes"]
        ratio, low, high = (1 / found["ratio"][name] for name in ("median", "high", "low"))
        depth = "block" if result["blocks"] == 1 else f"{result['blocks']} blocks"
        said += (
            f" {found['epochs']} epochs of {found['patches']['train']:,} patches, the last {depth} fine-tuned: "
            f"recipe paper {found['paper']['seconds']['median']:,.0f} s, recipe fast {found['fast']['seconds']['median']:,.0f} s, "
            f"{ratio:.1f} times sooner ({low:.1f} to {high:.1f})."
        )
    return said
