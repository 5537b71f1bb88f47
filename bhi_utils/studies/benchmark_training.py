"""How many patches a second do the networks learn and answer on this device, and how much sooner is recipe fast done than recipe paper?

Used by ``bhi bench --of training``. The recipes train the same patches for equal epochs to equal depths, taking turns in one run; the
filling of the cache and the planning of SMOTE count. They are called as notebook 05 calls them. Networks start from random weights unless
others are given: time is the same.
"""

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
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
from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.data.archive import Pack
from bhi_utils.model import networks
from bhi_utils.studies import recipes
from bhi_utils.studies.benchmark import facts, on_cores, spread, turns
from bhi_utils.training import device_patches, fit_phases, samples, train_networks

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
    cores: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both and write ``training_speed.json`` into the run's artefacts.

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
    blocks = blocks or int(recipes.settings("fast")["FINE_TUNE_BLOCKS"])
    command = f"bhi bench --of training --data {source if source == 'phantom' else path.name}"
    command += f" --weights {Path(weights).name}" if weights else ""
    command += f" --sizes {' '.join(map(str, batches))}" if batches else ""
    command += f" --epochs {epochs} --blocks {blocks} --repeats {repeats}"
    fixed, table = fixed_patches(pack, *patches, seed=seed)
    with (
        on_cores(cores if hardware.card() is None else os.cpu_count() or 1) as used,
        tempfile.TemporaryDirectory(prefix="bench-", dir=run.root, ignore_cleanup_errors=True) as folder,
    ):
        gpu = bool(hardware.gpus())
        start_from = weights or _random_weights(Path(folder))
        options: dict[str, Any] = {"weights": start_from, "blocks": blocks, "image_size": image_size, "seed": seed}
        result = facts(command, used) | {
            "data": {name: pack.info[name] for name in ("kind", "synthetic", "patches", "cases", "fingerprint")}
        }
        result["machine"] |= {"device": hardware.device_line(), "gpu": gpu}
        result |= {"repeats": repeats, "image_size": image_size, "weights": Path(weights).name or "random", "blocks": blocks}
        result["throughput"] = _throughput(fixed, table, batches or BATCHES[gpu], repeats, **options)
        if epochs:
            result["recipes"] = _recipes(fixed, table, Path(folder), epochs, repeats, **options)
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


def fixed_patches(pack: Pack, train: int, valid: int, *, seed: int) -> tuple[Pack, pd.DataFrame]:
    """``train`` patches of training cases, ``valid`` of validation cases and one of a test case, chosen at random, and their split.

    Raises:
        InputError: the source has too few patches of a part, or those chosen have too few of a class.
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
    rows = np.sort(np.concatenate(chosen))
    manifest = pack.manifest.iloc[rows].reset_index(drop=True)
    fingerprint = hashlib.sha256(pack.info["fingerprint"].encode() + rows.tobytes()).hexdigest()
    fixed = replace(pack, patches=pack.patches[rows], manifest=manifest, info={**pack.info, "fingerprint": fingerprint})
    return fixed, table[table["case"].isin(manifest["case"])].reset_index(drop=True)


def _random_weights(folder: Path) -> str:
    """A complete weight file of EfficientNetB0 with random weights, which take as long to train as any others."""
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(224, 224, 3))
    normalization = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), np.full(3, networks.VARIANCE_COMPLETE, np.float32), np.array(0)])
    base.save_weights(folder / "random.weights.h5")
    return str(folder / "random.weights.h5")


def _throughput(
    pack: Pack, table: pd.DataFrame, batches: Sequence[int], repeats: int, *, weights: str, blocks: int, image_size: int, seed: int
) -> list[dict[str, Any]]:
    """Patches a second of every step, for every batch size: from host batches, and on a GPU from resident patches too."""
    rows, train = splits.indices(pack.manifest, table, "val"), samples.training_samples(pack, table, mode="none", seed=seed)
    cells = []
    for batch in batches:
        place = device_patches.choose(len(pack.patches), batch_size=batch, image_size=image_size)
        host = device_patches.Placement(False, device_patches.FLOAT32)
        for way in dict.fromkeys([host, replace(place, why="")]):
            model = networks.efficientnetb0(image_size=image_size, weights=weights, seed=seed)
            cell: dict[str, Any] = {"patches": "resident" if way.resident else "host", "precision": way.policy, "batch_size": batch}
            with device_patches.precision(model, way.policy):
                part, draw, _ = device_patches.feeds(model, train, rows, resident=way.resident)
                for step in STEPS:
                    networks.unfreeze(model, {"frozen": 0, "last_blocks": blocks, "all": None, "inference": 0}[step])
                    cell[step] = spread(_rates(part, draw, train.labels, batch, step, repeats))
            cells.append(cell)
            keras.utils.clear_session()
    return cells


def _rates(part: keras.Model, draw: Callable[[np.ndarray], Any], labels: np.ndarray, batch: int, step: str, repeats: int) -> list[float]:
    """Patches a second of ``repeats`` runs of as many steps as fill `LEAST` seconds, in the loop of Keras that training and answers use."""
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


def _recipes(pack: Pack, table: pd.DataFrame, folder: Path, epochs: int, repeats: int, **options: Any) -> dict[str, Any]:
    """Seconds of both recipes, taking turns; a side pays for its samples, its cache and all of its epochs."""
    settings = {name: _settings(name, epochs) for name in recipes.PROFILES}
    seconds = turns({name: partial(_train, pack, table, folder, values, **options) for name, values in settings.items()}, repeats)
    counts = {part: len(splits.indices(pack.manifest, table, part)) for part in ("train", "val")}
    ratios = [fast / paper for fast, paper in zip(seconds["fast"], seconds["paper"], strict=True)]
    measured = {name: {"settings": values, "seconds": spread(seconds[name])} for name, values in settings.items()}
    return {"patches": counts, "epochs": epochs, **measured, "ratio": spread(ratios)}


def _settings(recipe: str, epochs: int) -> dict[str, Any]:
    """What a recipe's profile says about time, made comparable: equal epochs, and `VIEWS` cached views where it caches at all."""
    values = recipes.settings(recipe)
    cached = {"views": VIEWS if values.get("VIEWS") else 0, "rate": float(values.get("FINE_TUNE_RATE", 1e-4))}
    return {"balance": values["BALANCE"], "batch_size": int(values["BATCH_SIZE"]), **cached, "epochs": epochs}


