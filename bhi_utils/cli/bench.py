"""``bhi bench``: how long things take on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from bhi_utils.cli.options import Model, bundle, out_folder
from bhi_utils.core.paths import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

    from bhi_utils.core.run import Run

Subject = Literal["archive", "training", "app", "export"]


def bench(
    out: Annotated[Path, out_folder("the folder of the result, and for scratch", default="runs/studies")],
    of: Annotated[Subject, Option(help="what is measured")] = "archive",
    data: Annotated[str, Option(metavar="SOURCE", help="a zip of patches, or phantom; for archive, one of its size")] = "phantom",
    sizes: Annotated[
        list[int] | None,
        Option(metavar="N [N ...]", help="archive: numbers of patches (10,000 50,000 100,000 277,524); training: samples a step"),
    ] = None,
    weights: Annotated[
        str, Option(metavar="WEIGHTS", help="training: imagenet or a file; by default random, time is the same", show_default=False)
    ] = "",
    epochs: Annotated[int | None, Option(metavar="N", help="training: epochs of either recipe (15), 0 leaves the recipes out")] = None,
    blocks: Annotated[int | None, Option(metavar="N", help="training: blocks that either recipe fine-tunes (those of profile cpu)")] = None,
    model: Model = None,
    repeats: Annotated[int, Option(help="how often each side is measured")] = 3,
) -> None:
    """Time the archive, training, the interface or the export."""
    if sizes and of in ("app", "export"):
        raise InputError(f"--sizes is for --of archive and training: leave it out, --of {of} has sizes of its own.")
    if (weights or epochs is not None or blocks is not None) and of != "training":
        raise InputError(f"--weights, --epochs and --blocks are for --of training: leave them out, --of {of} trains nothing.")
    if model and of not in ("app", "export"):
        raise InputError(f"--model is for --of app and export: leave it out, --of {of} takes no trained model.")
    from bhi_utils.core import hardware
    from bhi_utils.core.run import Run

    hardware.require_backend()
    trained = bundle(model) if of in ("app", "export") else None
    run = Run.open(out)
    if of == "archive":
        from bhi_utils.studies import benchmark_archive as archive

        result = archive.study(run, data, sizes=sizes or archive.SIZES, repeats=repeats)
        _tell(
            run, archive.RESULTS, [table(result) for table in (archive.ingest_table, archive.epochs_table, archive.delivery_table)], ",.1f"
        )
    elif of == "training":
        from bhi_utils.studies import benchmark_training as training

        given = {name: value for name, value in (("epochs", epochs), ("blocks", blocks)) if value is not None}
        result = training.study(run, data, weights=weights, batches=sizes or (), repeats=repeats, **given)
        _tell(run, training.RESULTS, [table(result) for table in (training.table, training.recipes_table)], ",.3g")
    elif of == "app":
        from bhi_utils.studies import benchmark_app as interface

        _tell(run, interface.RESULTS, [interface.table(interface.study(run, trained))], ",.2f")
    else:
        from bhi_utils.studies import benchmark_export as export

        _tell(run, export.RESULTS, [export.table(export.study(run, trained, repeats=repeats))], ",.2f")


def _tell(run: "Run", written: str, tables: "Sequence[pd.DataFrame]", form: str) -> None:
    """Prints what was measured, and where it was written."""
    for table in tables:
        if len(table):
            print(table.to_string(float_format=f"{{:{form}}}".format), end="\n\n")
    print(f"Wrote {written} to {shown(run.artifacts)}.")
