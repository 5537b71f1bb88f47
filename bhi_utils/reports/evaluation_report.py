"""The evaluation of a trained bundle on labelled cases that it has not seen: predictions, metrics with intervals by case, figures, a page.

Used by ``bhi evaluate``. Nothing is refitted: threshold and calibration are the bundle's. All is computed before anything is written.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils import plots
from bhi_utils.core import atomic_files
from bhi_utils.core.titles import METRICS, Metrics, origin
from bhi_utils.data import archive
from bhi_utils.evaluation import metrics
from bhi_utils.model import seen
from bhi_utils.model.predictor import Predictor
from bhi_utils.reports.run_report import render

#: The part that the evaluated cases are, in the forms that know parts.
PART = "test"
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a bundle does on cases that it has not seen.

    Attributes:
        predictions: one row a patch, the columns of a run's ``predictions.csv.gz``; split is ``test`` and fold -1.
        result: the content of ``metrics.json``, which the page's template reads as well.
    """

    predictions: pd.DataFrame
    result: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.result["bundle"]["name"]

    @property
    def metrics(self) -> Metrics:
        """Metric to value and interval."""
        return self.result["models"][self.name][PART]

    def table(self) -> pd.DataFrame:
        """The metrics as a person reads them: ``value``, ``95 % interval``."""
        rows = {}
        for name, title in METRICS.items():
            value, low, high = self.metrics[name].values()
            rows[title] = ("–" if value is None else f"{value:.3f}", "" if low is None else f"{low:.3f}–{high:.3f}")
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "95 % interval"])

    def data(self) -> str:
        """Where the patches came from, as figures and texts say it."""
        return origin(self.result["data"] | self.result["evaluated"])


def evaluate(bundle: Path, pack: archive.Pack, *, resamples: int = metrics.RESAMPLES, seed: int = 0, progress: bool = True) -> Evaluation:
    """Predicts the cases that the bundle's model has not seen, and measures the answers.

    Args:
        bundle: a ``.bundle.json`` with its model beside it.
        pack: labelled patches.
        resamples: how often cases are drawn with replacement for the intervals.
        seed: seed of the draws.
        progress: whether a bar is shown on stderr.

    Raises:
        InputError: the bundle is not whole; or no case is left, only one, or only one class.
    """
    rows, left_out = seen.unseen(pack, seen.Seen.of(bundle))  # before the network is loaded, which takes seconds
    predictor = Predictor.load(bundle)
    facts, name = predictor.bundle, str(predictor.bundle["name"])
    predictions = _predict(predictor, name, pack, rows, progress)
    measured = metrics.evaluate(predictions, threshold=predictor.threshold, resamples=resamples, seed=seed)
    result = {
        "data": archive.describe(pack),
        "evaluated": {"cases": int(predictions["case"].nunique()), "patches": len(rows), "positive": int(predictions["label"].sum())},
        "left_out": left_out,
        "bundle": {"name": name, **{key: facts.get(key) for key in ("sha256", "initialisation", "threshold_rule", "calibration")}},
        "resamples": resamples,
        "models": {name: {PART: measured}},
    }
    return Evaluation(predictions, result)


def write(done: Evaluation, out: Path) -> list[Path]:
    """Writes ``predictions.csv.gz``, three figures, ``report.html`` and, last, ``metrics.json`` into ``out``, each whole or not at all."""
    out = Path(out)
    cuts = {done.name: done.result["models"][done.name][PART]["threshold"]["value"]}
    figures = {  # in the order of the page, whose template holds their captions
        "roc_precision_recall.png": plots.roc_and_precision_recall(done.predictions, cuts),
        "confusion.png": plots.confusion_matrices(done.predictions, cuts),
        "calibration.png": plots.calibration_curves(done.predictions),
    }
    pictures = {name: plots.png(plots.signed(figure, done.data()), dpi=150) for name, figure in figures.items()}
    page = render("evaluation.html.j2", done=done, figures=list(pictures), source=Path(done.result["data"]["source"]).name)
    written = [atomic_files.write_csv(out / "predictions.csv.gz", done.predictions)]
    for name, data in pictures.items():
        with atomic_files.write_atomic(out / name) as temporary:
            temporary.write_bytes(data)
        written.append(out / name)
    return [*written, atomic_files.write_text(out / "report.html", page), atomic_files.write_json(out / "metrics.json", done.result)]


def _predict(predictor: Predictor, name: str, pack: archive.Pack, rows: np.ndarray, progress: bool) -> pd.DataFrame:
    """Returns one row a patch, in the columns of a run's predictions."""
    answers = []
    with tqdm(total=len(rows), desc=f"{name} on unseen cases", unit="patch", file=sys.stderr, disable=not progress, mininterval=1) as bar:
        for start in range(0, len(rows), _CHUNK):
            answers.append(predictor.predict(pack.patches[rows[start : start + _CHUNK]]))
            bar.update(len(answers[-1]))
    place = pack.manifest.iloc[rows][["case", "x", "y", "label"]].reset_index(drop=True)
    found = pd.concat(answers, ignore_index=True)[["logit", "probability", "probability_calibrated"]]
    return pd.concat([pd.DataFrame({"model": name, "split": PART, "fold": -1}, index=place.index), place, found], axis=1)
