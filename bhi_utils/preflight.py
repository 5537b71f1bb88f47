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

#: Patches a second on two cores, measured; those of a network at 160 × 160 pixels, from where they fall with the area.
RATES = {
    "pack": 2500.0,
    "phantom": 400.0,
    "cnn_training": 48.0,
    "efficientnet_forward": 150.0,
    "efficientnet_to_block5": 200.0,
    "efficientnet_training_blocks_6_7": 240.0,
    "efficientnet_training_all": 45.0,
}
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
            f"Preflight: {self.patches:,} patches; about {_duration(total)} on {_cores()} cores without a GPU, "
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
    if training and training.get("WEIGHTS", "none") != "none":
        features = patches * _feature_bytes(int(training.get("IMAGE_SIZE", 160)))
        memory, disk = memory + features, disk + features
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
    slower = (int(values.get("IMAGE_SIZE", 160)) / 160) ** 2
    epochs = int(values.get("EPOCHS", 15))
    drawn = patches * TRAIN_SHARE * (SMOTE_GROWTH if values.get("BALANCE", "smote") == "smote" else 1)
    total = epochs * drawn * slower / RATES["cnn_training"] + 2 * patches * slower / RATES["efficientnet_forward"]
    if values.get("WEIGHTS", "none") == "none":
        return total + epochs * drawn * slower / RATES["efficientnet_training_all"]
    cached = patches / RATES["efficientnet_to_block5"]
    return total + slower * (cached + epochs * drawn / RATES["efficientnet_training_blocks_6_7"])


def _feature_bytes(image_size: int) -> int:
    """Bytes of one patch's cached features: block 5's output has 112 channels at a sixteenth of the side, in float16."""
    return (-(-image_size // 16)) ** 2 * 112 * 2


def _cores() -> int:
    return os.cpu_count() or 1


def _duration(seconds: float) -> str:
    """Seconds as ``4 min`` or ``1 h 20 min``."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
