"""Every figure of the walk and of the app under one name, so that a notebook writes ``plots.learning_curves(…)``.

A function takes data and returns a `Figure`; none shows or saves, ``notebook.save_figure`` does.
"""

from bhi_utils.plots.failure_maps import failures, slide_map
from bhi_utils.plots.maps import answers, colour_map, coloured, enlarged, limit, number, overlay, probability_map, scaled
from bhi_utils.plots.patches import classes_and_cases, leak_map, mosaic, oddities, patch_grid, slide, split_overview
from bhi_utils.plots.performance import (
    calibration_curves,
    confusion_matrices,
    learning_curves,
    metrics_beside_paper,
    model_output,
    roc_and_precision_recall,
    threshold_curves,
)
from bhi_utils.plots.preprocessing import (
    augmentation_rows,
    batch_before_after,
    fine_detail,
    preprocessing_steps,
    smote_effect,
    smote_examples,
)
from bhi_utils.plots.shared_look import COLOURS, INK, NEGATIVE, POSITIVE, THOUSANDS, style, write_palette

__all__ = [
    "COLOURS",
    "INK",
    "NEGATIVE",
    "POSITIVE",
    "THOUSANDS",
    "answers",
    "augmentation_rows",
    "batch_before_after",
    "calibration_curves",
    "classes_and_cases",
    "colour_map",
    "coloured",
    "confusion_matrices",
    "enlarged",
    "failures",
    "fine_detail",
    "leak_map",
    "learning_curves",
    "limit",
    "metrics_beside_paper",
    "model_output",
    "mosaic",
    "number",
    "oddities",
    "overlay",
    "patch_grid",
    "preprocessing_steps",
    "probability_map",
    "roc_and_precision_recall",
    "scaled",
    "slide",
    "slide_map",
    "smote_effect",
    "smote_examples",
    "split_overview",
    "style",
    "threshold_curves",
    "write_palette",
]
