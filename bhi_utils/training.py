"""Training both networks: phases, callbacks, the best weights of all phases, and what is left behind.

Used by notebook 05. EfficientNetB0 with pretrained weights learns in two phases: first the classifier on a frozen base, then the last
blocks one after another, BatchNorm in inference mode throughout. With ``views`` the frozen part's output comes from a cache. From
scratch there is one phase in which everything learns. Checkpoints and early stopping watch the AUC on validation cases.
"""

import hashlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from bhi_utils import features, metrics, models, paths, predictor
from bhi_utils.archive import Pack
from bhi_utils.paths import InputError, Run
from bhi_utils.samples import Batches, Samples, guard
from bhi_utils.splits import indices

#: Adam's rate for new layers: the paper's.
LEARNING_RATE = 1e-3
#: Epochs without a better validation AUC after which a phase ends.
PATIENCE = 4


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        model: with the weights that were best on validation cases.
        initialisation: ``imagenet``, ``scratch`` or the weight file's name, as tables say it.
        history: a row an epoch: ``phase, epoch, loss, auc, val_loss, val_auc``.
        seconds: wall-clock time of training, caching included.
        probe: frozen pooled features by part, where a cache was used: ``train`` (n, d), ``val``, ``test``.
    """

    model: keras.Model
    initialisation: str
    history: pd.DataFrame
    seconds: float
    probe: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What both networks share.

    Attributes:
        epochs: epochs of each network over all its phases.
        batch_size: samples a step.
        seed: seed of weights, order, augmentation and dropout.
        folder: where the best weights are kept while training.
    """

    epochs: int
    batch_size: int
    seed: int
    folder: Path

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"EPOCHS {self.epochs} trains nothing: give 1 or more.")


def train_cnn(pack: Pack, table: pd.DataFrame, samples: Samples, recipe: Recipe, *, image_size: int) -> Trained:
    """Train the custom CNN from scratch, in one phase."""
    start = time.perf_counter()
    model = models.cnn(image_size=image_size, seed=recipe.seed)
    phases = _Phases(model, recipe)
    phases.fit("from scratch", model, *_raw(pack, table, samples, recipe), epochs=recipe.epochs, rate=LEARNING_RATE)
    return Trained(phases.best(), "scratch", phases.table(), time.perf_counter() - start)


def train_efficientnetb0(
    pack: Pack,
    table: pd.DataFrame,
    samples: Samples,
    recipe: Recipe,
    *,
    image_size: int,
    weights: str,
    blocks: int,
    rate: float,
    views: int,
) -> Trained:
    """Train EfficientNetB0.

    Args:
        pack: the data set.
        table: the split.
        samples: the training samples.
        recipe: epochs, batch size, seed.
        image_size: side in pixels that patches are resized to.
        weights: ``imagenet``, ``none`` or a file.
        blocks: how many of the last blocks phase 2 fine-tunes, one more at a time.
        rate: Adam's rate in phase 2.
        views: 0 trains on patches; 1 or more caches the frozen part's output for as many views of each patch.
    """
    start = time.perf_counter()
    model = models.efficientnetb0(image_size=image_size, weights=weights, seed=recipe.seed)
    phases = _Phases(model, recipe)
    if weights == "none":
        models.unfreeze(model, None)
        phases.fit("from scratch", model, *_raw(pack, table, samples, recipe), epochs=recipe.epochs, rate=LEARNING_RATE)
        return Trained(phases.best(), "scratch", phases.table(), time.perf_counter() - start)
    initialisation = "imagenet" if weights == "imagenet" else Path(weights).name
    probe = {}
    frozen = recipe.epochs if not blocks else max(1, recipe.epochs // 3)
    if views:
        cut = _Cut(model, blocks, pack, table, samples, recipe, views)
        probe = cut.probe()
        stages = [(cut.head, *cut.pooled_batches())] + [(cut.tail, *cut.batches())] * blocks
    else:
        stages = [(model, *_raw(pack, table, samples, recipe))] * (1 + blocks)
    for stage, (part, train, valid) in enumerate(stages):
        models.unfreeze(model, stage)
        # the epochs left after phase 1, shared among the stages of phase 2, the deepest taking what does not divide
        share = frozen if not stage else (recipe.epochs - frozen + stage - 1) // blocks
        name = "frozen base" if not stage else f"last {stage} block(s)"
        if share:
            phases.fit(name, part, train, valid, epochs=share, rate=rate if stage else LEARNING_RATE)
    return Trained(phases.best(), initialisation, phases.table(), time.perf_counter() - start, probe)


def frozen_probe(trained: Trained, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits of a logistic regression on the frozen base's pooled features: what transfer gives before any fine-tuning.

    Args:
        trained: an EfficientNetB0 trained from a cache.
        labels: training labels of the probe's rows, key ``train``.

    Returns:
        float arrays for ``val`` and ``test``.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=2000)).fit(trained.probe["train"], labels["train"])
    return {part: probe.decision_function(trained.probe[part]) for part in ("val", "test")}


