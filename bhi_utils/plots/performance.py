"""The figures of notebooks 05 and 06: learning curves, metrics beside the paper's, curves, confusion, calibration, groups.

Models are told apart by colour and by marker or line style, so that the figures can be read in grey.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from bhi_utils.core.messages import counted
from bhi_utils.core.titles import CLASSES, MODEL_NAMES, PAPER_METRICS, Metric, Metrics
from bhi_utils.evaluation import metrics
from bhi_utils.evaluation.failures import Failures
from bhi_utils.plots.maps import limit, overlay
from bhi_utils.plots.shared_look import COLOURS, INK, NEGATIVE, bare, colour_map, style, subplots

#: Colour-blind safe (Okabe and Ito), none of them a class's colour; with hatches and line styles for print in grey.
MODEL_COLOURS = {"cnn": "#009E73", "efficientnetb0": "#CC79A7", "logistic_regression": "#8C8C8C"}
LINES = {"cnn": "--", "efficientnetb0": "-", "logistic_regression": ":"}
HATCHES = {"cnn": "//", "efficientnetb0": "", "logistic_regression": ".."}
PAPER: dict[str, Any] = {"color": INK, "marker": "D", "linestyle": "none", "markersize": 6, "markerfacecolor": "white"}
PAPER["label"] = "the paper (its own data)"


@style()
def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Shows loss and AUC over epochs on training and validation cases, a column a model; dotted lines separate the phases."""
    figure, axes = subplots((4.6 * len(histories), 4.6), 2, len(histories), sharex="col", sharey="row", squeeze=False)
    for column, (name, history) in zip(axes.T, histories.items(), strict=True):
        starts = history.index[history["phase"] != history["phase"].shift()]
        for axis, metric, title in zip(column, ("loss", "auc"), ("loss", "AUC"), strict=True):
            axis.plot(history["epoch"], history[metric], "o--", color="0.55", markersize=4, label="training (augmented, dropout)")
            axis.plot(history["epoch"], history[f"val_{metric}"], "s-", color=MODEL_COLOURS[name], markersize=4, label="validation cases")
            for start in starts[1:]:
                axis.axvline(history["epoch"][start] - 0.5, color=INK, linewidth=0.8, linestyle=":")
            axis.set_ylabel(title)
            axis.grid(axis="y")
        for start in starts if len(starts) > 1 else ():
            place = (history["epoch"][start] - 0.42, 0.99)
            column[1].annotate(history["phase"][start], place, xycoords=("data", "axes fraction"), fontsize=8, va="top", color=INK)
        column[0].set_title(f"{MODEL_NAMES[name]}, {'in phases' if len(starts) > 1 else history['phase'].iloc[0]}")
        column[1].margins(x=0.07, y=0.16)
        column[1].set_xlabel("epoch")
        column[1].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend(loc="best")
    return figure


@style()
def metrics_beside_paper(models: Mapping[str, Mapping[str, Metrics]], paper: Mapping[str, float], *, part: str = "test") -> Figure:
    """Shows the paper's five metrics as one bar a model, with 95 % intervals by case, and the paper's own value as a diamond.

    Args:
        models: name to split to metrics, as in ``metrics.json``.
        paper: metric to the published value.
        part: the split that is shown.
    """
    figure, axis = subplots((3.2 + 2.3 * len(models), 3.9))
    width = 0.8 / len(models)
    # inside the bar, where no whisker and no diamond of the paper's is
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    positions = np.arange(len(PAPER_METRICS))
    for number, (name, parts) in enumerate(models.items()):
        x = positions + (number - (len(models) - 1) / 2) * width
        values = np.array([[*parts[part][metric].values()] for metric in PAPER_METRICS], dtype=float).T
        look: dict[str, Any] = {"color": MODEL_COLOURS[name], "hatch": HATCHES[name], "edgecolor": "white", "linewidth": 0.6}
        axis.bar(x, values[0], width * 0.92, label=MODEL_NAMES[name], **look)
        axis.errorbar(x, values[0], np.abs(values[1:] - values[0]), fmt="none", ecolor=INK, elinewidth=1, capsize=3)
        for place, value in zip(x, values[0], strict=True):
            axis.text(place, 0.03, f"{value:.3f}", ha="center", va="bottom", fontsize=8, bbox=box)
    axis.plot(positions, [paper[metric] for metric in PAPER_METRICS], **PAPER)
    axis.set_xticks(positions, PAPER_METRICS.values())
    axis.set(ylim=(0, 1.24), yticks=np.arange(0, 1.01, 0.2), ylabel="value (loss: lower is better)")
    axis.grid(axis="y")
    axis.legend(loc="upper center", ncols=2)
    return figure


