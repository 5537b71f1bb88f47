"""A trained bundle on labelled cases that it has not seen: predictions, metrics with intervals by case, figures and a page that shows them.

Used by ``bhi evaluate``. Nothing is refitted: threshold and calibration are the bundle's. All is computed before anything is written.
"""

import io
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from bhi_utils import plots
from bhi_utils.core import atomic_files, titles
from bhi_utils.core.messages import counted
from bhi_utils.core.titles import METRICS
from bhi_utils.data import archive
from bhi_utils.data.archive import Pack
from bhi_utils.evaluation import metrics, thresholds
from bhi_utils.evaluation.metrics import RESAMPLES
from bhi_utils.model import seen
from bhi_utils.model.predictor import Predictor
from bhi_utils.reports.run_report import CSS

#: The part that the evaluated cases are, in the forms that know parts.
PART = "test"
_CHUNK = 256
_CAPTIONS = {
    "roc_precision_recall.png": "ROC and precision–recall curves. The dot is the bundle's threshold, the dotted line is chance.",
    "confusion.png": "Truth against answer at the bundle's threshold: counts, and shares of each row.",
    "calibration.png": "Share of IDC+ among patches of similar probability, before and after the bundle's calibration. On the diagonal, a "
    "probability means what it says.",
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a bundle does on cases that it has not seen.

    Attributes:
        predictions: one row a patch, the columns of a run's ``predictions.csv.gz``; split is ``test`` and fold -1.
        result: the content of ``metrics.json``.
    """

    predictions: pd.DataFrame
    result: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.result["bundle"]["name"]

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Metric to value and interval."""
        return self.result["models"][self.name][PART]

    def table(self) -> pd.DataFrame:
        """The metrics as a person reads them: ``value``, ``95 % interval``."""
        rows = {title: (_value(one), _interval(one)) for name, title in METRICS.items() for one in [self.metrics[name]]}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "95 % interval"])

    def data(self) -> str:
        """Where the patches came from, as figures and texts say it."""
        facts, kept = self.result["data"], self.result["evaluated"]
        kind = f"SYNTHETIC {facts['kind']}" if facts["synthetic"] else facts["kind"]
        return f"{kind}, {counted(kept['cases'], 'case')}, {counted(kept['patches'], 'patch')}"


def evaluate(bundle: Path, pack: Pack, *, resamples: int = RESAMPLES, seed: int = 0, progress: bool = True) -> Evaluation:
    """Predict the cases that the bundle's model has not seen, and measure the answers.

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
    positive = int(predictions["label"].sum())
    result = {
        "data": archive.describe(pack),
        "evaluated": {"cases": left_out["cases"], "patches": len(rows), "positive": positive},
        "left_out": {key: left_out[key] for key in ("sentence", "seen_by_id", "seen_by_pixels")},
        "bundle": {"name": name, **{key: facts.get(key) for key in ("sha256", "initialisation", "threshold_rule", "calibration")}},
        "resamples": resamples,
        "models": {name: {PART: measured}},
    }
    return Evaluation(predictions, result)


def write(done: Evaluation, out: Path) -> list[Path]:
    """Write ``predictions.csv.gz``, three figures, ``report.html`` and, last, ``metrics.json`` into ``out``, each whole or not at all."""
    out = Path(out)
    pictures = {name: _png(figure, done.data()) for name, figure in _figures(done).items()}
    page = _page(done)
    written = [atomic_files.write_csv(out / "predictions.csv.gz", done.predictions)]
    for name, data in pictures.items():
        with atomic_files.write_atomic(out / name) as temporary:
            temporary.write_bytes(data)
        written.append(out / name)
    return [*written, atomic_files.write_text(out / "report.html", page), atomic_files.write_json(out / "metrics.json", done.result)]


def _predict(predictor: Predictor, name: str, pack: Pack, rows: np.ndarray, progress: bool) -> pd.DataFrame:
    """One row a patch, in the columns of a run's predictions."""
    answers = []
    with tqdm(total=len(rows), desc=f"{name} on unseen cases", unit="patch", file=sys.stderr, disable=not progress, mininterval=1) as bar:
        for start in range(0, len(rows), _CHUNK):
            answers.append(predictor.predict(pack.patches[rows[start : start + _CHUNK]]))
            bar.update(len(answers[-1]))
    place = pack.manifest.iloc[rows][["case", "x", "y", "label"]].reset_index(drop=True)
    found = pd.concat(answers, ignore_index=True)[["logit", "probability", "probability_calibrated"]]
    return pd.concat([pd.DataFrame({"model": name, "split": PART, "fold": -1}, index=place.index), place, found], axis=1)


def _value(one: dict[str, float | None]) -> str:
    return "–" if one["value"] is None else f"{one['value']:.3f}"


def _interval(one: dict[str, float | None]) -> str:
    return "" if one["low"] is None else f"{one['low']:.3f}–{one['high']:.3f}"


def _figures(done: Evaluation) -> dict[str, Figure]:
    """File name to figure, in the order of the page."""
    cuts = {done.name: done.metrics["threshold"]["value"]}
    figures = (
        plots.roc_and_precision_recall(done.predictions, cuts),
        plots.confusion_matrices(done.predictions, cuts),
        plots.calibration_curves(done.predictions),
    )
    return dict(zip(_CAPTIONS, figures, strict=True))


def _png(figure: Figure, data: str) -> bytes:
    """``figure`` with the data's origin at its foot, as PNG without dates and versions."""
    figure.text(1.0, -0.01, f"Data: {data}", ha="right", va="top", fontsize=8, color="0.35")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()


def _page(done: Evaluation) -> str:
    """The report: what was evaluated on what, the metrics, the figures."""
    facts, bundle = done.result["data"], done.result["bundle"]
    name = titles.MODEL_NAMES.get(done.name, done.name)
    start = f", started from {bundle['initialisation']}" if bundle["initialisation"] else ""
    rule = f" ({thresholds.sentence(bundle['threshold_rule'])})" if bundle["threshold_rule"] else ""
    cells = "\n".join(f"<tr><td>{escape(title)}</td><td>{value}</td><td>{low}</td></tr>" for title, value, low in done.table().itertuples())
    shown_figures = "\n".join(
        f'<figure><img src="{file}" alt="{escape(text)}"><figcaption>{escape(text)}</figcaption></figure>'
        for file, text in _CAPTIONS.items()
    )
    drawn = " The patches are synthetic, so nothing here says anything about real tissue." if facts["synthetic"] else ""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Evaluation of {escape(name)}</title>
<style>{CSS}</style></head><body>
<h1>Evaluation of {escape(name)}</h1>
<p class="note"><strong>Research use only, not a medical device.</strong>{drawn}</p>
<p>Model {escape(name)}{escape(start)}, SHA-256 {escape(str(bundle["sha256"])[:12])}…<br>Data: {escape(done.data())} from
{escape(Path(facts["source"]).name)}, fingerprint {escape(facts["fingerprint"][:12])}…<br>{escape(done.result["left_out"]["sentence"])}</p>
<p>Threshold {done.metrics["threshold"]["value"]:.3f}{escape(rule)} and calibration are the bundle's; nothing was fitted on these cases.
Intervals: {done.result["resamples"]:,} resamples of cases. Loss, Brier score and calibration error are of the probability before
calibration.</p>
<table><tr><th>metric</th><th>value</th><th>95 % interval</th></tr>
{cells}</table>
{shown_figures}
</body></html>
"""
