"""A region of a slide: cut into patches without the background, answered, and drawn as a map of probabilities.

Used by ``bhi map``, the interface and its API. The network runs once over the tissue, and evidence maps come from the same pass; another
threshold needs no further run.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from bhi_utils import plots
from bhi_utils.core.atomic_files import write_atomic, write_csv
from bhi_utils.core.messages import Sentence, counted, filled, say
from bhi_utils.core.paths import InputError, shown
from bhi_utils.core.titles import CLASSES
from bhi_utils.data import input_checks
from bhi_utils.data.decode import PATCH, pad
from bhi_utils.model.predictor import BATCH, Predictor

#: Patches in one step of `answers`: whole batches of the network, and few enough for progress to show and for cancelling.
STEP = 2 * BATCH
#: Longest side of the region's picture, in pixels.
PICTURE = 1600
#: Share of doubtful patches from which the region as a whole is doubted.
MOSTLY = 0.5
_THRESHOLDS = ("threshold", "threshold_calibrated")
#: Columns of a region's table; ``x, y`` is a patch's upper left corner in the region's pixels, ``tissue`` the share that is not glass.
COLUMNS = ("x", "y", "tissue", "probability", "probability_calibrated", "predicted_label", "label", "in_scope", *_THRESHOLDS)


@dataclass(frozen=True, eq=False)
class Tiles:
    """A region cut into patches.

    Attributes:
        size: width and height of the region in pixels.
        picture: the region, shrunk to at most `PICTURE` pixels a side, uint8 array (height, width, 3).
        patches: uint8 array (n, 50, 50, 3), those with tissue, row by row; at the right and lower edge filled up with white.
        table: ``x, y, tissue`` of each, and ``in_scope``, whether it looks like stained tissue at the archive's scale.
        background: how many patches were skipped.
        doubt: why the region as a whole does not look like such tissue, or None.
        notes: what was done to the image.
    """

    size: tuple[int, int]
    picture: np.ndarray
    patches: np.ndarray
    table: pd.DataFrame
    background: int
    doubt: Sentence | None = None
    notes: tuple[Sentence, ...] = ()


@dataclass(frozen=True, eq=False)
class Region:
    """The answers for a region, at one threshold.

    Attributes:
        tiles: the region's patches.
        table: `COLUMNS`, one row a patch with tissue.
        maps: float array (n, h, w), the evidence map of each patch.
    """

    tiles: Tiles
    table: pd.DataFrame
    maps: np.ndarray

    @property
    def thresholds(self) -> dict[str, float]:
        """``threshold`` on the raw probability, ``threshold_calibrated`` on the calibrated one."""
        return {name: float(self.table[name].iloc[0]) for name in _THRESHOLDS}

    @property
    def above(self) -> int:
        """How many patches of tissue reach the threshold."""
        return int(self.table["predicted_label"].sum())

    @property
    def share(self) -> float:
        """Share of the tissue's patches that reach the threshold."""
        return self.above / len(self.table)

    def at_threshold(self, predictor: Predictor, threshold: float) -> "Region":
        """Returns the region at another ``threshold``, a calibrated probability. The network does not run."""
        above = (self.table["probability_calibrated"] >= threshold).to_numpy()
        moved = {"threshold": self.raw(predictor, threshold), "threshold_calibrated": threshold}
        return replace(self, table=self.table.assign(predicted_label=above.astype(int), label=np.take(CLASSES, above.astype(int)), **moved))

    def raw(self, predictor: Predictor, threshold: float) -> float:
        """Returns the threshold on the raw probability that gives this region's patches the classes of a calibrated ``threshold``."""
        raw, above = self.table["probability"].to_numpy(), (self.table["probability_calibrated"] >= threshold).to_numpy()
        # a calibration taken back is rounded: no patch may change its side by that
        lowest, highest = np.max(raw[~above], initial=-1.0), np.min(raw[above], initial=2.0)
        return float(min(max(predictor.raw(threshold), np.nextafter(lowest, 2)), highest))

    def at(self, x: float, y: float) -> int | None:
        """Returns the row of the patch at a place, in the region's pixels; None where there is no tissue."""
        corner = (self.table["x"] == x // PATCH * PATCH) & (self.table["y"] == y // PATCH * PATCH)
        return int(np.flatnonzero(corner)[0]) if corner.any() else None


def read(file: Path | BinaryIO) -> input_checks.Pixels:
    """Decodes a region of at most 10,000×10,000 pixels at the archive's scale, or says why it cannot."""
    return input_checks.read(file, _wrong_size, bomb="region_far_too_large")


def _wrong_size(width: int, height: int) -> Sentence | None:
    size = {"width": width, "height": height}
    if max(width, height) > input_checks.MOST_SIDE:
        return say("region_too_large", **size)
    return say("region_too_small", **size) if min(width, height) < PATCH else None


def cut(pixels: np.ndarray, notes: tuple[Sentence, ...] = ()) -> Tiles | Sentence:
    """Cuts a region into patches edge to edge, and skips those that are nearly all glass.

    A strip at the right or lower edge that is narrower than 10 pixels is left out.

    Args:
        pixels: uint8 array (height, width, 3).
        notes: what was done to the image, handed on.

    Returns:
        the patches, or why there are none.
    """
    height, width = pixels.shape[:2]
    columns, lines = (range(0, side - input_checks.SMALLEST + 1, PATCH) for side in (width, height))
    patches, rows = [], []
    for y in lines:
        strip = pixels[y : y + PATCH]
        empty = strip.min(axis=-1) >= input_checks.GLASS_LEVEL
        for x in columns:
            tissue = 1 - float(empty[:, x : x + PATCH].mean())
            if tissue > 1 - input_checks.GLASS_SHARE:
                patches.append(pad(strip[:, x : x + PATCH]))
                rows.append((x, y, tissue))
    if not patches:
        return say("no_tissue")
    table = pd.DataFrame(rows, columns=["x", "y", "tissue"])
    stack, picture = np.stack(patches), np.asarray(Image.fromarray(pixels).reduce(-(-max(width, height) // PICTURE)))
    strange = input_checks.doubted(stack)
    table["in_scope"] = ~strange["any"]
    return Tiles((width, height), picture, stack, table, len(columns) * len(lines) - len(rows), _doubt(strange, picture), notes)


def _doubt(strange: dict[str, np.ndarray], picture: np.ndarray) -> Sentence | None:
    if input_checks.eyepiece(picture):
        return say("eyepiece")
    share = float(strange["any"].mean())
    if share < MOSTLY:
        return None
    worst = max((name for name in strange if name != "any"), key=lambda name: strange[name].sum())
    return say("mostly_strange", share=share, reason=say(worst))


def answers(predictor: Predictor, patches: np.ndarray) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Yields answers and evidence maps, `STEP` patches at a time; the network runs only when the next step is asked for."""
    for start in range(0, len(patches), STEP):
        yield predictor.predict_with_evidence(patches[start : start + STEP])


def assembled(tiles: Tiles, found: list[tuple[pd.DataFrame, np.ndarray]]) -> Region:
    """Joins the steps of `answers` for all the tiles."""
    said = pd.concat([frame for frame, _ in found], ignore_index=True)
    said["label"] = [CLASSES[label] for label in said["predicted_label"]]
    table = pd.concat([tiles.table, said], axis=1)[list(COLUMNS)]
    return Region(tiles, table, np.concatenate([maps for _, maps in found]))


def check(region: Path, threshold: float | None) -> None:
    """Checks the input before the network is loaded.

    Raises:
        InputError: there is no such file, or the threshold is no probability.
    """
    if not Path(region).is_file():
        raise InputError(f"{shown(region)} does not exist: pass an image file.")
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"A threshold of {threshold} is no probability: give one between 0 and 1.")


def write(predictor: Predictor, file: Path, out: Path, *, threshold: float | None = None, progress: bool = True) -> str:
    """Writes ``map.png`` and ``map.csv`` into ``out``; returns what was found, as lines of text.

    Args:
        predictor: the model.
        file: the region.
        out: the folder; it is made.
        threshold: calibrated probability from which a patch is IDC+; the model's by default.
        progress: whether a bar on stderr shows how far it is.

    Raises:
        InputError: the image cannot be used.
    """
    pixels = read(file)
    tiles = pixels.problem if pixels.array is None else cut(pixels.array, pixels.notes)
    if isinstance(tiles, str):
        raise InputError(f"{shown(file)}: {tiles}")
    found = []
    with tqdm(total=len(tiles.patches), desc="Mapping", unit="patch", file=sys.stderr, disable=not progress) as bar:
        for step in answers(predictor, tiles.patches):
            found.append(step)
            bar.update(len(step[0]))
    region = assembled(tiles, found)
    if threshold is not None:
        region = region.at_threshold(predictor, threshold)
    chosen = region.thresholds["threshold_calibrated"]
    said = f"{region.share:.1%} of {counted(len(region.table), 'patch')} of tissue at or above {chosen:.4f}"
    figure = plots.probability_map(tiles.picture, tiles.size, region.table, threshold=chosen, title=said)
    with write_atomic(out / "map.png") as temporary:
        figure.savefig(temporary, dpi=200)
    write_csv(out / "map.csv", region.table.round({"tissue": 3}))
    lines = [*([f"Doubtful: {tiles.doubt}"] if tiles.doubt else []), f"{said}; skipped as background: {tiles.background:,}."]
    strange = int((~region.table["in_scope"]).sum())
    if strange and not tiles.doubt:
        said = "  {count:,} of them [does|do:count] not look like stained tissue at this scale: see in_scope in the table."
        lines.append(filled(said, count=strange))
    return "\n".join([*lines, *(f"  {note}" for note in tiles.notes), f"Wrote map.png and map.csv to {shown(out)}."])