@style()
def roc_and_precision_recall(
    predictions: pd.DataFrame, thresholds: Mapping[str, float], paper: Mapping[str, float] | None = None
) -> Figure:
    """Shows ROC and precision–recall curve of each model on one part; dots are the thresholds in use, a diamond the paper's point."""
    from sklearn.metrics import precision_recall_curve, roc_curve  # it loads for a second, and few figures need it

    figure, (left, right) = subplots((9.2, 4.3), 1, 2)
    for name, frame in predictions.groupby("model", sort=False):
        look = {"color": MODEL_COLOURS[name], "linestyle": LINES[name], "linewidth": 1.8}
        label, probability = frame["label"].to_numpy(), frame["probability"].to_numpy()
        false_alarms, found, _ = roc_curve(label, probability)
        left.plot(false_alarms, found, label=MODEL_NAMES[name], **look)
        precision, recall, _ = precision_recall_curve(label, probability)
        right.plot(recall, precision, **look)
        (tn, fp), (fn, tp) = metrics.confusion(label, probability, threshold=thresholds[name])
        dot = {"color": MODEL_COLOURS[name], "marker": "o", "markersize": 8, "markeredgecolor": "white", "zorder": 5}
        left.plot(fp / (fp + tn), tp / (tp + fn), **dot)
        right.plot(tp / (tp + fn), tp / max(tp + fp, 1), **dot)
    left.plot([0, 1], [0, 1], color="0.45", linewidth=1.2, linestyle=(0, (1, 2)), label="chance")
    right.axhline(predictions["label"].mean(), color="0.45", linewidth=1.2, linestyle=(0, (1, 2)))
    if paper is not None:
        right.plot(paper["recall"], paper["precision"], **PAPER)
        right.legend(loc="lower center")
    left.set(title="ROC curve", xlabel="1 − specificity (IDC− patches called IDC+)", ylabel="recall (IDC+ patches found)")
    right.set(title="Precision–recall curve", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    left.legend(loc="lower right")
    left.grid()
    right.grid()
    return figure


def _panels(figure: Figure, predictions: pd.DataFrame, *, sharey: bool = True) -> Iterator[tuple[Axes, str, pd.DataFrame]]:
    """Yields a panel for each model, with the model's name as its title, and the model's rows."""
    groups = predictions.groupby("model", sort=False)
    for axis, (name, frame) in zip(figure.subplots(1, len(groups), sharey=sharey, squeeze=False)[0], groups, strict=True):
        axis.set_title(MODEL_NAMES[name])
        yield axis, name, frame


@style()
def threshold_curves(predictions: pd.DataFrame, thresholds: Mapping[str, float], paper: Mapping[str, float]) -> Figure:
    """Shows recall and precision at every threshold, a panel a model; the threshold in use as a line.

    The paper's two values stand as triangles at the right edge; a diamond marks where the model reaches the paper's recall.
    """
    figure = Figure(figsize=(4.6 * predictions["model"].nunique(), 3.6))
    for axis, name, frame in _panels(figure, predictions):
        curve = metrics.curve_at(frame["label"], frame["probability"])
        axis.plot(curve["threshold"], curve["recall"], color=COLOURS[1], label="recall")
        axis.plot(curve["threshold"], curve["precision"], color=COLOURS[0], linestyle="--", label="precision")
        axis.axvline(thresholds[name], color=INK, linewidth=1.2, label=f"threshold in use, {thresholds[name]:.3f}")
        reached = curve[curve["recall"] >= paper["recall"]].iloc[-1]
        text = f"the paper's recall reached: precision {reached['precision']:.3f}"
        axis.plot(reached["threshold"], reached["precision"], **PAPER | {"label": text})
        axis.plot(1.0, paper["recall"], "<", color=COLOURS[1], clip_on=False, label="recall of the paper")
        axis.plot(1.0, paper["precision"], "<", color=COLOURS[0], clip_on=False, label="precision of the paper")
        axis.set(xlabel="threshold on the probability", xlim=(0, 1), ylim=(0, 1.02))
        axis.grid()
        axis.legend(loc="lower center", fontsize=8, frameon=True, edgecolor="none")
    figure.axes[0].set_ylabel("recall, precision")
    return figure


@style()
def confusion_matrices(predictions: pd.DataFrame, thresholds: Mapping[str, float]) -> Figure:
    """Shows counts and row shares of truth against answer, a panel a model.

    >>> answers = pd.DataFrame({"model": "cnn", "label": [0, 1, 1], "probability": [0.2, 0.4, 0.8]})
    >>> [axis.get_title("left") for axis in confusion_matrices(answers, {"cnn": 0.5}).axes]
    ['custom CNN']
    """
    import seaborn as sns

    figure = Figure(figsize=(3.5 * predictions["model"].nunique(), 3.4))
    for axis, name, frame in _panels(figure, predictions, sharey=False):
        matrix = metrics.confusion(frame["label"], frame["probability"], threshold=thresholds[name])
        share = matrix / matrix.sum(axis=1, keepdims=True)
        texts = np.array([[f"{count:,}\n{part:.1%}" for count, part in zip(*row, strict=True)] for row in zip(matrix, share, strict=True)])
        look: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1.3, "cbar": False, "square": True, "annot_kws": {"fontsize": 11}}
        sns.heatmap(share, annot=texts, fmt="", ax=axis, **look)
        axis.set_xticks((0.5, 1.5), [f"called {name}" for name in CLASSES])
        axis.set_yticks((0.5, 1.5), [f"truly {name}" for name in CLASSES], rotation=90, va="center")
        axis.spines[:].set_visible(False)
    return figure


