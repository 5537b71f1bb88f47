"""One phase of training after another: what is fitted at which rate, which callbacks watch it, and the best weights of all phases.

Used by training. Checkpoints and early stopping watch the AUC on validation cases.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from bhi_utils.devices import dealt
from bhi_utils.paths import InputError
from bhi_utils.samples import Batches

#: Epochs without a better validation AUC after which a phase ends.
PATIENCE = 4


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


class _KeepBest(keras.callbacks.ModelCheckpoint):
    """ModelCheckpoint that saves the whole network while a part of it, sharing its layers, is being fitted."""

    def __init__(self, whole: keras.Model, path: Path, *, best: float) -> None:
        super().__init__(
            str(path), monitor="val_auc", mode="max", save_best_only=True, save_weights_only=True, initial_value_threshold=best
        )
        self._whole = whole

    def set_model(self, model: keras.Model) -> None:
        super().set_model(self._whole)


class Phases:
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
        history = part.fit(dealt(train), validation_data=dealt(valid), epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0).history
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
