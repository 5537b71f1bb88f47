"""The grid of patches on a slide: its stride, who lies beside whom, and a slide put together from its patches.

Used by notebook 02, ``evaluation.failures``, ``studies.leakage``, ``plots.patches`` and the interface.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bhi_utils.data.decode import PATCH
from bhi_utils.data.splits import image_level

#: Distance in pixels of one patch to the next on a slide's grid.
STRIDE = 50
#: Steps (columns, rows) to the patches that share an edge with a patch, and to all eight around it.
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))
AROUND = (*SIDES, (1, 1), (1, -1), (-1, 1), (-1, -1))


def beside(manifest: pd.DataFrame, steps: Sequence[tuple[int, int]], *, rows: np.ndarray | None = None) -> np.ndarray:
    """Find the patch that lies some steps from each patch, on the same case's slide.

    Args:
        manifest: ``case, x, y`` of every patch; x and y in pixels.
        steps: numbers of columns and rows, such as `SIDES`.
        rows: the row numbers of the patches to look around; None for all.

    Returns:
        int array (rows, steps): a row number of the manifest, -1 where there is no patch.

    >>> beside(pd.DataFrame({"case": 7, "x": [1, 51], "y": [1, 1]}), SIDES).tolist()
    [[1, -1, -1, -1], [-1, 0, -1, -1]]
    """
    places = manifest[["case", "x", "y"]]
    known = np.flatnonzero(~places.duplicated())  # two files may contradict each other about one place
    index, own = pd.MultiIndex.from_frame(places.iloc[known]), places if rows is None else places.iloc[rows]
    moved = [pd.MultiIndex.from_arrays([own["case"], own["x"] + STRIDE * dx, own["y"] + STRIDE * dy]) for dx, dy in steps]
    found = np.stack([index.get_indexer(place) for place in moved], axis=1)
    return np.where(found >= 0, known[found], -1)


def around(manifest: pd.DataFrame, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row, how many of the eight patches around it are in the data, and how many of those carry the other label."""
    near, label = beside(manifest, AROUND, rows=rows), manifest["label"].to_numpy()
    return (near >= 0).sum(axis=1), ((near >= 0) & (label[near] != label[rows, None])).sum(axis=1)


def assemble(patches: np.ndarray, rows: pd.DataFrame) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Put patches where they came from.

    Returns:
        uint8 array (height, width, 4), transparent where there is no patch, and the extent (left, right, bottom, top) in pixels.

    >>> slide, extent = assemble(np.zeros((2, 50, 50, 3), np.uint8), pd.DataFrame({"x": [1, 101], "y": 1, "width": 50, "height": 50}))
    >>> slide.shape, extent
    ((50, 150, 4), (1, 151, 51, 1))
    """
    left, top = int(rows["x"].min()), int(rows["y"].min())
    width, height = int(rows["x"].max()) - left + PATCH, int(rows["y"].max()) - top + PATCH
    canvas = np.zeros((height, width, 4), np.uint8)
    for patch, row in zip(patches, rows.itertuples(), strict=True):
        y, x = row.y - top, row.x - left
        canvas[y : y + row.height, x : x + row.width] = np.insert(patch[: row.height, : row.width], 3, 255, axis=2)
    return canvas, (left, left + width, top + height, top)


def leakage(manifest: pd.DataFrame, *, part_of: np.ndarray | None = None, seed: int = 0) -> pd.DataFrame:
    """What each two parts of a split share: cases, and patches that touch on the slide.

    Args:
        manifest: ``case, x, y`` of every patch; x and y in pixels.
        part_of: the part of every patch, from `splits.parts`; without it, a split by image is drawn with `image_level`.
        seed: seed of that draw.

    Returns:
        One row a pair of parts: ``shared cases``; ``touching pairs`` (patches that share an edge and lie in two parts);
        ``second part`` (its patches); ``with a neighbour`` (how many of those touch a patch of the first part).

    >>> slide = pd.DataFrame({"case": 7, "x": [1, 51, 101], "y": 1})
    >>> leakage(slide, part_of=np.array(["train", "test", "train"])).loc["train and test"].to_dict()
    {'shared cases': 1, 'touching pairs': 2, 'second part': 1, 'with a neighbour': 1}
    """
    part_of = image_level(len(manifest), seed=seed) if part_of is None else np.asarray(part_of)
    near, case = beside(manifest, SIDES), manifest["case"].to_numpy()
    rows = {}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        touching = (near >= 0) & (part_of[near] == a) & (part_of[:, None] == b)
        rows[f"{a} and {b}"] = {
            "shared cases": len(np.intersect1d(case[part_of == a], case[part_of == b])),
            "touching pairs": int(touching.sum()),
            "second part": int((part_of == b).sum()),
            "with a neighbour": int(touching.any(axis=1).sum()),
        }
    return pd.DataFrame(rows).T.rename_axis("parts")
