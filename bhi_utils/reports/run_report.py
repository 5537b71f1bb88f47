"""The pages of a finished run: ``report.html``, one file with its figures inside, and the model card and data card.

Used by ``runner.pipeline`` at the end of a run, and by ``bhi card``. It computes nothing: every number comes from the run's JSON. The
cards have Hugging Face's headings (Mitchell et al. 2019, doi 10.1145/3287560.3287596; Gebru et al. 2021, doi 10.1145/3458723).
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhi_utils.core import provenance
from bhi_utils.core.atomic_files import write_text
from bhi_utils.core.run import RECORD, Run
from bhi_utils.data import archive
from bhi_utils.data.published import ARCHIVE_URL
from bhi_utils.evaluation import failures, results
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
    calibrated = list(facts.metrics.get("calibrated", {}))
    return render(
        "report.html.j2",
        facts=facts,
        paper=provenance.paper(),
        differences=results.differences(facts.metrics).T if facts.metrics.get("differences") else None,
        calibration=results.calibration(facts.metrics, facts.training, calibrated, part="test") if calibrated else None,
        suspects=failures.sentence(facts.failures) if facts.failures else None,
        groups=failures.table(facts.failures) if facts.failures else None,
        figures={path.stem: base64.b64encode(path.read_bytes()).decode() for path in sorted(facts.run.figures.glob("*.png"))},
    )
