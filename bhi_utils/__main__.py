"""The ``bhi`` command: run the notebooks, look into a data source, write a synthetic one, start the app.

Also ``python -m bhi_utils``. Heavy libraries are imported by the subcommand that needs them.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bhi_utils import __version__
from bhi_utils.core import hardware
from bhi_utils.core.atomic_files import writable
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, cache_dir, project_root, shown
from bhi_utils.core.run import Run

if TYPE_CHECKING:
    from bhi_utils.model.predictor import Predictor

PROFILES = ("quick", "cpu", "paper", "gpu")
_MODEL = "a .bundle.json, or a run's folder for its better model; by default the packaged model"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0 fine, 2 the user's input is wrong (one sentence on stderr), 130 interrupted, 1 anything else.
    """
    for stream in (sys.stdout, sys.stderr):
        # a Windows console or a pipe may not know "−" or "…"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(argv)
    try:
        for name, folder in options.outputs.items():
            if getattr(options, name) is not None:
                setattr(options, name, writable(getattr(options, name), folder=folder))
        return options.command(options) or 0
    except InputError as error:
        print(f"bhi: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bhi: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bhi", description="Breast histopathology notebooks: run them, or use what they made.")
    parser.add_argument("--version", action="version", version=f"bhi_utils {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="run the notebooks with papermill"))
    command = _command(commands, "index", _index, "what is in a data source, and what is wrong with it", out=True)
    command.add_argument("source", metavar="SOURCE", help="phantom, kaggle, or a folder or zip of patches")
    text, default = "the folder for index.json and the lists (runs/index of the project)", project_root() / "runs" / "index"
    command.add_argument("--out", type=Path, metavar="DIR", default=default, help=text)
    command = _command(commands, "download", _download, "fetch the real archive from Kaggle as one zip", out=True)
    command.add_argument("--out", type=Path, metavar="DIR", help="the folder for the zip (data/kaggle, where --data kaggle looks)")
    command = _command(commands, "phantom", _phantom, "write a synthetic cohort in the archive's layout")
    command.add_argument("out", metavar="OUT", type=Path, help="a new folder, or a file ending in .zip")
    command.add_argument("--cases", type=int, help="number of cases (48)")
    command.add_argument("--patches", type=int, help="mean number of patches a case (60)")
    command.add_argument(
        "--like-archive", action="store_true", help="the archive's 279 cases with their true counts, 277,524 patches, twice"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of everything random (%(default)s)")
    command = _command(commands, "bench", _bench, "time the archive's handling, SMOTE, training, the interface or the export", out=True)
    command.add_argument("--of", choices=BENCHES, default="archive", help="what is measured (%(default)s)")
    command.add_argument("--data", metavar="SOURCE", default="phantom", help="a zip of patches, or phantom; for archive, one of its size")
    command.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="archive: numbers of patches (10,000 50,000 100,000 277,524); training: batch sizes",
    )
    command.add_argument(
        "--weights", default="", metavar="WEIGHTS", help="training: imagenet or a file; by default random, time is the same"
    )
    command.add_argument("--epochs", type=int, metavar="N", help="training: epochs of either recipe (15), 0 leaves the recipes out")
    command.add_argument("--blocks", type=int, metavar="N", help="training: blocks that either recipe fine-tunes (those of profile cpu)")
    command.add_argument("--dry-run", action="store_true", help="smote: print what its search will cost, and measure nothing")
    command.add_argument("--model", type=Path, metavar="BUNDLE", help=f"app and export: {_MODEL}")
    command.add_argument("--repeats", type=int, default=3, help="how often each side is measured (%(default)s)")
    text, default = "the folder of the result, and for scratch (runs/studies of the project)", project_root() / "runs" / "studies"
    command.add_argument("--out", type=Path, metavar="DIR", default=default, help=text)
    _command(commands, "notebooks", _notebooks, "run the notebooks with their defaults and keep their clean outputs in notebooks/")
    command = _command(commands, "predict", _predict, "classify image files, folders of them or zips, into a table", csv=False)
    command.add_argument("files", metavar="FILE", nargs="+", type=Path, help="patches of 50×50 pixels: images, folders or zips")
    command.add_argument("--csv", metavar="OUT", type=Path, required=True, help="the table that is written")
    command.add_argument("--model", type=Path, metavar="BUNDLE", help=_MODEL)
    command = _command(commands, "map", _map, "draw a region's map of probabilities, and write its table", out=True)
    command.add_argument("region", metavar="REGION", type=Path, help="an image of at most 10,000×10,000 pixels at the archive's scale")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder for map.png and map.csv")
    command.add_argument("--model", type=Path, metavar="BUNDLE", help=_MODEL)
    command.add_argument("--threshold", type=float, metavar="P", help="calibrated probability from which a patch is IDC+ (the model's)")
    command = _command(commands, "export", _export, "write a trained model as an ONNX file, for programs without Keras", out=False)
    command.add_argument("out", metavar="OUT.onnx", type=Path, help="the file that is written")
    command.add_argument("--model", type=Path, metavar="BUNDLE", help=_MODEL)
    command = _command(commands, "evaluate", _evaluate, "measure a trained model on labelled cases that it has not seen", out=True)
    command.add_argument("source", metavar="SOURCE", help="phantom, kaggle, or a folder or zip of patches")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder for predictions, metrics, figures and report")
    command.add_argument("--model", type=Path, metavar="BUNDLE", help=_MODEL)
    command = _command(commands, "card", _card, "write the model card, the data card and the report of a run", run=True)
    command.add_argument("run", metavar="RUN", type=Path, help="the run's folder, such as runs/quick")
    command = _command(commands, "app", _app, "classify patches in the browser")
    command.add_argument("--model", type=Path, metavar="BUNDLE", help=_MODEL)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    command.add_argument("--port", type=int, default=7860, help="port to listen on, 0 for any free one (%(default)s)")
    command.add_argument("--data", metavar="SOURCE", help="the archive whose cases can be looked at (some synthetic ones)")
    command.add_argument("--share", action="store_true", help="make it public through Gradio's servers")
    text = "a name, perhaps with a port, under which a proxy shows the app, or whose pages show it; may be given again"
    command.add_argument("--allowed-host", dest="allowed_hosts", action="append", default=[], metavar="NAME", help=text)
    command.add_argument("--certfile", type=Path, metavar="PEM", help="serve over https with this certificate chain")
    command.add_argument("--keyfile", type=Path, metavar="PEM", help="its private key, unless the certificate's file holds it")
    text = "let anybody in: without BHI_USER and BHI_PASSWORD, --share and other hosts than this machine ask for it"
    command.add_argument("--no-password", action="store_true", help=text)
    return parser


def _add_run(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=_run, outputs={})
    command.add_argument("--profile", choices=PROFILES, default="quick", help="a set of parameter values (%(default)s)")
    command.add_argument("--data", metavar="SOURCE", help="phantom, kaggle, or a folder or zip of patches")
    command.add_argument("--weights", metavar="WEIGHTS", help="imagenet, packaged, none, or a file for EfficientNetB0")
    command.add_argument("--out", default="", metavar="DIR", help="the run's folder (runs/<profile>)")
    command.add_argument(
        "-p", dest="values", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a notebook's parameter"
    )
    command.add_argument("--only", nargs="+", default=[], metavar="NN", help="run these notebooks only, such as 05 06")
    text = "skip what an earlier run into the same folder has finished, and go on with a training that was killed"
    command.add_argument("--resume", action="store_true", help=text)
    command.add_argument("--dry-run", action="store_true", help="print the plan and its cost, and run nothing")
    command.add_argument("--devices", type=int, metavar="N", help="train on N GPUs of this machine, with KERAS_BACKEND=jax (1)")


def _command(
    commands: argparse._SubParsersAction, name: str, function: Callable[[argparse.Namespace], int | None], text: str, **outputs: bool
) -> argparse.ArgumentParser:
    """Add a subcommand; ``outputs`` names the options that say where it writes, and whether that is a folder."""
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=function, outputs=outputs)
    return command