@style()
def calibration_curves(predictions: pd.DataFrame) -> Figure:
    """Shows the share of IDC+ by probability, before and after calibration, a panel a model; the dots' area grows with patches."""
    figure = Figure(figsize=(3.9 * predictions["model"].nunique(), 3.8))
    for axis, name, frame in _panels(figure, predictions):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for column, colour, line, label in (
            ("probability", "0.5", "--", "not calibrated"),
            ("probability_calibrated", MODEL_COLOURS[name], "-", "calibrated on validation cases"),
        ):
            table = metrics.reliability(frame["label"], frame[column].to_numpy())
            area = 12 + 180 * table["patches"] / len(frame)
            axis.plot(table["probability"], table["share"], color=colour, linestyle=line, label=label)
            axis.scatter(table["probability"], table["share"], s=area, color=colour)
        axis.set(xlabel="mean probability in a tenth", xlim=(0, 1), ylim=(0, 1))
        axis.grid()
        # below the axes: no corner is free of curves in every run
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8)
    figure.axes[0].set_ylabel("share of IDC+ patches")
    return figure


@style()
def model_output(patches: np.ndarray, maps: np.ndarray, frame: pd.DataFrame) -> Figure:
    """Shows the paper's Fig. 4: patches with truth and answer above, and the evidence map over each below.

    Args:
        patches: uint8 array (n, 50, 50, 3).
        maps: float array (n, h, w), evidence whose mean is the logit.
        frame: n rows with ``label``, ``predicted_label``, ``probability_calibrated``.
    """
    figure, axes = subplots((1.28 * len(patches) + 0.5, 3.7), 2, len(patches))
    shared = max(limit(one) for one in maps)
    for column, (patch, evidence, (_, row)) in enumerate(zip(patches, maps, frame.iterrows(), strict=True)):
        right = row["label"] == row["predicted_label"]
        axes[0, column].imshow(patch)
        title = f"truth {CLASSES[int(row['label'])]}\nsays {CLASSES[int(row['predicted_label'])]} {'✓' if right else '✗'}"
        axes[0, column].set_title(f"{title}\ncalibrated p = {row['probability_calibrated']:.2f}", fontsize=8, loc="center")
        axes[1, column].imshow(overlay(patch, evidence, side=100, full=shared))
    bare(axes)
    bar = figure.colorbar(ScalarMappable(cmap=colour_map()), ax=axes[1, :], orientation="horizontal", aspect=60, pad=0.04, shrink=0.6)
    bar.set_ticks([0, 0.5, 1], labels=["speaks for IDC−", "neutral", "speaks for IDC+"])
    bar.outline.set_visible(False)
    return figure


@style()
def failures(result: Failures, cases: pd.DataFrame, kinds: Mapping[str, str]) -> Figure:
    """Shows AUC and recall of every group with intervals on the left, and one dot a case on the right.

    Args:
        result: the content of ``failures.json``.
        cases: the content of ``cases.csv``: ``case, patches, positive, auc, recall``.
        kinds: kind of group to its title.
    """
    figure, (left, middle, right) = subplots((10.5, 5.2), 1, 3, width_ratios=(1.1, 1.1, 1))
    names, place = {}, 0.0
    for kind, found in result["groups"].items():
        left.text(0.02, place, kinds[kind], transform=left.get_yaxis_transform(), va="center", fontsize=8.5, weight="bold", color=INK)
        for name, group in found.items():
            place += 1
            names[place] = f"{name} ({counted(group['cases'], 'case')})"
            for axis, metric in ((left, group["auc"]), (middle, group["recall"])):
                _interval(axis, place, metric)
        place += 1.3
    for axis, title in ((left, "AUC"), (middle, "recall")):
        axis.set(title=f"{title} by group, 95 % intervals", xlabel=title, ylim=(place - 0.6, -0.6))
        axis.grid(axis="x")
    left.set_yticks(list(names), list(names.values()))
    middle.set_yticks(list(names), [])
    whole = cases.dropna(subset=["auc"])
    share, area = 100 * whole["positive"] / whole["patches"], 12 + whole["patches"] / 4
    right.scatter(share, whole["auc"], s=area, color=INK, alpha=0.55, linewidths=0)
    right.set(title="Each test case; area grows with patches", xlabel="IDC+ patches of the case (%)", ylabel="AUC within the case")
    right.grid(True)
    return figure


def _interval(axis: Axes, y: float, metric: Metric | None) -> None:
    if metric is None or metric["value"] is None:
        return
    if metric["low"] is not None and metric["high"] is not None:
        axis.plot([metric["low"], metric["high"]], [y, y], color=NEGATIVE, linewidth=1.6)
    axis.plot(metric["value"], y, "o", color=NEGATIVE, markersize=5.5)
