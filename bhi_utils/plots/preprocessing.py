"""The figures of notebooks 03 and 04: what is done to a patch before and while a network is trained."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bhi_utils.core.titles import CLASSES
from bhi_utils.plots.patches import mosaic
from bhi_utils.plots.shared_look import COLOURS, INK, THOUSANDS, style

#: Purple for what is synthetic, beside the blue and orange of the classes.
SYNTHETIC = "#CC79A7"


@style()
def preprocessing_steps(stages: Mapping[str, np.ndarray]) -> Figure:
    """Shows a patch after each step, with the array's shape, type and range, above the distribution of its values.

    Args:
        stages: name of the step to the array (h, w, 3) that it gives, in order; 0–255, or 0–1 for the last.
    """
    figure = Figure(figsize=(9.2, 5.0))
    images, values = figure.subplots(2, len(stages), height_ratios=(1.7, 1))
    for ax, below, (name, array) in zip(images, values, stages.items(), strict=True):
        top = 255 if array.max() > 1 else 1
        ax.imshow(np.clip(array / top, 0, 1))
        shape = " × ".join(map(str, array.shape))
        ax.set_title(f"{name}\n{shape}, {array.dtype}\nfrom {array.min():.3g} to {array.max():.3g}", fontsize=9)
        ax.set(xlabel="column (px)", ylabel="row (px)")
        for channel, (colour, dash) in enumerate((("#B2182B", "-"), ("#1B7837", "--"), ("#2166AC", ":"))):
            share, edges = np.histogram(array[..., channel], bins=32, range=(0, top))
            name = ("red", "green", "blue")[channel]
            below.stairs(100 * share / share.sum(), edges, color=colour, linestyle=dash, linewidth=1.5, label=name)
        below.set(xlabel=f"value (0–{top})", ylabel="pixels (%)", xlim=(0, top))
    figure.legend(*values[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


@style()
def smote_examples(first: np.ndarray, synthetic: np.ndarray, second: np.ndarray, steps: Sequence[float]) -> Figure:
    """Shows columns of a real patch, a synthetic one and the real neighbour; arrays (k, 50, 50, 3) in 0–255."""
    count = len(synthetic)
    figure = Figure(figsize=(1.0 + 1.02 * count, 3.6))
    images, titles = np.concatenate([first, synthetic, second]), [f"step {step:.2f}" for step in steps]
    names = ("real patch", "synthetic", "its neighbour")
    colours = [INK] * count + [SYNTHETIC] * count + [INK] * count
    mosaic(figure.subplots(), images, columns=count, titles=titles, colours=colours, names=names)
    return figure


@style()
def smote_effect(counts: pd.DataFrame, real: np.ndarray, synthetic: np.ndarray) -> Figure:
    """Shows the training patches of each class before and after SMOTE, and how much fine detail real and synthetic patches have.

    Args:
        counts: index ``IDC−, IDC+``, columns ``real, synthetic``.
        real: patches of the smaller class, array (n, 50, 50, 3) in 0–255.
        synthetic: the patches made from them, likewise.
    """
    figure = Figure(figsize=(9.2, 3.3))
    bars, lines = figure.subplots(1, 2, width_ratios=(1, 1.6))
    bars.bar(CLASSES, counts["real"], color=COLOURS, width=0.6)
    look = {"facecolor": "white", "edgecolor": SYNTHETIC, "hatch": "///", "linewidth": np.where(counts["synthetic"], 1.0, 0.0)}
    made = bars.bar(CLASSES, counts["synthetic"], bottom=counts["real"], width=0.6, **look)
    texts = [f"{old:,} real" + (f"\n+ {new:,} synthetic" if new else "") for old, new in counts.to_numpy()]
    bars.bar_label(made, texts, padding=2)
    bars.set(title="Training patches", ylabel="patches", ylim=(0, 1.3 * counts.sum(axis=1).max()))
    bars.yaxis.set_major_formatter(THOUSANDS)
    details = {"real": fine_detail(real), "synthetic": fine_detail(synthetic)}
    edges = np.histogram_bin_edges(np.concatenate(list(details.values())), bins=24)
    for (name, values), colour, dash in zip(details.items(), (INK, SYNTHETIC), ("-", "--"), strict=True):
        share = np.histogram(values, edges)[0] / len(values)
        lines.stairs(100 * share, edges, color=colour, linestyle=dash, linewidth=1.8, label=f"{name}, median {np.median(values):.1f}")
    lines.set(title="Fine detail in a patch", xlabel="mean difference of neighbouring pixels (grey levels)", ylabel="patches (%)")
    lines.legend(loc="upper right")
    return figure


def fine_detail(patches: np.ndarray) -> np.ndarray:
    """Returns the mean absolute difference of neighbouring pixels of each patch in grey levels (0–255): small where it is blurred.

    >>> fine_detail(np.full((1, 50, 50, 3), 7)).tolist()
    [0.0]
    """
    grey = np.asarray(patches, dtype=np.float32).mean(axis=-1)
    return (np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))) / 2


@style()
def augmentation_rows(patch: np.ndarray, variants: Mapping[str, np.ndarray]) -> Figure:
    """Shows a row for each augmentation: the patch, then draws; ``variants`` maps its name to float (k, 50, 50, 3) in 0–255."""
    count = len(next(iter(variants.values())))
    figure = Figure(figsize=(1.25 + (count + 1), 1.0 * len(variants) + 0.45))
    images = np.concatenate([[patch, *drawn] for drawn in variants.values()])
    titles = ["original", *(f"draw {number}" for number in range(1, count + 1))]
    colours = ([INK] + ["#BFBFBF"] * count) * len(variants)
    mosaic(figure.subplots(), images, columns=count + 1, titles=titles, colours=colours, names=list(variants))
    return figure


@style()
def batch_before_after(before: np.ndarray, after: np.ndarray, labels: np.ndarray, *, columns: int = 8) -> Figure:
    """Shows a batch as it is stored (left) and as the network sees it (right), frames coloured by class; arrays in 0–255."""
    figure = Figure(figsize=(9.2, 9.2 * -(-len(before) // columns) / (2 * columns) + 0.6))
    colours = [COLOURS[int(label)] for label in labels]
    for ax, images, title in zip(figure.subplots(1, 2), (before, after), ("as stored", "as the network sees it"), strict=True):
        mosaic(ax, images, columns=columns, colours=colours)
        ax.set_title(title)
    keys = [Patch(facecolor="white", edgecolor=colour, linewidth=1.5, label=name) for name, colour in zip(CLASSES, COLOURS, strict=True)]
    figure.legend(handles=keys, loc="outside lower left", ncols=2)
    return figure
