"""The figures of what can be trusted: how often intervals cover the truth.

Every function takes data and returns a `Figure`; none of them shows or saves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bhi_utils.plots import INK, style

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
