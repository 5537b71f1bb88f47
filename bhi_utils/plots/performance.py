"""The figures of notebooks 05 and 06: learning curves, metrics beside the paper's, curves, confusion, calibration, model output.

Every function takes data and returns a `Figure`; none of them shows or saves. Models are told apart by colour and by marker or line
style, so that the figures read in grey.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from bhi_utils.core.titles import CLASSES, MODEL_NAMES, PAPER_METRICS
from bhi_utils.evaluation import metrics
from bhi_utils.plots.maps import colour_map, limit, overlay
from bhi_utils.plots.shared_look import COLOURS, INK, style

#: Colour-blind safe (Okabe and Ito), none of them a class's colour; with hatches and line styles for print in grey.
MODEL_COLOURS = {"cnn": "#009E73", "efficientnetb0": "#CC79A7", "logistic_regression": "#8C8C8C"}
LINES = {"cnn": "--", "efficientnetb0": "-", "logistic_regression": ":"}
HATCHES = {"cnn": "//", "efficientnetb0": "", "logistic_regression": ".."}
PAPER = {"color": INK, "marker": "D", "linestyle": "none", "markersize": 6, "markerfacecolor": "white", "label": "the paper (its own data)"}


@style()
def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and AUC over epochs, training and validation, a column a model; dotted lines part the phases."""
    figure = Figure(figsize=(4.6 * len(histories), 4.6))
    axes = figure.subplots(2, len(histories), sharex="col", sharey="row", squeeze=False)
    for column, (name, history) in zip(axes.T, histories.items(), strict=True):
        for axis, metric, title in zip(column, ("loss", "auc"), ("loss", "AUC"), strict=True):
            axis.plot(history["epoch"], history[metric], "o--", color="0.55", markersize=4, label="training (augmented, dropout)")
            axis.plot(history["epoch"], history[f"val_{metric}"], "s-", color=MODEL_COLOURS[name], markersize=4, label="validation cases")
            changes = history.index[history["phase"] != history["phase"].shift()]
            for change in changes[1:]:
                axis.axvline(history["epoch"][change] - 0.5, color=INK, linewidth=0.8, linestyle=":")
            axis.set_ylabel(title)
            axis.grid(axis="y")
        for change in changes:
            place = (history["epoch"][change] - 0.42, 0.99)
            look = {"xycoords": ("data", "axes fraction"), "fontsize": 8, "va": "top", "color": INK}
            if len(changes) > 1:
                column[1].annotate(history["phase"][change], place, **look)
        column[0].set_title(f"{MODEL_NAMES[name]}, {'in phases' if len(changes) > 1 else history['phase'].iloc[0]}")
        column[1].margins(x=0.07, y=0.16)
        column[1].set_xlabel("epoch")
        column[1].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend(loc="best")
    return figure


@style()
def metrics_beside_paper(models: Mapping[str, Mapping[str, Mapping]], paper: Mapping[str, float], *, part: str = "test") -> Figure:
    """The paper's five metrics as one bar a model, with 95 % intervals by case, and the paper's own value as a diamond.

    Args:
        models: name to split to metric to ``{"value", "low", "high"}``, as in ``metrics.json``.
        paper: metric to the published value.
        part: the split that is shown.
    """
    figure = Figure(figsize=(3.2 + 2.3 * len(models), 3.9))
    axis = figure.subplots()
    width = 0.8 / len(models)
    positions = np.arange(len(PAPER_METRICS))
    for number, (name, parts) in enumerate(models.items()):
        x = positions + (number - (len(models) - 1) / 2) * width
        values = np.array([[parts[part][metric][key] for key in ("value", "low", "high")] for metric in PAPER_METRICS], dtype=float).T
        axis.bar(
            x,
            values[0],
            width * 0.92,
            color=MODEL_COLOURS[name],
            hatch=HATCHES[name],
            edgecolor="white",
            linewidth=0.6,
            label=MODEL_NAMES[name],
        )
        axis.errorbar(x, values[0], np.abs(values[1:] - values[0]), fmt="none", ecolor=INK, elinewidth=1, capsize=3)
        for place, value in zip(x, values[0], strict=True):
            # inside the bar, where no whisker and no diamond of the paper's is
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
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
    """ROC and precision–recall curve of each model on one part; a dot marks the threshold in use, a diamond the paper's own point."""
    figure = Figure(figsize=(9.2, 4.3))
    left, right = figure.subplots(1, 2)
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
    for axis in (left, right):
        axis.grid()
    return figure


