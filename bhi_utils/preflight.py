"""What a run will cost, said before it starts: minutes, memory and disk, from the number of patches and the parameters.

Used by ``pipeline``. A small model, good to a factor of two: it exists so that nobody learns after an hour that the disk is full.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhi_utils.paths import InputError, cache_dir, shown
from bhi_utils.words import counted

#: Patches a second on two cores, measured; those of a network at the size named, from where they fall with the area.
RATES = {"pack": 2500.0, "phantom": 400.0}
CNN_RATE, CNN_SIZE = 150.0, 64
#: EfficientNetB0 at 160 × 160: the whole network forward, the frozen part forward, training all of it or its last blocks on cached output.
FORWARD, FROZEN, ALL, LAST_BLOCKS, SIZE = 150.0, 200.0, 12.0, {0: 2000.0, 1: 900.0, 2: 240.0}, 160
#: Channels, and how many times smaller than the image a side is, after each of EfficientNetB0's blocks.
BLOCKS = {1: (16, 2), 2: (24, 4), 3: (40, 8), 4: (80, 16), 5: (112, 16), 6: (192, 32), 7: (320, 32)}
#: Bytes that training EfficientNetB0 keeps for one image of 224 × 224.
ACTIVATIONS = 110e6
#: Seconds of each notebook that do not depend on the patches: imports, graph building, figures.
FIXED = {"01": 8, "02": 6, "03": 8, "04": 15, "05": 40, "06": 20, "07": 20}
#: Bytes: a packed patch with its manifest row, a patch as PNG in the phantom (twice, it holds the nested copy), models and figures.
PATCH_BYTES, PHANTOM_BYTES, FIXED_DISK = 7_700, 2 * 6_500, 150e6
#: Bytes: Python with TensorFlow and one network in training, before any patch.
FIXED_MEMORY = 1.8e9
#: Share of the patches in the training cases, and how much SMOTE adds to them at the archive's 28 % of IDC+.
TRAIN_SHARE, SMOTE_GROWTH = 0.6, 1.43


@dataclass(frozen=True)
class Estimate:
    """Seconds for each notebook by name, peak memory and new data on disk in bytes, and the patches they were computed from."""

    patches: int
    seconds: dict[str, float]
    memory: float
    disk: float

    def lines(self) -> list[str]:
        """The estimate as a person reads it."""
        total = sum(self.seconds.values())
        return [
            f"Preflight: {counted(self.patches, 'patch')}; about {_duration(total)} on {counted(_cores(), 'core')} without a GPU, "
            f"{self.memory / 1e9:.1f} GB of memory, {max(0.1, self.disk / 1e9):.1f} GB of disk.",
        ]


def estimate(patches: int, parameters: Mapping[str, Mapping[str, Any]]) -> Estimate:
    """The cost of running the notebooks.

    Args:
        patches: how many patches the data source holds.
        parameters: notebook name to every parameter's value, defaults included.
    """
    seconds = {name: _seconds(name[:2], patches, values) for name, values in parameters.items()}
    training = next((values for name, values in parameters.items() if name.startswith("05")), None)
    memory, disk = FIXED_MEMORY, FIXED_DISK
    if any(name.startswith("01") for name in parameters):
        phantom = any(values.get("DATA") == "phantom" for values in parameters.values())
        disk += patches * (PATCH_BYTES + (PHANTOM_BYTES if phantom else 0))
    if training:
        memory += int(training.get("BATCH_SIZE", 32)) * ACTIVATIONS * (_size(training) / 224) ** 2
        disk += _cached(patches, training) * _feature_bytes(training)
    return Estimate(patches, seconds, memory, disk)


def check_disk(need: float, folders: Mapping[str, Path]) -> None:
    """Stop before a run that would fill the disk.

    Raises:
        InputError: one of the folders lies on a disk with less free space than ``need`` bytes.
    """
    for folder in folders.values():
        place = folder
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < need:
            raise InputError(
                f"The run needs about {need / 1e9:.1f} GB but only {free / 1e9:.1f} GB are free at {shown(folder)}: free some space, "
                "or pass --out and set BHI_CACHE to folders on a larger disk."
            )


def places(run_root: Path) -> dict[str, Path]:
    """The folders that a run writes to."""
    return {"run": run_root, "cache": cache_dir()}


def _seconds(number: str, patches: int, values: Mapping[str, Any]) -> float:
    """Seconds of one notebook on this machine's cores."""
    total = float(FIXED.get(number, 20))
    if number == "01":
        total += patches / RATES["pack"] + (patches / RATES["phantom"] if values.get("DATA") == "phantom" else 0)
    if number == "05":
        total += _training_seconds(patches, values) * 2 / min(_cores(), 16)
    return total


def _training_seconds(patches: int, values: Mapping[str, Any]) -> float:
    """Seconds of both networks' training and predictions on two cores."""
    epochs, drawn = int(values.get("EPOCHS", 15)), _drawn(patches, values)
    slower = (_size(values) / SIZE) ** 2
    total = epochs * drawn / CNN_RATE * (int(values.get("CNN_IMAGE_SIZE", CNN_SIZE)) / CNN_SIZE) ** 2
    total += 2 * patches * slower / FORWARD
    if values.get("WEIGHTS", "none") == "none":
        return total + epochs * drawn * slower / ALL
    last = LAST_BLOCKS.get(int(values.get("FINE_TUNE_BLOCKS", 2)), ALL)
    frozen = _cached(patches, values) or epochs * drawn
    return total + slower * (frozen / FROZEN + epochs * drawn / last)


def _drawn(patches: int, values: Mapping[str, Any]) -> float:
    """Training patches an epoch."""
    return patches * TRAIN_SHARE * (SMOTE_GROWTH if values.get("BALANCE", "smote") in ("smote", "oversample") else 1)


def _cached(patches: int, values: Mapping[str, Any]) -> float:
    """How many outputs of the frozen part are kept: every view of a training patch, the others once. From scratch, none."""
    views = 0 if values.get("WEIGHTS", "none") == "none" else int(values.get("VIEWS", 0))
    return views * _drawn(patches, values) + (1 - TRAIN_SHARE) * patches if views else 0.0


def _feature_bytes(values: Mapping[str, Any]) -> int:
    """Bytes of one patch's output of the last frozen block, in float16."""
    channels, smaller = BLOCKS.get(7 - int(values.get("FINE_TUNE_BLOCKS", 2)), BLOCKS[1])
    return (-(-_size(values) // smaller)) ** 2 * channels * 2


def _size(values: Mapping[str, Any]) -> int:
    return int(values.get("IMAGE_SIZE", SIZE))


def _cores() -> int:
    return os.cpu_count() or 1


def _duration(seconds: float) -> str:
    """Seconds as ``4 min`` or ``1 h 20 min``."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
