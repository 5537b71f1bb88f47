"""What a network is trained on: the training cases' patches, balanced, and the batches drawn from them.

Used by notebook 05, the studies and the rest of ``training``. Nothing here copies the data set: a batch fetches its patches from the
memory-mapped array, and draws synthetic ones from their plan.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd

from bhi_utils.core.paths import InputError
from bhi_utils.data import splits
from bhi_utils.data.archive import Pack
from bhi_utils.training import checkpoint, smote


@dataclass(frozen=True)
class Samples:
    """Training samples: real rows first, then synthetic ones.

    Attributes:
        patches: uint8 array (N, 50, 50, 3), the whole pack.
        rows: int array, rows of the pack that are sampled (repeated ones when oversampling).
        labels: int array (n,), of real then synthetic samples.
        weights: float32 array (n,), each sample's weight in the loss.
        plan: synthetic samples, or None; both ends of their lines are among ``real``.
        real: rows of the pack that belong to training cases, each once.
        mode: the balance that was asked for. Under ``feature_smote`` these are the real samples alone; ``training.frozen_features``, which
            has the features, adds the synthetic ones.
    """

    patches: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    plan: smote.SmotePlan | None
    real: np.ndarray
    mode: str = "none"

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, index: np.ndarray) -> np.ndarray:
        """Returns patches of samples ``index``: array (k, 50, 50, 3) in 0–255; uint8, or float32 when the samples have a plan.

        The network's graph makes float32 of either. Done here, it would move four times as many bytes.
        """
        if self.plan is None:
            return self.patches[self.rows[index]]
        batch = np.empty((len(index), 50, 50, 3), dtype=np.float32)
        is_real = index < len(self.rows)
        batch[is_real] = self.patches[self.rows[index[is_real]]]
        if not is_real.all():
            batch[~is_real] = smote.draw(self.patches, self.plan, index[~is_real] - len(self.rows))
        return batch


def training_samples(pack: Pack, table: pd.DataFrame, *, mode: str, seed: int, rows: np.ndarray | None = None) -> Samples:
    """Returns the samples of the training cases, balanced.

    Args:
        pack: the data set.
        table: the split, columns ``case, split``.
        mode: ``none``; ``class_weight`` (the rarer class weighs more in the loss); ``oversample`` (its patches are repeated at random);
            ``smote`` (synthetic patches between neighbours, at 50×50); ``feature_smote`` (``training.frozen_features`` adds synthetic
            features, and a network that trains on patches weighs the classes).
        seed: seed of the repeats or of SMOTE.
        rows: only these rows of the training cases; all of them by default.

    Raises:
        InputError: the balance is unknown, or the training cases hold too few patches of a class.
        ValueError: a case is in two parts of the split.
    """
    splits.assert_disjoint(table)
    labels = pack.manifest["label"].to_numpy()
    rows = splits.indices(pack.manifest, table, "train") if rows is None else np.asarray(rows)
    counts = np.bincount(labels[rows], minlength=2)
    smote.check_balance(mode)
    if not counts.all():
        raise InputError("The training cases hold only one class: add cases or change the split.")
    sampled = rows
    if mode == "oversample":
        rare = rows[labels[rows] == counts.argmin()]
        sampled = np.concatenate([rows, np.random.default_rng(seed).choice(rare, counts.max() - counts.min())])
    plan = smote.smote_plan(pack.patches, labels, seed=seed, rows=rows) if mode == "smote" else None
    drawn = labels[sampled] if plan is None else np.concatenate([labels[sampled], np.full(len(plan), plan.label)])
    weighs = len(rows) / (2 * counts) if mode in ("class_weight", "feature_smote") else np.ones(2)
    return Samples(pack.patches, sampled, drawn.astype(np.int8), weighs[drawn].astype(np.float32), plan, rows, mode)


def guard(pack: Pack, table: pd.DataFrame, samples: Samples) -> None:
    """Check before training that no case is in two parts, and that each sample and each parent of a synthetic one is a training case's.

    Raises:
        ValueError: a case is in two parts, or the samples were drawn for another split.
    """
    splits.assert_disjoint(table)
    parents = [] if samples.plan is None else [samples.plan.base, samples.plan.neighbour]
    used = np.unique(np.concatenate([samples.rows, samples.real, *parents]))
    strange = np.setdiff1d(used, splits.indices(pack.manifest, table, "train"))
    if len(strange):
        case = pack.manifest["case"].iloc[strange[0]]
        raise ValueError(f"Case {case} is among the training samples but not in the split's training part: draw them anew from this split.")


def fingerprint(pack: Pack, table: pd.DataFrame, samples: Samples) -> str:
    """Returns a hash of all that the batches of a training depend on: the data set, each case's part, and the samples."""
    drawn = {name: value for name, value in vars(samples).items() if name != "patches"}
    return checkpoint.fingerprint(pack.info["fingerprint"], [table[name].tolist() for name in ("case", "split")], drawn)


#: Takes sample numbers and the batch's own seed (ints, for ``default_rng``), gives the network's input for them.
Fetch = Callable[[np.ndarray, list[int]], Any]


class Batches(keras.utils.PyDataset):
    """Batches for ``fit`` on any backend; the order of epoch ``e`` depends on the seed and ``e`` alone.

    Args:
        fetch: makes the network's input.
        labels: int array (n,).
        batch_size: samples a batch.
        weights: float array (n,), or None for equal ones.
        seed: seed of the order; None keeps the order as it is (validation).
    """

    def __init__(
        self, fetch: Fetch, labels: np.ndarray, *, batch_size: int, weights: np.ndarray | None = None, seed: int | None = None
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"BATCH_SIZE {batch_size} is impossible: give 1 or more.")
        self.fetch, self.labels, self.batch_size, self.weights, self.seed = fetch, np.asarray(labels), batch_size, weights, seed
        self.epoch, self.order = -1, np.arange(len(labels))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def on_epoch_begin(self) -> None:
        """Draw this epoch's order."""
        self.epoch += 1
        if self.seed is not None:
            self.order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.labels))

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        index = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        batch = self.fetch(index, [self.seed or 0, max(self.epoch, 0), number]), self.labels[index, None].astype(np.float32)
        return batch if self.weights is None else (*batch, self.weights[index])