def _run(options: argparse.Namespace) -> int:
    if options.devices is not None:
        os.environ[hardware.VARIABLE] = str(options.devices)
    from bhi_utils.runner import pipeline

    values: dict[str, str] = {name: value for name, value in (("DATA", options.data), ("WEIGHTS", options.weights)) if value is not None}
    values.update(options.values)
    return _reporting(
        lambda: pipeline.run(
            values, profile=options.profile, out=options.out, only=options.only, resume=options.resume, dry_run=options.dry_run
        )
    )


def _notebooks(options: argparse.Namespace) -> int:
    hardware.require_backend()
    from bhi_utils.runner import pipeline

    return _reporting(pipeline.publish)


def _reporting(job: Callable[[], object]) -> int:
    """Run ``job``; a notebook's failure is told in the notebook's words, not as a traceback of the command."""
    from bhi_utils.runner.kernel import NotebookFailed

    try:
        job()
    except NotebookFailed as error:
        print(f"bhi: {error}", file=sys.stderr)
        return 1
    return 0


def _index(options: argparse.Namespace) -> None:
    from bhi_utils.core.atomic_files import write_csv, write_json
    from bhi_utils.data import archive, inspection

    pack = archive.pack(archive.find_source(options.source, cache=cache_dir()), cache_dir())
    found, out = inspection.inspect(pack), options.out
    write_json(out / "index.json", found.facts)
    write_csv(out / "measures.csv.gz", found.measures)
    write_csv(out / "manifest.csv.gz", pack.manifest)
    write_csv(out / "rejected.csv", pack.rejected)
    print(f"{pack.info['source']} ({pack.info['kind']}{', SYNTHETIC' if pack.info['synthetic'] else ''})")
    print(found.text())
    print(f"Wrote index.json, measures.csv.gz, manifest.csv.gz and rejected.csv to {shown(out)}.")


