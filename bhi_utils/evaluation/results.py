"""What notebook 06 computes: the metrics of every model and part, the tables beside the paper, and the patches that are looked at.

Used by notebook 06 and ``reports.run_report``. It reads predictions and writes ``metrics.json``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
from scipy.special import logit

from bhi_utils.core import atomic_files, titles
from bhi_utils.core.run import Run
from bhi_utils.core.titles import MODEL_NAMES, PAPER_METRICS, Metrics
from bhi_utils.data import archive
from bhi_utils.evaluation import metrics, thresholds
from bhi_utils.evaluation.calibration import KeptCalibration, describe

#: Models whose difference is reported, first minus second.
PAIRS = (("efficientnetb0", "cnn"), ("efficientnetb0", "logistic_regression"))
#: Metrics that calibration changes.
CALIBRATED = ("loss", "brier", "ece", "calibration_slope", "calibration_intercept")
#: Rules that the table of thresholds compares.
RULES = ("recall 0.93", "f1", "youden", "cost 5", "fixed 0.5")


class TrainedModel(TypedDict):
    """What ``training.json`` says of a model. ``history`` holds a row an epoch, as Keras logs it; a probe has no epochs."""

    validation_auc: float | None
    initialisation: str
    threshold: float
    calibration: KeptCalibration
    epochs: NotRequired[int]
    seconds: NotRequired[float]
    history: NotRequired[list[dict[str, Any]]]


class Training(TypedDict):
    """The content of ``training.json``: the better model's name, the data's fingerprint, the rule, and each model by name."""

    better: str
    data: str
    threshold_rule: thresholds.Rule
    models: dict[str, TrainedModel]


class Measured(TypedDict):
    """The content of ``metrics.json``, see `measure`: metrics by model and part, and by pair of models. ``data`` is ``dataset.json``."""

    data: dict[str, Any]
    resamples: int
    models: dict[str, dict[str, Metrics]]
    calibrated: dict[str, dict[str, Metrics]]
    differences: dict[str, Metrics]


def load(run: Run) -> tuple[pd.DataFrame, Training]:
    """Reads ``predictions.csv.gz`` and ``training.json``, which notebook 05 has written.

    Raises:
        InputError: one is missing, or the run's data are others by now.
    """
    predictions, trained = run.read_csv("predictions.csv.gz"), run.read_json("training.json")
    archive.require_data(run, "predictions.csv.gz", trained.get("data"))
    return predictions, trained


def measure(run: Run, predictions: pd.DataFrame, cuts: Mapping[str, float], *, resamples: int, seed: int) -> Measured:
    """Computes every metric of every model on every part, with intervals by case; writes ``metrics.json`` and the bundles' metrics.

    ``models`` holds the metrics of probabilities as the network gives them, ``calibrated`` repeats those of `CALIBRATED` for calibrated
    probabilities, and ``differences`` compares models on test cases, each at its own threshold.

    Args:
        run: the run.
        predictions: content of ``predictions.csv.gz``.
        cuts: model to its threshold.
        resamples: how often the cases are drawn.
        seed: seed of the draws.
    """
    data, models = run.read_json("dataset.json"), dict[str, dict[str, Metrics]]()
    calibrated: dict[str, dict[str, Metrics]] = {}
    for (name, part), frame in predictions.groupby(["model", "split"], sort=False):
        models.setdefault(name, {})[part] = metrics.evaluate(frame, threshold=cuts[name], resamples=resamples, seed=seed)
        probability = frame["probability_calibrated"].clip(1e-12, 1 - 1e-12)
        frame = frame.assign(probability=probability, logit=logit(probability))
        after = metrics.evaluate(frame, threshold=0.5, resamples=resamples, seed=seed)
        calibrated.setdefault(name, {})[part] = {metric: after[metric] for metric in CALIBRATED}
    test = {name: frame for name, frame in predictions[predictions["split"] == "test"].groupby("model", sort=False)}
    differences: dict[str, Metrics] = {}
    for one, two in PAIRS:
        if one in test and two in test:
            both = (cuts[one], cuts[two])
            differences[f"{one} − {two}"] = metrics.difference(test[one], test[two], threshold=both, resamples=resamples, seed=seed)
    result = Measured(data=data, resamples=resamples, models=models, calibrated=calibrated, differences=differences)
    run.write_json("metrics.json", result)
    for name, parts in models.items():
        bundle = run.models / f"{name}.bundle.json"
        if bundle.exists():
            atomic_files.write_json(bundle, {**run.read_json(f"models/{bundle.name}"), "metrics": parts})
    return result


def table(result: Measured, trained: Training, paper: Mapping[str, float], *, part: str) -> pd.DataFrame:
    """Returns one row a model and one for the paper: how the weights began, and the paper's metrics as ``value (low–high)``."""
    rows = {}
    for name, parts in result["models"].items():
        cells = {title: titles.cell(parts[part][metric]) for metric, title in PAPER_METRICS.items()}
        rows[MODEL_NAMES[name]] = {"start": trained["models"][name]["initialisation"], **cells}
    rows["the paper"] = {"start": "imagenet", **{title: f"{paper[metric]:.4f}" for metric, title in PAPER_METRICS.items()}}
    return pd.DataFrame(rows).T


