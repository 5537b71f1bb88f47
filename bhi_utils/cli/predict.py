"""``bhi predict``, ``bhi map`` and ``bhi export``: a trained model's answers for patches and for a region, and the model for others."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bhi_utils.cli.options import NOTICE, Model, bundle, file, out_folder
from bhi_utils.core.paths import shown


def predict(
    files: Annotated[list[Path], Argument(metavar="FILE", help="patches of 50×50 pixels: images, folders or zips")],
    csv: Annotated[Path, Option(metavar="OUT", help="the table that is written", callback=file)],
    model: Model = None,
) -> None:
    """Classify image files, folders of them or zips, into a table."""
    from bhi_utils.core.messages import counted
    from bhi_utils.model.predictor import Predictor
    from bhi_utils.predict import many_files

    predictor = Predictor.load(bundle(model))
    outcome = many_files.predict(predictor, files)
    rejected = many_files.write(outcome, csv)
    count, positive = len(outcome.answers), int(outcome.answers["predicted_label"].sum())
    threshold = f"{predictor.threshold:.4f} ({predictor.threshold_calibrated:.4f} calibrated)"
    print(f"Patches: {count:,}, IDC+ {positive:,} and IDC− {count - positive:,} at the threshold {threshold}.")
    if outcome.seen:
        print(f"  Seen in training: {outcome.seen:,}, whose answers say nothing about how the model does on new patches.")
    for note, times in outcome.notes.most_common(5):
        print(f"  {times:,} × {note}")
    for name, reason in outcome.rejected.head(10).itertuples(index=False):
        print(f"  rejected: {name}: {reason}")
    also = f", and {counted(len(outcome.rejected), 'rejected file')} to {shown(rejected)}" if rejected else ""
    print(f"Wrote {shown(csv)}{also}.")
    print(NOTICE)


def map(
    region: Annotated[Path, Argument(metavar="REGION", help="an image of at most 10,000×10,000 pixels at the archive's scale")],
    out: Annotated[Path, out_folder("the folder for map.png and map.csv")],
    model: Model = None,
    threshold: Annotated[float | None, Option(metavar="P", help="calibrated probability from which a patch is IDC+ (the model's)")] = None,
) -> None:
    """Draw a region's map of probabilities, and write its table."""
    from bhi_utils.model.predictor import Predictor
    from bhi_utils.predict import regions

    regions.check(region, threshold)
    print(regions.write(Predictor.load(bundle(model)), region, out, threshold=threshold))
    print(NOTICE)


def export(out: Annotated[Path, Argument(metavar="OUT.onnx", help="the file that is written", callback=file)], model: Model = None) -> None:
    """Write a trained model as ONNX, for programs without Keras."""
    from bhi_utils.model import export as onnx_export
    from bhi_utils.model.predictor import Predictor

    onnx_export.check(out)
    difference = onnx_export.write(Predictor.load(bundle(model)), out)
    print(f"Wrote {shown(out)}: its probabilities differ by {difference:.0e} at most from the model's.")
    print(onnx_export.NOTICE)
