"""Maps as pictures: evidence over a patch, probabilities over a region or a case's slide, and the interface's answers (the paper's Fig. 5).

Used by the interface, ``predict.regions`` and notebooks 06 and 07. Orange speaks for IDC+ and blue against it, as in all figures; the
tissue below the colours is grey, so that no hue comes from the stain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from bhi_utils.core.messages import probability
from bhi_utils.core.titles import CLASSES
from bhi_utils.data.decode import PATCH
from bhi_utils.plots.shared_look import COLOURS, INK, NEGATIVE, POSITIVE, bare, colour_map, keys, slide_grid, style, subplots

#: Weakest full colour in units of the logit: a map that holds next to nothing must not look like one that holds much.
SMALLEST_LIMIT = 2.0
#: How much of the patch stays visible below the strongest colour.
THROUGH = 0.25


def limit(evidence: np.ndarray) -> float:
    """Returns the evidence, in units of the logit, at which the colour is full: the map's largest, but never under 2.

    Args:
        evidence: float array (h, w) whose mean is the logit.
    """
    return max(SMALLEST_LIMIT, float(np.ceil(np.abs(evidence).max())))


def enlarged(patch: np.ndarray, *, side: int = 400) -> np.ndarray:
    """Enlarges a patch, uint8 array (50, 50, 3), to a uint8 array (side, side, 3)."""
    return np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC))


def overlay(patch: np.ndarray, evidence: np.ndarray, *, side: int = 400, full: float | None = None) -> np.ndarray:
    """Draws the evidence in colour over the patch in grey: uint8 array (side, side, 3).

    Args:
        patch: uint8 array (50, 50, 3).
        evidence: float array (h, w) whose mean is the logit.
        side: side of the picture in pixels.
        full: evidence, in units of the logit, at which the colour is full; ``limit(evidence)`` by default.
    """
    grey = Image.fromarray(enlarged(patch, side=side)).convert("L")
    values = Image.fromarray(np.asarray(evidence, dtype=np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(values) / np.float32(full or limit(evidence)), -1, 1)
    return _blended(grey, share, (1 - THROUGH) * np.abs(share))


def _blended(grey: Image.Image, side: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns grey pixels, covered to ``weight`` (0 to 1, one a pixel) with orange or, where ``side`` is negative, blue."""
    blue, orange = np.array([to_rgb(NEGATIVE), to_rgb(POSITIVE)], np.float32) * 255
    colour = np.where(side[..., None] < 0, blue, orange)
    weight = weight[..., None]
    return np.rint((1 - weight) * np.asarray(grey, dtype=np.float32)[..., None] + weight * colour).astype(np.uint8)


@style()
def answers(patches: np.ndarray, maps: np.ndarray, found: Sequence[Mapping[str, Any]], labels: Sequence[int]) -> Figure:
    """Shows what the interface answers for some patches, one a column: the patch, its evidence map, class and probability.

    Args:
        patches: uint8 array (n, 50, 50, 3).
        maps: float array (n, h, w), each with the logit as mean.
        found: for each patch ``predicted_label``, ``probability_calibrated`` and ``threshold_calibrated``.
        labels: the archive's labels, 0 or 1.
    """
    count = len(patches)
    figure, axes = subplots((1.9 * count + 1.2, 5.2), 3, count, squeeze=False, height_ratios=(4, 4, 1))
    for column, (patch, evidence, answer, label) in enumerate(zip(patches, maps, found, labels, strict=True)):
        image, heat, bar = axes[:, column]
        image.imshow(patch, interpolation="bicubic")
        image.set_title(f"labelled {CLASSES[label]}", loc="center")
        heat.imshow(overlay(patch, evidence))
        heat.set_title(f"±{limit(evidence):.0f} at full colour", loc="center", fontsize=8, color=INK)
        called, share = answer["predicted_label"], answer["probability_calibrated"]
        bar.barh([0], [1], color="0.9")
        bar.barh([0], [share], color=COLOURS[called])
        bar.axvline(answer["threshold_calibrated"], color="black", linewidth=1.5)
        bar.set(xlim=(0, 1), yticks=[], xticks=[0, 1])
        bar.tick_params(labelsize=8)
        said = probability(share, "en")
        bar.set_title(f"{CLASSES[called]}   p {said if said[0] in '<>' else f'= {said}'}", loc="center", color=COLOURS[called])
        bar.spines[:].set_visible(False)
    bare(axes[:2])
    axes[0, 0].set_ylabel("patch")
    axes[1, 0].set_ylabel("evidence map")
    scale = ScalarMappable(Normalize(-1, 1), colour_map())
    legend = figure.colorbar(scale, ax=axes[1, :].tolist(), ticks=[-1, 0, 1], fraction=0.04, pad=0.02)
    legend.ax.set_yticklabels([f"speaks for\n{CLASSES[0]}", "neither", f"speaks for\n{CLASSES[1]}"], fontsize=8)
    return figure


#: Weight of the colour over the tissue at the threshold and at certainty; the interface's script has the same numbers.
WEAKEST, STRONGEST = 0.12, 0.72


