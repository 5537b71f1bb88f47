"""Patches that show the same pixels but for brightness, noise, compression or orientation. Used by ``data.inspection``.

Candidates are the nearest neighbours by a descriptor that is alike in all eight orientations. Those whose coarse pictures agree are then
compared pixel by pixel, so no table of all pairs is needed. Libraries for perceptual hashes work image by image, which would take minutes
for the archive, and their bits do not say how much two pictures differ.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from bhi_utils.data.patch_measures import COARSE, variance

#: Two patches are near duplicates when the root mean square of their difference is at most so many grey levels, and at most this part of
#: their own contrast. The second limit leaves out pairs of plain stroma, which differ little because there is little in them. JPEG at
#: quality 90 keeps 98 % of real patches within both limits, at 75 still 81 %. The closest of 13,244 real patches of tissue differ by 11
#: levels, but by as much as their contrast.
LEVEL, PART = 12.0, 0.5
#: Candidates differ by at most this in their descriptors, in grey levels: two levels of brightness, and what JPEG and noise do to coarse
#: structure (1.5 in 99 of 100 patches at quality 75).
RADIUS = 2.5
#: The coarse pictures of candidates, brightness aside, differ by at most this (root mean square in grey levels). JPEG at quality 75 stays
#: below 1.4; the closest of 1,430 candidates among real patches that are no copies differ by 3. Without this limit plain stroma would be
#: compared pixel by pixel half a million times in the archive.
STRUCTURE = 2.0
#: A patch is compared with its nearest neighbours, up to this number; one that has more within the radius is counted as crowded.
NEIGHBOURS = 16
#: Patches with less contrast than this, in grey levels, cannot be told apart: out-of-focus glass, or one colour.
PLAIN = 8.0
#: All of these, as ``index.json`` names them.
CRITERION = {
    "rms_at_most": LEVEL,
    "part_of_contrast_at_most": PART,
    "descriptors_within": RADIUS,
    "coarse_rms_at_most": STRUCTURE,
    "neighbours_at_most": NEIGHBOURS,
    "contrast_at_least": PLAIN,
}

_CHUNK = 8192


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of near duplicates.

    Attributes:
        pairs: row numbers, int (m, 2), the smaller first, sorted; an exact duplicate is represented by the first of its group.
        turned: bool (m,), whether the second has to be turned or mirrored to resemble the first.
        group: int (m,), the number of the pair's group, by first row: pairs that share a patch are in one group.
        compared: how many patches were compared.
        crowded: how many of them have more neighbours than were looked at, so that some of their pairs may be missing.
    """

    pairs: np.ndarray
    turned: np.ndarray
    group: np.ndarray
    compared: int
    crowded: int


def find(records: np.ndarray, rows: np.ndarray, read: Callable[[np.ndarray], np.ndarray], *, workers: int = 1) -> NearDuplicates:
    """Find the near duplicates among ``rows``.

    Args:
        records: `patch_measures.measure` of every row.
        rows: numbers of the rows to compare, int (k,), ascending.
        read: gives the pixels, uint8 (m, 50, 50, 3), of row numbers.
        workers: threads of the search; the result does not depend on it.
    """
    pairs, crowded = _neighbours(records["descriptor"][rows], workers)
    found, turns = [np.empty((0, 2), np.int64)], [np.empty(0, bool)]
    for start in range(0, len(pairs), _CHUNK):
        pair = rows[pairs[start : start + _CHUNK]]
        pair = pair[_alike(records[pair[:, 0]], records[pair[:, 1]])]
        for begin in range(0, len(pair), 256):
            part = pair[begin : begin + 256]
            same, turned = _compare(read(part[:, 0]), read(part[:, 1]))
            found.append(part[same])
            turns.append(turned[same])
    pairs = np.concatenate(found)
    return NearDuplicates(pairs, np.concatenate(turns), _groups(pairs), len(rows), crowded)


def _neighbours(descriptors: np.ndarray, workers: int) -> tuple[np.ndarray, int]:
    """Pairs of positions close to each other, int (m, 2), sorted; and how many positions have more neighbours than are looked at."""
    points = descriptors.astype(np.float64)
    count, keys, crowded = len(points), [np.empty(0, np.int64)], 0
    tree = cKDTree(points, balanced_tree=False)
    for start in range(0, count, _CHUNK):
        part = points[start : start + _CHUNK]
        # the point itself, its neighbours, and one more to know whether there are more; k may exceed the number of points
        distances, others = tree.query(part, k=NEIGHBOURS + 2, distance_upper_bound=RADIUS, workers=workers)
        crowded += int(np.isfinite(distances[:, -1]).sum())
        own, place = np.nonzero(np.isfinite(distances[:, :-1]))
        other, own = others[own, place], own + start
        pair = own != other
        keys.append(np.minimum(own, other)[pair] * count + np.maximum(own, other)[pair])
    return np.stack(np.divmod(np.unique(np.concatenate(keys)), max(count, 1)), axis=1), crowded


def _alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which pairs of records have the same coarse picture in one of the orientations."""
    side = math.isqrt(COARSE)
    one, other = (record["coarse"].reshape(-1, side, side).astype(np.int32) for record in (first, second))
    least = np.min([_squares(one, turn) for turn in _orientations(other)], axis=0)
    shift = (one - other).sum(axis=(1, 2), dtype=np.int64)  # the same whatever the orientation
    return least * COARSE - shift**2 <= (STRUCTURE * COARSE) ** 2


def _orientations(patches: np.ndarray) -> Iterator[np.ndarray]:
    """``patches`` (m, side, side, …) as they are, then in the seven other orientations."""
    for mirrored in (patches, patches[:, :, ::-1]):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2))


def _compare(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs of patches are near duplicates, and which of these in another orientation only."""
    allowed = np.minimum(LEVEL**2, PART**2 * np.minimum(variance(first), variance(second))) * first[0].size
    same, turned = _squares(first, second) <= allowed, np.zeros(len(first), bool)
    left = np.flatnonzero(~same)  # most copies are upright, so the other orientations are tried on the rest
    for turn in _orientations(second[left]):
        turned[left] |= _squares(first[left], turn) <= allowed[left]
    return same | turned, turned


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum of the squared differences of each pair, in whole numbers."""
    difference = (first.astype(np.int32) - second).reshape(len(first), math.prod(first.shape[1:]))
    return np.einsum("ij,ij->i", difference, difference)


def _groups(pairs: np.ndarray) -> np.ndarray:
    """The group of each pair, numbered by first appearance."""
    names, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), np.int8), places.T), shape=(len(names), len(names)))
    return connected_components(graph, directed=False)[1][places[:, 0]].astype(np.int64)
