"""Three ways to read an epoch of patches: from the pack, with Keras' directory data set, and with a generator that opens each PNG.

Used by ``studies.benchmark`` only: training reads packs. All three give shuffled batches of the same size; the two that read files stand
for what people do who have unpacked the archive.
"""

import gc
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from bhi_utils.data.archive import Pack
from bhi_utils.model import networks
from bhi_utils.training.samples import Batches, Samples

#: A side is read for at least so many seconds: one epoch may be over in an instant.
LEAST = 2.0
#: The sides of the comparison, as tables and figures name them.
PACK, DIRECTORY, GENERATOR = "pack", "image_dataset_from_directory", "generator of PNG files"


def from_pack(pack: Pack, *, batch_size: int, seed: int) -> Batches:
    """The batches that training draws: every patch of the pack once, in an order that the seed sets."""
    labels = pack.manifest["label"].to_numpy()
    rows = np.arange(len(labels))
    samples = Samples(pack.patches, rows, labels, np.ones(len(labels), np.float32), None, rows)
    return Batches(lambda index, _: samples.fetch(index), labels, batch_size=batch_size, seed=seed)


def from_directory(folder: Path, *, image_size: int, batch_size: int, seed: int) -> Any:
    """Keras' own data set over ``folder/<0 or 1>/*.png``, shuffled; TensorFlow's threads decode, and resize bilinearly."""
    return keras.utils.image_dataset_from_directory(
        folder, label_mode="binary", image_size=(image_size, image_size), batch_size=batch_size, seed=seed, verbose=False
    )


class FromFiles(keras.utils.PyDataset):
    """A plain generator: opens each PNG of ``folder/<0 or 1>`` with Pillow, resizes what has another size, stacks a batch as float32."""

    def __init__(self, folder: Path, *, image_size: int, batch_size: int, seed: int) -> None:
        super().__init__()
        self.files, self.size, self.batch_size = sorted(folder.glob("*/*.png")), (image_size, image_size), batch_size
        self.order = np.random.default_rng(seed).permutation(len(self.files))

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = [self.files[place] for place in self.order[number * self.batch_size : (number + 1) * self.batch_size]]
        labels = np.array([[float(path.parent.name)] for path in chosen], np.float32)
        return np.stack([self._opened(path) for path in chosen]), labels

    def _opened(self, path: Path) -> np.ndarray:
        with Image.open(path) as image:
            if image.size != self.size:
                image = image.resize(self.size, Image.Resampling.BILINEAR)
            return np.asarray(image, np.float32)


def epoch_rate(batches: Any, patches: int) -> float:
    """Patches a second of whole epochs in a plain loop, as many of them as fill `LEAST` seconds.

    Making the data set is not counted, which favours the sides that list files first.

    Raises:
        ValueError: an epoch does not have so many patches.
    """
    gc.collect()
    epochs, start = 0, time.perf_counter()
    while not epochs or time.perf_counter() - start < LEAST:
        seen = sum(len(batch[0]) for batch in _epoch(batches))
        if seen != patches:
            raise ValueError(f"An epoch gave {seen} patches, not {patches}.")
        epochs += 1
    return epochs * patches / (time.perf_counter() - start)


def _epoch(batches: Any) -> Iterable:
    if not isinstance(batches, keras.utils.PyDataset):
        return batches
    batches.on_epoch_begin()
    return (batches[number] for number in range(len(batches)))


def delivered_rate(batches: Any, patches: int, *, image_size: int) -> float:
    """Patches a second through Keras' own loop into a model that resizes them and computes next to nothing."""
    layers = keras.layers
    front = [keras.Input((None, None, 3)), layers.Resizing(image_size, image_size), layers.GlobalAveragePooling2D(), layers.Dense(1)]
    sink = keras.Sequential(front)
    sink.compile(loss="mse", jit_compile=False)
    sink.evaluate(batches, steps=2, verbose=0)  # compiles
    start = time.perf_counter()
    sink.evaluate(batches, verbose=0)
    return patches / (time.perf_counter() - start)


def step_rates(pack: Pack, *, image_size: int, batch_size: int, steps: int, repeats: int) -> dict[str, list[float]]:
    """Patches a second of bare training steps on one batch that lies ready: the pace that a loader has to keep.

    ``custom CNN`` learns everything; ``EfficientNetB0, frozen`` learns its classifier only, the quickest step that it has.
    """
    batch = np.asarray(pack.patches[:batch_size], np.float32)
    labels = pack.manifest["label"].to_numpy(np.float32)[:batch_size, None]
    sides = {"custom CNN": networks.cnn(image_size=image_size, seed=0)}
    sides["EfficientNetB0, frozen"] = networks.efficientnetb0(image_size=image_size, weights="none", seed=0)
    networks.unfreeze(sides["EfficientNetB0, frozen"], 0)
    found = {}
    for name, network in sides.items():
        network.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
        network.train_on_batch(batch, labels)  # compiles
        found[name] = []
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in range(steps):
                network.train_on_batch(batch, labels)
            found[name].append(steps * len(batch) / (time.perf_counter() - start))
    return found