def scaled(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Scales probabilities to -1 at 0, 0 at the threshold and 1 at 1.

    >>> scaled(np.array([0.0, 0.25, 0.625, 1.0]), threshold=0.25).tolist()
    [-1.0, 0.0, 0.5, 1.0]
    """
    under, above = max(threshold, 1e-6), max(1 - threshold, 1e-6)
    return np.where(probability < threshold, (probability - threshold) / under, (probability - threshold) / above)


def coloured(picture: np.ndarray, size: tuple[int, int], places: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Draws tissue in grey with one colour a patch.

    Args:
        picture: uint8 array (h, w, 3), the region at any scale.
        size: width and height of the region in pixels.
        places: ``x, y`` of the patches' upper left corners, in the region's pixels.
        values: -1 (full blue) to 1 (full orange), one a patch; NaN leaves its patch grey.

    Returns:
        uint8 array of the picture's shape.
    """
    height, width = picture.shape[:2]
    columns, rows = -(-size[0] // PATCH), -(-size[1] // PATCH)
    cells = np.full((rows, columns), np.nan, np.float32)
    cells[places["y"].to_numpy() // PATCH, places["x"].to_numpy() // PATCH] = values
    down = np.minimum((np.arange(height) + 0.5) * size[1] / height // PATCH, rows - 1).astype(int)
    across = np.minimum((np.arange(width) + 0.5) * size[0] / width // PATCH, columns - 1).astype(int)
    drawn = cells[np.ix_(down, across)]
    weight = np.where(np.isnan(drawn), 0, WEAKEST + (STRONGEST - WEAKEST) * np.abs(drawn))
    return _blended(Image.fromarray(picture).convert("L"), drawn, weight)


@style()
def probability_map(picture: np.ndarray, size: tuple[int, int], table: pd.DataFrame, *, threshold: float, title: str) -> Figure:
    """Shows a region's map with its scale.

    Args:
        picture: uint8 array (h, w, 3), the region at any scale.
        size: its width and height in pixels.
        table: ``x, y, probability_calibrated``.
        threshold: calibrated probability from which a patch is called IDC+.
        title: what stands above.
    """
    values = scaled(table["probability_calibrated"].to_numpy(), threshold)
    figure, axis = subplots((8, min(10.0, max(3.0, 6.6 * size[1] / size[0] + 0.8))))
    axis.imshow(coloured(picture, size, table, values), extent=(0, size[0], size[1], 0), interpolation="nearest")
    axis.set(title=title, xlabel="x (px)", ylabel="y (px)")
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), colour_map()), ax=axis, ticks=[-1, 0, 1], fraction=0.046, pad=0.02)
    bar.ax.set_yticklabels(["0", f"threshold\n{threshold:.2f}", "1"])
    bar.set_label("calibrated probability of IDC+")
    return figure


@style()
def slide_map(rows: pd.DataFrame, *, threshold: float) -> Figure:
    """Shows one case's patches in their places: truth, calibrated probability, and answers at the threshold.

    Args:
        rows: predictions of one case: ``case, x, y, label, probability, probability_calibrated``.
        threshold: a patch is called IDC+ at ``probability >= threshold``.
    """
    x, y = ((rows[name] - rows[name].min()).to_numpy() // PATCH for name in ("x", "y"))
    called, label = (rows["probability"] >= threshold).to_numpy(), rows["label"].to_numpy()
    height = min(7.5, max(3.4, 3.3 * (y.max() + 1) / (x.max() + 1) + 1.2))
    figure, (truth, share, error) = subplots((10.5, height), 1, 3, sharex=True, sharey=True)
    kinds = {"right": "#D9D9D9", "missed IDC+": POSITIVE, "false alarm": NEGATIVE}
    wrong = np.where(called == label, 0, np.where(label == 1, 1, 2))
    slide_grid(truth, x, y, label, cmap=ListedColormap(COLOURS), vmin=0, vmax=1)
    shown = slide_grid(share, x, y, rows["probability_calibrated"], cmap="cividis", vmin=0, vmax=1)
    slide_grid(error, x, y, wrong, cmap=ListedColormap(list(kinds.values())), vmin=0, vmax=2)
    # within the panel's own room, so that the three stay level
    figure.colorbar(shown, cax=share.inset_axes((0.1, -0.3, 0.8, 0.05)), orientation="horizontal")
    truth.set(title=f"Case {rows['case'].iloc[0]}: truth", ylabel="row of patches")
    share.set_title("Calibrated probability of IDC+")
    error.set_title("Answers")
    # marks as well as colours, for print in grey
    for axis, chosen, mark in ((truth, label == 1, "+"), (error, (label == 1) & ~called, "+"), (error, (label == 0) & called, "x")):
        axis.scatter(x[chosen], y[chosen], marker=mark, color="white", s=18, linewidths=1)
    for axis, names in ((truth, dict(zip(CLASSES, COLOURS, strict=True))), (error, kinds)):
        axis.legend(handles=keys(names), loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=len(names), handlelength=1.2)
    return figure
