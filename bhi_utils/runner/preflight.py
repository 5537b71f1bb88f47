"""What a run will cost, said before it starts: minutes, memory and disk, from the number of patches, the parameters and the device.

Used by ``runner.pipeline``. The estimate is good to a factor of two. It exists so that nobody learns after an hour that the disk is full.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from bhi_utils.core.hardware import ACTIVATIONS, Card, gpu_memory, mixes
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import PACKAGE, InputError, shown

#: Measured rates, sizes and seconds, each explained in the file.
COST = SimpleNamespace(**yaml.safe_load((PACKAGE / "runner" / "costs.yaml").read_text(encoding="utf-8")))
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Estimate:
    """What a run costs.

    Attributes:
        patches: how many it was computed from.
        seconds: those of each notebook by name, compiling included.
        compiling: seconds of all these in which JAX compiles.
        memory: this machine's peak memory in bytes.
        disk: new data in bytes.
        card: the card that trains; None without one.
        card_memory: peak memory of the card in bytes.
    """

    patches: int
    seconds: dict[str, float]
    compiling: float
    memory: float
    disk: float
    card: Card | None
    card_memory: float

    def sentence(self) -> str:
        """The estimate as a person reads it."""
        device = self.card.name if self.card else f"{counted(CORES, 'core')} without a GPU"
        compiling = f" ({_duration(self.compiling)} of it compiling, less where that was done before)" if self.compiling else ""
        memory = f"{self.memory / 1e9:.1f} GB of memory" + (f" and {self.card_memory / 1e9:.1f} GB of the GPU's" if self.card else "")
        return (
            f"Preflight: {counted(self.patches, 'patch')}; about {_duration(sum(self.seconds.values()))} on {device}{compiling}, "
            f"{memory}, {max(0.1, self.disk / 1e9):.1f} GB of disk."
        )


def estimate(patches: int, parameters: Mapping[str, Mapping[str, Any]], *, card: Card | None = None, compiles: bool = False) -> Estimate:
    """The cost of running the notebooks.

    Args:
        patches: how many patches the data source holds.
        parameters: notebook name to every parameter's value, defaults included.
        card: the card on which the backend computes, see ``core.hardware.card_in_use``.
        compiles: whether the backend compiles networks, as JAX does.
    """
    numbered = {name[:2]: values for name, values in parameters.items()}
    compiling = {number: _compiling(number, values) if compiles else 0.0 for number, values in numbered.items()}
    seconds = {name: _seconds(name[:2], patches, values, card) + compiling[name[:2]] for name, values in parameters.items()}
    memory, disk, card_memory = COST.fixed_memory, COST.fixed_disk, 0.0
    if "01" in numbered:
        disk += patches * (COST.patch_bytes + (COST.phantom_bytes if numbered["01"].get("DATA") == "phantom" else 0))
    if training := numbered.get("05"):
        batch = training.get("BATCH_SIZE", 32)
        if card:
            card_memory = gpu_memory(patches, batch_size=batch, image_size=_size(training), mixed=mixes(card.generation, batch))
        else:
            memory += batch * ACTIVATIONS * (_size(training) / 224) ** 2
        # the output of the last frozen block in float16
        channels, smaller = COST.blocks.get(7 - training.get("FINE_TUNE_BLOCKS", 2), COST.blocks[1])
        disk += _cached(patches, training) * (-(-_size(training) // smaller)) ** 2 * channels * 2
    return Estimate(patches, seconds, sum(compiling.values()), memory, disk, card, card_memory)


def check_disk(need: float, *folders: Path) -> None:
    """Stop before a run that would fill the disk.

    Raises:
        InputError: one of the folders lies on a disk with less free space than ``need`` bytes.
    """
    for folder in folders:
        free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
        if free < need:
            raise InputError(
                f"The run needs about {need / 1e9:.1f} GB but only {free / 1e9:.1f} GB are free at {shown(folder)}: free some space, "
                "or pass --out and set BHI_CACHE to folders on a larger disk."
            )


def _seconds(number: str, patches: int, values: Mapping[str, Any], card: Card | None) -> float:
    """Seconds of one notebook on this machine's cores, its training on the card where there is one."""
    total = float(COST.fixed.get(number, 20))
    if number == "01":
        total += patches / COST.packed + (patches / COST.drawn if values.get("DATA") == "phantom" else 0)
    if number == "05":
        faster = min(CORES, 16) / 2
        if card:
            speedup = next(factor for generation, factor in COST.speedups.items() if card.generation >= generation)
            faster = max(1.0, speedup * min(1.0, values.get("BATCH_SIZE", 32) / COST.full_batch))
        total += _training_seconds(patches, values) / faster
    return total


def _compiling(number: str, values: Mapping[str, Any]) -> float:
    """Seconds in which JAX compiles the phases and the answers of both networks in 05, and answers in 06 and 07."""
    if number != "05":
        return COST.compiles_answers if number in ("06", "07") else 0.0
    blocks = values.get("FINE_TUNE_BLOCKS", 2)
    scratch, cached = values.get("WEIGHTS", "none") == "none", values.get("VIEWS", 0) > 0
    phases = 1 if scratch else 1 + (min(blocks, 1) if cached else blocks)
    return (1 + phases) * COST.compiles_phase + 2 * COST.compiles_answers


def _training_seconds(patches: int, values: Mapping[str, Any]) -> float:
    """Seconds of both networks' training and predictions on two cores."""
    epochs, drawn = values.get("EPOCHS", 15), _drawn(patches, values)
    slower = (_size(values) / COST.size) ** 2
    total = epochs * drawn / COST.cnn * (values.get("CNN_IMAGE_SIZE", COST.cnn_size) / COST.cnn_size) ** 2
    total += 2 * patches * slower / COST.forward
    if values.get("WEIGHTS", "none") == "none":
        return total + epochs * drawn * slower / COST.all
    last = COST.last_blocks.get(values.get("FINE_TUNE_BLOCKS", 2), COST.all)
    frozen = _cached(patches, values) or epochs * drawn
    return total + slower * (frozen / COST.frozen + epochs * drawn / last)


def _drawn(patches: int, values: Mapping[str, Any]) -> float:
    """Training patches an epoch."""
    return patches * COST.train_share * (COST.smote_growth if values.get("BALANCE", "smote") in ("smote", "oversample") else 1)


def _cached(patches: int, values: Mapping[str, Any]) -> float:
    """How many outputs of the frozen part are kept: every view of a training patch, the others once. From scratch, none."""
    views = 0 if values.get("WEIGHTS", "none") == "none" else values.get("VIEWS", 0)
    return views * _drawn(patches, values) + (1 - COST.train_share) * patches if views else 0.0


def _size(values: Mapping[str, Any]) -> int:
    return values.get("IMAGE_SIZE", COST.size)


def _duration(seconds: float) -> str:
    """Seconds as ``4 min`` or ``1 h 20 min``."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
