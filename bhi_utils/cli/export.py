"""``bhi export``: a trained model for other programs."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from bhi_utils.cli.options import Model, file, predictor
from bhi_utils.core.paths import shown


def export(out: Annotated[Path, Argument(metavar="OUT.onnx", help="the file that is written", callback=file)], model: Model = None) -> None:
    """Write a trained model as ONNX, for programs without Keras."""
    from bhi_utils.core import hardware

    hardware.require_backend()
    from bhi_utils.model import export as onnx_export

    onnx_export.check(out)
    difference = onnx_export.write(predictor(model), out)
    print(f"Wrote {shown(out)}: its probabilities differ by {difference:.0e} at most from the model's.")
    print(onnx_export.NOTICE)