def _download(options: argparse.Namespace) -> None:
    from bhi_utils.data import kaggle_download

    found = kaggle_download.fetch(options.out or cache_dir() / "kaggle")
    print(f"The archive is {shown(found)}; use it with --data {shown(found) if options.out else 'kaggle'}.")


def _phantom(options: argparse.Namespace) -> None:
    from bhi_utils.data.phantom import synthetic_archive, synthetic_cohort

    sizes = {name: value for name, value in (("cases", options.cases), ("patches_per_case", options.patches)) if value is not None}
    if options.like_archive:
        if sizes:
            raise InputError("--like-archive has the archive's cases and counts: leave out --cases and --patches.")
        made = synthetic_archive.write(options.out, seed=options.seed)
        print(f"Wrote synthetic patches, as many as the archive has in each case, and their nested copy to {shown(made)}.")
    else:
        made = synthetic_cohort.write(options.out, seed=options.seed, **sizes)
        print(f"Wrote a synthetic cohort to {shown(made)}.")


def _bench(options: argparse.Namespace) -> None:
    if options.sizes and options.of in ("smote", "app", "export"):
        raise InputError(f"--sizes is for --of archive and training: leave it out, --of {options.of} has sizes of its own.")
    if (options.weights or options.epochs is not None or options.blocks is not None) and options.of != "training":
        raise InputError(f"--weights, --epochs and --blocks are for --of training: leave them out, --of {options.of} trains nothing.")
    if options.model and options.of not in ("app", "export"):
        raise InputError(f"--model is for --of app and export: leave it out, --of {options.of} takes no trained model.")
    if options.dry_run and options.of != "smote":
        raise InputError(f"--dry-run is for --of smote: leave it out, --of {options.of} has no estimate.")
    BENCHES[options.of](options)


