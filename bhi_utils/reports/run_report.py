"""What a run leaves to be read: ``report.html``, the model card and the data card, and the table at the end of ``bhi run``.

Every number comes from the run's JSON. Templates hold all text, `fill` fills them: HTML is escaped, Markdown is not.
"""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from bhi_utils.core import provenance
from bhi_utils.core.atomic_files import write_text
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import shown
from bhi_utils.core.run import RECORD, Run
from bhi_utils.core.titles import METRICS, MODEL_NAMES, PAPER_METRICS, PART_NAMES, cell, origin
from bhi_utils.data import archive
from bhi_utils.data.published import ARCHIVE_URL
from bhi_utils.evaluation import calibration, failures, results, thresholds
from bhi_utils.evaluation.failures import Failures
from bhi_utils.model.bundles import Bundle


def render(template: str, **facts: Any) -> str:
    """Returns a template filled with ``facts``; one that lacks a fact is a ``jinja2.UndefinedError``."""
    return _TEMPLATES.get_template(template).render(part_names=PART_NAMES, titles=METRICS, **facts)


def _numbers(table: str) -> str:
    """Keeps each value and its interval on one line, and makes wide tables scroll."""
    html = re.sub(r"<td>([+−-]?\d[^<]*)</td>", r'<td class="number">\1</td>', str(table))
    return f'<div class="wide">{html}</div>'


def _shown(value: Any) -> str:
    """Returns a parameter as text; of a path its last part only, since folders name the machine."""
    return Path(value).name if isinstance(value, str) and value else str(value)


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {
    "cell": cell,
    "counted": counted,
    "described": calibration.describe,
    "named": lambda name: MODEL_NAMES.get(name, name),
    "numbers": _numbers,
    "origin": origin,
    "rule": thresholds.sentence,
    "shown": _shown,
}


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
    training: results.Training
    metrics: results.Measured
    record: dict[str, Any]
    bundle: Bundle
    failures: Failures | None = None

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
    facts = Facts.read(run)
    calibrated = list(facts.metrics.get("calibrated", {}))
    page = render(
        "report.html.j2",
        facts=facts,
        paper=provenance.paper(),
        differences=results.differences(facts.metrics).T if facts.metrics.get("differences") else None,
        calibration=results.calibration(facts.metrics, facts.training, calibrated, part="test") if calibrated else None,
        suspects=failures.sentence(facts.failures) if facts.failures else None,
        groups=failures.table(facts.failures) if facts.failures else None,
        figures={path.stem: base64.b64encode(path.read_bytes()).decode() for path in sorted(facts.run.figures.glob("*.png"))},
    )
    return write_text(run.root / "report.html", page)


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


def summary(run: Run, *, fresh: bool = True) -> str:
    """Returns the test metrics of the models beside the paper's, where the data came from, and where the run's files lie.

    Args:
        run: the run.
        fresh: whether ``metrics.json`` belongs to the notebooks that ran; an older one is not shown.
    """
    lines = ["No metrics: notebook 06_metric_figures writes them."]
    if fresh and (run.artifacts / "metrics.json").is_file():
        lines = _table(run)
    places = {"Figures": run.figures, "Notebooks, executed": run.notebooks, "Everything else": run.artifacts}
    return "\n" + "\n".join([*lines, *(f"{what}: {shown(place)}" for what, place in places.items())]) + "\n"


def _table(run: Run) -> list[str]:
    """Returns the lines of a table, one row a metric, one column a model, the paper last; and where the data came from."""
    metrics, trained = run.read_json("metrics.json"), run.read_json("training.json")["models"]
    starts = {name: trained[name]["initialisation"] for name in trained}
    rows = [["", *(f"{name} ({starts[name]})" if name in starts else name for name in metrics["models"]), "paper"]]
    for metric, title in PAPER_METRICS.items():
        values = [cell(parts.get("test", {}).get(metric), digits=4) for parts in metrics["models"].values()]
        rows.append([title, *values, f"{provenance.paper()[metric]:.4f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    drawn = ", so nothing here says anything about real tissue" if metrics["data"]["synthetic"] else ""
    return [*lines, f"Cases of the test split. Data: {origin(metrics['data'])}{drawn}."]
