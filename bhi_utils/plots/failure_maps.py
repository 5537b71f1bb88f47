"""The figures of where a model fails: by group, and on a case's slide."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from bhi_utils.core.messages import counted
from bhi_utils.core.titles import CLASSES
from bhi_utils.data.decode import PATCH
from bhi_utils.plots.shared_look import COLOURS, INK, NEGATIVE, POSITIVE, keys, slide_grid, style


@style()
def failures(result: Mapping[str, Any], cases: pd.DataFrame, kinds: Mapping[str, str]) -> Figure:
    """Shows AUC and recall of every group with intervals on the left, and one dot a case on the right.

    Args:
        result: the content of ``failures.json``.
        cases: the content of ``cases.csv``: ``case, patches, positive, auc, recall``.
        kinds: kind of group to its title.
    """
    figure = Figure(figsize=(10.5, 5.2))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 1))
    names, place = {}, 0.0
    for kind, found in result["groups"].items():
        left.text(0.02, place, kinds[kind], transform=left.get_yaxis_transform(), va="center", fontsize=8.5, weight="bold", color=INK)
        for name, group in found.items():
            place += 1
            names[place] = f"{name} ({counted(group['cases'], 'case')})"
            for axis, metric in ((left, "auc"), (middle, "recall")):
                _interval(axis, place, group[metric])
        place += 1.3
    for axis, title in ((left, "AUC"), (middle, "recall")):
        axis.set(title=f"{title} by group, 95 % intervals", xlabel=title, ylim=(place - 0.6, -0.6))
        axis.grid(axis="x")
    left.set_yticks(list(names), list(names.values()))
    middle.set_yticks(list(names), [])
    whole = cases.dropna(subset=["auc"])
    right.scatter(
        100 * whole["positive"] / whole["patches"], whole["auc"], s=12 + whole["patches"] / 4, color=INK, alpha=0.55, linewidths=0
    )
    right.set(title="Each test case; area grows with patches", xlabel="IDC+ patches of the case (%)", ylabel="AUC within the case")
    right.grid(True)
    return figure


def _interval(axis: Axes, y: float, metric: Mapping[str, float | None] | None) -> None:
    if metric is None:
        return
    if metric["low"] is not None:
        axis.plot([metric["low"], metric["high"]], [y, y], color=NEGATIVE, linewidth=1.6)
    axis.plot(metric["value"], y, "o", color=NEGATIVE, markersize=5.5)


@style()
def slide_map(rows: pd.DataFrame, *, threshold: float) -> Figure:
    """Shows one case's patches in their places: truth, calibrated probability, and answers at the threshold.

    Args:
        rows: predictions of one case: ``case, x, y, label, probability, probability_calibrated``.
        threshold: a patch is called IDC+ at ``probability >= threshold``.
    """
    x, y = ((rows[name] - rows[name].min()).to_numpy() // PATCH for name in ("x", "y"))
    called, label = (rows["probability"] >= threshold).to_numpy(), rows["label"].to_numpy()
    figure = Figure(figsize=(10.5, min(7.5, max(3.4, 3.3 * (y.max() + 1) / (x.max() + 1) + 1.2))))
    truth, probability, error = figure.subplots(1, 3, sharex=True, sharey=True)
    kinds = {"right": "#D9D9D9", "missed IDC+": POSITIVE, "false alarm": NEGATIVE}
    wrong = np.where(called == label, 0, np.where(label == 1, 1, 2))
    slide_grid(truth, x, y, label, cmap=ListedColormap(COLOURS), vmin=0, vmax=1)
    shown = slide_grid(probability, x, y, rows["probability_calibrated"], cmap="cividis", vmin=0, vmax=1)
    slide_grid(error, x, y, wrong, cmap=ListedColormap(list(kinds.values())), vmin=0, vmax=2)
    # within the panel's own room, so that the three stay level
    figure.colorbar(shown, cax=probability.inset_axes((0.1, -0.3, 0.8, 0.05)), orientation="horizontal")
    truth.set(title=f"Case {rows['case'].iloc[0]}: truth", ylabel="row of patches")
    probability.set_title("Calibrated probability of IDC+")
    error.set_title("Answers")
    # marks as well as colours, for print in grey
    for axis, chosen, mark in ((truth, label == 1, "+"), (error, (label == 1) & ~called, "+"), (error, (label == 0) & called, "x")):
        axis.scatter(x[chosen], y[chosen], marker=mark, color="white", s=18, linewidths=1)
    for axis, names in ((truth, dict(zip(CLASSES, COLOURS, strict=True))), (error, kinds)):
        axis.legend(handles=keys(names), loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=len(names), handlelength=1.2)
    return figure
