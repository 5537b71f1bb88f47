"""The figures of the studies: what leaks how much, what size costs, what recipes and their parts bring.

Every function takes a study's recorded result and returns a `Figure`; none of them shows or saves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bhi_utils import plots
from bhi_utils.core import titles
from bhi_utils.plots import INK, THOUSANDS
from bhi_utils.studies.benchmark_archive import MEGABYTES
from bhi_utils.studies.recipes import NAMES as RECIPE_NAMES

#: Colour-blind safe, told apart by shape and by place as well.
LOOKS = ({"color": "#0072B2", "marker": "o"}, {"color": "#D55E00", "marker": "s"})


def _interval(axis, place: float, found: Mapping[str, float], look: Mapping[str, Any], *, label: str | None = None) -> None:
    """A value at a height with its interval, as a marker on a line."""
    axis.plot([found["low"], found["high"]], [place] * 2, color=look["color"], linewidth=1.6)
    axis.plot(found["value"], place, label=label, **{"linestyle": "none", "markersize": 5.5, **look})


def _rows(axis, names: Sequence[str]) -> None:
    """Names of the rows, the first on top."""
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()


def _intervals(axis, rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Values with their intervals, one line a row and one marker a series."""
    for number, (series, found) in enumerate(rows.items()):
        for place, cell in enumerate(found.values()):
            _interval(axis, place + 0.13 * (2 * number - 1), cell, LOOKS[number], label=None if place else series)
    _rows(axis, list(found))
    axis.grid(axis="x")


@plots.style()
def leakage(result: Mapping[str, Any]) -> Figure:
    """AUC of every arm on the left, its paired difference from its honest partner on the right; bars are 95 % intervals by case."""
    figure = Figure(figsize=(10.5, 4.6))
    left, right = figure.subplots(1, 2)
    _intervals(left, {name: {arm: cells["auc"] for arm, cells in arms.items()} for name, arms in result["models"].items()})
    left.set(xlabel="AUC, out of fold", title="What each way of splitting reports")
    left.legend(loc="upper right")
    gaps = result["differences"].items()
    _intervals(right, {name: {pair.replace(" − ", "\n− "): cells["auc"] for pair, cells in pairs.items()} for name, pairs in gaps})
    right.axvline(0, color=INK, linewidth=0.9)
    right.set(xlabel="difference in AUC, paired by case", title="What it gains over its honest partner")
    return figure


#: One look a side, in the order of the sides: told apart by marker and line as well as by colour.
SIDES = (
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#00735C", "marker": "^", "linestyle": ":"},
)


def _reach(cells: Sequence[Mapping[str, float]], middle: str = "value") -> tuple[np.ndarray, np.ndarray]:
    """The middle values of intervals, float array (n,), and how far these reach to either side, (2, n)."""
    values, low, high = (np.array([cell[name] for cell in cells]) for name in (middle, "low", "high"))
    return values, np.array([values - low, high - values])


