"""The figures of notebooks 01 and 02: what is in the data, and how it is split."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from bhi_utils.core.messages import counted
from bhi_utils.core.titles import CLASSES, PART_NAMES
from bhi_utils.data.archive import per_case
from bhi_utils.data.slide_grid import STRIDE, assemble
from bhi_utils.data.splits import PARTS
from bhi_utils.plots.shared_look import BLANK, COLOURS, INK, NEGATIVE, PART_COLOURS, POSITIVE, THOUSANDS, keys, slide_grid, style

#: A text for each patch or row.
Texts = Sequence[str] | np.ndarray


@style()
def classes_and_cases(manifest: pd.DataFrame) -> Figure:
    """Shows the patches of each class, one dot a case (its patches and its share of IDC+), and how the shares are distributed."""
    figure = Figure(figsize=(9.2, 3.9))
    bars, dots, shares = figure.subplots(1, 3, width_ratios=(1.0, 2.6, 0.8))
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
    figure = Figure(figsize=(9.2, min(9.0, max(3.2, 4.4 * canvas.shape[0] / canvas.shape[1] + 0.9))))
    tissue, labelled = figure.subplots(1, 2, sharex=True, sharey=True)
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
    figure = Figure(figsize=(9.2, 3.6))
    cases, patches, shares = figure.subplots(1, 3, width_ratios=(1, 1.1, 1.6))
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
    figure = Figure(figsize=(9.2, 3.9))
    *maps, bars = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    shades = ListedColormap([PART_COLOURS[part] for part in PART_NAMES])
    for ax, parts, title in zip(maps, (by_image, by_case), ("split by image", "split by case"), strict=True):
        slide_grid(ax, x, y, [list(PART_NAMES).index(part) for part in parts], cmap=shades, vmin=-0.5, vmax=len(PART_NAMES) - 0.5)
        ax.set(title=f"Case {rows['case'].iloc[0]}, {title}", ylabel="row of patches")
    drawn = bars.bar(["by image", "by case"], [100 * touched[way] for way in ("by image", "by case")], color=INK, width=0.55)
    bars.bar_label(drawn, fmt="%.1f%%", padding=2)
    bars.set(title="Test patches that touch\na training patch", ylabel="of all test patches (%)", ylim=(0, 110))
    figure.legend(handles=keys({PART_NAMES[part]: PART_COLOURS[part] for part in PARTS}), loc="outside lower left", ncols=3)
    return figure
