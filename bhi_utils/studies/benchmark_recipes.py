"""The sides of the benchmark of training: steps on one device at several batch sizes, and the recipes from nothing to a trained network.

Used by ``studies.benchmark_training`` only. Nothing here changes how training works: the recipes are called as notebook 05 calls them.
"""

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError
from bhi_utils.data import splits
from bhi_utils.data.archive import Pack
from bhi_utils.model import networks
from bhi_utils.runner import parameters
from bhi_utils.studies.benchmark import spread
from bhi_utils.studies.recipes import PROFILES
from bhi_utils.training import device_patches, fit_phases, samples, train_networks

#: Views that recipe fast caches.
VIEWS = 4
#: A cell is measured for at least so many seconds: a step may be over in an instant.
LEAST = 3.0
#: What a step does, by key of a cell.
STEPS = {"frozen": "classifier", "last_blocks": "last {} block(s)", "all": "everything", "inference": "inference"}


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
    part = replace(pack, patches=pack.patches[rows], manifest=manifest, info={**pack.info, "fingerprint": fingerprint})
    return part, table[table["case"].isin(manifest["case"])].reset_index(drop=True)


def random_weights(folder: Path) -> str:
    """A complete weight file of EfficientNetB0 with random weights, which take as long to train as any others."""
    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(224, 224, 3))
    normalization = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.float32([0.485, 0.456, 0.406]), np.full(3, networks.VARIANCE_COMPLETE, np.float32), np.array(0)])
    base.save_weights(folder / "random.weights.h5")
    return str(folder / "random.weights.h5")


def throughput(
    pack: Pack, table: pd.DataFrame, batches: Sequence[int], repeats: int, *, weights: str, blocks: int, image_size: int, seed: int
) -> list[dict[str, Any]]:
    """Patches a second of every step, for every batch size: from host batches, and on a GPU from resident patches too."""
    rows = splits.indices(pack.manifest, table, "val")
    cells = []
    for batch in batches:
        place = device_patches.choose(len(pack.patches), batch_size=batch, image_size=image_size)
        host = device_patches.Placement(False, device_patches.FLOAT32)
        for way in dict.fromkeys([host, replace(place, why="")]):
            train = samples.training_samples(pack, table, mode="none", seed=seed)
            model = networks.efficientnetb0(image_size=image_size, weights=weights, seed=seed)
            cell = {"patches": "resident" if way.resident else "host", "precision": way.policy, "batch_size": batch}
            with device_patches.precision(model, way.policy):
                part, draw, _ = device_patches.feeds(model, train, rows, resident=way.resident)
                for step in STEPS:
                    networks.unfreeze(model, {"frozen": 0, "last_blocks": blocks, "all": None, "inference": 0}[step])
                    cell[step] = spread(_rates(_stepper(part, draw, train.labels, batch, step), batch, repeats))
            cells.append(cell)
            keras.utils.clear_session()
    return cells


def _stepper(part: keras.Model, draw: device_patches.Draw, labels: np.ndarray, batch: int, step: str) -> Callable[[int], None]:
    """A function that runs so many steps, through the loop of Keras that training and prediction use."""
    part.compile(keras.optimizers.Adam(1e-4), keras.losses.BinaryCrossentropy(from_logits=True))

    def run(count: int) -> None:
        sequence = np.arange(count * batch) % len(labels)
        data = samples.Batches(lambda index, _: draw(sequence[index]), labels[sequence], batch_size=batch)
        if step == "inference":
            part.predict(data, verbose=0)
        else:
            part.fit(data, epochs=1, shuffle=False, verbose=0)

    return run


def _rates(run: Callable[[int], None], batch: int, repeats: int) -> list[float]:
    """Patches a second of ``repeats`` runs of so many steps as fill `LEAST` seconds."""
    run(1)  # compiles
    start = time.perf_counter()
    run(1)
    steps = max(1, math.ceil(LEAST / (time.perf_counter() - start)))
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(steps)
        found.append(steps * batch / (time.perf_counter() - start))
    return found


def recipes(pack: Pack, table: pd.DataFrame, folder: Path, epochs: int, repeats: int, **options: Any) -> dict[str, Any]:
    """Seconds of both recipes, taking turns; a side pays for its samples, its cache and all of its epochs."""
    sides = {name: settings(name, epochs) for name in PROFILES}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    counts = {part: len(splits.indices(pack.manifest, table, part)) for part in ("train", "val")}
    for number in range(repeats):
        for name, values in sides.items():
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as own:
                spent, drawn = _train(pack, table, Path(own), values, **options)
            seconds[name].append(spent)
            values["samples"] = drawn
            print(
                f"{number + 1} of {repeats}, recipe {name}: {spent:,.1f} s for {counted(epochs, 'epoch')} of {counted(drawn, 'sample')}",
                flush=True,
            )
    ratios = [fast / paper for fast, paper in zip(seconds["fast"], seconds["paper"], strict=True)]
    measured = {name: {"settings": values, "seconds": spread(seconds[name])} for name, values in sides.items()}
    return {"patches": counts, "epochs": epochs, **measured, "ratio": spread(ratios)}


def settings(recipe: str, epochs: int) -> dict[str, Any]:
    """What a recipe's profile says about time, made comparable: equal epochs, and `VIEWS` cached views where it caches at all."""
    values = parameters.read_profile(PROFILES[recipe])
    return {
        "balance": values["BALANCE"],
        "batch_size": int(values["BATCH_SIZE"]),
        "views": VIEWS if values.get("VIEWS") else 0,
        "rate": float(values.get("FINE_TUNE_RATE", 1e-4)),
        "epochs": epochs,
    }


def _train(
    pack: Pack,
    table: pd.DataFrame,
    folder: Path,
    values: dict[str, Any],
    *,
    weights: str,
    blocks: int,
    image_size: int,
    seed: int,
) -> tuple[float, int]:
    """Seconds of one recipe as notebook 05 calls it, from nothing in the cache to the trained network; and its samples an epoch."""
    recipe = fit_phases.FitSettings(epochs=values["epochs"], batch_size=values["batch_size"], seed=seed, folder=folder / "checkpoints")
    # the published recipe knows neither mixed precision nor patches on the device
    precision = {} if values["views"] else {"BHI_PRECISION": device_patches.FLOAT32}
    with _environment({"BHI_CACHE": str(folder / "cache"), **precision}), _every_epoch(values["epochs"]):
        start = time.perf_counter()
        train = samples.training_samples(pack, table, mode=values["balance"], seed=seed)
        options = {"image_size": image_size, "weights": weights, "blocks": blocks, "rate": values["rate"], "views": values["views"]}
        trained = train_networks.train_efficientnetb0(pack, table, train, recipe, **options)
        seconds = time.perf_counter() - start
    if len(trained.history) != values["epochs"]:
        raise RuntimeError(f"{len(trained.history)} epochs were run, not {values['epochs']}.")
    keras.utils.clear_session()
    return seconds, len(train)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _every_epoch(epochs: int) -> Iterator[None]:
    """No phase ends early: the sides are compared at equal epochs."""
    before, fit_phases.PATIENCE = fit_phases.PATIENCE, epochs + 1
    try:
        yield
    finally:
        fit_phases.PATIENCE = before
