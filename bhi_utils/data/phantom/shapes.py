"""What slides are painted with: smooth fields, fibres, points, dots, wobbly discs and fat cells on a canvas.

Used by ``data.phantom.synthetic_cohort`` and ``data.phantom.painting``. Canvases are float arrays (height, width), lengths are pixels, and
every function that draws at random takes the generator.
"""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage, sparse


def blocks(length: int, size: int) -> Iterator[slice]:
    """Slices that cover ``length``: what is computed block by block stays in the processor's cache, four times as fast."""
    return (slice(start, start + size) for start in range(0, length, size))


def field(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Smooth random float64 field of mean 0 and standard deviation 1, with bumps about ``scale`` pixels wide."""
    rows, columns = (_spline(length, scale) for length in shape)
    coarse = rng.standard_normal((rows.shape[1], columns.shape[1]))
    return rows @ (columns @ (coarse.T / 0.479)).T


def _spline(length: int, scale: float) -> sparse.csr_array:
    """Weights (length, knots) of a uniform cubic B-spline with a knot every ``scale`` pixels.

    Sparse for its products: those of dense arrays start threads, which wait for each other on a busy machine.
    """
    position = np.arange(length) / scale
    knot = position.astype(int)
    f = position - knot
    weights = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], axis=1) / 6
    columns = knot[:, None] + np.arange(4)
    return sparse.csr_array((weights.ravel(), columns.ravel(), 4 * np.arange(length + 1)), (length, knot[-1] + 4))


def step(value: np.ndarray, width: float) -> np.ndarray:
    """0 below zero, 1 above, over a ramp ``width`` wide."""
    return np.clip(value / width + 0.5, 0, 1)


def above(value: np.ndarray, share: float, where: np.ndarray) -> np.ndarray:
    """``value`` shifted so that it is positive in ``share`` of ``where``."""
    inside = value[where][::7]
    return value - np.quantile(inside, 1 - share) if inside.size else value


class Fibres:
    """The course of the stroma's fibres: ``across`` and ``along`` are float arrays of the canvas, in pixels."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], angle: float):
        y, x = np.ogrid[: shape[0], : shape[1]]
        cosine, sine = np.cos(angle), np.sin(angle)
        self.across = y * cosine - x * sine + 26 * field(rng, shape, 80) + 4 * field(rng, shape, 22)
        self.along = y * sine + x * cosine + 25 * field(rng, shape, 80)

    def texture(self, rng: np.random.Generator, width: float, length: float) -> np.ndarray:
        """Noise drawn out along the fibres: strands ``width`` across and ``length`` along, as a canvas."""
        lattice = rng.standard_normal((256, 128)).ravel()
        canvas = np.empty(self.across.shape)
        for rows in blocks(len(canvas), 32):
            across, along = self.across[rows] / width, self.along[rows] / length
            row, column = np.floor(across).astype(np.int32), np.floor(along).astype(np.int32)
            down, right = across - row, along - column
            here, below = (row & 255) << 7, ((row + 1) & 255) << 7
            left, beside = column & 127, (column + 1) & 127
            upper, lower = lattice.take(here | left), lattice.take(below | left)
            upper += right * (lattice.take(here | beside) - upper)
            lower += right * (lattice.take(below | beside) - lower)
            canvas[rows] = (upper + down * (lower - upper)) / 0.67
        return canvas

    def direction(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors along the fibres at integer points."""
        y, x = np.clip(y, 1, self.across.shape[0] - 2), np.clip(x, 1, self.across.shape[1] - 2)
        dy = self.across[y + 1, x] - self.across[y - 1, x]
        dx = self.across[y, x + 1] - self.across[y, x - 1]
        length = np.hypot(dy, dx) + 1e-9
        return -dx / length, dy / length


def scatter(rng: np.random.Generator, chance: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (y, x) on a jittered grid, kept with the chance at their place: even crowding without overlap."""
    height, width = chance.shape
    y, x = np.meshgrid(np.arange(0, height - 1, spacing), np.arange(0, width - 1, spacing), indexing="ij")
    jitter = rng.random((3, y.size))
    y, x = y.ravel() + spacing * (0.85 * jitter[0]), x.ravel() + spacing * (0.85 * jitter[1])
    y, x = y.clip(0, height - 1.001), x.clip(0, width - 1.001)
    keep = jitter[2] < chance[y.astype(int), x.astype(int)]
    return y[keep], x[keep]


def dots(shape: tuple[int, int], y: np.ndarray, x: np.ndarray, amount: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian dots of height ``amount`` at real-valued points."""
    y, x = y.clip(0, shape[0] - 1.001), x.clip(0, shape[1] - 1.001)
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    canvas = np.zeros(shape[0] * shape[1])
    for dy, wy in ((0, 1 - down), (1, down)):
        for dx, wx in ((0, 1 - right), (1, right)):
            canvas += np.bincount((top + dy) * shape[1] + left + dx, amount * wy * wx, canvas.size)
    return ndimage.gaussian_filter(canvas.reshape(shape), sigma, truncate=3) * (2 * np.pi * (sigma**2 + 0.17))


def discs(rng: np.random.Generator, shape: tuple[int, int], y: np.ndarray, x: np.ndarray, radius: np.ndarray, wobble: float) -> np.ndarray:
    """Depth below the edge of the nearest of many wobbly discs, in pixels; −9 far outside; float array ``shape``."""
    depth = np.full(shape, -9.0)
    if not len(y):
        return depth
    reach = int(np.ceil(radius.max() * (1 + 2 * wobble))) + 5
    oy, ox = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    theta, distance = np.arctan2(oy, ox), np.hypot(oy, ox)
    waves = [(order, rng.normal(0, wobble / order**0.5, len(y)), rng.uniform(0, 2 * np.pi, len(y))) for order in (2, 3, 5)]
    for some in blocks(len(y), 64):
        cy, cx = y[some].astype(int)[:, None, None], x[some].astype(int)[:, None, None]
        edge = np.ones((len(cy), *oy.shape))
        for order, size, phase in waves:
            edge += size[some, None, None] * np.cos(order * theta + phase[some, None, None])
        value = radius[some, None, None] * edge - distance
        py, px = np.broadcast_to(cy + oy, value.shape), np.broadcast_to(cx + ox, value.shape)
        keep = (value > -9) & (py >= 0) & (py < shape[0]) & (px >= 0) & (px < shape[1])
        np.maximum.at(depth, (py[keep], px[keep]), value[keep])
    return depth


def fat_cells(rng: np.random.Generator, room: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Fat cells about ``size`` pixels wide: whole cells of a Voronoi diagram, those with a seed where ``room`` > 0.

    Returns:
        bool array, inside a fat cell; float array, 1 on the thin walls and 0 within the cells.
    """
    fat, wall = np.zeros(room.shape, bool), np.zeros(room.shape)
    where = room > -0.6
    y, x = np.nonzero(where)
    if not y.size:
        return fat, wall
    rows, columns = (int(length / size) + 3 for length in room.shape)
    seeds = (np.mgrid[-1 : rows - 1, -1 : columns - 1] + rng.uniform(0.05, 0.95, (2, rows, columns))) * size
    filled = room[tuple(seeds[axis].astype(int).clip(0, room.shape[axis] - 1) for axis in (0, 1))] > 0
    for some in blocks(y.size, 1 << 15):
        place = y[some], x[some]
        cell_y, cell_x = ((axis / size).astype(int) + 1 for axis in place)
        first, second, inside = np.full(cell_y.size, 1e9), np.full(cell_y.size, 1e9), np.zeros(cell_y.size, bool)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = cell_y + dy, cell_x + dx
                distance = np.hypot(seeds[0][near] - place[0], seeds[1][near] - place[1])
                closer = distance < first
                second = np.minimum(second, np.where(closer, first, distance))
                inside = np.where(closer, filled[near], inside)
                first = np.minimum(first, distance)
        # thicker where three walls meet, far from every seed: cells look round
        thin = np.maximum(1.3 - (second - first), (first - 0.66 * size) / 1.5)
        fat[place], wall[place] = inside, thin.clip(0, 1)
    return fat, wall
