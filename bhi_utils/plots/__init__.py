"""Every figure of the walk and of the app under one name, so that a notebook writes ``plots.learning_curves(…)``.

A function takes data and returns a `Figure`; ``notebook.save_figure`` shows and saves it.
"""

from bhi_utils.plots.maps import answers, coloured, enlarged, limit, overlay, probability_map, scaled, slide_map
from bhi_utils.plots.patches import (
    augmentation_rows,
    batch_before_after,
    classes_and_cases,
    fine_detail,
    leak_map,
    oddities,
    patch_grid,
    preprocessing_steps,
    slide,
    smote_effect,
    smote_examples,
    split_overview,
)
from bhi_utils.plots.performance import (
    calibration_curves,
    confusion_matrices,
    failures,
    learning_curves,
    metrics_beside_paper,
    model_output,
    roc_and_precision_recall,
    threshold_curves,
)
from bhi_utils.plots.shared_look import INK, THOUSANDS, png, signed, style, write_palette
