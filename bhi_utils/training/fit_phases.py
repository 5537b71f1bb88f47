"""One phase of training after another: what is fitted at which rate, what watches it, and the best weights of all phases.

Used by training. The checkpoint and early stopping watch the AUC on validation cases. After every epoch all that the rest depends on
is saved, one file a phase, so that a run killed at any moment goes on to the result that it would have had. A phase's fingerprint
takes in that of the phase before it: a phase whose settings changed is trained anew from the end of the last one that still fits.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from bhi_utils.core import provenance
from bhi_utils.core.paths import InputError
from bhi_utils.model.backend import keep_memory
from bhi_utils.training import checkpoint
from bhi_utils.training.samples import Batches

#: Epochs without a better validation AUC after which a phase ends, but for what `patience_from_scratch` says.
PATIENCE = 4


def patience_from_scratch(epochs: int) -> int:
    """Patience of a network that starts from nothing: half of its epochs, as its validation AUC swings while the rate is still high."""
    return max(PATIENCE, epochs // 2)


@dataclass(frozen=True)
class FitSettings:
    """What both networks share.

    Attributes:
        epochs: epochs of each network over all its phases.
        batch_size: samples a step.
        seed: seed of weights, order, augmentation and dropout.
        folder: where the state of the training is kept, to go on from after a kill; no two trainings at a time may share it.
    """

    epochs: int
    batch_size: int
    seed: int
    folder: Path

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"EPOCHS {self.epochs} trains nothing: give 1 or more.")


class Phases:
    """Fits a network phase by phase, and keeps the weights with the best validation AUC of all phases.

    Args:
        model: the whole network, with the weights that it starts from.
        recipe: epochs, seed, and the folder of the states.
        basis: what the batches depend on and the network does not show: the data's fingerprint, the number of views and the like.

    Attributes:
        rows: a row an epoch.
        auc: the best validation AUC so far, minus infinity before the first epoch.
        earlier: seconds that this training took before it was killed and taken up again.
    """

    def __init__(self, model: keras.Model, recipe: FitSettings, *, basis: Any) -> None:
        self.model, self.recipe, self.rows, self.auc = model, recipe, [], -np.inf
        self.earlier, self._began = 0.0, time.perf_counter()
        self._best: list[np.ndarray] = []
        self._number = 0
        layers = [[type(layer).__name__, _nameless(layer.get_config())] for layer in model.layers]
        self._fits = checkpoint.fingerprint(model.name, layers, _arrays(model.variables), basis, _software())

    def fit(
        self, phase: str, part: keras.Model, train: Batches, valid: Batches, *, epochs: int, rate: float, patience: int | None = None
    ) -> None:
        """Fit ``part``, which shares the network's layers, and go on from the best weights so far; ``patience`` is `PATIENCE` by default.

        Raises:
            InputError: the loss became NaN, memory ran out, or the state could not be written.
        """
        schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(train), alpha=0.01)
        part.compile(
            keras.optimizers.Adam(schedule),
            keras.losses.BinaryCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.AUC(from_logits=True, name="auc"), keras.metrics.Recall(thresholds=0.0, name="recall")],
            # XLA takes minutes to compile EfficientNetB0's training step on a CPU
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
        # its variables are made now, so that a state can be put into them
        part.optimizer.build(part.trainable_variables)
        patience = PATIENCE if patience is None else patience
        watch = _Watch(self, phase, part, train, epochs, patience, self._next(phase, part, train, valid, epochs, patience))
        if not watch.ended:
            self._fit(part, train, valid, watch)
        if self._best:
            self.model.set_weights(self._best)

    def best(self) -> keras.Model:
        """The network with the best weights of all phases. Its states stay until what is made of it is safe: `checkpoint.clear`."""
        return self.model

    def table(self) -> pd.DataFrame:
        """A row an epoch."""
        return pd.DataFrame(self.rows)

    def save(self, path: Path, watch: dict[str, Any], optimizer: keras.optimizers.Optimizer) -> None:
        """Write all that the rest of the training depends on; of a phase that has ended, not the optimizer."""
        seconds = self.earlier + time.perf_counter() - self._began
        facts = {"rows": self.rows, "auc": self.auc, "seconds": seconds, "watch": watch}
        # seed generators are among a model's variables, but not among its weights
        arrays = {"model": _arrays(self.model.variables), "best": self._best}
        checkpoint.save(path, self._fits, facts, {**arrays, "optimizer": [] if watch["ended"] else _arrays(optimizer.variables)})

    def restore(self, path: Path, optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
        """Take up the state in ``path`` where it fits; what the phase's callback remembered, or nothing."""
        found = checkpoint.load(path, self._fits)
        if found is None:
            return {}
        facts, arrays = found
        self.rows, self.auc, self._best, self.earlier = facts["rows"], facts["auc"], arrays["best"], facts["seconds"]
        self._began = time.perf_counter()
        _assign(self.model.variables, arrays["model"])
        if arrays["optimizer"]:
            _assign(optimizer.variables, arrays["optimizer"])
        return facts["watch"]

    def keep(self, auc: float) -> None:
        """Keep the present weights when they are the best so far."""
        if auc > self.auc:
            self.auc, self._best = auc, self.model.get_weights()

    def _next(self, phase: str, part: keras.Model, train: Batches, valid: Batches, epochs: int, patience: int) -> Path:
        """The file of the phase that begins, whose fingerprint grows by all that it depends on."""
        self._number += 1
        shapes = [part.input_shape, [list(variable.shape) for variable in part.trainable_variables]]
        precision = [layer.dtype_policy.name for layer in self.model.layers]
        batches = [[each.labels, each.batch_size, each.weights, each.seed] for each in (train, valid)]
        self._fits = checkpoint.fingerprint(
            self._fits, phase, epochs, patience, _nameless(part.optimizer.get_config()), shapes, precision, batches
        )
        return self.recipe.folder / f"{self.model.name}.{self._number}{checkpoint.SUFFIX}"

    def _fit(self, part: keras.Model, train: Batches, valid: Batches, watch: "_Watch") -> None:
        bar = TqdmCallback(verbose=0, tqdm_class=tqdm, desc=f"{self.model.name}, {watch.phase}", file=sys.stderr)
        # the batches come shuffled
        options = {"epochs": watch.epochs, "initial_epoch": watch.begin, "callbacks": [watch, bar], "shuffle": False, "verbose": 0}
        try:
            with explained_memory():
                part.fit(train, validation_data=valid, **options)
        finally:
            bar.epoch_bar.close()


