"""The figures of the studies: what leaks how much, and how the archive's handling grows with its size.

Every function takes a study's recorded result and returns a `Figure`; none of them shows or saves.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from bhi_utils.plots import INK, style

#: Colour-blind safe, told apart by shape and by place as well.
LOOKS = ({"color": "#0072B2", "marker": "o"}, {"color": "#D55E00", "marker": "s"})


def _intervals(axis, rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Values with their intervals, one line a row and one marker a series; the first row on top."""
    for number, (series, found) in enumerate(rows.items()):
        look, shift = LOOKS[number], 0.13 * (2 * number - 1)
        for place, cell in enumerate(found.values()):
            axis.plot([cell["low"], cell["high"]], [place + shift] * 2, color=look["color"], linewidth=1.6)
        values = [cell["value"] for cell in found.values()]
        places = [place + shift for place in range(len(found))]
        axis.plot(values, places, linestyle="none", markersize=5.5, label=series, **look)
    axis.set_yticks(range(len(found)), list(found))
    axis.invert_yaxis()
    axis.grid(axis="x")


@style()
def leakage(result: Mapping[str, Any]) -> Figure:
    """AUC of every arm on the left, its paired difference from its honest partner on the right; bars are 95 % intervals by case."""
    figure = Figure(figsize=(10.5, 4.6))
    left, right = figure.subplots(1, 2)
    _intervals(left, {name: {arm: cells["auc"] for arm, cells in arms.items()} for name, arms in result["models"].items()})
    left.set_xlabel("AUC, out of fold")
    left.set_title("What each way of splitting reports")
    left.legend(loc="upper right")
    rows = {
        name: {pair.replace(" − ", "\n− "): cells["auc"] for pair, cells in pairs.items()} for name, pairs in result["differences"].items()
    }
    _intervals(right, rows)
    right.axvline(0, color=INK, linewidth=0.9)
    right.set_xlabel("difference in AUC, paired by case")
    right.set_title("What it gains over its honest partner")
    return figure
