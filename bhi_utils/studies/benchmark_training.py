"""How many patches a second do the networks learn and answer on this device, and how much sooner is recipe fast done than recipe paper?

Used by ``bhi bench --of training``. The recipes train the same patches for equal epochs to equal depths, taking turns in one run; the
filling of the cache and the planning of SMOTE count. They are called as notebook 05 calls them. Networks start from random weights unless
others are given: time is the same.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pandas as pd

from bhi_utils.core import hardware
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.data.archive import Pack
from bhi_utils.model import networks
from bhi_utils.studies import recipes, study_base
from bhi_utils.studies.benchmark import facts, on_cores, spread, turns
from bhi_utils.training import device_patches, fit_phases, samples
from bhi_utils.training.cross_validation import Fold

RESULTS = "training_speed.json"
#: Side in pixels that the paper resizes patches to.
IMAGE_SIZE = 200
#: Fixed patches that the recipes learn from and are validated on after each epoch; the paper's epochs; views that recipe fast caches.
TRAIN, VALID, EPOCHS, VIEWS = 1000, 200, 15, 4
#: Batch sizes of the table, without and with a GPU.
BATCHES = {False: (8, 32), True: (32, 128, 256, 512)}
#: A cell is measured for at least so many seconds: a step may be over in an instant.
LEAST = 3.0
#: What a step does, by key of a cell.
STEPS = {"frozen": "classifier", "last_blocks": "last {} block(s)", "all": "everything", "inference": "inference"}


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
) -> dict:
    """Measures both, on two cores where there is no GPU, and writes ``training_speed.json`` into the run's artefacts.

    Args:
        run: the study's folder, and for scratch: recipe fast's cache lies there and is filled anew each time.
        source: a data source, see `archive.find_source`.
        weights: as for ``networks.efficientnetb0``, pretrained; random ones in the form of such a file by default.
        batches: batch sizes of the table.
        epochs: epochs of either recipe; 0 leaves the recipes out.
        blocks: last blocks that phase 2 fine-tunes in either recipe, 1 to 6; 0 takes what the profile of recipe fast says.
        repeats: how often each side is measured.
        image_size: side in pixels that the network sees.
        patches: how many training and validation patches the recipes have.

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
    start, pack = time.perf_counter(), archive.open_source(source)
    blocks = blocks or int(recipes.settings("fast")["FINE_TUNE_BLOCKS"])
    command = f"bhi bench --of training --data {Path(source).name}"
    command += f" --weights {Path(weights).name}" if weights else ""
    command += f" --sizes {' '.join(map(str, batches))}" if batches else ""
    command += f" --epochs {epochs} --blocks {blocks} --repeats {repeats}"
    fixed, table = fixed_patches(pack, *patches, seed=0)
    with (
        on_cores(2 if hardware.card() is None else os.cpu_count() or 1) as used,
        tempfile.TemporaryDirectory(prefix="bench-", dir=run.root, ignore_cleanup_errors=True) as folder,
    ):
        gpu, fold = bool(hardware.gpus()), Fold(fixed, table, 0, Path(folder))
        options: dict = {"weights": weights or _random_weights(Path(folder)), "blocks": blocks, "image_size": image_size}
        result = facts(command, used)
        result["data"] = {name: pack.info[name] for name in ("kind", "synthetic", "patches", "cases", "fingerprint")}
        result["machine"] |= {"device": hardware.device_line(), "gpu": gpu}
        result |= {"repeats": repeats, "image_size": image_size, "weights": Path(weights).name or "random", "blocks": blocks}
        result["throughput"] = _throughput(fold, batches or BATCHES[gpu], repeats, **options)
        if epochs:
            result["recipes"] = _recipes(fold, epochs, repeats, **options)
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


def fixed_patches(pack: Pack, train: int, valid: int, *, seed: int) -> tuple[Pack, pd.DataFrame]:
    """Returns ``train`` patches of training cases, ``valid`` of validation cases and one of a test case, drawn at random, and their split.

    Raises:
        InputError: the source has too few patches of a part, or those drawn have too few of a class.
    """
    table, random = splits.make(pack.manifest, seed=seed), np.random.default_rng(seed)
    chosen = []
    for part, count in (("train", train), ("val", valid), ("test", 1)):
        rows = splits.indices(pack.manifest, table, part)
        if len(rows) < count:
            raise InputError(
                f"The recipes need {counted(count, 'patch')} of {part} cases and --data has {len(rows):,}: pass a larger source."
            )
        chosen.append(random.choice(rows, count, replace=False))
    labels = pack.manifest["label"].to_numpy()
    if min(np.bincount(labels[chosen[0]], minlength=2)) < 6 or len(set(labels[chosen[1]])) < 2:
        raise InputError("The patches that were chosen have too few of a class: pass a larger source.")
    fixed = study_base.chosen(pack, np.sort(np.concatenate(chosen)), f"{train} {valid} {seed}")
    return fixed, table[table["case"].isin(fixed.manifest["case"])].reset_index(drop=True)


def _random_weights(folder: Path) -> str:
    """Writes a complete weight file of EfficientNetB0 with random weights, which take as long to train as any others."""
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(224, 224, 3))
    normalization = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), np.full(3, networks.VARIANCE_COMPLETE, np.float32), np.array(0)])
    base.save_weights(folder / "random.weights.h5")
    return str(folder / "random.weights.h5")


