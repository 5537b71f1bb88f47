"""The figures of what can be trusted: how often intervals cover the truth, and where a model fails.

Every function takes data and returns a `Figure`; none of them shows or saves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bhi_utils.archive import PATCH
from bhi_utils.plots import CLASSES, COLOURS, INK, NEGATIVE, POSITIVE, style

#: Colour-blind safe, and told apart by shape; one look a way to an interval.
WAY_LOOKS = (
    {"color": "#8C8C8C", "marker": "x"},
    {"color": "#D55E00", "marker": "s"},
    {"color": "#E69F00", "marker": "^"},
    {"color": "#0072B2", "marker": "o"},
    {"color": "#009E73", "marker": "D"},
    {"color": "#404040", "marker": "v"},
)
_TITLES = {"auc": "AUC"}


@style()
def coverage(result: Mapping[str, Any], *, metrics: Sequence[str] = ("auc", "recall", "precision"), band: tuple[float, float]) -> Figure:
    """How often each kind of 95 % interval covers the truth, a panel a metric and a row a scenario; the band is what passes for right.

    Args:
        result: the record of the study of intervals.
        metrics: the panels.
        band: lowest and highest coverage that passes, 0 to 1.
    """
    figure = Figure(figsize=(10.5, 4.6))
    axes = figure.subplots(1, len(metrics), sharey=True, width_ratios=(1.6, *[1] * (len(metrics) - 1)))
    names, looks = list(result["scenarios"]), {}
    for axis, metric in zip(axes, metrics, strict=True):
        ways = list(result["scenarios"][names[0]]["coverage"][metric])
        axis.axvspan(100 * band[0], 100 * band[1], color="#DDE6EE", zorder=0)
        axis.axvline(95, color=INK, linewidth=0.9, linestyle=":")
        for number, way in enumerate(ways):
            looks[way] = WAY_LOOKS[number]
            shift = 0.13 * (number - (len(ways) - 1) / 2)
            found = [100 * result["scenarios"][name]["coverage"][metric][way]["covered"] for name in names]
            places = [place + shift for place in range(len(names))]
            axis.plot(found, places, linestyle="none", markersize=6, label=way, **looks[way])
        axis.set(title=_TITLES.get(metric, metric), xlabel="intervals that cover the truth (%)")
        axis.grid(axis="x")
    axes[0].set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


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
