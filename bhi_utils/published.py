"""Facts that are published of the Breast Histopathology Images archive, shipped with the package as data.

Used by the index of a source, by the splits and by the synthetic cohort of the archive's size.
"""

from functools import cache
from importlib import resources

import pandas as pd

#: Where people find the archive, and its name there.
ARCHIVE_URL = "https://www.kaggle.com/datasets/paultimothymooney/breast-histopathology-images"
KAGGLE_HANDLE = "paultimothymooney/breast-histopathology-images"


@cache
def _cases() -> pd.DataFrame:
    with (resources.files("bhi_utils") / "published_cases.csv").open(encoding="utf-8") as stream:
        counts = pd.read_csv(stream)
    return counts.assign(patches=counts["negative"] + counts["positive"])


def cases() -> pd.DataFrame:
    """The archive's 279 cases by id: int columns ``case, negative, positive, patches`` (numbers of patches)."""
    return _cases().copy()


def totals() -> dict[str, int]:
    """Numbers of the whole archive: ``patches``, ``negative``, ``positive``, ``cases``."""
    counts = _cases()
    return {**{name: int(counts[name].sum()) for name in ("patches", "negative", "positive")}, "cases": len(counts)}
