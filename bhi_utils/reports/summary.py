"""The table that ``bhi run`` prints at its end: what the run reached, beside the paper, and where its files lie."""

from bhi_utils.core.paths import shown
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
        rows.append([title, *values, f"{paper()[metric]:.4f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    drawn = ", so nothing here says anything about real tissue" if metrics["data"]["synthetic"] else ""
    return [*lines, f"Cases of the test split. Data: {origin(metrics['data'])}{drawn}."]