def choose(predictions: pd.DataFrame, *, threshold: float, each: int, seed: int) -> pd.DataFrame:
    """Draws rows of each kind of answer: found IDC+, missed IDC+, false alarms, IDC− called IDC−, in this order.

    Args:
        predictions: one model's rows on one part.
        threshold: a patch is called IDC+ at ``probability >= threshold``.
        each: rows of each kind, or all of a kind that has fewer.
        seed: seed of the draw.

    >>> answers = pd.DataFrame({"label": [1, 1, 0, 0], "probability": [0.9, 0.2, 0.8, 0.1]})
    >>> choose(answers, threshold=0.5, each=1, seed=0).assign(kind=["found", "missed", "false alarm", "right"])
       label  probability         kind
    0      1          0.9        found
    1      1          0.2       missed
    2      0          0.8  false alarm
    3      0          0.1        right
    """
    called, positive = predictions["probability"] >= threshold, predictions["label"] == 1
    generator = np.random.default_rng(seed)
    groups = [predictions[kind] for kind in (positive & called, positive & ~called, ~positive & called, ~positive & ~called)]
    return pd.concat([group.iloc[np.sort(generator.permutation(len(group))[:each])] for group in groups], ignore_index=True)


def differences(result: Measured, names: Sequence[str] = tuple(PAPER_METRICS)) -> pd.DataFrame:
    """Returns one row a pair of models, one column a metric: the paired difference on test cases with its interval.

    >>> gap = {"auc": {"value": 0.012, "low": 0.008, "high": 0.016}}
    >>> differences({"differences": {"efficientnetb0 − cnn": gap}}, ["auc"])
                                                 AUC
    EfficientNetB0 − custom CNN  +0.012 (+0.008 to +0.016)
    """
    rows = {}
    for pair, found in result["differences"].items():
        title = " − ".join(MODEL_NAMES[name] for name in pair.split(" − "))
        rows[title] = {PAPER_METRICS.get(name, name): titles.cell(found[name], sign=True) for name in names}
    return pd.DataFrame.from_dict(rows, orient="index")


def rules(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a rule: the threshold that it chooses on validation cases, and what that gives on test cases.

    Args:
        predictions: one model's rows, validation and test cases.

    >>> one = pd.DataFrame({"label": [0, 0, 1, 1], "probability": [0.1, 0.4, 0.3, 0.9]})
    >>> rules(pd.concat([one.assign(split="val"), one.assign(split="test")])).loc["recall 0.93"].tolist()
    [0.2, 1.0, 0.6666666666666666, 0.5]
    """
    part = {name: frame for name, frame in predictions.groupby("split")}
    rows = {}
    for rule in RULES:
        threshold = thresholds.choose(part["val"]["label"], part["val"]["probability"], rule=rule)
        (tn, fp), (fn, tp) = metrics.confusion(part["test"]["label"], part["test"]["probability"], threshold=threshold)
        rows[rule] = {"threshold": threshold, "recall": tp / (tp + fn), "precision": tp / max(tp + fp, 1), "specificity": tn / (tn + fp)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")


def calibration(result: Measured, trained: Training, names: Sequence[str], *, part: str) -> pd.DataFrame:
    """Returns two rows a model, before and after calibration: the metrics that it changes."""
    rows = {}
    for name in names:
        how = describe(trained["models"][name]["calibration"]).partition(":")[0]
        for title, found in (("not calibrated", result["models"]), (f"calibrated, {how}", result["calibrated"])):
            rows[MODEL_NAMES[name], title] = {titles.METRICS[metric]: titles.cell(found[name][part][metric]) for metric in CALIBRATED}
    return pd.DataFrame.from_dict(rows, orient="index")
