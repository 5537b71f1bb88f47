"""``bhi evaluate`` and ``bhi card``: a trained model measured on labelled cases, and the cards and the report of a run."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from bhi_utils.cli.options import NOTICE, Model, Source, bundle, folder, out_folder
from bhi_utils.core.paths import InputError, shown


def evaluate(
    source: Source, out: Annotated[Path, out_folder("the folder for predictions, metrics, figures and report")], model: Model = None
) -> None:
    """Measure a trained model on labelled cases that it has not seen."""
    from bhi_utils.data import archive
    from bhi_utils.reports import evaluation_report

    trained = bundle(model)
    pack = archive.open_source(source)
    done = evaluation_report.evaluate(trained, pack)
    written = evaluation_report.write(done, out)
    print(f"Data: {done.data()}. {done.result['left_out']['sentence']}")
    print(done.table().to_string())
    print(f"At the bundle's threshold, {done.metrics['threshold']['value']:.3f}; nothing was fitted on these cases.")
    print(f"Wrote {', '.join(path.name for path in written)} to {shown(out)}.")
    print(NOTICE)


def card(out: Annotated[Path, Argument(metavar="RUN", help="the run's folder, such as runs/quick", callback=folder)]) -> None:
    """Write the model card, the data card and the report of a run."""
    if not (out / "artifacts").is_dir():
        raise InputError(f"{shown(out)} is not the folder of a run: pass one that holds artifacts, such as runs/quick.")
    from bhi_utils.core.run import Run
    from bhi_utils.reports import run_report

    run = Run(out)
    written = [*run_report.write_cards(run), run_report.write(run)]
    print(f"Wrote {', '.join(path.name for path in written)} to {shown(out)}.")