def _grown(axis, sizes: Sequence[int], series: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Medians over the number of patches with the range of the repeats, one line a series, both axes logarithmic."""
    for look, (name, cells) in zip(SIDES, series.items(), strict=False):
        middle, reach = _reach(cells, "median")
        axis.errorbar(sizes, middle, yerr=reach, label=name, linewidth=1.4, markersize=5, capsize=2.5, **look)
    axis.set(xscale="log", yscale="log", xlabel="patches")
    axis.set_xticks(sizes, [f"{size / 1000:,.0f} k" for size in sizes])
    axis.minorticks_off()
    axis.grid(True)


@plots.style()
def benchmarks(result: Mapping[str, Any]) -> Figure:
    """How index and pack, their memory and an epoch grow with the number of patches; whiskers span the repeats."""
    figure = Figure(figsize=(10.5, 3.8))
    seconds, memory, speed = figure.subplots(1, 3)
    ingest, epochs = result["ingest"], result["epochs"]
    sizes = [row["patches"] for row in ingest]
    times = {"index and pack": "index_and_pack_seconds", "unpack one copy": "unpack_one_copy_seconds"}
    _grown(seconds, sizes, {name: [row[key] for row in ingest] for name, key in times.items()})
    seconds.set(title="From the zip", ylabel="seconds", ylim=(None, 8 * seconds.get_ylim()[1]))
    _grown(memory, sizes, {"all processes": [row["peak_uss_mb"] for row in ingest]})
    memory.axhline(MEGABYTES, color=INK, linewidth=0.9, linestyle="--", label=f"goal: {MEGABYTES:,} MB")
    memory.set(title="Memory of index and pack", ylabel="peak private memory (MB)", ylim=(10, 5000))
    sides = [name for name in epochs[0] if name != "patches"]
    _grown(speed, sizes, {name: [row[name] for row in epochs] for name in sides})
    speed.set(title="One epoch, batches of 32", ylabel="patches per second", ylim=(None, 2e7))
    for axis in (seconds, memory, speed):
        axis.legend(loc="upper left")
        axis.yaxis.set_major_formatter(THOUSANDS)
    return figure


@plots.style()
def recipes(result: Mapping[str, Any]) -> Figure:
    """AUC of every model with its interval and its folds on the left; precision over recall, out of fold, on the right."""
    figure = Figure(figsize=(10.5, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    names = list(result["models"])
    pooled: dict[str, Any] = {**LOOKS[0], "linestyle": "-", "markersize": 6}
    for place, name in enumerate(names):
        found = result["models"][name]
        _interval(left, place, found["auc"], pooled, label=None if place else "pooled, 95 % interval by case")
        folds = found["fold_auc"]
        label = None if place else "single folds"
        left.plot(folds, [place + 0.22] * len(folds), "|", color=LOOKS[1]["color"], markersize=8, markeredgewidth=1.6, label=label)
    _rows(left, [RECIPE_NAMES[name].replace(", ", ",\n") for name in names])
    left.set(xlabel="AUC, out of fold", title="Every patch answered by a model that has not seen its case")
    left.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=2)
    for look, (name, curve) in zip(SIDES, result["curve"].items(), strict=False):
        axes = ([row["recall"] for row in curve], [row["precision"] for row in curve])
        right.plot(*axes, label=RECIPE_NAMES[name], linewidth=1.6, color=look["color"], linestyle=look["linestyle"])
        point = result["models"][name]
        right.plot(point["recall"]["value"], point["precision"]["value"], color=look["color"], marker=look["marker"], markersize=7)
    right.axvline(result["parameters"]["recall"], color=INK, linewidth=0.9, linestyle=":")
    right.set(xlabel="recall", ylabel="precision", title="Markers: thresholds chosen on validation cases")
    right.legend(loc="lower left", fontsize="small")
    right.grid(True)
    return figure


@plots.style()
def against_paper(metrics: Mapping[str, Mapping[str, float]], paper: Mapping[str, float], titles: Mapping[str, str]) -> Figure:
    """The paper's metrics as strokes beside this project's values with their 95 % intervals by case, one line a metric."""
    figure = Figure(figsize=(7.2, 2.9))
    axis = figure.subplots()
    for place, name in enumerate(paper):
        _interval(axis, place, metrics[name], LOOKS[0], label=None if place else "out of fold here, 95 % interval by case")
    axis.plot(list(paper.values()), range(len(paper)), "|", color=LOOKS[1]["color"], markersize=15, markeredgewidth=2.2, label="the paper")
    axis.set_yticks(range(len(paper)), [titles[name] for name in paper])
    axis.set(xlabel="value", xlim=(0, 1), ylim=(len(paper) - 0.5, -0.5))
    axis.grid(axis="x")
    axis.legend(loc="upper left", bbox_to_anchor=(0.02, 0.98))
    return figure


@plots.style()
def ablations(result: Mapping[str, Any]) -> Figure:
    """Difference in AUC of every arm from the base on the left, minutes of training on the right; bars are 95 % intervals by case.

    An arm so far from all others that they would fall together is named at the edge instead.
    """
    rows = [row for row in result["arms"] if row["difference"] is not None]
    questions = list(dict.fromkeys(row["question"] for row in rows))
    # a free line before each question, for its heading
    places = [place + questions.index(row["question"]) for place, row in enumerate(rows)]
    figure = Figure(figsize=(10.5, 0.27 * (len(rows) + len(questions)) + 1.2))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.7, 1))
    reach = sorted(max(abs(row["difference"]["low"]), abs(row["difference"]["high"])) for row in rows)
    edge = 1.15 * (reach[-2] if len(rows) > 2 and reach[-1] > 3 * reach[-2] else reach[-1])
    for place, row in zip(places, rows, strict=True):
        found = row["difference"]
        if abs(found["value"]) > edge:
            side = -1 if found["value"] < 0 else 1
            text = f"{'◀ ' if side < 0 else ''}{titles.cell(found, sign=True)}{' ▶' if side > 0 else ''}"
            left.text(0.98 * side * edge, place, text, ha="left" if side < 0 else "right", va="center", color=LOOKS[0]["color"])
        else:
            _interval(left, place, found, LOOKS[0])
        right.plot(row["minutes"], place, markersize=5.5, **LOOKS[1])
    base = next(row for row in result["arms"] if row["difference"] is None)
    left.axvline(0, color=INK, linewidth=0.9)
    right.axvline(base["minutes"], color=INK, linewidth=0.9)
    left.set_yticks(places, [row["arm"] for row in rows])
    for question in questions:
        first = next(place for place, row in zip(places, rows, strict=True) if row["question"] == question)
        left.text(0, first - 0.72, question, transform=left.get_yaxis_transform(), fontsize="small", fontweight="bold", va="center")
    left.set(xlim=(-edge, edge), ylim=(max(places) + 0.8, -1.2))
    left.set(xlabel="difference in AUC from the base, paired by case", title="What a change brings")
    right.set(xlabel="minutes, all folds, cache included", title="What it costs (line: the base)", xscale="log")
    least, most = (extreme(row["minutes"] for row in result["arms"]) for extreme in (min, max))
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if 0.7 * least <= tick <= 1.4 * most]
    right.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    right.minorticks_off()
    for axis in (left, right):
        axis.grid(axis="x")
    return figure


@plots.style()
def learning_curve(result: Mapping[str, Any]) -> Figure:
    """AUC over the number of training cases on the left and of patches on the right, the law fitted to it, and the full archive."""
    figure = Figure(figsize=(10.5, 3.9))
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"cases": "More cases, all of their patches", "patches": "More patches of the same cases"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        rows, law, look = result[kind], result["forecast"][kind], LOOKS[0]
        sizes = np.array([row[kind] for row in rows])
        whiskers = {"linewidth": 0, "elinewidth": 1.4, "capsize": 2.5}
        values, reach = _reach([row["auc"] for row in rows])
        axis.errorbar(sizes, values, yerr=reach, markersize=5, label="measured", **whiskers, **look)
        line = np.geomspace(sizes[0], law["at"], 60)
        axis.plot(line, 1 - law["factor"] * line ** law["exponent"], color=INK, linewidth=1, linestyle="--", label="power law of the error")
        value, reach = _reach([law["auc"]])
        axis.errorbar(law["at"], value, yerr=reach, label="the law at the full archive's size", **whiskers, **LOOKS[1])
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
def coverage(result: Mapping[str, Any], *, metrics: Sequence[str] = ("auc", "recall", "precision"), band: tuple[float, float]) -> Figure:
    """How often each kind of 95 % interval covers the truth, a panel a metric and a row a scenario; the band is what passes for right.

    Args:
        result: the record of the study of intervals.
        metrics: the panels.
        band: lowest and highest coverage that passes, 0 to 1.
    """
    figure = Figure(figsize=(10.5, 4.6))
    axes = figure.subplots(1, len(metrics), sharey=True, width_ratios=(1.6, *[1] * (len(metrics) - 1)))
    names = list(result["scenarios"])
    for axis, metric in zip(axes, metrics, strict=True):
        ways = list(result["scenarios"][names[0]]["coverage"][metric])
        axis.axvspan(100 * band[0], 100 * band[1], color="#DDE6EE", zorder=0)
        axis.axvline(95, color=INK, linewidth=0.9, linestyle=":")
        for number, (way, (color, marker)) in enumerate(zip(ways, WAY_LOOKS, strict=False)):
            found = [100 * result["scenarios"][name]["coverage"][metric][way]["covered"] for name in names]
            places = np.arange(len(names)) + 0.13 * (number - (len(ways) - 1) / 2)
            axis.plot(found, places, linestyle="none", markersize=6, label=way, color=color, marker=marker)
        axis.set(title={"auc": "AUC"}.get(metric, metric), xlabel="intervals that cover the truth (%)")
        axis.grid(axis="x")
    _rows(axes[0], [name.replace(", ", ",\n") for name in names])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
