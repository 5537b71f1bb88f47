"""``bhi bench``: how long things take on this machine."""

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from bhi_utils.cli.options import Model, bundle, out_folder
from bhi_utils.core.paths import InputError, shown

Subject = Literal["archive", "training", "app", "export"]
#: The file of the result, below the artefacts of the folder.
WRITTEN = {"archive": "benchmarks.json", "training": "training_speed.json", "app": "app.json", "export": "export.json"}


def bench(
    out: Annotated[Path, out_folder("the folder of the result, and for scratch", default="runs/studies")],
    of: Annotated[Subject, Option(help="what is measured")] = "archive",
    data: Annotated[str, Option(metavar="SOURCE", help="a zip of patches, or phantom; for archive, one of its size")] = "phantom",
    sizes: Annotated[
        list[int] | None, Option(metavar="N [N ...]", help="archive: patches (10,000 … 277,524); training: batch sizes")
    ] = None,
    weights: Annotated[
        str, Option(metavar="WEIGHTS", help="training: imagenet or a file; by default random ones", show_default=False)
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
    from bhi_utils.core.run import Run

    if of == "archive":
        from bhi_utils.studies import benchmark_archive as archive

        found = archive.study(Run.open(out), data, sizes=sizes or archive.SIZES, repeats=repeats)
        tables, form = [archive.ingest_table(found), archive.epochs_table(found)], "{:,.1f}"
    elif of == "training":
        from bhi_utils.studies import benchmark_training as training

        given: dict[str, Any] = {name: value for name, value in (("epochs", epochs), ("blocks", blocks)) if value is not None}
        found = training.study(Run.open(out), data, weights=weights, batches=sizes or (), repeats=repeats, **given)
        tables, form = [training.table(found), training.recipes_table(found)], "{:,.3g}"
    elif of == "app":
        trained = bundle(model)
        from bhi_utils.studies import benchmark_app as interface

        tables, form = [interface.table(interface.study(Run.open(out), trained))], "{:,.2f}"
    else:
        trained = bundle(model)
        from bhi_utils.studies import benchmark

        tables, form = [benchmark.export_table(benchmark.study_export(Run.open(out), trained, repeats=repeats))], "{:,.2f}"
    for table in tables:
        if len(table):
            print(table.to_string(float_format=form.format), end="\n\n")
    print(f"Wrote {WRITTEN[of]} to {shown(Run(out).artifacts)}.")
