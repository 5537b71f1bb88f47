"""The pages of a finished run: ``report.html``, one file with its figures inside, and the model card and data card.

Used by ``runner.pipeline`` at the end of a run, and by ``bhi card``. It computes nothing: every number comes from the run's JSON. The
cards have Hugging Face's headings (Mitchell et al. 2019, doi 10.1145/3287560.3287596; Gebru et al. 2021, doi 10.1145/3458723).
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bhi_utils.core import provenance
from bhi_utils.core.atomic_files import write_text
from bhi_utils.core.run import RECORD, Run
from bhi_utils.core.titles import METRICS, MODEL_NAMES, PART_NAMES, cell, origin
from bhi_utils.data import archive
from bhi_utils.data.published import ARCHIVE_URL
from bhi_utils.evaluation import failures, results
from bhi_utils.evaluation.calibration import describe
from bhi_utils.reports.pages import render


@dataclass(frozen=True)
class Facts:
    """What a finished run has written.

    Attributes:
        run: the run.
        data: the content of ``dataset.json``.
        split: of ``splits.json``.
        training: of ``training.json``.
        metrics: of ``metrics.json``.
        record: of ``run.json``; empty when the notebooks were run by hand.
        bundle: of the better model.
        failures: of ``failures.json``, or None.
    """

    run: Run
    data: dict[str, Any]
    split: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    record: dict[str, Any]
    bundle: dict[str, Any]
    failures: dict[str, Any] | None = None

    @classmethod
    def read(cls, run: Run) -> "Facts":
        """Reads the facts of a run.

        Raises:
            InputError: the run has not come as far as notebook 06, or its data are others by now.
        """
        data, split, training, metrics = (run.read_json(f"{name}.json") for name in ("dataset", "splits", "training", "metrics"))
        try:
            record = json.loads((run.root / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = {}
        for name, made_from in (("training.json", training.get("data")), ("metrics.json", metrics["data"].get("fingerprint"))):
            archive.require_data(run, name, made_from)
        bundle = run.read_json(f"models/{training['better']}.bundle.json")
        failed = run.read_json("failures.json") if (run.artifacts / "failures.json").is_file() else None
        return cls(run, data, split, training, metrics, record, bundle, failed)

    @property
    def better(self) -> str:
        """The better model's name."""
        return self.training["better"]

    @property
    def test(self) -> dict[str, Any]:
        """The better model's metrics on test cases."""
        return self.metrics["models"][self.better]["test"]

    @property
    def origin(self) -> str:
        """Where the patches came from, in words."""
        return origin(self.data)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the training, in words."""
        return _shown(self.bundle.get("parameters", {}))


def write(run: Run) -> Path:
    """Writes ``report.html`` into the run's folder.

    Raises:
        InputError: the run has not come as far as notebook 06, or its data are others by now.
    """
    return write_text(run.root / "report.html", _report(Facts.read(run)))


def write_cards(run: Run) -> list[Path]:
    """Writes ``MODEL_CARD.md`` and ``DATA_CARD.md`` into the run's folder.

    Raises:
        InputError: as for `write`.
    """
    facts = Facts.read(run)
    return [write_text(run.root / name, card(facts, name)) for name in ("MODEL_CARD.md", "DATA_CARD.md")]


def card(facts: Facts, name: str) -> str:
    """Returns ``MODEL_CARD.md``, the card of the better model, or ``DATA_CARD.md``, the card of the data that the run used."""
    groups = failures.table(facts.failures) if facts.failures else None
    return render(f"{name.lower()}.j2", facts=facts, paper=provenance.paper(), groups=groups, archive_url=ARCHIVE_URL)


def _report(facts: Facts) -> str:
    metrics = facts.metrics
    calibrated = list(metrics.get("calibrated", {}))
    parts = {PART_NAMES[part]: {name: f"{value:,}" for name, value in row.items()} for part, row in facts.split["counts"].items()}
    decisions = {
        MODEL_NAMES[name]: {"threshold": f"{entry['threshold']:.4f}", "calibration": describe(entry["calibration"])}
        for name, entry in facts.training["models"].items()
    }
    return render(
        "report.html.j2",
        facts=facts,
        paper=provenance.paper(),
        metrics=_metrics(metrics["models"]),
        differences=results.differences(metrics).T if metrics.get("differences") else None,
        decisions=pd.DataFrame.from_dict(decisions, orient="index"),
        calibration=results.calibration(metrics, facts.training, calibrated, part="test") if calibrated else None,
        suspects=failures.sentence(facts.failures) if facts.failures else None,
        groups=failures.table(facts.failures) if facts.failures else None,
        parts=pd.DataFrame.from_dict(parts, orient="index").rename(columns={"positive": "IDC+ patches"}),
        figures={path.stem: base64.b64encode(path.read_bytes()).decode() for path in sorted(facts.run.figures.glob("*.png"))},
        made=_made(facts),
    )


def _metrics(models: Mapping[str, Any]) -> pd.DataFrame:
    """Returns one row a metric, one column a model, the paper last."""
    paper = provenance.paper()
    columns = {MODEL_NAMES[name]: [cell(parts["test"].get(metric)) for metric in METRICS] for name, parts in models.items()}
    columns["the paper (its own data)"] = [f"{paper[metric]:.4f}" if metric in paper else "" for metric in METRICS]
    return pd.DataFrame(columns, index=list(METRICS.values()))


def _made(facts: Facts) -> dict[str, pd.DataFrame]:
    """Returns title to table: parameters, seconds of each notebook, versions and commit, as far as the run has recorded them."""
    record, tables = facts.record, {}
    if facts.parameters:
        tables["Parameters of the training"] = _column(facts.parameters)
    if record:
        rows = {
            name: {
                "seconds": "" if entry.get("seconds") is None else f"{entry['seconds']:,.0f}",
                "set by the command": ", ".join(f"{key}={value}" for key, value in _shown(entry.get("parameters", {})).items()),
            }
            for name, entry in record["notebooks"].items()
        }
        tables["Notebooks"] = pd.DataFrame.from_dict(rows, orient="index")
        about = {"profile": record.get("profile") or "none", "commit": record.get("git") or "unknown", "bhi_utils": record.get("bhi_utils")}
        tables["Versions"] = _column(_shown(about | record.get("versions", {})))
    return tables


def _column(values: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame({"value": dict(values)})


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns values as text, of a path its last part only; OUT, a folder of this machine, is left out."""
    last = {name: Path(value).name if isinstance(value, str) and value else str(value) for name, value in values.items()}
    return {name: value for name, value in last.items() if name != "OUT"}
