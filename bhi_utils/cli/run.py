"""``bhi run`` and ``bhi notebooks``: the notebooks, into a run's folder or into themselves."""

import sys
from collections.abc import Callable
from typing import Annotated, Literal

from typer import Option

from bhi_utils.cli.options import PAIR, SOURCES
from bhi_utils.core.paths import InputError

Profile = Literal["quick", "cpu", "paper", "gpu"]


def run(
    profile: Annotated[Profile, Option(help="a set of parameter values")] = "quick",
    data: Annotated[str | None, Option(metavar="SOURCE", help=SOURCES)] = None,
    weights: Annotated[str | None, Option(metavar="WEIGHTS", help="imagenet, packaged, none, or a file for EfficientNetB0")] = None,
    out: Annotated[str, Option(metavar="DIR", help="the run's folder (runs/<profile>)", show_default=False)] = "",
    values: Annotated[list[str] | None, Option("-p", metavar="NAME VALUE", help="set a notebook's parameter; again for more")] = None,
    only: Annotated[list[str] | None, Option(metavar="NN [NN ...]", help="run these notebooks only, such as 05 06")] = None,
    resume: Annotated[bool, Option("--resume", help="skip what an earlier run has finished, and go on with a killed training")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="print the plan and its cost, and run nothing")] = False,
) -> int:
    """Run the notebooks with papermill."""
    given = {name: value for name, value in (("DATA", data), ("WEIGHTS", weights)) if value is not None}
    for pair in values or ():
        name, joint, value = pair.partition(PAIR)
        if not joint:
            raise InputError("-p takes a name and a value, such as -p SEED 1.")
        given[name] = value
    from bhi_utils.runner import pipeline

    return _reporting(lambda: pipeline.run(given, profile=profile, out=out, only=only or (), resume=resume, dry_run=dry_run))


def notebooks() -> int:
    """Run the notebooks and keep their clean outputs in notebooks/."""
    from bhi_utils.core import hardware
    from bhi_utils.runner import pipeline

    hardware.require_backend()

    return _reporting(pipeline.publish)


def _reporting(job: Callable[[], object]) -> int:
    """Runs ``job``; a notebook's failure is told in the notebook's words, not as a traceback of the command."""
    from bhi_utils.runner.kernel import NotebookFailed

    try:
        job()
    except NotebookFailed as error:
        print(f"bhi: {error}", file=sys.stderr)
        return 1
    return 0
