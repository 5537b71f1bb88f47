"""The output of a network's frozen part, computed once and kept on disk as float16.

Used by training: while only the last blocks of EfficientNetB0 learn, everything before them gives the same output in every epoch, so
it is run once over each patch and over a few augmented views of it. The file's name is a hash of all that its content depends on,
so a cache is found again by the same run and never mistaken for another.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from bhi_utils.augment import augmenter
from bhi_utils.paths import InputError, write_atomic

BATCH = 64


def cached(
    front: keras.Model,
    fetch: Callable[[np.ndarray], np.ndarray],
    count: int,
    *,
    identity: str,
    views: int,
    seed: int,
    cache: Path,
    title: str,
) -> np.ndarray:
    """Outputs of ``front`` for ``count`` samples under ``views`` views: the first as it is, the others augmented.

    Args:
        front: takes patches in 0–255; runs in inference mode.
        fetch: takes sample numbers, gives patches (k, 50, 50, 3) in 0–255.
        count: number of samples.
        identity: hash of the samples' pixels and order.
        views: views a sample, at least 1.
        seed: seed of the augmentations.
        cache: folder that keeps the file.
        title: what the progress bar says.

    Returns:
        float16 memory map (views, count, …), read-only.

    Raises:
        InputError: too little disk space, or an output that float16 cannot hold.
    """
    shape = (views, count, *front.output_shape[1:])
    size = 2 * int(np.prod(shape))
    path = cache / "features" / f"{_key(front, identity, shape, seed)}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = path.exists()
    print(f"{title}: {views} view(s) of {count:,} patches, cut at {front.name}, {size / 1e6:,.0f} MB on disk")
    if not known:
        free = shutil.disk_usage(path.parent).free
        if free < size + 200_000_000:
            raise InputError(
                f"The feature cache needs {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
                "free some disk space, or lower VIEWS or IMAGE_SIZE."
            )
        with write_atomic(path) as temporary:
            _fill(front, fetch, shape, temporary, seed=seed, title=title)
    return np.load(path, mmap_mode="r")


def _fill(front: keras.Model, fetch: Callable, shape: tuple[int, ...], path: Path, *, seed: int, title: str) -> None:
    views, count = shape[:2]
    augment = augmenter(seed)
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    with tqdm(total=views * count, desc=title, unit="patch", file=sys.stderr, mininterval=1) as bar:
        for view in range(views):
            for start in range(0, count, BATCH):
                patches = fetch(np.arange(start, min(start + BATCH, count)))
                if view:
                    patches = keras.ops.convert_to_numpy(augment(patches, training=True))
                output = front.predict_on_batch(patches)
                if np.abs(output).max() > np.finfo(np.float16).max:
                    raise InputError("The frozen part's output does not fit float16: set VIEWS to 0, which trains without the cache.")
                target[view, start : start + len(output)] = output
                bar.update(len(output))
    target.flush()
    del target  # closed before it is renamed: Windows refuses otherwise


def _key(front: keras.Model, identity: str, shape: tuple[int, ...], seed: int) -> str:
    digest = hashlib.sha256(json.dumps([identity, front.name, shape, seed]).encode())
    for weight in front.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    for layer in augmenter(seed).layers:
        config = {name: value for name, value in layer.get_config().items() if name != "dtype"}
        digest.update(json.dumps(config, default=str, sort_keys=True).encode())
    return digest.hexdigest()[:24]