def finish(run: Run, pack: Pack, table: pd.DataFrame, trained: list[Trained], *, recall: float, card: dict[str, Any]) -> dict[str, Any]:
    """Predict, choose threshold and calibration on validation cases, and write models, bundles and predictions.

    Args:
        run: where the artefacts go.
        pack: the data set.
        table: the split.
        trained: the trained networks; the first with cached features also gives the frozen probe.
        recall: the recall that the threshold must reach on validation cases.
        card: what every bundle records besides: data, parameters.

    Returns:
        the content of ``training.json``.
    """
    frames, entries = [], {}
    train_cases = sorted(int(case) for case in table.loc[table["split"] == "train", "case"])
    for one in trained:
        scored = _score(pack, table, one.model.name, _logits(one.model, pack, table))
        valid = scored[scored["split"] == "val"]
        calibration = metrics.fit_calibration(valid["label"], valid["logit"])
        threshold = metrics.threshold_for_recall(valid["label"], valid["probability"], recall=recall)
        scored["probability_calibrated"] = calibration.apply(scored["logit"])
        validation = metrics.evaluate(valid, threshold=threshold, resamples=0)
        about = {
            **card,
            "initialisation": one.initialisation,
            "threshold_rule": f"highest threshold with recall >= {recall} on validation cases",
            "metrics": {"val": validation},
            "train_cases": train_cases,
        }
        predictor.save_bundle(one.model, run.models, threshold=threshold, calibration=calibration, card=about)
        entries[one.model.name] = {
            "validation_auc": validation["auc"]["value"],
            "initialisation": one.initialisation,
            "threshold": threshold,
            "epochs": len(one.history),
            "seconds": round(one.seconds, 1),
            "history": one.history.to_dict("records"),
        }
        frames.append(scored)
    for one in trained:
        if one.probe:
            frames.append(_probe_frame(one, pack, table, recall, entries))
    run.write_csv("predictions.csv.gz", pd.concat(frames, ignore_index=True))
    better = max((one.model.name for one in trained), key=lambda name: entries[name]["validation_auc"])
    training = {"better": better, "target_recall": recall, "models": entries}
    run.write_json("training.json", training)
    return training


def _probe_frame(one: Trained, pack: Pack, table: pd.DataFrame, recall: float, entries: dict[str, Any]) -> pd.DataFrame:
    labels = pack.manifest["label"].to_numpy()
    logits = frozen_probe(one, {"train": labels[indices(pack.manifest, table, "train")]})
    frame = _score(pack, table, "logistic_regression", logits)
    valid = frame[frame["split"] == "val"]
    calibration = metrics.fit_calibration(valid["label"], valid["logit"])
    frame["probability_calibrated"] = calibration.apply(frame["logit"])
    entries["logistic_regression"] = {
        "validation_auc": metrics.evaluate(valid, threshold=0.5, resamples=0)["auc"]["value"],
        "initialisation": f"{one.initialisation}, frozen",
        "threshold": metrics.threshold_for_recall(valid["label"], valid["probability"], recall=recall),
    }
    return frame


