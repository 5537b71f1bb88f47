"""The table that ``bhi run`` prints at its end: what the run reached, beside the paper, and where its files lie."""

from bhi_utils.core.paths import InputError, shown
from bhi_utils.core.provenance import paper
from bhi_utils.core.run import Run
from bhi_utils.core.titles import PAPER_METRICS, cell, origin


def summary(run: Run, *, fresh: bool = True) -> str:
    """Returns the test metrics of the models beside the paper's, where the data came from, and where the run's files lie.

    Args:
        run: the run.
        fresh: whether ``metrics.json`` belongs to the notebooks that ran; an older one is not shown.
    """
    lines = ["No metrics: notebook 06_metric_figures writes them."]
    if fresh and (run.artifacts / "metrics.json").is_file():
        lines = [*_table(run), f"Cases of the test split. Data: {_origin(run)}."]
    places = {"Figures": run.figures, "Notebooks, executed": run.notebooks, "Everything else": run.artifacts}
    return "\n" + "\n".join([*lines, *(f"{what}: {shown(place)}" for what, place in places.items())]) + "\n"


def _table(run: Run) -> list[str]:
    """Returns the lines of a table: one row a metric, one column a model, the paper last."""
    models = run.read_json("metrics.json")["models"]
    try:
        trained = run.read_json("training.json")["models"]
    except (InputError, KeyError):
        trained = {}
    starts = {name: trained[name]["initialisation"] for name in models if trained.get(name, {}).get("initialisation")}
    rows = [["", *(f"{name} ({starts[name]})" if name in starts else name for name in models), "paper"]]
    for metric, title in PAPER_METRICS.items():
        values = [cell(parts.get("test", {}).get(metric), digits=4) for parts in models.values()]
        rows.append([title, *values, f"{paper()[metric]:.4f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _origin(run: Run) -> str:
    try:
        data = run.read_json("dataset.json")
    except InputError:
        return "unknown, dataset.json is missing"
    return origin(data) + (", so nothing here says anything about real tissue" if data["synthetic"] else "")
