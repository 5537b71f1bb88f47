"""``bhi card``: the cards and the report of a run."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from bhi_utils.cli.options import folder
from bhi_utils.core.paths import InputError, shown


def card(
    run: Annotated[Path, Argument(metavar="RUN", help="the run's folder, such as runs/quick", callback=folder)],
) -> None:
    """Write the model card, the data card and the report of a run."""
    if not (run / "artifacts").is_dir():
        raise InputError(f"{shown(run)} is not the folder of a run: pass one that holds artifacts, such as runs/quick.")
    from bhi_utils.core.run import Run
    from bhi_utils.reports import cards, run_report

    written = [*cards.write(Run(run)), run_report.write(Run(run))]
    print(f"Wrote {', '.join(path.name for path in written)} to {shown(run)}.")
