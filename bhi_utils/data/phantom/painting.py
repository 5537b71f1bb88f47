"""Paints the slides of the synthetic cohort: shapes on a canvas, amounts of haematoxylin and eosin, and the light that passes them.

Used by ``data.phantom.synthetic_cohort``. A slide is painted whole, so ducts, fibres and nests run on over the borders of patches. One
pixel is about 4 µm, as in the archive. Invasive tissue differs from the rest in how its cells are arranged, hardly in how much of either
stain it holds. Canvases are float arrays (height, width), lengths are pixels, and every function that draws at random takes the generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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


#: Optical density per unit of haematoxylin and of eosin in red, green and blue, float array (2 stains, 2 sources, 3): Ruifrok & Johnston
#: (2001), and a second measurement of the same stains that is in wide use with the method of Macenko et al. (2009). A case's own stain
#: lies between the two.
STAINS = np.array([[[0.650, 0.704, 0.286], [0.563, 0.720, 0.406]], [[0.072, 0.990, 0.105], [0.216, 0.801, 0.558]]])
#: Absorbance (natural logarithm) of one unit of stain along a vector of length 1: what makes the painted amounts, about 1 at
#: a dark nucleus, as dark as a common section.
DEPTH = np.float32(1.27)


@dataclass(frozen=True)
class Style:
    """What is one case's own: its stain, its scanner and the habit of its tissue.

    Attributes:
        stains: optical density per unit of haematoxylin and of eosin, (2, 3).
        white: the scanner's white (3,), 0–255.
        blur: standard deviation of the scanner's blur, in pixels.
        grain: standard deviation of the scanner's noise, in grey values.
        fat: share of the tissue outside the tumour that is fat.
        glands: share of the tissue outside the tumour that holds ducts and lobules.
        cellularity: how densely nuclei lie everywhere.
        cords: 0 for solid nests, 1 for cords along the fibres.
        angle: main direction of the fibres, in radians.
    """

    stains: np.ndarray
    white: np.ndarray
    blur: float
    grain: float
    fat: float
    glands: float
    cellularity: float
    cords: float
    angle: float


#: Least and most of a style's numbers from ``blur`` to ``angle``, in the order of its fields.
_LEAST, _MOST = (0.2, 0.6, 0.1, 0.3, 0.75, 0, 0), (0.5, 2.0, 0.4, 0.65, 1.25, 1, np.pi)


def draw_style(rng: np.random.Generator) -> Style:
    """A case's style."""
    toward, strength = rng.uniform([0, 0.4], 1)[:, None], rng.uniform([0.85, 0.8], [1.25, 1.3])[:, None]
    stains = (1 - toward) * STAINS[:, 0] + toward * STAINS[:, 1] + rng.normal(0, 0.02, (2, 3))
    white = rng.uniform(238, 247) + rng.normal(0, 1.2, 3)
    return Style(strength * stains.clip(0.02), white, *rng.uniform(_LEAST, _MOST).tolist())