def _bench_archive(options: argparse.Namespace) -> None:
    hardware.require_backend()
    from bhi_utils.studies import benchmark_archive

    run = Run.open(options.out)
    sizes = options.sizes or benchmark_archive.SIZES
    result = benchmark_archive.study(run, options.data, sizes=sizes, repeats=options.repeats)
    for table in (
        benchmark_archive.ingest_table,
        benchmark_archive.epochs_table,
        benchmark_archive.delivery_table,
        benchmark_archive.goals,
    ):
        print(table(result).to_string(float_format="{:,.1f}".format), end="\n\n")
    print(f"Wrote {benchmark_archive.RESULTS} to {shown(run.artifacts)}.")


def _bench_smote(options: argparse.Namespace) -> None:
    from bhi_utils.studies import benchmark_smote

    if options.dry_run:
        print("\n".join(cost.sentence() for cost in benchmark_smote.estimate(options.data)))
        return
    run = Run.open(options.out)
    result = benchmark_smote.study(run, options.data, repeats=options.repeats)
    for table in (benchmark_smote.table, benchmark_smote.goals):
        print(table(result).to_string(float_format="{:,.2f}".format), end="\n\n")
    print(benchmark_smote.sentence(result))
    print(f"Wrote {benchmark_smote.RESULTS} to {shown(run.artifacts)}.")


def _bench_training(options: argparse.Namespace) -> None:
    hardware.require_backend()
    from bhi_utils.studies import benchmark_training

    run = Run.open(options.out)
    given = {name: getattr(options, name) for name in ("epochs", "blocks") if getattr(options, name) is not None}
    result = benchmark_training.study(
        run, options.data, weights=options.weights, batches=options.sizes or (), repeats=options.repeats, **given
    )
    for table in (benchmark_training.table, benchmark_training.recipes_table, benchmark_training.goals):
        if len(found := table(result)):
            print(found.to_string(float_format="{:,.3g}".format), end="\n\n")
    print(benchmark_training.sentence(result))
    print(f"Wrote {benchmark_training.RESULTS} to {shown(run.artifacts)}.")


def _bench_app(options: argparse.Namespace) -> None:
    bundle = _bundle(options.model)
    from bhi_utils.studies import benchmark_app

    run = Run.open(options.out)
    result = benchmark_app.study(run, bundle)
    for table in (benchmark_app.table, benchmark_app.goals):
        print(table(result).to_string(float_format="{:,.2f}".format), end="\n\n")
    print(f"Wrote {benchmark_app.RESULTS} to {shown(run.artifacts)}.")


def _bench_export(options: argparse.Namespace) -> None:
    bundle = _bundle(options.model)
    from bhi_utils.studies import benchmark_export

    run = Run.open(options.out)
    result = benchmark_export.study(run, bundle, repeats=options.repeats)
    print(benchmark_export.table(result).to_string(float_format="{:,.2f}".format), end="\n\n")
    print(benchmark_export.sentence(result))
    print(f"Wrote {benchmark_export.RESULTS} to {shown(run.artifacts)}.")


#: What `bhi bench` can measure.
BENCHES = {
    "archive": _bench_archive,
    "smote": _bench_smote,
    "training": _bench_training,
    "app": _bench_app,
    "export": _bench_export,
}


def _predict(options: argparse.Namespace) -> None:
    hardware.require_backend()
    from bhi_utils.predict import many_files

    predictor = _predictor(options.model)
    outcome = many_files.predict(predictor, options.files)
    rejected = many_files.write(outcome, options.csv)
    count, positive = len(outcome.answers), int(outcome.answers["predicted_label"].sum())
    threshold = f"{predictor.threshold:.4f} ({predictor.threshold_calibrated:.4f} calibrated)"
    print(f"Patches: {count:,}, IDC+ {positive:,} and IDC− {count - positive:,} at the threshold {threshold}.")
    if outcome.seen:
        print(f"  Seen in training: {outcome.seen:,}, whose answers say nothing about how the model does on new patches.")
    for note, count in outcome.notes.most_common(5):
        print(f"  {count:,} × {note}")
    for name, reason in outcome.rejected.head(10).itertuples(index=False):
        print(f"  rejected: {name}: {reason}")
    print(
        f"Wrote {shown(options.csv)}"
        + (f", and {counted(len(outcome.rejected), 'rejected file')} to {shown(rejected)}." if rejected else ".")
    )
    print("Research use only: not a medical device.")


