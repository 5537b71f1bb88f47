"""The figures of notebooks 01 to 04: what is in the data, how it is split, and what is done to a patch before and during training."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from bhi_utils.core.messages import counted
from bhi_utils.core.titles import CLASSES, PART_NAMES
from bhi_utils.data.archive import per_case
from bhi_utils.data.slide_grid import STRIDE, assemble
from bhi_utils.data.splits import PARTS
from bhi_utils.plots.shared_look import BLANK, COLOURS, INK, NEGATIVE, PART_COLOURS, POSITIVE, THOUSANDS, keys, slide_grid, style, subplots

#: A text for each patch or row.
Texts = Sequence[str] | np.ndarray


@style()
def classes_and_cases(manifest: pd.DataFrame) -> Figure:
    """Shows the patches of each class, one dot a case (its patches and its share of IDC+), and how the shares are distributed.

    >>> manifest = pd.DataFrame({"case": [8863, 8863, 8864], "label": [0, 1, 0]})
    >>> [axis.get_title("left") for axis in classes_and_cases(manifest).axes]
    ['Patches by class', '2 cases', 'IDC share']
    """
    figure, (bars, dots, shares) = subplots((9.2, 3.9), 1, 3, width_ratios=(1.0, 2.6, 0.8))
    counts = [int((manifest["label"] == label).sum()) for label in (0, 1)]
    drawn = bars.bar(CLASSES, counts, color=COLOURS, width=0.6)
    bars.bar_label(drawn, [f"{count:,}\n{count / sum(counts):.1%}" for count in counts], padding=2, fontsize=8.5)
    bars.margins(y=0.18)
    bars.set(title="Patches by class", ylabel="patches")
    bars.yaxis.set_major_formatter(THOUSANDS)
    table = per_case(manifest)
    dots.scatter(table["patches"], 100 * table["share"], s=26, color=INK, alpha=0.6, linewidths=0)
    dots.axhline(100 * counts[1] / sum(counts), color=POSITIVE, linewidth=1.2, linestyle="--", label="IDC share of all patches")
    dots.legend(loc="upper right")
    dots.set(title=counted(len(table), "case"), xlabel="patches of the case", ylabel="IDC+ patches of the case (%)", ylim=(0, 100))
    dots.set_xlim(left=0)
    dots.grid(True)
    shares.hist(100 * table["share"], bins=np.arange(0, 101, 10), orientation="horizontal", color=POSITIVE, edgecolor="white")
    shares.set(title="IDC share", xlabel="cases", ylim=(0, 100))
    shares.tick_params(labelleft=False)
    shares.sharey(dots)
    return figure


@style()
def patch_grid(patches: np.ndarray, labels: np.ndarray, titles: Sequence[str], *, columns: int = 10) -> Figure:
    """Shows patches in rows under the name of their class, IDC− first.

    Args:
        patches: uint8 array (n, 50, 50, 3).
        labels: int array (n,), 0 or 1.
        titles: a short text over each patch, such as its case.
        columns: patches in a row.

    >>> patches = np.zeros((3, 50, 50, 3), np.uint8)
    >>> len(patch_grid(patches, np.array([0, 1, 1]), ["8863", "8863", "8864"]).axes)  # one a class
    2
    """
    groups = [np.flatnonzero(np.asarray(labels) == label) for label in (0, 1)]
    heights = [max(1, -(-len(rows) // columns)) for rows in groups]
    figure = Figure(figsize=(9.2, 1.2 * sum(heights) + 0.6))
    for label, (ax, rows) in enumerate(zip(figure.subplots(2, 1, height_ratios=heights), groups, strict=True)):
        mosaic(ax, patches[rows], columns=columns, titles=np.asarray(titles)[rows], colours=[COLOURS[label]] * len(rows))
        ax.set_title(CLASSES[label], color=COLOURS[label], weight="bold")
    return figure


@style()
def slide(patches: np.ndarray, rows: pd.DataFrame) -> Figure:
    """Shows a case put together from its coordinates; on the right the same tissue with its IDC+ patches marked.

    Args:
        patches: uint8 array (n, 50, 50, 3), all patches of one case.
        rows: their rows of the manifest, in the same order: ``case, x, y, label, width, height``.
    """
    canvas, extent = assemble(patches, rows)
    height = min(9.0, max(3.2, 4.4 * canvas.shape[0] / canvas.shape[1] + 0.9))
    figure, (tissue, labelled) = subplots((9.2, height), 1, 2, sharex=True, sharey=True)
    missing = round(canvas.shape[0] * canvas.shape[1] / STRIDE**2) - len(rows)
    for ax in (tissue, labelled):
        ax.set_facecolor(BLANK)
        ax.set(xlabel="x on the slide (px)", aspect="equal")
        ax.spines[:].set_visible(False)
    tissue.imshow(canvas, extent=extent)
    # grey and pale, so that a label's colour is the only hue
    pale = (80 + canvas[..., :3] @ np.array([0.299, 0.587, 0.114]) * (175 / 255)).astype(np.uint8)
    labelled.imshow(np.dstack([pale, pale, pale, canvas[..., 3]]), extent=extent)
    for row in rows[rows["label"] == 1].itertuples():
        box = (row.x, row.y), row.width, row.height
        labelled.add_patch(Rectangle(*box, facecolor=POSITIVE, alpha=0.35, linewidth=0))
        labelled.add_patch(Rectangle(*box, fill=False, edgecolor=POSITIVE, linewidth=0.8))
    positive = int(rows["label"].sum())
    tissue.set(title=f"Case {rows['case'].iloc[0]}, put together", ylabel="y on the slide (px)")
    labelled.set_title(f"IDC+ in orange: {positive:,} of {counted(len(rows), 'patch')}")
    figure.legend(handles=keys({f"no patch here ({missing:,} positions)": BLANK}), loc="outside lower left")
    return figure


@style()
def oddities(small: np.ndarray, sizes: Sequence[str], twins: np.ndarray, names: Sequence[str]) -> Figure:
    """Shows patches smaller than 50×50 as they are padded and, if there are any, patches that occur more than once.

    Args:
        small: uint8 array (k, 50, 50, 3), padded patches, at most ten.
        sizes: their size in the file.
        twins: uint8 array (m, 50, 50, 3), one patch of each group of equals, at most ten.
        names: how often each occurs, and in how many cases.
    """
    panels = [("Smaller than 50×50, padded with white", small, sizes), ("The same pixels more than once", twins, names)]
    panels = [panel for panel in panels if len(panel[1])] or [("No small patch and no duplicate in these data", small, ())]
    figure = Figure(figsize=(9.2, 1.5 * len(panels)))
    for ax, (title, images, texts) in zip(np.ravel(figure.subplots(len(panels), 1)), panels, strict=True):
        mosaic(ax, images, columns=10, titles=texts)
        ax.set_title(title)
    return figure


def mosaic(ax: Axes, images: np.ndarray, *, columns: int, titles: Texts = (), colours: Texts = (), names: Texts = ()) -> None:
    """Draws patches in rows on one pair of axes; a pair of axes for each would take seconds to lay out.

    Args:
        ax: where to draw; one unit is the side of a patch.
        images: array (n, h, w, 3) in 0–255, patches row after row.
        columns: patches in a row.
        titles: text over each patch.
        colours: colour of each frame; grey by default.
        names: text at the left of each row.
    """
    pitch_x, pitch_y, room = 1.1, 1.34 if any(map(len, titles[columns:])) else 1.1, 0.3 if len(titles) else 0.05
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        left, top = column * pitch_x, row * pitch_y
        ax.imshow(np.clip(np.rint(image), 0, 255).astype(np.uint8), extent=(left, left + 1, top + 1, top))
        ax.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=colours[place] if len(colours) else INK, linewidth=1.2))
        if place < len(titles):
            ax.text(left + 0.5, top - 0.05, titles[place], ha="center", va="bottom", fontsize=8)
    for row, name in enumerate(names):
        ax.text(-0.1, row * pitch_y + 0.5, name, ha="right", va="center", fontsize=9)
    rows = max(1, -(-len(images) // columns))
    ax.set(xlim=(-0.03, columns * pitch_x - 0.07), ylim=(rows * pitch_y - pitch_y + 1.03, -room), aspect="equal")
    ax.axis("off")


@style()
def split_overview(manifest: pd.DataFrame, splits: pd.DataFrame) -> Figure:
    """Shows cases and patches of each part, and each case's share of IDC+ as a dot, with the part's share as a line."""
    figure, (cases, patches, shares) = subplots((9.2, 3.6), 1, 3, width_ratios=(1, 1.1, 1.6))
    parts = [part for part in (*PARTS, "unused") if (splits["split"] == part).any()]
    names = [PART_NAMES[part] for part in parts]
    table = per_case(manifest).merge(splits, on="case")
    grouped = [table[table["split"] == part] for part in parts]
    colours = [PART_COLOURS[part] for part in parts]
    counts = [len(part) for part in grouped]
    cases.bar_label(cases.bar(names, counts, color=colours, edgecolor=INK, width=0.6), [f"{n:,}" for n in counts], padding=2)
    cases.set(title="Cases", ylabel="cases")
    cases.margins(y=0.12)
    positive = np.array([int(part["positive"].sum()) for part in grouped])
    everything = np.array([int(part["patches"].sum()) for part in grouped])
    patches.bar(names, everything - positive, color=NEGATIVE, width=0.6, label=CLASSES[0])
    top = patches.bar(names, positive, bottom=everything - positive, color=POSITIVE, width=0.6, label=CLASSES[1])
    patches.bar_label(top, [f"{n:,}" for n in everything], padding=2)
    patches.margins(y=0.3)
    patches.legend(loc="upper right", ncols=2, handlelength=1.2)
    patches.set(title="Patches", ylabel="patches")
    patches.yaxis.set_major_formatter(THOUSANDS)
    for place, part in enumerate(grouped):
        spread = place + np.linspace(-0.24, 0.24, len(part))
        shares.scatter(spread, 100 * part["share"], s=20, color=INK, alpha=0.6, linewidths=0)
        shares.hlines(100 * positive[place] / everything[place], place - 0.36, place + 0.36, color=POSITIVE, linewidth=2.2)
    shares.set(title="IDC share", ylabel="IDC+ patches (%)", ylim=(0, 100), xticks=range(len(names)), xticklabels=names)
    marks = [Line2D([], [], marker="o", linestyle="", color=INK, alpha=0.6, markersize=5), Line2D([], [], color=POSITIVE, lw=2.2)]
    shares.legend(marks, ["a case", "the whole part"], loc="upper right", ncols=2, handlelength=1.4)
    shares.grid(True, axis="y")
    for ax in (cases, patches, shares):
        ax.tick_params(axis="x", labelrotation=20 if len(parts) > 3 else 0)
    return figure


@style()
def leak_map(rows: pd.DataFrame, by_image: np.ndarray, by_case: np.ndarray, touched: Mapping[str, float]) -> Figure:
    """Shows one slide's patches by part under both ways to split, and how many test patches touch a training patch.

    Args:
        rows: the manifest's rows of one case.
        by_image: their parts when patches are shuffled one by one.
        by_case: their parts when whole cases are assigned.
        touched: for each way, the share (0 to 1) of all test patches that touch a training patch.
    """
    x, y = ((rows[name] - rows[name].min()).to_numpy() // STRIDE for name in ("x", "y"))
    figure, (*maps, bars) = subplots((9.2, 3.9), 1, 3, width_ratios=(1.25, 1.25, 1))
    shades = ListedColormap([PART_COLOURS[part] for part in PART_NAMES])
    for ax, parts, title in zip(maps, (by_image, by_case), ("split by image", "split by case"), strict=True):
        slide_grid(ax, x, y, [list(PART_NAMES).index(part) for part in parts], cmap=shades, vmin=-0.5, vmax=len(PART_NAMES) - 0.5)
        ax.set(title=f"Case {rows['case'].iloc[0]}, {title}", ylabel="row of patches")
    drawn = bars.bar(["by image", "by case"], [100 * touched[way] for way in ("by image", "by case")], color=INK, width=0.55)
    bars.bar_label(drawn, fmt="%.1f%%", padding=2)
    bars.set(title="Test patches that touch\na training patch", ylabel="of all test patches (%)", ylim=(0, 110))
    figure.legend(handles=keys({PART_NAMES[part]: PART_COLOURS[part] for part in PARTS}), loc="outside lower left", ncols=3)
    return figure


#: Purple for what is synthetic, beside the blue and orange of the classes.
SYNTHETIC = "#CC79A7"


@style()
def preprocessing_steps(stages: Mapping[str, np.ndarray]) -> Figure:
    """Shows a patch after each step, with the array's shape, type and range, above the distribution of its values.

    Args:
        stages: name of the step to the array (h, w, 3) that it gives, in order; 0–255, or 0–1 for the last.
    """
    figure, (images, values) = subplots((9.2, 5.0), 2, len(stages), height_ratios=(1.7, 1))
    for ax, below, (name, array) in zip(images, values, stages.items(), strict=True):
        top = 255 if array.max() > 1 else 1
        ax.imshow(np.clip(array / top, 0, 1))
        shape = " × ".join(map(str, array.shape))
        ax.set_title(f"{name}\n{shape}, {array.dtype}\nfrom {array.min():.3g} to {array.max():.3g}", fontsize=9)
        ax.set(xlabel="column (px)", ylabel="row (px)")
        for channel, (name, colour, dash) in enumerate((("red", "#B2182B", "-"), ("green", "#1B7837", "--"), ("blue", "#2166AC", ":"))):
            share, edges = np.histogram(array[..., channel], bins=32, range=(0, top))
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
    look = {"colours": [INK] * count + [SYNTHETIC] * count + [INK] * count, "names": ("real patch", "synthetic", "its neighbour")}
    mosaic(figure.subplots(), images, columns=count, titles=titles, **look)
    return figure


@style()
def smote_effect(counts: pd.DataFrame, real: np.ndarray, synthetic: np.ndarray) -> Figure:
    """Shows the training patches of each class before and after SMOTE, and how much fine detail real and synthetic patches have.

    Args:
        counts: index ``IDC−, IDC+``, columns ``real, synthetic``.
        real: patches of the smaller class, array (n, 50, 50, 3) in 0–255.
        synthetic: the patches made from them, likewise.
    """
    figure, (bars, lines) = subplots((9.2, 3.3), 1, 2, width_ratios=(1, 1.6))
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