def _throughput(fold: Fold, batches: Sequence[int], repeats: int, *, weights: str, blocks: int, image_size: int) -> list[dict]:
    """Measures every step for every batch size, in patches a second: from host batches, and on a GPU from resident patches too."""
    pack, train = fold.pack, samples.training_samples(fold.pack, fold.table, mode="none", seed=0)
    cells = []
    for batch in batches:
        place = device_patches.choose(len(pack.patches), batch_size=batch, image_size=image_size)
        host = device_patches.Placement(False, device_patches.FLOAT32)
        for way in dict.fromkeys([host, replace(place, why="")]):
            model = networks.efficientnetb0(image_size=image_size, weights=weights, seed=0)
            cell: dict = {"patches": "resident" if way.resident else "host", "precision": way.policy, "batch_size": batch}
            with device_patches.precision(model, way.policy):
                part, draw, _ = device_patches.feeds(model, train, fold.rows("val"), resident=way.resident)
                for step in STEPS:
                    networks.unfreeze(model, {"frozen": 0, "last_blocks": blocks, "all": None, "inference": 0}[step])
                    cell[step] = spread(_rates(part, draw, train.labels, batch, step, repeats))
            cells.append(cell)
            keras.utils.clear_session()
    return cells


def _rates(part: keras.Model, draw: Callable[[np.ndarray], Any], labels: np.ndarray, batch: int, step: str, repeats: int) -> list[float]:
    """Returns the patches a second of ``repeats`` runs in Keras' own loop; a run has as many steps as fill `LEAST` seconds."""
    part.compile(keras.optimizers.Adam(1e-4), keras.losses.BinaryCrossentropy(from_logits=True))

    def seconds(count: int) -> float:
        sequence = np.arange(count * batch) % len(labels)
        data = samples.Batches(lambda index, _: draw(sequence[index]), labels[sequence], batch_size=batch)
        start = time.perf_counter()
        if step == "inference":
            part.predict(data, verbose=0)
        else:
            part.fit(data, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - start

    seconds(1)  # compiles
    steps = max(1, math.ceil(LEAST / seconds(1)))
    return [steps * batch / seconds(steps) for _ in range(repeats)]


def _recipes(fold: Fold, epochs: int, repeats: int, *, weights: str, blocks: int, image_size: int) -> dict:
    """Times both recipes, taking turns; a side pays for its samples, its cache and all of its epochs."""
    own = {"EPOCHS": epochs, "FINE_TUNE_BLOCKS": blocks, "IMAGE_SIZE": image_size}
    settings = {name: recipes.paper_settings(name) | own for name in recipes.PROFILES}
    settings["fast"]["VIEWS"] = VIEWS
    seconds = turns({name: partial(_train, fold, values, weights=weights) for name, values in settings.items()}, repeats)
    ratios = [fast / paper for fast, paper in zip(seconds["fast"], seconds["paper"], strict=True)]
    result = {"patches": {part: len(fold.rows(part)) for part in ("train", "val")}, "epochs": epochs, "ratio": spread(ratios)}
    for name, values in settings.items():
        drawn = samples.training_samples(fold.pack, fold.table, mode=values["BALANCE"], seed=0)
        said = {key: values[key.upper()] for key in ("balance", "batch_size", "views", "epochs")} | {"samples": len(drawn)}
        result[name] = {"settings": said, "seconds": spread(seconds[name])}
    return result


def _train(fold: Fold, values: Mapping, *, weights: str) -> float:
    """Trains one recipe, from an empty cache to the trained network; returns the seconds."""
    # the published recipe knows neither mixed precision nor patches on the device
    precision = {} if values["VIEWS"] else {"BHI_PRECISION": device_patches.FLOAT32}
    with (
        tempfile.TemporaryDirectory(dir=fold.folder, ignore_cleanup_errors=True) as own,
        mock.patch.dict(os.environ, {"BHI_CACHE": str(Path(own) / "cache"), **precision}),
        # no phase ends early: the sides are compared at equal epochs
        mock.patch.object(fit_phases, "PATIENCE", values["EPOCHS"] + 1),
    ):
        start = time.perf_counter()
        trained = study_base.train(replace(fold, folder=Path(own) / "checkpoints"), values, weights=weights, seed=0)
        seconds = time.perf_counter() - start
    if len(trained.history) != values["EPOCHS"]:
        raise RuntimeError(f"{len(trained.history)} epochs were run, not {values['EPOCHS']}.")
    keras.utils.clear_session()
    print(f"{values['BALANCE']}, {counted(values['VIEWS'], 'view')}: {seconds:,.1f} s", flush=True)
    return seconds


def table(result: Mapping) -> pd.DataFrame:
    """One row a way to feed the network and a batch size: patches a second of every step; medians."""
    index = ["patches", "precision", "batch_size"]
    cells = pd.DataFrame(result["throughput"]).set_index(index)[list(STEPS)].map(lambda cell: cell["median"])
    return cells.rename(columns={key: title.format(result["blocks"]) for key, title in STEPS.items()})


def recipes_table(result: Mapping) -> pd.DataFrame:
    """One row a recipe: what it does, and its seconds; empty where the recipes were left out."""
    found, names = result.get("recipes", {}), ["balance", "batch_size", "views", "epochs", "samples", "seconds", "low", "high"]
    rows = {name: found[name]["settings"] | found[name]["seconds"] for name in recipes.PROFILES if found}
    return pd.DataFrame.from_dict(rows, orient="index").rename(columns={"median": "seconds"}).reindex(columns=names).rename_axis("recipe")
