"""Maps of whole regions and cases: probability, truth and error over tissue in grey, and the figure that ``bhi map`` writes.

Used by the command and the interface. Blue is under the threshold or IDC−, orange above it or IDC+, and the colour is the paler the nearer
the threshold; the patch below the colours is grey, so that no hue comes from the stain.
"""

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from bhi_utils.decode import PATCH
from bhi_utils.plots import NEGATIVE, POSITIVE, style

#: Weight of the colour over the tissue at the threshold and at certainty; the interface's script has the same numbers.
WEAKEST, STRONGEST = 0.12, 0.72


def scaled(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Where a probability lies beside the threshold: -1 at 0, 0 at the threshold, 1 at 1."""
    under, above = max(threshold, 1e-6), max(1 - threshold, 1e-6)
    return np.where(probability < threshold, (probability - threshold) / under, (probability - threshold) / above)


def coloured(picture: np.ndarray, size: tuple[int, int], places: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Tissue in grey with one colour a patch.

    Args:
        picture: uint8 array (h, w, 3), the region at any scale.
        size: width and height of the region in pixels.
        places: ``x, y`` of the patches' upper left corners, in the region's pixels.
        values: -1 (full blue) to 1 (full orange), one a patch; NaN leaves its patch grey.

    Returns:
        uint8 array of the picture's shape.
    """
    height, width = picture.shape[:2]
    grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32)[..., None]
    columns, rows = -(-size[0] // PATCH), -(-size[1] // PATCH)
    cells = np.full((rows, columns), np.nan, np.float32)
    cells[places["y"].to_numpy() // PATCH, places["x"].to_numpy() // PATCH] = values
    down = np.minimum((np.arange(height) + 0.5) * size[1] / height // PATCH, rows - 1).astype(int)
    across = np.minimum((np.arange(width) + 0.5) * size[0] / width // PATCH, columns - 1).astype(int)
    drawn = cells[np.ix_(down, across)][..., None]
    ends = np.array([to_rgb(NEGATIVE), to_rgb(POSITIVE)], np.float32) * 255
    weight = np.where(np.isnan(drawn), 0, WEAKEST + (STRONGEST - WEAKEST) * np.abs(drawn))
    colour = np.where(drawn < 0, ends[0], ends[1])
    return np.rint((1 - weight) * grey + weight * colour).astype(np.uint8)


@style()
def probability_map(picture: np.ndarray, size: tuple[int, int], table: pd.DataFrame, *, threshold: float, title: str) -> Figure:
    """A region's map with its scale.

    Args:
        picture: uint8 array (h, w, 3), the region at any scale.
        size: its width and height in pixels.
        table: ``x, y, probability_calibrated``.
        threshold: calibrated probability from which a patch is called IDC+.
        title: what stands above.
    """
    values = scaled(table["probability_calibrated"].to_numpy(), threshold)
    figure = Figure(figsize=(8, min(10.0, max(3.0, 6.6 * size[1] / size[0] + 0.8))))
    axis = figure.subplots()
    axis.imshow(coloured(picture, size, table, values), extent=(0, size[0], size[1], 0), interpolation="nearest")
    axis.set(title=title, xlabel="x (px)", ylabel="y (px)")
    colours = LinearSegmentedColormap.from_list("map", [NEGATIVE, "#E6E6E6", POSITIVE])
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), colours), ax=axis, ticks=[-1, 0, 1], fraction=0.046, pad=0.02)
    bar.ax.set_yticklabels(["0", f"threshold\n{threshold:.2f}", "1"])
    bar.set_label("calibrated probability of IDC+")
    return figure