def _map(options: argparse.Namespace) -> None:
    hardware.require_backend()
    from bhi_utils.predict import regions

    regions.check(options.region, options.threshold)
    print(regions.write(_predictor(options.model), options.region, options.out, threshold=options.threshold))
    print("Research use only: not a medical device.")


def _export(options: argparse.Namespace) -> None:
    hardware.require_backend()
    from bhi_utils.model import export

    export.check(options.out)
    difference = export.write(_predictor(options.model), options.out)
    print(f"Wrote {shown(options.out)}: its probabilities differ by {difference:.0e} at most from the model's.")
    print(export.NOTICE)


def _app(options: argparse.Namespace) -> None:
    from bhi_utils.app import start_options
    from bhi_utils.data import archive

    names = ("host", "port", "share", "certfile", "keyfile", "allowed_hosts", "no_password")
    start = {name: getattr(options, name) for name in names}
    start_options.check(**start)
    start_options.stop_by_signal()
    given = {}
    if options.data:
        source = archive.find_source(options.data, cache=cache_dir())
    bundle = _bundle(options.model)
    if options.data:
        pack = archive.pack(source, cache_dir())
        given["cases"] = lambda: pack
    from bhi_utils.app import server
    from bhi_utils.model.predictor import Predictor

    server.launch(Predictor.load(bundle), block=True, **start, **given)


def _card(options: argparse.Namespace) -> None:
    if not (options.run / "artifacts").is_dir():
        raise InputError(f"{shown(options.run)} is not the folder of a run: pass one that holds artifacts, such as runs/quick.")
    from bhi_utils.reports import cards, run_report

    run = Run(options.run)
    written = [*cards.write(run), run_report.write(run)]
    print(f"Wrote {', '.join(path.name for path in written)} to {shown(options.run)}.")


def _evaluate(options: argparse.Namespace) -> None:
    from bhi_utils.data import archive
    from bhi_utils.reports import evaluation_report

    bundle = _bundle(options.model)
    pack = archive.pack(archive.find_source(options.source, cache=cache_dir()), cache_dir())

    done = evaluation_report.evaluate(bundle, pack)
    written = evaluation_report.write(done, options.out)
    print(f"Data: {done.data()}. {done.result['left_out']['sentence']}")
    print(done.table().to_string())
    print(f"At the bundle's threshold, {done.metrics['threshold']['value']:.3f}; nothing was fitted on these cases.")
    print(f"Wrote {', '.join(path.name for path in written)} to {shown(options.out)}.")
    print("Research use only: not a medical device.")


def _predictor(model: Path | None) -> "Predictor":
    """The packaged model or the one that was asked for, loaded."""
    bundle = _bundle(model)
    from bhi_utils.model.predictor import Predictor

    return Predictor.load(bundle)


def _bundle(model: Path | None) -> Path:
    """The bundle that was asked for, or the packaged one. Says which."""
    hardware.require_backend()
    from bhi_utils.model import bundles

    if model is None:
        bundle, why = bundles.packaged(), " (the packaged model; --model takes another)"
    else:
        bundle, why = _better(model) if model.is_dir() else model, ""
    if not bundle.is_file():
        raise InputError(f"{shown(bundle)} does not exist: pass the .bundle.json of a run, or run `make run` first.")
    bundles.read(bundle)  # whatever is wrong with it is told before data is packed or another process is started
    print(f"Model: {shown(bundle)}{why}", flush=True)
    return bundle


def _better(run: Path) -> Path:
    """The better model's bundle of a run's folder."""
    from bhi_utils.model.bundles import find_bundle

    return find_bundle(Run(run))


if __name__ == "__main__":
    sys.exit(main())
