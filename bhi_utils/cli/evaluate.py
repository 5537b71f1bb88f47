"""``bhi evaluate``: a trained model on labelled cases."""

from pathlib import Path
from typing import Annotated

from bhi_utils.cli.options import NOTICE, Model, Source, bundle, out_folder
from bhi_utils.core.paths import cache_dir, shown


def evaluate(
    source: Source,
    out: Annotated[Path, out_folder("the folder for predictions, metrics, figures and report")],
    model: Model = None,
) -> None:
    """Measure a trained model on labelled cases that it has not seen."""
    from bhi_utils.data import archive
    from bhi_utils.reports import evaluation_report

    trained = bundle(model)
    pack = archive.pack(archive.find_source(source, cache=cache_dir()), cache_dir())

    done = evaluation_report.evaluate(trained, pack)
    written = evaluation_report.write(done, out)
    print(f"Data: {done.data()}. {done.result['left_out']['sentence']}")
    print(done.table().to_string())
    print(f"At the bundle's threshold, {done.metrics['threshold']['value']:.3f}; nothing was fitted on these cases.")
    print(f"Wrote {', '.join(path.name for path in written)} to {shown(out)}.")
    print(NOTICE)
