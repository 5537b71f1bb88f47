"""The shared look of all figures, and small PNG files.

Blue is IDC− and orange is IDC+ everywhere, a pair that is told apart with every common kind of colour blindness, and no meaning hangs on
colour alone.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import matplotlib as mpl
from matplotlib.ticker import StrMethodFormatter
from PIL import Image


def write_palette(picture: Image.Image, place: Path | IO[bytes]) -> None:
    """Write a picture as PNG with the 256 colours that come nearest to all that it has.

    Pillow's own choice, the median cut, spends its colours on what there is most of: beside tissue, the few orange places of an evidence
    map turned pink. Colours that span the whole range, drawn to what they stand for, keep every hue.
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


def style() -> AbstractContextManager:
    """The shared look, as a context or decorator: sans-serif text of at least 8 points, no box, light grid behind the data."""
    return mpl.rc_context(
        {
            "font.size": 9.0,
            "axes.titlesize": 10.0,
            "axes.titlelocation": "left",
            "axes.labelsize": 9.0,
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "legend.fontsize": 8.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": INK,
            "axes.axisbelow": True,
            "axes.grid": False,
            "grid.color": "#E5E5E5",
            "image.interpolation": "nearest",
            "figure.constrained_layout.use": True,
        }
    )
