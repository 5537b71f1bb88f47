"""The figures of where a model fails: by group, and on a case's slide."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bhi_utils.core.titles import CLASSES
from bhi_utils.data.decode import PATCH
from bhi_utils.plots.shared_look import COLOURS, INK, NEGATIVE, POSITIVE, style


@style()
def failures(result: Mapping[str, Any], cases: pd.DataFrame, kinds: Mapping[str, str]) -> Figure:
    """AUC and recall of every group with intervals on the left, and one dot a case on the right.

    Args:
        result: the content of ``failures.json``.
        cases: the content of ``cases.csv``: ``case, patches, positive, auc, recall``.
        kinds: kind of group to its title.
    """
    figure = Figure(figsize=(10.5, 5.2))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 1))
    places, names, heads, place = [], [], [], 0.0
    for kind, found in result["groups"].items():
        heads.append((place, kinds[kind]))
        for name, one in found.items():
            place += 1
            places.append((place, one))
            names.append(f"{name} ({one['cases']} case{'' if one['cases'] == 1 else 's'})")
        place += 1.3
    for axis, metric, title in ((left, "auc", "AUC"), (middle, "recall", "recall")):
        for y, one in places:
            if (found := one[metric]) is None:
                continue
            if found["low"] is not None:
                axis.plot([found["low"], found["high"]], [y, y], color="#0072B2", linewidth=1.6)
            axis.plot(found["value"], y, "o", color="#0072B2", markersize=5.5)
        axis.set(title=f"{title} by group, 95 % intervals", xlabel=title)
        axis.set_ylim(place - 0.6, -0.6)
        axis.grid(axis="x")
    left.set_yticks([y for y, _ in places], names)
    middle.set_yticks([y for y, _ in places], [])
    for y, text in heads:
        left.text(0.02, y, text, transform=left.get_yaxis_transform(), va="center", fontsize=8.5, weight="bold", color=INK)
    whole = cases.dropna(subset=["auc"])
    right.scatter(
        100 * whole["positive"] / whole["patches"], whole["auc"], s=12 + whole["patches"] / 4, color=INK, alpha=0.55, linewidths=0
    )
    right.set(title="Each test case; area grows with patches", xlabel="IDC+ patches of the case (%)", ylabel="AUC within the case")
    right.grid(True)
    return figure


@style()
def slide_map(rows: pd.DataFrame, *, threshold: float) -> Figure:
    """One case's patches in their places: truth, calibrated probability, and what the threshold makes of them.

    Args:
        rows: predictions of one case: ``case, x, y, label, probability, probability_calibrated``.
        threshold: a patch is called IDC+ at ``probability >= threshold``.
    """
    x, y = ((rows[name] - rows[name].min()).to_numpy() // PATCH for name in ("x", "y"))
    shape = y.max() + 1, x.max() + 1
    called, label = (rows["probability"] >= threshold).to_numpy(), rows["label"].to_numpy()
    figure = Figure(figsize=(10.5, min(7.5, max(3.4, 3.3 * shape[0] / shape[1] + 1.2))))
    truth, probability, error = figure.subplots(1, 3, sharex=True, sharey=True)
    kinds = {"right": "#D9D9D9", "missed IDC+": POSITIVE, "false alarm": NEGATIVE}
    panels = (
        (truth, label, ListedColormap(COLOURS), (0, 1), f"Case {rows['case'].iloc[0]}: truth"),
        (probability, rows["probability_calibrated"].to_numpy(), "cividis", (0, 1), "Calibrated probability of IDC+"),
        (error, np.where(called == label, 0, np.where(label == 1, 1, 2)), ListedColormap(list(kinds.values())), (0, 2), "Answers"),
    )
    for axis, values, colours, (low, high), title in panels:
        grid = np.full(shape, np.nan)
        grid[y, x] = values
        shown = axis.imshow(grid, cmap=colours, vmin=low, vmax=high)
        axis.set(title=title, xlabel="column of patches")
        axis.set_facecolor("white")
        axis.locator_params(integer=True)
        if axis is probability:
            # within the panel's own room, so that the three stay level
            figure.colorbar(shown, cax=axis.inset_axes((0.1, -0.3, 0.8, 0.05)), orientation="horizontal")
    # marks as well as colours, for print in grey
    for axis, chosen, mark in ((truth, label == 1, "+"), (error, (label == 1) & ~called, "+"), (error, (label == 0) & called, "x")):
        axis.scatter(x[chosen], y[chosen], marker=mark, color="white", s=18, linewidths=1)
    truth.set_ylabel("row of patches")
    for axis, names in ((truth, dict(zip(CLASSES, COLOURS, strict=True))), (error, kinds)):
        handles = [Patch(facecolor=colour, edgecolor=INK, linewidth=0.5, label=name) for name, colour in names.items()]
        axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=len(handles), handlelength=1.2)
    return figure
