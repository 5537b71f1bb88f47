"""The shared look of all figures, what several of them draw alike, and PNG files.

Blue is IDC− and orange is IDC+ everywhere: people with any common kind of colour blindness can tell the two apart, and no meaning hangs on
colour alone.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter
from PIL import Image


def write_palette(picture: Image.Image, place: Path | IO[bytes]) -> None:
    """Writes a picture as PNG with a palette of 256 colours that spans all its hues.

    Pillow's default, the median cut, spends its colours on the most frequent ones: beside tissue, the few orange places of an evidence map
    turned pink.
    """
    palette = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    palette.save(place, format="PNG", optimize=True)


NEGATIVE, POSITIVE = "#0072B2", "#D55E00"
COLOURS = (NEGATIVE, POSITIVE)
PART_COLOURS = {"train": "#BFBFBF", "val": "#F0C44A", "test": "#00735C", "unused": "#FFFFFF"}
INK = "#404040"
#: Where a slide has no patch: neither glass, which is white, nor tissue.
BLANK = "#DDE6EE"
THOUSANDS = StrMethodFormatter("{x:,.0f}")
_LOOK = mpl.rc_params_from_file(Path(__file__).with_name("look.mplstyle"), use_default_template=False)


@contextmanager
def style() -> Iterator[None]:
    """Gives figures the look of ``look.mplstyle``, as a context or decorator."""
    with mpl.rc_context(_LOOK):
        yield


def subplots(size: tuple[float, float], rows: int = 1, columns: int = 1, **layout: Any) -> tuple[Figure, Any]:
    """Returns a figure of ``size`` in inches and its axes, as ``Figure.subplots`` gives them."""
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns, **layout)


def colour_map() -> LinearSegmentedColormap:
    """Returns blue over light grey to orange, for a legend beside a map."""
    return LinearSegmentedColormap.from_list("evidence", [NEGATIVE, "#E6E6E6", POSITIVE])


def keys(colours: Mapping[str, str]) -> list[Patch]:
    """Returns a legend's entries, one box a colour; ``colours`` maps each label to its colour."""
    return [Patch(facecolor=colour, edgecolor=INK, linewidth=0.5, label=label) for label, colour in colours.items()]


def bare(axes: np.ndarray) -> None:
    """Takes ticks and frames from pictures."""
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def slide_grid(axis: Axes, x: np.ndarray, y: np.ndarray, values: Any, **look: Any) -> AxesImage:
    """Draws one value a patch in the patches' places, their columns ``x`` and rows ``y`` counted from 0."""
    grid = np.full((y.max() + 1, x.max() + 1), np.nan)
    grid[y, x] = values
    axis.set_xlabel("column of patches")
    axis.locator_params(integer=True)
    return axis.imshow(grid, **look)


def signed(figure: Figure, data: str) -> Figure:
    """Returns the figure with the origin of its data at its foot.

    The note stands below the figure proper: a tight bounding box makes room for it, so it never covers an axis label.
    """
    figure.text(1.0, -0.01, f"Data: {data}", ha="right", va="top", fontsize=8, color="0.35")
    return figure


def png(figure: Figure, *, dpi: int) -> bytes:
    """Returns ``figure`` as PNG bytes without dates and versions."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()
