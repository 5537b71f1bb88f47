"""What a run reached, beside the paper: the table that ``bhi run`` prints at its end, and where the figures lie.

Used by ``runner.pipeline``.
"""

from collections.abc import Mapping
from typing import Any

from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, shown
from bhi_utils.core.provenance import paper
from bhi_utils.core.run import Run

#: The metrics that the paper gives, in its order, and how they are called on screen.
METRICS = {"auc": "AUC", "recall": "recall", "precision": "precision", "binary_accuracy": "binary accuracy", "loss": "loss"}


def summary(run: Run, *, fresh: bool = True) -> str:
    """The test metrics of both models beside the paper's, where the data came from, and where the figures lie.

    Args:
        run: the run.
        fresh: whether ``metrics.json`` belongs to the notebooks that ran; an older one is not shown.
    """
    lines = []
    if fresh and (run.artifacts / "metrics.json").is_file():
        models = run.read_json("metrics.json")["models"]
        lines += _table({name: splits.get("test", {}) for name, splits in models.items()}, _initialisations(run))
        lines.append(f"Cases of the test split. Data: {_origin(run)}.")
    else:
        lines.append("No metrics: notebook 06_metric_figures writes them.")
    places = {"Figures": run.figures, "Notebooks, executed": run.notebooks, "Everything else": run.artifacts}
    lines += [f"{what}: {shown(place)}" for what, place in places.items()]
    return "\n" + "\n".join(lines) + "\n"


def _table(models: Mapping[str, Mapping[str, Any]], initialisations: Mapping[str, str]) -> list[str]:
    """One row a metric, one column a model, the paper last."""
    heads = ["", *(f"{name} ({initialisations[name]})" if name in initialisations else name for name in models), "paper"]
    rows = [heads]
    for metric, title in METRICS.items():
        rows.append([title, *(_cell(values.get(metric)) for values in models.values()), f"{paper()[metric]:.4f}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    titles, values = widths[0], widths[1:]
    return ["   ".join([row[0].ljust(titles), *(cell.rjust(width) for cell, width in zip(row[1:], values, strict=True))]) for row in rows]


def _cell(metric: Mapping[str, float | None] | None) -> str:
    """``0.912 (0.880–0.940)``, or a dash for a metric that does not exist."""
    if not metric or metric.get("value") is None:
        return "–"
    text = f"{metric['value']:.4f}"
    low, high = metric.get("low"), metric.get("high")
    return text if low is None or high is None else f"{text} ({low:.3f}–{high:.3f})"


def _initialisations(run: Run) -> dict[str, str]:
    """How each model's weights began, as training.json says it."""
    try:
        models = run.read_json("training.json")["models"]
    except (InputError, KeyError):
        return {}
    return {name: facts["initialisation"] for name, facts in models.items() if facts.get("initialisation")}


def _origin(run: Run) -> str:
    """Where the data came from, in words."""
    try:
        data = run.read_json("dataset.json")
    except InputError:
        return "unknown, dataset.json is missing"
    kind = f"SYNTHETIC ({data['kind']}), so nothing here says anything about real tissue" if data["synthetic"] else data["kind"]
    return f"{counted(data['patches'], 'patch')} of {counted(data['cases'], 'case')}, {kind}"
