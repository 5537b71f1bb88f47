"""What a backend needs beside Keras: JAX equal parts of batches for several devices and lengths that stay the same, TensorFlow its memory.

Used by all that trains or predicts. How many is asked for by ``BHI_DEVICES``, see ``backends``. Weights are kept on every device and
gradients are averaged over all samples of a batch, so a step gives what one device gives. Only ``fit`` shares the work; a forward pass
outside of it, such as the filling of the feature cache, is computed by each device in full.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import keras
import numpy as np

from bhi_utils import backends
from bhi_utils.paths import InputError, cache_dir
from bhi_utils.samples import Batches

#: glibc's numbers of two parameters of its allocator, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@contextmanager
def shared(batch_size: int) -> Iterator[int]:
    """Train on as many devices as ``BHI_DEVICES`` asks for; networks must be made inside, so that their weights lie on all of them.

    Args:
        batch_size: samples a step, over all devices.

    Raises:
        InputError: see ``backends.require_devices``; or the machine has fewer devices.
    """
    count = backends.require_devices(batch_size)
    if count == 1:
        yield count
        return
    here = keras.distribution.list_devices()
    if count > len(here):
        raise InputError(
            f"{count} devices are asked for and JAX finds {len(here)} ({', '.join(here)}): lower --devices or {backends.VARIABLE}."
        )
    mesh = keras.distribution.DeviceMesh((count,), ["batch"], here[:count])
    with keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False).scope():
        yield count


def answers(model: keras.Model, batch: np.ndarray, *, whole: int) -> Any:
    """``model.predict_on_batch``; on JAX, which compiles the network anew for each length, of always as many samples.

    Args:
        model: any network with one input.
        batch: array (n, …).
        whole: length up to which a shorter batch is filled there; its last sample is repeated.
    """
    count = len(batch)
    if keras.config.backend() != "jax" or count >= whole:
        return model.predict_on_batch(batch)
    filled = model.predict_on_batch(batch[np.minimum(np.arange(whole), count - 1)])
    return keras.tree.map_structure(lambda part: part[:count], filled)


def keep_compiled() -> None:
    """Let JAX keep what it compiles in the cache folder, so that the next process compiles nothing anew: a no-op on other backends.

    A folder that ``JAX_COMPILATION_CACHE_DIR`` names stays.
    """
    if keras.config.backend() != "jax":
        return
    import jax

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str((cache_dir() / "jax").resolve()))
        # a training step takes a minute; what compiles within a tenth of a second is not worth a file
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def keep_memory() -> None:
    """Undo what TensorFlow does to the C library's memory allocator when a training starts: a no-op wherever that does not apply.

    TensorFlow's generator data sets tell glibc to hand freed memory back from 128 kB on. So each step gives the memory of its feature
    maps back and asks for it again, and zeroing it took a fifth of a step's processor time (two cores, three blocks at 128 px).
    """
    if keras.config.backend() != "tensorflow" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library than glibc may have none, or one that does nothing
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)


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


# here and not in each function above: JAX looks for the folder when it compiles for the first time, whoever asks for that
keep_compiled()
