"""The map of one region as files: picture and table. Used by ``bhi map``."""

import sys
from pathlib import Path

from tqdm import tqdm

from bhi_utils import plots_regions, regions
from bhi_utils.paths import InputError, shown, write_atomic, write_csv
from bhi_utils.predictor import Predictor
from bhi_utils.words import counted, filled


def check(region: Path, threshold: float | None) -> None:
    """Find what is wrong before the network is loaded.

    Raises:
        InputError: there is no such file, or the threshold is no probability.
    """
    if not Path(region).is_file():
        raise InputError(f"{shown(region)} does not exist: pass an image file.")
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"A threshold of {threshold} is no probability: give one between 0 and 1.")


def write(predictor: Predictor, file: Path, out: Path, *, threshold: float | None = None, progress: bool = True) -> str:
    """Write ``map.png`` and ``map.csv`` into ``out``; what was found, as lines of text.

    Args:
        predictor: the model.
        file: the region.
        out: the folder; it is made.
        threshold: calibrated probability from which a patch is IDC+; the model's by default.
        progress: whether a bar on stderr shows how far it is.

    Raises:
        InputError: the image cannot be used.
    """
    pixels = regions.read(file)
    tiles = pixels.problem if pixels.array is None else regions.cut(pixels.array, pixels.notes)
    if isinstance(tiles, str):
        raise InputError(f"{shown(file)}: {tiles}")
    found = []
    with tqdm(total=len(tiles.patches), desc="Mapping", unit="patch", file=sys.stderr, disable=not progress) as bar:
        for step in regions.answers(predictor, tiles.patches):
            found.append(step)
            bar.update(len(step[0]))
    region = regions.region(tiles, found)
    if threshold is not None:
        region = region.at_threshold(predictor, threshold)
    chosen = region.thresholds["threshold_calibrated"]
    said = f"{region.share:.1%} of {counted(len(region.table), 'patch')} of tissue at or above {chosen:.4f}"
    figure = plots_regions.probability_map(tiles.picture, tiles.size, region.table, threshold=chosen, title=said)
    with write_atomic(out / "map.png") as temporary:
        figure.savefig(temporary, dpi=200)
    write_csv(out / "map.csv", region.table.round({"tissue": 3}))
    lines = [*([f"Doubtful: {tiles.doubt}"] if tiles.doubt else []), f"{said}; skipped as background: {tiles.background:,}."]
    strange = int((~region.table["in_scope"]).sum())
    if strange and not tiles.doubt:
        said = "  {count:,} of them [does|do:count] not look like stained tissue at this scale: see in_scope in the table."
        lines.append(filled(said, count=strange))
    return "\n".join([*lines, *(f"  {note}" for note in tiles.notes), f"Wrote map.png and map.csv to {shown(out)}."])
