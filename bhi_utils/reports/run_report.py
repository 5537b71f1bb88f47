"""The page that a run ends with: ``report.html``, one file that a stranger reads without the code, figures included.

Used by ``runner.pipeline`` at the end of a run, and by ``reports.cards``, which reads the same facts. It computes nothing: every number
comes from the run's JSON.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from bhi_utils.core import provenance
from bhi_utils.core.atomic_files import write_text
from bhi_utils.core.messages import counted
from bhi_utils.core.run import RECORD, Run
from bhi_utils.core.titles import METRICS, MODEL_NAMES, PART_NAMES, cell
from bhi_utils.data import archive
from bhi_utils.evaluation import failures, results, thresholds
from bhi_utils.evaluation.calibration import describe

#: The look of the pages.
CSS = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd }
td + td { font-variant-numeric: tabular-nums } figure { margin: 2rem 0 } img { max-width: 100% } figcaption { color: #555 }
.note { background: #fff3cd; color: #4d3800; padding: .5rem 1rem }"""
#: What each figure of the walk shows; the paper's own figures are numbered as there.
CAPTIONS = {
    "03_preprocessing_steps": "The paper's Fig. 1: a patch on its way to the network: resized, scaled.",
    "03_smote_real_and_synthetic": "The paper's Fig. 1, continued: SMOTE blends two real patches into a synthetic one.",
    "06_comparison_of_architectures": "The paper's Fig. 2: both architectures side by side on test cases, with 95 % intervals by case; "
    "diamonds are the paper's values on its own data.",
    "06_final_model": "The paper's Fig. 3: the model that was better on validation cases, on test cases.",
    "06_model_output": "The paper's Fig. 4: patches with truth, answer and evidence map.",
    "07_answers": "The paper's Fig. 5: what the interface answers.",
    "06_roc_precision_recall": "Every threshold at once. Dots are the thresholds in use, the diamond is the paper's point.",
    "06_thresholds": "Recall and precision over the threshold on test cases.",
    "06_confusion": "Truth against answer at the threshold in use: counts, and shares of each row.",
    "06_calibration": "Reliability before and after calibration. On the diagonal, a probability means what it says.",
    "06_failures": "Where the better model fails: AUC and recall by group of patches, and the AUC within each test case.",
    "06_slide_map": "The test case with the most patches: truth, calibrated probability, and the answers.",
    "06_most_wrong": "The most wrong answers on test cases: missed IDC+ patches and false alarms, with the evidence for each.",
    "05_learning_curves": "Loss and AUC over the epochs, on training and on validation cases.",
    "01_classes_and_cases": "The data: patches of each class, and each case's size and share of IDC+.",
    "02_split_overview": "The split: whole cases, so that no case is in two parts.",
}
LIMITS = (
    "The intervals speak of other cases from the same source, not of other hospitals, scanners or stains.",
    "Labels were drawn by hand at low magnification; at the border of a tumour they are blurred.",
    "Whether two case ids of the archive share a patient is not known.",
    "One split and one seed were tested.",
)


