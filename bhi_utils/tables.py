"""The tables of notebook 06 and of the report: paired differences, rules for the threshold, calibration before and after.

Every function takes what ``metrics.json`` and ``predictions.csv.gz`` hold and returns a frame of texts; none needs a network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bhi_utils import metrics, thresholds
from bhi_utils.calibration import describe
from bhi_utils.plots_metrics import MODEL_NAMES
from bhi_utils.plots_metrics import TITLES as PAPER_TITLES

#: Metrics that calibration changes.
CALIBRATED = ("loss", "brier", "ece", "calibration_slope", "calibration_intercept")
#: Rules that the table of thresholds compares.
RULES = ("recall 0.93", "f1", "youden", "cost 5", "fixed 0.5")


def differences(result: Mapping[str, Any], names: Sequence[str] = tuple(PAPER_TITLES)) -> pd.DataFrame:
    """One row a pair of models, one column a metric: the paired difference on test cases with its interval."""
    rows = {}
    for pair, found in result["differences"].items():
        title = " − ".join(MODEL_NAMES[name] for name in pair.split(" − "))
        rows[title] = {PAPER_TITLES.get(name, name): metrics.cell(found[name], sign=True) for name in names}
    return pd.DataFrame.from_dict(rows, orient="index")


def rules(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a rule: the threshold that it takes on validation cases, and what that gives on test cases.

    Args:
        predictions: one model's rows, validation and test cases.
    """
    part = {name: frame for name, frame in predictions.groupby("split")}
    rows = {}
    for rule in RULES:
        threshold = thresholds.choose(part["val"]["label"], part["val"]["probability"], rule=rule)
        (tn, fp), (fn, tp) = metrics.confusion(part["test"]["label"], part["test"]["probability"], threshold=threshold)
        rows[rule] = {"threshold": threshold, "recall": tp / (tp + fn), "precision": tp / max(tp + fp, 1), "specificity": tn / (tn + fp)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")


def calibration(result: Mapping[str, Any], trained: Mapping[str, Any], names: Sequence[str], *, part: str) -> pd.DataFrame:
    """Two rows a model, before and after calibration: the metrics that it changes."""
    rows = {}
    for name in names:
        how = describe(trained["models"][name]["calibration"]).partition(":")[0]
        for title, found in (("not calibrated", result["models"]), (f"calibrated, {how}", result["calibrated"])):
            rows[MODEL_NAMES[name], title] = {metrics.TITLES[metric]: metrics.cell(found[name][part][metric]) for metric in CALIBRATED}
    return pd.DataFrame.from_dict(rows, orient="index")
