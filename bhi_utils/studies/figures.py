"""The figures of the studies: what leaks how much, what size costs, what recipes and their parts bring.

Every function takes a study's recorded result and returns a `Figure`; none of them shows or saves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bhi_utils import plots
from bhi_utils.core import titles
from bhi_utils.plots import INK, THOUSANDS
from bhi_utils.studies.interval_coverage import shares
from bhi_utils.studies.recipes import NAMES as RECIPE_NAMES

#: One look a series: colour-blind safe, and told apart by marker and line as well.
LOOKS = (
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#00735C", "marker": "^", "linestyle": ":"},
)
#: Points without a line between them, in the looks of the first two series, and the bars of their intervals.
POINTS: list[dict] = [{**look, "linestyle": "none", "markersize": 5.5, "elinewidth": 1.6} for look in LOOKS[:2]]


def _intervals(axis: Axes, places: Sequence | np.ndarray, cells: Sequence[Mapping], *, upright: bool = False, **look: Any) -> None:
    """Draws values, or medians, with their intervals, as markers on bars; ``places`` are rows, or with ``upright`` places along x."""
    values = np.array([cell["value"] if "value" in cell else cell["median"] for cell in cells])
    reach = np.array([values - [cell["low"] for cell in cells], [cell["high"] for cell in cells] - values])
    if upright:
        axis.errorbar(places, values, yerr=reach, capsize=2.5, **look)
    else:
        axis.errorbar(values, places, xerr=reach, **look)


def _rows(axis: Axes, names: Sequence[str]) -> None:
    """Names the rows, the first on top."""
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="x")


@plots.style()
def leakage(result: Mapping) -> Figure:
    """Shows the AUC of every arm, and its paired difference from its honest partner; bars are 95 % intervals by case."""
    figure = Figure(figsize=(10.5, 4.6))
    left, right = figure.subplots(1, 2)
    for axis, kind in ((left, "models"), (right, "differences")):
        for number, (head, found) in enumerate(result[kind].items()):
            places = np.arange(len(found)) + 0.13 * (2 * number - 1)
            _intervals(axis, places, [cells["auc"] for cells in found.values()], label=head, **POINTS[number])
        _rows(axis, [name.replace(" − ", "\n− ") for name in found])
    left.set(xlabel="AUC, out of fold", title="What each way of splitting reports")
    left.legend(loc="upper right")
    right.axvline(0, color=INK, linewidth=0.9)
    right.set(xlabel="difference in AUC, paired by case", title="What it gains over its honest partner")
    return figure


@plots.style()
def benchmarks(result: Mapping) -> Figure:
    """Shows how index and pack, their memory and an epoch grow with the number of patches; whiskers span the repeats."""
    figure = Figure(figsize=(10.5, 3.8))
    axes = seconds, memory, speed = figure.subplots(1, 3)
    ingest, epochs = result["ingest"], result["epochs"]
    times = {"index and pack": "index_and_pack_seconds", "unpack one copy": "unpack_one_copy_seconds"}
    shown = [
        {name: [row[key] for row in ingest] for name, key in times.items()},
        {"all processes": [row["peak_uss_mb"] for row in ingest]},
        {name: [row[name] for row in epochs] for name in epochs[0] if name != "patches"},
    ]
    sizes = [row["patches"] for row in ingest]
    for axis, series in zip(axes, shown, strict=True):
        for look, (name, cells) in zip(LOOKS, series.items(), strict=False):
            _intervals(axis, sizes, cells, upright=True, label=name, linewidth=1.4, markersize=5, **look)
        axis.set(xscale="log", yscale="log", xlabel="patches")
        axis.set_xticks(sizes, [f"{size / 1000:,.0f} k" for size in sizes])
        axis.minorticks_off()
        axis.grid(True)
        axis.legend(loc="upper left")
        axis.yaxis.set_major_formatter(THOUSANDS)
    seconds.set(title="From the zip", ylabel="seconds", ylim=(None, 8 * seconds.get_ylim()[1]))
    memory.set(title="Memory of index and pack", ylabel="peak private memory (MB)", ylim=(10, 5000))
    speed.set(title="One epoch, batches of 32", ylabel="patches per second", ylim=(None, 2e7))
    return figure


@plots.style()
def recipes(result: Mapping) -> Figure:
    """Shows the AUC of every model with its interval and its folds on the left; precision over recall, out of fold, on the right."""
    figure = Figure(figsize=(10.5, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    models = result["models"]
    label = "pooled, 95 % interval by case"
    _intervals(left, range(len(models)), [found["auc"] for found in models.values()], label=label, **POINTS[0])
    folds = [(auc, place + 0.22) for place, found in enumerate(models.values()) for auc in found["fold_auc"]]
    left.plot(*zip(*folds, strict=True), "|", color=LOOKS[1]["color"], markersize=8, markeredgewidth=1.6, label="single folds")
    _rows(left, [RECIPE_NAMES[name].replace(", ", ",\n") for name in models])
    left.set(xlabel="AUC, out of fold", title="Every patch answered by a model that has not seen its case")
    left.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=2)
    for look, (name, curve) in zip(LOOKS, result["curve"].items(), strict=False):
        axes = ([row["recall"] for row in curve], [row["precision"] for row in curve])
        right.plot(*axes, label=RECIPE_NAMES[name], linewidth=1.6, color=look["color"], linestyle=look["linestyle"])
        point = [models[name][metric]["value"] for metric in ("recall", "precision")]
        right.plot(*point, color=look["color"], marker=look["marker"], markersize=7)
    right.axvline(result["parameters"]["recall"], color=INK, linewidth=0.9, linestyle=":")
    right.set(xlabel="recall", ylabel="precision", title="Markers: thresholds chosen on validation cases")
    right.legend(loc="lower left", fontsize="small")
    right.grid(True)
    return figure


@plots.style()
def ablations(result: Mapping) -> Figure:
    """Shows every arm's difference in AUC from the base, and its minutes of training; bars are 95 % intervals by case.

    An arm so far from all others that they would fall together is named at the edge instead.
    """
    base, *rows = sorted(result["arms"], key=lambda row: row["difference"] is not None)
    questions = list(dict.fromkeys(row["question"] for row in rows))
    # a free line before each question, for its heading
    places = [place + questions.index(row["question"]) for place, row in enumerate(rows)]
    figure = Figure(figsize=(10.5, 0.27 * (len(rows) + len(questions)) + 1.2))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.7, 1))
    gaps = [row["difference"] for row in rows]
    reach = sorted(max(abs(gap["low"]), abs(gap["high"])) for gap in gaps)
    edge = 1.15 * (reach[-2] if len(rows) > 2 and reach[-1] > 3 * reach[-2] else reach[-1])
    _intervals(left, places, gaps, **POINTS[0])
    for place, gap in zip(places, gaps, strict=True):
        if abs(gap["value"]) > edge:
            text, side = titles.cell(gap, sign=True), np.sign(gap["value"])
            text, align = (f"◀ {text}", "left") if side < 0 else (f"{text} ▶", "right")
            left.text(0.98 * side * edge, place, text, ha=align, va="center", color=LOOKS[0]["color"])
    right.plot([row["minutes"] for row in rows], places, markersize=5.5, **LOOKS[1] | {"linestyle": "none"})
    left.axvline(0, color=INK, linewidth=0.9)
    right.axvline(base["minutes"], color=INK, linewidth=0.9)
    left.set_yticks(places, [row["arm"] for row in rows])
    firsts = {row["question"]: place for place, row in reversed(list(zip(places, rows, strict=True)))}
    for question, first in firsts.items():
        left.text(0, first - 0.72, question, transform=left.get_yaxis_transform(), fontsize="small", fontweight="bold", va="center")
    left.set(xlim=(-edge, edge), ylim=(max(places) + 0.8, -1.2))
    left.set(xlabel="difference in AUC from the base, paired by case", title="What a change brings")
    right.set(xlabel="minutes, all folds, cache included", title="What it costs (line: the base)", xscale="log")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter("{x:g}")
    right.minorticks_off()
    for axis in (left, right):
        axis.grid(axis="x")
    return figure


@plots.style()
def learning_curve(result: Mapping) -> Figure:
    """Shows AUC over training cases on the left and over patches on the right, the law fitted to it, and the full archive."""
    figure = Figure(figsize=(10.5, 3.9))
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"cases": "More cases, all of their patches", "patches": "More patches of the same cases"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        rows, law = result[kind], result["forecast"][kind]
        sizes = [row[kind] for row in rows]
        _intervals(axis, sizes, [row["auc"] for row in rows], upright=True, label="measured", **POINTS[0])
        line = np.geomspace(sizes[0], law["at"], 60)
        axis.plot(line, 1 - law["factor"] * line ** law["exponent"], color=INK, linewidth=1, linestyle="--", label="power law of the error")
        _intervals(axis, [law["at"]], [law["auc"]], upright=True, label="the law at the full archive's size", **POINTS[1])
        axis.axvline(law["at"], color=LOOKS[1]["color"], linewidth=0.9, linestyle=":")
        axis.set(xscale="log", xlabel=f"training {kind}", title=title)
        axis.xaxis.set_major_formatter(THOUSANDS)
        axis.grid(True)
    axes[0].set_ylabel("AUC, out of fold")
    axes[1].legend(loc="lower left")
    return figure


#: Colour and marker of each way to an interval: colour-blind safe, and told apart by shape.
WAY_LOOKS = (("#8C8C8C", "x"), ("#D55E00", "s"), ("#E69F00", "^"), ("#0072B2", "o"), ("#009E73", "D"), ("#404040", "v"))


@plots.style()
def coverage(result: Mapping, *, metrics: Sequence[str] = ("auc", "recall", "precision"), band: tuple[float, float]) -> Figure:
    """Shows how often each kind of 95 % interval covers the truth: a panel a metric, a row a scenario.

    Args:
        result: the record of the study of intervals.
        metrics: the panels.
        band: lowest and highest coverage that passes, 0 to 1.
    """
    figure = Figure(figsize=(10.5, 4.6))
    axes = figure.subplots(1, len(metrics), sharey=True, width_ratios=(1.6, *[1] * (len(metrics) - 1)))
    for axis, metric in zip(axes, metrics, strict=True):
        axis.axvspan(100 * band[0], 100 * band[1], color="#DDE6EE", zorder=0)
        axis.axvline(95, color=INK, linewidth=0.9, linestyle=":")
        found = 100 * shares(result, metric)
        for number, (way, (color, marker)) in enumerate(zip(found, WAY_LOOKS, strict=False)):
            places = np.arange(len(found)) + 0.13 * (number - (found.shape[1] - 1) / 2)
            axis.plot(found[way], places, linestyle="none", markersize=6, label=way, color=color, marker=marker)
        axis.set(title={"auc": "AUC"}.get(metric, metric), xlabel="intervals that cover the truth (%)")
        axis.grid(axis="x")
    _rows(axes[0], [name.replace(", ", ",\n") for name in result["scenarios"]])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