@dataclass(frozen=True)
class Facts:
    """What a finished run has written: five of its JSON files, and the bundle of the better model."""

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
        """The facts of a run.

        Raises:
            InputError: the run has not come as far as notebook 06, or its data are others by now.
        """
        data, split, training, metrics = (run.read_json(f"{name}.json") for name in ("dataset", "splits", "training", "metrics"))
        try:
            record = json.loads((run.root / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = {}  # notebooks that were run by hand leave no record
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
        kind = f"SYNTHETIC {self.data['kind']}" if self.data["synthetic"] else self.data["kind"]
        return f"{kind}, {counted(self.data['cases'], 'case')}, {counted(self.data['patches'], 'patch')}"


def write(run: Run) -> Path:
    """Write ``report.html`` into the run's folder.

    Raises:
        InputError: the run has not come as far as notebook 06.
    """
    return write_text(run.root / "report.html", page(Facts.read(run)))


def page(facts: Facts) -> str:
    """The report as HTML that needs no other file."""
    drawn = " The patches are synthetic, so nothing here says anything about real tissue." if facts.data["synthetic"] else ""
    name = escape(facts.run.root.name)
    sections = {
        "In short": _short(facts),
        "Metrics on test cases": _metrics(facts),
        "Threshold and calibration": _decisions(facts),
        "Where it fails": _failures(facts),
        "Data and split": _data(facts),
        "Figures": _figures(facts.run),
        "Limits": "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in LIMITS) + "</ul>",
        "How it was made": _made(facts),
    }
    body = "\n".join(f"<h2>{title}</h2>\n{text}" for title, text in sections.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Report of the run {name}</title>
<style>{CSS}
td, th {{ vertical-align: top }} .wide {{ overflow-x: auto }} .number {{ white-space: nowrap }}
@media print {{ figure, tr {{ break-inside: avoid }} h2, h3 {{ break-after: avoid }} body {{ margin: 0; max-width: none; font-size: 10pt }}
.wide {{ overflow: visible }} table {{ font-size: 7.5pt }} td, th {{ padding: .1rem .5rem .1rem 0 }} }}</style></head><body>
<h1>IDC+ or IDC−? Report of the run {name}</h1>
<p class="note"><strong>Research use only, not a medical device.</strong>{drawn}</p>
{body}
</body></html>
"""


def _short(facts: Facts) -> str:
    """The outcome in a few sentences."""
    paper, counts, auc = provenance.paper(), facts.split["counts"]["test"], facts.test["auc"]
    inside = auc["low"] is not None and auc["low"] <= paper["auc"] <= auc["high"]
    verdict = "lies inside this interval" if inside else "lies outside this interval"
    return f"""<p>Two networks learned to tell patches of breast tissue with invasive ductal carcinoma (IDC+) from patches without it. The
one that was better on validation cases is <strong>{escape(MODEL_NAMES[facts.better])}</strong>, started from
{escape(str(facts.training["models"][facts.better]["initialisation"]))}. On {counted(counts["patches"], "patch")} of
{counted(counts["cases"], "test case")}, which nothing was fitted or chosen on, it reaches an AUC of <strong>{cell(auc)}</strong>; it
finds {cell(facts.test["recall"])} of the IDC+ patches, and {cell(facts.test["precision"])} of the patches that it calls IDC+ are so. The
paper's AUC, {paper["auc"]:.4f} on other cases,
{verdict}.</p>
<p>Values in brackets are 95 % intervals from {facts.metrics["resamples"]:,} resamples of cases: Student's t on a scale without bounds.
Data: {escape(facts.origin)}.</p>"""


def _metrics(facts: Facts) -> str:
    """All metrics of all models, and paired differences."""
    paper, models = provenance.paper(), facts.metrics["models"]
    rows = {
        title: {MODEL_NAMES[name]: cell(parts["test"].get(metric)) for name, parts in models.items()}
        | {"the paper (its own data)": f"{paper[metric]:.4f}" if metric in paper else ""}
        for metric, title in METRICS.items()
    }
    text = _table(pd.DataFrame.from_dict(rows, orient="index"))
    text += "<p>Loss, Brier score, calibration error, slope and intercept are of probabilities that are not calibrated.</p>"
    if facts.metrics.get("differences"):
        text += "<h3>Paired differences, each model at its own threshold</h3>" + _table(results.differences(facts.metrics).T)
    return text


def _decisions(facts: Facts) -> str:
    """How the threshold was chosen, and calibration before and after."""
    rows = {
        MODEL_NAMES[name]: {"threshold": f"{entry['threshold']:.4f}", "calibration": describe(entry["calibration"])}
        for name, entry in facts.training["models"].items()
    }
    text = f"<p>Threshold: the {escape(thresholds.sentence(facts.bundle['threshold_rule']))}, on probabilities that are not calibrated.</p>"
    text += _table(pd.DataFrame.from_dict(rows, orient="index"))
    if "calibrated" in facts.metrics:
        table = results.calibration(facts.metrics, facts.training, list(facts.metrics["calibrated"]), part="test")
        text += "<h3>Calibration on test cases, before and after</h3>" + _table(table)
    return text


def _failures(facts: Facts) -> str:
    """Metrics by group, and how many labels deserve another look."""
    if facts.failures is None:
        return "<p>Not measured in this run: notebook 06 does that.</p>"
    return f"<p>{escape(failures.sentence(facts.failures))}</p>" + _table(failures.table(facts.failures))


def _data(facts: Facts) -> str:
    """Counts of each part, and the fingerprint."""
    counts = {PART_NAMES[part]: {name: f"{value:,}" for name, value in row.items()} for part, row in facts.split["counts"].items()}
    return (
        f"<p>{escape(facts.origin)}, {facts.data['positive']:,} of them IDC+. Fingerprint of the pixels and labels: "
        f"<code>{escape(facts.data['fingerprint'])}</code>. Split: {escape(str(facts.split['scheme']))}, seed {facts.split['seed']}.</p>"
        + _table(pd.DataFrame.from_dict(counts, orient="index").rename(columns={"positive": "IDC+ patches"}))
    )


def _figures(run: Run) -> str:
    """Every figure of the run inside the page: those with a caption first, in the captions' order."""
    found = {path.stem: path for path in sorted(run.figures.glob("*.png"))}
    order = [*(name for name in CAPTIONS if name in found), *(name for name in found if name not in CAPTIONS)]
    parts = []
    for name in order:
        text = escape(CAPTIONS.get(name, name.partition("_")[2].replace("_", " ").capitalize() + "."))
        data = base64.b64encode(found[name].read_bytes()).decode()
        parts.append(f'<figure id="{name}"><img src="data:image/png;base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>')
    return "\n".join(parts)


def _made(facts: Facts) -> str:
    """Parameters, versions, commit and seconds."""
    record, text = facts.record, ""
    if parameters := facts.bundle.get("parameters"):
        text += "<h3>Parameters of the training</h3>" + _pairs({k: v for k, v in parameters.items() if k != "OUT"})
    if record:
        rows = {
            name: {
                "seconds": "" if entry.get("seconds") is None else f"{entry['seconds']:,.0f}",
                "set by the command": ", ".join(f"{k}={_shown(v)}" for k, v in entry.get("parameters", {}).items() if k != "OUT"),
            }
            for name, entry in record["notebooks"].items()
        }
        text += "<h3>Notebooks</h3>" + _table(pd.DataFrame.from_dict(rows, orient="index"))
        about = {"profile": record.get("profile") or "none", "commit": record.get("git") or "unknown", "bhi_utils": record.get("bhi_utils")}
        text += "<h3>Versions</h3>" + _pairs(about | record.get("versions", {}))
    return text


def _shown(value: Any) -> str:
    """A parameter's value; of a path only its last part, since folders are nobody's business."""
    return Path(value).name if isinstance(value, str) and value else str(value)


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(pd.DataFrame({"value": {name: _shown(value) for name, value in values.items()}}))


def _table(frame: pd.DataFrame) -> str:
    # a value and its interval stay on one line
    html = re.sub(r"<td>([+−-]?\d[^<]*)</td>", r'<td class="number">\1</td>', frame.to_html(border=0, escape=True, na_rep="–"))
    return f'<div class="wide">{html}</div>'