def _logits(model: keras.Model, pack: Pack, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The whole model on raw patches, as its users will call it; not the cached features that it was trained on."""
    result = {}
    for part in ("val", "test"):
        rows = indices(pack.manifest, table, part)
        chunks = [rows[start : start + 64] for start in range(0, len(rows), 64)]
        bar = tqdm(chunks, desc=f"{model.name} on {part} cases", unit="batch", file=sys.stderr, mininterval=1)
        result[part] = np.concatenate([model.predict_on_batch(pack.patches[chunk].astype(np.float32))[:, 0] for chunk in bar])
    return result


def _score(pack: Pack, table: pd.DataFrame, name: str, logits: dict[str, np.ndarray]) -> pd.DataFrame:
    fold = dict(zip(table["case"], table["fold"], strict=True))
    frames = []
    for part, logit in logits.items():
        rows = pack.manifest.iloc[indices(pack.manifest, table, part)]
        frame = pd.DataFrame({"model": name, "split": part, "fold": rows["case"].map(fold).to_numpy()})
        for column in ("case", "x", "y", "label"):
            frame[column] = rows[column].to_numpy()
        frame["logit"] = np.asarray(logit, dtype=np.float64)
        frames.append(frame.assign(probability=expit(frame["logit"])))
    return pd.concat(frames, ignore_index=True)


def _raw(pack: Pack, table: pd.DataFrame, samples: Samples, recipe: Recipe) -> tuple[Batches, Batches]:
    """Batches of patches for training and validation."""
    guard(pack, table, samples)
    train = Batches(
        lambda index, _: samples.fetch(index), samples.labels, batch_size=recipe.batch_size, weights=samples.weights, seed=recipe.seed
    )
    rows = indices(pack.manifest, table, "val")
    labels = pack.manifest["label"].to_numpy()[rows]
    return train, Batches(lambda index, _: pack.patches[rows[index]], labels, batch_size=64)


class _Cut:
    """EfficientNetB0 cut in front of its last blocks, with the cached output of what lies before."""

    def __init__(
        self, model: keras.Model, blocks: int, pack: Pack, table: pd.DataFrame, samples: Samples, recipe: Recipe, views: int
    ) -> None:
        guard(pack, table, samples)
        models.unfreeze(model, 0)
        place = model.get_layer(models.cut_name(max(blocks, 1))).output
        pool = model.get_layer("pool").output
        self.samples, self.recipe, self.views = samples, recipe, views
        self.tail, self.head = keras.Model(place, model.output), keras.Model(pool, model.output)
        front = keras.Model(model.input, place, name=models.cut_name(max(blocks, 1)))
        rest = keras.Model(place, pool)
        self.labels = pack.manifest["label"].to_numpy()
        self.rows = {part: indices(pack.manifest, table, part) for part in ("val", "test")}
        fingerprint = pack.info["fingerprint"]
        cache = paths.cache_dir()
        identity = hashlib.sha256(fingerprint.encode() + samples.rows.tobytes())
        if samples.plan is not None:
            identity.update(samples.plan.base.tobytes() + samples.plan.neighbour.tobytes() + samples.plan.step.tobytes())
        shared = {"seed": recipe.seed, "cache": cache}
        self.train = features.cached(
            front, samples.fetch, len(samples), identity=identity.hexdigest(), views=views, title="Training features", **shared
        )
        self.evaluated, self.pooled = {}, {}
        for part, rows in self.rows.items():
            self.evaluated[part] = features.cached(
                front,
                lambda index, rows=rows: pack.patches[rows[index]],
                len(rows),
                identity=hashlib.sha256(fingerprint.encode() + rows.tobytes()).hexdigest(),
                views=1,
                title={"val": "Validation features", "test": "Test features"}[part],
                **shared,
            )[0]
            self.pooled[part] = _pool(rest, self.evaluated[part])
        self.pooled["train"] = np.stack([_pool(rest, view) for view in self.train])

    def probe(self) -> dict[str, np.ndarray]:
        """Pooled features of real patches, unaugmented."""
        return {**self.pooled, "train": self.pooled["train"][0][: len(self.samples.real)]}

    def batches(self) -> tuple[Batches, Batches]:
        """Batches of cached features, a random view of each sample in each epoch."""
        return self._both(self.train, self.evaluated["val"])

    def pooled_batches(self) -> tuple[Batches, Batches]:
        """The same, run on through the frozen blocks and pooled."""
        return self._both(self.pooled["train"], self.pooled["val"])

    def _both(self, train: np.ndarray, valid: np.ndarray) -> tuple[Batches, Batches]:
        def fetch(index: np.ndarray, seed: list[int]) -> np.ndarray:
            return train[np.random.default_rng(seed).integers(0, self.views, len(index)), index].astype(np.float32)

        samples, recipe = self.samples, self.recipe
        return (
            Batches(fetch, samples.labels, batch_size=recipe.batch_size, weights=samples.weights, seed=recipe.seed),
            Batches(lambda index, _: valid[index].astype(np.float32), self.labels[self.rows["val"]], batch_size=64),
        )


def _pool(rest: keras.Model, cached: np.ndarray) -> np.ndarray:
    chunks = [rest.predict_on_batch(cached[start : start + 256].astype(np.float32)) for start in range(0, len(cached), 256)]
    return np.concatenate(chunks).astype(np.float16)


class _KeepBest(keras.callbacks.ModelCheckpoint):
    """ModelCheckpoint that saves the whole network while a part of it, sharing its layers, is being fitted."""

    def __init__(self, whole: keras.Model, path: Path, *, best: float) -> None:
        super().__init__(
            str(path), monitor="val_auc", mode="max", save_best_only=True, save_weights_only=True, initial_value_threshold=best
        )
        self._whole = whole

    def set_model(self, model: keras.Model) -> None:
        super().set_model(self._whole)


class _Phases:
    """Fits a network phase by phase, and keeps the weights with the best validation AUC of all phases."""

    def __init__(self, model: keras.Model, recipe: Recipe) -> None:
        self.model, self.recipe, self.rows, self.auc = model, recipe, [], -np.inf
        recipe.folder.mkdir(parents=True, exist_ok=True)
        self.path = recipe.folder / f"{model.name}.weights.h5"

    def fit(self, phase: str, part: keras.Model, train: Batches, valid: Batches, *, epochs: int, rate: float) -> None:
        """Fit ``part``, which shares the network's layers, and go on from the best weights so far."""
        schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(train), alpha=0.01)
        part.compile(
            keras.optimizers.Adam(schedule),
            keras.losses.BinaryCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.AUC(from_logits=True, name="auc"), keras.metrics.Recall(thresholds=0.0, name="recall")],
            # XLA takes minutes to compile EfficientNetB0's training step on a CPU
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
        keep = _KeepBest(self.model, self.path, best=self.auc)
        bar = TqdmCallback(verbose=0, tqdm_class=tqdm, desc=f"{self.model.name}, {phase}", file=sys.stderr)
        callbacks = [
            keep,
            keras.callbacks.EarlyStopping(monitor="val_auc", mode="max", patience=PATIENCE),
            keras.callbacks.TerminateOnNaN(),
            bar,
        ]
        # the batches come shuffled
        history = part.fit(train, validation_data=valid, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0).history
        bar.epoch_bar.close()
        if not np.isfinite(history["loss"]).all():
            raise InputError(f"The loss of {self.model.name} became NaN in phase '{phase}': lower the learning rate or raise BATCH_SIZE.")
        names = ("loss", "auc", "recall", "val_loss", "val_auc", "val_recall")
        for epoch in range(len(history["loss"])):
            self.rows.append({"phase": phase, "epoch": len(self.rows) + 1, **{name: float(history[name][epoch]) for name in names}})
        self.auc = keep.best
        self.model.load_weights(self.path)

    def best(self) -> keras.Model:
        """The network with the best weights of all phases; their checkpoint is removed."""
        self.path.unlink(missing_ok=True)
        return self.model

    def table(self) -> pd.DataFrame:
        """A row an epoch."""
        return pd.DataFrame(self.rows)
