"""Fits a network phase by phase, and keeps the best weights of all phases.

Used by ``training.train_networks``. Checkpoint and early stopping watch the AUC on validation cases. After every epoch
``training.checkpoint`` saves the state. There is one state file a phase, and its fingerprint takes in that of the phase before it: a phase
whose settings changed is trained anew from the end of the last phase that still fits.
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
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from bhi_utils.core import provenance
from bhi_utils.core.paths import InputError
from bhi_utils.model.networks import keep_memory
from bhi_utils.training import checkpoint
from bhi_utils.training.samples import Batches

#: Epochs without a better validation AUC after which a phase ends.
PATIENCE = 4


@dataclass(frozen=True)
class FitSettings:
    """What both networks share.

    Attributes:
        epochs: epochs of each network over all its phases.
        batch_size: samples a step.
        seed: seed of weights, order, augmentation and dropout.
        folder: where the states of the training are kept; no two trainings at a time may share it.
    """

    epochs: int
    batch_size: int
    seed: int
    folder: Path

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"EPOCHS {self.epochs} trains nothing: give 1 or more.")


class Phases(keras.callbacks.Callback):
    """Fits a network phase by phase; within ``fit`` it is checkpoint, early stopping and the stop at NaN in one callback.

    The state files stay until what is made of the network is safe: `checkpoint.clear`.

    Args:
        network: the whole network, with the weights that it starts from; at the end of each phase it has the best weights so far.
        recipe: epochs, seed, and the folder of the states.
        basis: what the batches depend on and the network does not show: the data's fingerprint, the number of views and the like.

    Attributes:
        rows: a row an epoch; what early stopping knows is read from them.
        earlier: seconds that this training took before it was killed and taken up again.
    """

    def __init__(self, network: keras.Model, recipe: FitSettings, *, basis: Any) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe
        self.rows: list[dict[str, Any]] = []
        self.earlier, self._began = 0.0, time.perf_counter()
        self._best: list[np.ndarray] = []
        self._number = 0
        layers = [[type(layer).__name__, _nameless(layer.get_config())] for layer in network.layers]
        self._fits = checkpoint.fingerprint(network.name, layers, checkpoint.arrays(network.variables), basis, _software())

    @property
    def seconds(self) -> float:
        """Seconds that the training has taken, without the time between a kill and its resumption."""
        return self.earlier + time.perf_counter() - self._began

    def fit(
        self, phase: str, part: keras.Model, train: Batches, valid: Batches, *, epochs: int, rate: float, patience: int | None = None
    ) -> None:
        """Fit ``part``, which shares the network's layers, and leave the network with the best weights so far.

        Args:
            phase: the phase's name, no other phase's of this network.
            part: what is fitted.
            train: training batches.
            valid: validation batches.
            epochs: epochs of this phase, at most.
            rate: Adam's rate at the start; it falls to a hundredth along a cosine.
            patience: epochs without a better validation AUC after which the phase ends; `PATIENCE` by default.

        Raises:
            InputError: the loss became NaN, or the state could not be written.
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
        self._phase, self._train, self._epochs, self._patience = phase, train, epochs, PATIENCE if patience is None else patience
        self._number += 1
        self._path = self.recipe.folder / f"{self.network.name}.{self._number}{checkpoint.SUFFIX}"
        self._fits = checkpoint.fingerprint(
            [self._fits, phase, epochs, self._patience, _nameless(part.optimizer.get_config())],
            [part.input_shape, [list(variable.shape) for variable in part.trainable_variables]],
            [layer.dtype_policy.name for layer in self.network.layers],
            [[each.labels, each.batch_size, each.weights, each.seed] for each in (train, valid)],
        )
        kept = checkpoint.restore_training(self._path, self._fits, self.network, part.optimizer)
        if kept:
            self.rows, self.earlier, self._best, self._began = kept["rows"], kept["seconds"], kept["best"], time.perf_counter()
        ended = bool(kept and kept["ended"])
        if begin := len(self._aucs()):
            how = "had ended" if ended else f"goes on after epoch {begin} of {epochs}"
            print(f"{self.network.name}, {phase}: {how}, saved in {self._path.name}")
        if not ended:
            bar = TqdmCallback(verbose=0, tqdm_class=tqdm, desc=f"{self.network.name}, {phase}", file=sys.stderr)
            # the batches come shuffled
            options = {"epochs": epochs, "initial_epoch": begin, "callbacks": [self, bar], "shuffle": False, "verbose": 0}
            try:
                part.fit(train, validation_data=valid, **options)
            finally:
                bar.epoch_bar.close()
        if self._best:
            self.network.set_weights(self._best)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
        """Let the batches follow the epochs of all phases: some backends draw one before the first, some do not."""
        self._train.epoch = len(self.rows) - 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Stop at once when the loss is no number: no further weights are worth anything."""
        self._require_finite(logs["loss"])
        keep_memory()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Note the epoch, keep its weights when they are the best, stop when no better one has come for long, and save the state."""
        # the last step's update shows in the validation loss alone
        self._require_finite(logs["val_loss"])
        if logs["val_auc"] > max((row["val_auc"] for row in self.rows), default=-np.inf):
            self._best = self.network.get_weights()
        names = ("loss", "auc", "recall", "val_loss", "val_auc", "val_recall")
        self.rows.append({"phase": self._phase, "epoch": len(self.rows) + 1, **{name: float(logs[name]) for name in names}})
        aucs = self._aucs()
        self.model.stop_training |= epoch > 0 and len(aucs) - 1 - int(np.argmax(aucs)) >= self._patience
        ended = self.model.stop_training or epoch + 1 == self._epochs
        facts = {"rows": self.rows, "seconds": self.seconds, "ended": ended}
        checkpoint.save_training(self._path, self._fits, facts, self._best, self.network, self.model.optimizer)

    def _aucs(self) -> list[float]:
        """Returns the validation AUC of the phase's epochs so far."""
        return [row["val_auc"] for row in self.rows if row["phase"] == self._phase]

    def _require_finite(self, loss: float) -> None:
        if not np.isfinite(loss):
            where = f"{self.network.name} became NaN in phase '{self._phase}'"
            raise InputError(f"The loss of {where}: lower the learning rate or raise BATCH_SIZE.")


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
