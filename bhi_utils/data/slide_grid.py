"""The grid of patches on a slide: its stride, a slide put together from its patches, and who lies beside whom."""

import numpy as np
import pandas as pd

from bhi_utils.data.case_folds import image_level
from bhi_utils.data.decode import PATCH

AROUND = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]


def around(manifest: pd.DataFrame, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row, how many of the eight patches around it are in the data, and how many of those carry the other label."""
    # two files may contradict each other about one place
    first, place = manifest.drop_duplicates(["case", "x", "y"]), manifest.iloc[rows]
    index, label, own = pd.MultiIndex.from_frame(first[["case", "x", "y"]]), first["label"].to_numpy(), place["label"].to_numpy()
    neighbours, disagree = np.zeros(len(rows), int), np.zeros(len(rows), int)
    for dx, dy in AROUND:
        moved = pd.MultiIndex.from_arrays([place["case"], place["x"] + dx * STRIDE, place["y"] + dy * STRIDE])
        near = index.get_indexer(moved)
        neighbours += near >= 0
        disagree += (near >= 0) & (label[near] != own)
    return neighbours, disagree


def assemble(patches: np.ndarray, rows: pd.DataFrame) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Put patches where they came from.

    Returns:
        uint8 array (height, width, 4), transparent where there is no patch, and the extent (left, right, bottom, top) in pixels.
    """
    left, top = int(rows["x"].min()), int(rows["y"].min())
    width, height = int(rows["x"].max()) - left + PATCH, int(rows["y"].max()) - top + PATCH
    canvas = np.zeros((height, width, 4), np.uint8)
    for patch, row in zip(patches, rows.itertuples(), strict=True):
        y, x = row.y - top, row.x - left
        canvas[y : y + row.height, x : x + row.width, :3] = patch[: row.height, : row.width]
        canvas[y : y + row.height, x : x + row.width, 3] = 255
    return canvas, (left, left + width, top + height, top)


#: Distance in pixels of one patch to the next on a slide's grid.
STRIDE = 50


def leakage(manifest: pd.DataFrame, *, part_of: np.ndarray | None = None, seed: int = 0) -> pd.DataFrame:
    """What each two parts of a split share: cases, and patches that touch on the slide.

    Args:
        manifest: ``case, x, y`` of every patch; x and y in pixels.
        part_of: the part of every patch, from `parts`; without it, a split by image is drawn with `image_level`.
        seed: seed of that draw.

    Returns:
        One row a pair of parts: ``shared cases``; ``touching pairs`` (patches that share an edge and lie in two parts);
        ``second part`` (its patches); ``with a neighbour`` (how many of those touch a patch of the first part).
    """
    part_of = image_level(len(manifest), seed=seed) if part_of is None else np.asarray(part_of)
    here = manifest[["case", "x", "y"]].assign(row=np.arange(len(manifest)))
    steps = [here.assign(x=here["x"] + dx, y=here["y"] + dy) for dx, dy in ((STRIDE, 0), (0, STRIDE))]
    near = pd.concat([here.merge(step, on=["case", "x", "y"], suffixes=("", "_2")) for step in steps])
    first, second = near["row"].to_numpy(), near["row_2"].to_numpy()
    case = manifest["case"].to_numpy()
    rows = {}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        forward = (part_of[first] == a) & (part_of[second] == b)
        backward = (part_of[first] == b) & (part_of[second] == a)
        rows[f"{a} and {b}"] = {
            "shared cases": len(np.intersect1d(case[part_of == a], case[part_of == b])),
            "touching pairs": int(forward.sum() + backward.sum()),
            "second part": int((part_of == b).sum()),
            "with a neighbour": len(np.union1d(second[forward], first[backward])),
        }
    return pd.DataFrame(rows).T.rename_axis("parts")
