"""What a backend needs beside Keras: JAX equal parts of batches for several devices and lengths that stay the same, TensorFlow its memory.

Used by all that trains or predicts. How many is asked for by ``BHI_DEVICES``, see ``core.hardware``. Weights are kept on every device and
gradients are averaged over all samples of a batch, so a step gives what one device gives. Only ``fit`` shares the work; a forward pass
outside of it, such as the filling of the feature cache, is computed by each device in full.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import keras
import numpy as np

from bhi_utils.core import hardware
from bhi_utils.core.paths import InputError
from bhi_utils.training.samples import Batches


@contextmanager
def shared(batch_size: int) -> Iterator[int]:
    """Train on as many devices as ``BHI_DEVICES`` asks for; networks must be made inside, so that their weights lie on all of them.

    Args:
        batch_size: samples a step, over all devices.

    Raises:
        InputError: see ``core.hardware.require_devices``; or the machine has fewer devices.
    """
    count = hardware.require_devices(batch_size)
    if count == 1:
        yield count
        return
    here = keras.distribution.list_devices()
    if count > len(here):
        raise InputError(
            f"{count} devices are asked for and JAX finds {len(here)} ({', '.join(here)}): lower --devices or {hardware.VARIABLE}."
        )
    mesh = keras.distribution.DeviceMesh((count,), ["batch"], here[:count])
    with keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False).scope():
        yield count


def on_devices(train: Callable) -> Callable:
    """Make a training function ``(pack, table, samples, recipe, **options)`` run in ``shared``."""

    @wraps(train)
    def run(pack: Any, table: Any, samples: Any, recipe: Any, **options: Any) -> Any:
        with shared(recipe.batch_size):
            return train(pack, table, samples, recipe, **options)

    return run


def dealt(batches: Batches, *, learning: bool) -> keras.utils.PyDataset:
    """``batches`` in a form that the devices in force can share; the same object where that is one.

    Args:
        batches: of training or validation.
        learning: whether every batch's own loss has to stay what it is, which training needs, or the mean over all samples and the
            metrics, which validation needs.
    """
    distribution = keras.distribution.distribution()
    return batches if distribution is None else _Even(batches, distribution.device_mesh.devices.size, learning)


class _Even(keras.utils.PyDataset):
    """Batches filled up to a multiple of ``parts``, which a data set's last one seldom is, with samples that weigh nothing.

    Keras divides a batch's loss by its length, and weighs batches by their lengths, so the real samples weigh more to make up for the
    others: those of one batch in training, all alike in validation.
    """

    def __init__(self, batches: Batches, parts: int, learning: bool) -> None:
        super().__init__()
        self._batches, self._parts, self._learning = batches, parts, learning
        count = len(batches.labels)
        lengths = [min(batches.batch_size, count - start) for start in range(0, count, batches.batch_size)]
        self._makes_up = sum(length + -length % parts for length in lengths) / count

    def __len__(self) -> int:
        return len(self._batches)

    def on_epoch_begin(self) -> None:
        self._batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()

    def __getitem__(self, number: int) -> tuple[Any, np.ndarray, np.ndarray]:
        patches, labels, *weights = self._batches[number]
        count = len(labels)
        extra = -count % self._parts
        weight = np.ones(count, dtype=np.float32) if not weights else weights[0]
        filler = np.arange(count + extra) % count
        makes_up = (count + extra) / count if self._learning else self._makes_up
        weight = np.concatenate([weight * np.float32(makes_up), np.zeros(extra, dtype=np.float32)])
        # resident patches come as several columns of row numbers
        return keras.tree.map_structure(lambda column: column[filler], patches), labels[filler], weight