class _Watch(keras.callbacks.EarlyStopping):
    """EarlyStopping and the work of ModelCheckpoint and TerminateOnNaN, in one callback whose memory is saved with the network's state."""

    def __init__(self, phases: Phases, phase: str, part: keras.Model, train: Batches, epochs: int, patience: int, path: Path) -> None:
        super().__init__(monitor="val_auc", mode="max", patience=patience)
        self.phases, self.phase, self.epochs, self._train, self._path = phases, phase, epochs, train, path
        self._memory, self._settled = phases.restore(path, part.optimizer), False
        self.begin, self.ended = self._memory.get("epoch", 0), self._memory.get("ended", False)
        if self._memory:
            how = "had ended" if self.ended else f"goes on after epoch {self.begin} of {epochs}"
            print(f"{phases.model.name}, {phase}: {how}, saved in {path.name}")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Remember what the epochs before a kill have shown."""
        super().on_train_begin(logs)
        if self._memory:
            self.wait, self.best = self._memory["wait"], self._memory["best"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let the batches follow the epochs of all phases: some backends draw one before the first, some do not."""
        self._train.skip_to(len(self.phases.rows))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop at once when the loss is no number: no further weights are worth anything."""
        self._require_finite(logs["loss"])
        if not self._settled:
            # TensorFlow's change comes with the first batch
            self._settled = True
            keep_memory()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch, keep its weights when they are the best, and save the state."""
        # the last step's update shows in the validation loss alone
        self._require_finite(logs["val_loss"])
        super().on_epoch_end(epoch, logs)
        names = ("loss", "auc", "recall", "val_loss", "val_auc", "val_recall")
        row = {"phase": self.phase, "epoch": len(self.phases.rows) + 1, **{name: float(logs[name]) for name in names}}
        self.phases.rows.append(row)
        self.phases.keep(row["val_auc"])
        ended = self.model.stop_training or epoch + 1 == self.epochs
        best = None if self.best is None else float(self.best)
        memory = {"epoch": epoch + 1, "ended": ended, "wait": self.wait, "best": best}
        self.phases.save(self._path, memory, self.model.optimizer)

    def _require_finite(self, loss: float) -> None:
        if not np.isfinite(loss):
            name = self.phases.model.name
            raise InputError(f"The loss of {name} became NaN in phase '{self.phase}': lower the learning rate or raise BATCH_SIZE.")


@contextmanager
def explained_memory() -> Iterator[None]:
    """Make one sentence, which says what to lower, of the ways in which a backend says that it is out of memory.

    Raises:
        InputError: memory ran out in the block.
    """
    try:
        yield
    except Exception as error:
        # TensorFlow, PyTorch and JAX, which are not imported for their classes; TensorFlow passes on what befell a batch as a text
        kinds = isinstance(error, MemoryError) or type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError")
        said = ("resource_exhausted", "memoryerror", "out of memory", "can't allocate memory")
        if isinstance(error, InputError) or not (kinds or any(words in str(error).lower() for words in said)):
            raise
        raise InputError(
            "Memory ran out: lower BATCH_SIZE, and if that is not enough IMAGE_SIZE (CNN_IMAGE_SIZE for the custom CNN), "
            "or close other programs."
        ) from error


@cache
def _software() -> list[Any]:
    """What computes: once a process, since a file edited meanwhile is not what runs."""
    return [provenance.versions(), provenance.code_hash("training.train_networks"), keras.backend.backend()]


def _nameless(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a layer or an optimizer but its name: Keras numbers further ones of a kind in one process."""
    return {name: value for name, value in config.items() if name != "name"}


def _arrays(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _assign(variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