def _train(
    pack: Pack, table: pd.DataFrame, folder: Path, values: dict[str, Any], *, weights: str, blocks: int, image_size: int, seed: int
) -> float:
    """Seconds of one recipe, from an empty cache to the trained network; ``values`` gets the number of ``samples`` an epoch."""
    # the published recipe knows neither mixed precision nor patches on the device
    precision = {} if values["views"] else {"BHI_PRECISION": device_patches.FLOAT32}
    with (
        tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as own,
        mock.patch.dict(os.environ, {"BHI_CACHE": str(Path(own) / "cache"), **precision}),
        # no phase ends early: the sides are compared at equal epochs
        mock.patch.object(fit_phases, "PATIENCE", values["epochs"] + 1),
    ):
        recipe = fit_phases.FitSettings(
            epochs=values["epochs"], batch_size=values["batch_size"], seed=seed, folder=Path(own) / "checkpoints"
        )
        start = time.perf_counter()
        train = samples.training_samples(pack, table, mode=values["balance"], seed=seed)
        options = {"image_size": image_size, "weights": weights, "blocks": blocks, "rate": values["rate"], "views": values["views"]}
        trained = train_networks.train_efficientnetb0(pack, table, train, recipe, **options)
        seconds = time.perf_counter() - start
    if len(trained.history) != values["epochs"]:
        raise RuntimeError(f"{len(trained.history)} epochs were run, not {values['epochs']}.")
    keras.utils.clear_session()
    values["samples"] = len(train)
    print(f"{values['balance']}, {counted(values['views'], 'view')}: {seconds:,.1f} s for {len(train):,} samples an epoch", flush=True)
    return seconds


def table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a way to feed the network and a batch size: patches a second of every step; medians."""
    names = {key: title.format(result["blocks"]) for key, title in STEPS.items()}
    index = ["patches", "precision", "batch_size"]
    rows = [{**{name: cell[name] for name in index}, **{names[key]: cell[key]["median"] for key in STEPS}} for cell in result["throughput"]]
    return pd.DataFrame(rows).set_index(index)


def recipes_table(result: dict[str, Any]) -> pd.DataFrame:
    """One row a recipe: what it does, and its seconds; empty where the recipes were left out."""
    found, rows = result.get("recipes", {}), {}
    for name in recipes.PROFILES if found else ():
        values, seconds = found[name]["settings"], found[name]["seconds"]
        rows[name] = {key: values[key] for key in ("balance", "batch_size", "views", "epochs", "samples")}
        rows[name] |= {"seconds": seconds["median"], "low": seconds["low"], "high": seconds["high"]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("recipe")
