"""What a Keras backend needs beside Keras: JAX equal batch lengths and a cache of what it compiled, TensorFlow its memory.

Used by all that trains or predicts.
"""

import ctypes
import sys
from typing import Any

import keras
import numpy as np

from bhi_utils.core.paths import cache_dir

#: glibc's numbers of two parameters of its allocator, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def answers(model: keras.Model, batch: np.ndarray, *, whole: int) -> Any:
    """Runs ``model.predict_on_batch``; on JAX, which compiles the network anew for each length, always with as many samples.

    Args:
        model: any network with one input.
        batch: array (n, …).
        whole: on JAX, a shorter batch is filled up to this length with its last sample, whose answers are dropped again.
    """
    count = len(batch)
    if keras.config.backend() != "jax" or count >= whole:
        return model.predict_on_batch(batch)
    filled = model.predict_on_batch(batch[np.minimum(np.arange(whole), count - 1)])
    return keras.tree.map_structure(lambda part: part[:count], filled)


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


# JAX keeps what it compiles in the cache folder, for the next process, unless JAX_COMPILATION_CACHE_DIR names another folder. That is set
# when this module is loaded, since JAX looks for the folder when it compiles for the first time, whoever asks for that.
if keras.config.backend() == "jax":
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # JAX names its settings at run time
        jax.config.update("jax_compilation_cache_dir", str((cache_dir() / "jax").resolve()))
        # a training step takes a minute; what compiles within a tenth of a second is not worth a file
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