def _glands(rng: np.random.Generator, room: np.ndarray, share: float, tissue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ducts and lobules where ``room`` is positive: depth below their outer edge, and below their lumen's."""
    shape = room.shape
    count = int(share * tissue.sum() / 900)
    y, x = rng.uniform(0, shape[0] - 1, count), rng.uniform(0, shape[1] - 1, count)
    keep = room[y.astype(int), x.astype(int)] > 0
    y, x = y[keep], x[keep]
    duct = rng.random(len(y)) < 0.4
    radius = rng.uniform(5, 14, duct.sum())
    filled = rng.random(len(radius)) < 0.35
    outer = discs(rng, shape, y[duct], x[duct], radius, 0.12)
    hollow = np.where(filled, 0.15, 1) * (radius - rng.uniform(2.4, 3.6, len(radius)))
    inner = discs(rng, shape, y[duct], x[duct], hollow, 0.12)
    ay, ax = np.repeat(y[~duct], 12), np.repeat(x[~duct], 12)
    ay, ax = ay + rng.normal(0, 8, len(ay)), ax + rng.normal(0, 8, len(ax))
    radius = rng.uniform(2.8, 4.8, len(ay))
    outer = np.maximum(outer, discs(rng, shape, ay, ax, radius, 0.08))
    inner = np.maximum(inner, discs(rng, shape, ay, ax, radius - 2.3, 0.05))
    return outer, inner


class Anatomy:
    """Where what lies on the canvas.

    Args:
        rng: the case's generator.
        style: the case's style.
        fibres: the course of its fibres.
        tissue: bool canvas, tissue against glass.
        invasive: float canvas, positive inside the tumour; its unit is the standard deviation of a smooth field.

    Attributes:
        invasive: invasive tumour, its stroma included; like the others a float canvas in [0, 1] unless said otherwise.
        nests: cells of the tumour.
        rim: epithelium of ducts and lobules.
        lumen: the hollow within them.
        cuff: dense collagen around them.
        fat: bool, fat cells.
        wall: the walls of those.
        crowd: crowds of lymphocytes.
        clefts: cracks in the stroma, and gaps around nests.
    """

    def __init__(self, rng: np.random.Generator, style: Style, fibres: Fibres, tissue: np.ndarray, invasive: np.ndarray):
        shape = tissue.shape
        self.invasive = step(invasive + 0.12 * field(rng, shape, 9), 0.15)
        outside = tissue & (invasive < 0)
        room = above(field(rng, shape, 38) + 0.4 * field(rng, shape, 14) - 0.9 * self.invasive, style.fat, outside)
        fat, self.wall = fat_cells(rng, room, rng.uniform(9, 13))
        room = above(field(rng, shape, 45), style.glands, outside) - 4 * (invasive > -0.1) - 4 * fat
        outer, inner = _glands(rng, room, style.glands, tissue)
        hollow = step(inner, 1.2)
        self.fat = fat & (outer < -1)
        self.rim = step(outer, 1.2) * (1 - hollow) * (1 - self.invasive)
        self.lumen = hollow * (1 - self.invasive)
        self.cuff = step(outer + 4, 3) * (1 - self.invasive)
        # nests: a blend of round islands and strands along the fibres, and single files
        island, strand = field(rng, shape, 5), fibres.texture(rng, 4.5, 16)
        blend = (1 - style.cords) * island + style.cords * strand
        blend = blend / np.hypot(1 - style.cords, style.cords) - 0.35 + 0.25 * field(rng, shape, 40)
        files = step(0.16 - np.abs(fibres.texture(rng, 5, 26)), 0.1) * step(field(rng, shape, 25), 1)
        self.nests = np.maximum(step(blend, 0.4), files) * self.invasive * ~fat
        crowd = step(above(field(rng, shape, 18), 0.16, tissue) - 0.3 * self.invasive, 0.5)
        self.crowd = crowd * ~fat * (1 - step(outer, 1))
        cracks = step(above(fibres.texture(rng, 2, 22), 0.07, tissue), 0.8) * (1 - 0.6 * self.invasive)
        # tissue shrinks away from nests
        gaps = step(0.4 - np.abs(blend + 0.55), 0.2) * step(field(rng, shape, 12) - 0.4, 0.5) * self.invasive
        self.clefts = np.maximum(cracks, 0.8 * gaps) * ~fat


def nuclei(rng: np.random.Generator, style: Style, fibres: Fibres, anatomy: Anatomy) -> np.ndarray:
    """Haematoxylin in nuclei: float canvas, about 1 at a dark nucleus."""
    shape, many = anatomy.rim.shape, style.cellularity
    # even, round nuclei: rims of ducts and lobules, and lymphocytes
    y, x = scatter(rng, np.maximum(anatomy.rim, 0.6 * anatomy.crowd * many) * (1 - anatomy.lumen), 2.1)
    small = dots(shape, y, x, rng.uniform(0.75, 1, len(y)), 0.6)
    # large, uneven nuclei of the tumour, each two dots apart by its own length and direction
    y, x = scatter(rng, 0.85 * anatomy.nests, 3.0)
    angle, half = rng.uniform(0, np.pi, len(y)), rng.uniform(0.2, 1.1, len(y))
    height = rng.uniform(0.25, 0.8, len(y))
    dy, dx = half * np.sin(angle), half * np.cos(angle)
    large = dots(shape, np.r_[y - dy, y + dy], np.r_[x - dx, x + dx], np.r_[height, height], 0.85)
    # spindle nuclei of the stroma, along the fibres
    chance = 0.11 * many * (1 - np.maximum(anatomy.rim, anatomy.nests)) * (1 - anatomy.fat)
    y, x = scatter(rng, chance * (1 - anatomy.lumen), 3.5)
    dy, dx = fibres.direction(y.astype(int), x.astype(int))
    offset = np.array([-1, 0, 1])[:, None]
    height = np.tile(rng.uniform(0.4, 0.7, len(y)), 3)
    spindle = dots(shape, (y + offset * dy).ravel(), (x + offset * dx).ravel(), height, 0.5)
    return 1.15 * (1 - np.exp(-1.3 * (small + large + spindle)))


def paint(rng: np.random.Generator, style: Style, tissue: np.ndarray, invasive: np.ndarray) -> np.ndarray:
    """One slide.

    Args:
        rng: the case's generator.
        style: the case's style.
        tissue: float canvas, positive where there is tissue; its unit is the standard deviation of a smooth field.
        invasive: float canvas, positive inside the tumour, in the same unit.

    Returns:
        uint8 array (height, width, 3).
    """
    shape = tissue.shape
    fibres = Fibres(rng, shape, style.angle)
    cover = step(tissue + 0.08 * field(rng, shape, 8) + 0.03 * field(rng, shape, 3), 0.04)
    anatomy = Anatomy(rng, style, fibres, cover > 0.5, invasive)
    strand = fibres.texture(rng, 1.5, 12) + 0.6 * fibres.texture(rng, 5, 40)
    eosin = 0.42 + 0.09 * strand + 0.12 * field(rng, shape, 50) + 0.14 * anatomy.cuff
    crowded = np.maximum(anatomy.rim, 0.7 * anatomy.crowd)
    eosin = eosin * (1 - 0.4 * crowded - 0.15 * anatomy.nests - 0.08 * anatomy.invasive)
    # ground substance outside the tumour takes some haematoxylin, so that its amount does not give the tumour away
    haematoxylin = 0.035 + (0.095 + 0.03 * field(rng, shape, 45)) * (1 - anatomy.invasive)
    haematoxylin = haematoxylin + 0.1 * np.maximum(anatomy.rim, anatomy.crowd) + 0.06 * anatomy.nests
    solid = np.where(anatomy.fat, anatomy.wall, 1) * (1 - anatomy.lumen) * (1 - 0.9 * anatomy.clefts) * cover
    room = np.where(anatomy.fat, 0.5 * anatomy.wall, 1) * cover
    haematoxylin = haematoxylin * solid + nuclei(rng, style, fibres, anatomy) * room
    thickness = np.exp(0.16 * field(rng, shape, 60))
    amount = (np.stack([haematoxylin, eosin * solid]).clip(0) * thickness).astype(np.float32)
    amount = ndimage.gaussian_filter(amount, (0, style.blur, style.blur), truncate=3)
    vectors = -DEPTH * style.stains.astype(np.float32)
    grain = np.float32(style.grain) * rng.standard_normal((*shape, 1), dtype=np.float32)
    image = np.empty((*shape, 3), np.uint8)
    for rows in blocks(len(image), 32):
        light = np.float32(style.white) * np.exp(amount[0, rows, :, None] * vectors[0] + amount[1, rows, :, None] * vectors[1])
        light += grain[rows]
        image[rows] = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return image