@style()
def threshold_curves(predictions: pd.DataFrame, thresholds: Mapping[str, float], paper: Mapping[str, float]) -> Figure:
    """Recall and precision at every threshold, a panel a model; the threshold in use as a line.

    The paper's two values stand as triangles at the right edge; a diamond marks where the model reaches the paper's recall.
    """
    names = list(predictions["model"].unique())
    figure = Figure(figsize=(4.6 * len(names), 3.6))
    for axis, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        frame = predictions[predictions["model"] == name]
        curve = metrics.curve_at(frame["label"], frame["probability"])
        axis.plot(curve["threshold"], curve["recall"], color=COLOURS[1], label="recall")
        axis.plot(curve["threshold"], curve["precision"], color=COLOURS[0], linestyle="--", label="precision")
        axis.axvline(thresholds[name], color=INK, linewidth=1.2, label=f"threshold in use, {thresholds[name]:.3f}")
        reached = curve[curve["recall"] >= paper["recall"]].iloc[-1]
        text = f"the paper's recall reached: precision {reached['precision']:.3f}"
        axis.plot(reached["threshold"], reached["precision"], **PAPER | {"label": text})
        axis.plot(1.0, paper["recall"], "<", color=COLOURS[1], clip_on=False, label="recall of the paper")
        axis.plot(1.0, paper["precision"], "<", color=COLOURS[0], clip_on=False, label="precision of the paper")
        axis.set(title=MODEL_NAMES[name], xlabel="threshold on the probability", xlim=(0, 1), ylim=(0, 1.02))
        axis.grid()
        axis.legend(loc="lower center", fontsize=8, frameon=True, edgecolor="none")
    figure.axes[0].set_ylabel("recall, precision")
    return figure


@style()
def confusion_matrices(predictions: pd.DataFrame, thresholds: Mapping[str, float]) -> Figure:
    """Counts and row shares of truth against answer, a panel a model."""
    names = list(predictions["model"].unique())
    figure = Figure(figsize=(3.5 * len(names), 3.4))
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        frame = predictions[predictions["model"] == name]
        matrix = metrics.confusion(frame["label"], frame["probability"], threshold=thresholds[name])
        share = matrix / matrix.sum(axis=1, keepdims=True)
        texts = np.array([[f"{count:,}\n{part:.1%}" for count, part in zip(*row, strict=True)] for row in zip(matrix, share, strict=True)])
        sns.heatmap(
            share, annot=texts, fmt="", cmap="Greys", vmin=0, vmax=1.3, cbar=False, square=True, ax=axis, annot_kws={"fontsize": 11}
        )
        axis.set_xticks((0.5, 1.5), [f"called {name}" for name in CLASSES])
        axis.set_yticks((0.5, 1.5), [f"truly {name}" for name in CLASSES], rotation=90, va="center")
        axis.set_title(MODEL_NAMES[name])
        axis.spines[:].set_visible(False)
    return figure


@style()
def calibration_curves(predictions: pd.DataFrame) -> Figure:
    """Share of IDC+ among patches of similar probability, before and after calibration, a panel a model; dot area grows with patches."""
    names = list(predictions["model"].unique())
    figure = Figure(figsize=(3.9 * len(names), 3.8))
    for axis, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        frame = predictions[predictions["model"] == name]
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for column, colour, line, label in (
            ("probability", "0.5", "--", "not calibrated"),
            ("probability_calibrated", MODEL_COLOURS[name], "-", "calibrated on validation cases"),
        ):
            table = metrics.reliability(frame["label"], frame[column].to_numpy())
            area = 12 + 180 * table["patches"] / len(frame)
            axis.plot(table["probability"], table["share"], color=colour, linestyle=line, label=label)
            axis.scatter(table["probability"], table["share"], s=area, color=colour)
        axis.set(title=MODEL_NAMES[name], xlabel="mean probability in a tenth", xlim=(0, 1), ylim=(0, 1))
        axis.grid()
        # below the axes: no corner is free of curves in every run
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8)
    figure.axes[0].set_ylabel("share of IDC+ patches")
    return figure


@style()
def model_output(patches: np.ndarray, maps: np.ndarray, frame: pd.DataFrame) -> Figure:
    """The paper's Fig. 4: patches with truth and answer above, and the evidence map over each below.

    Args:
        patches: uint8 array (n, 50, 50, 3).
        maps: float array (n, h, w), evidence whose mean is the logit.
        frame: n rows with ``label``, ``predicted_label``, ``probability_calibrated``.
    """
    figure = Figure(figsize=(1.28 * len(patches) + 0.5, 3.7))
    axes = figure.subplots(2, len(patches))
    shared = max(limit(one) for one in maps)
    for column, (patch, evidence, (_, row)) in enumerate(zip(patches, maps, frame.iterrows(), strict=True)):
        right = row["label"] == row["predicted_label"]
        axes[0, column].imshow(patch)
        axes[0, column].set_title(
            f"truth {CLASSES[int(row['label'])]}\nsays {CLASSES[int(row['predicted_label'])]} {'✓' if right else '✗'}\n"
            f"calibrated p = {row['probability_calibrated']:.2f}",
            fontsize=8,
            loc="center",
        )
        axes[1, column].imshow(overlay(patch, evidence, side=100, full=shared))
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    _evidence_bar(figure, axes)
    return figure


def _evidence_bar(figure: Figure, axes: np.ndarray) -> None:
    bar = figure.colorbar(ScalarMappable(cmap=colour_map()), ax=axes[1, :], orientation="horizontal", aspect=60, pad=0.04, shrink=0.6)
    bar.set_ticks([0, 0.5, 1], labels=["speaks for IDC−", "neutral", "speaks for IDC+"])
    bar.outline.set_visible(False)
