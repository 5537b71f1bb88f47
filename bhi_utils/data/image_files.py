"""Any image file, whatever its name says, as upright 8-bit RGB pixels, or one sentence that says why not: the one place that decodes.

Used by ``data.input_checks`` for single patches and by ``predict.regions`` for whole regions. A file's header is read before its pixels, so
a decompression bomb is never unpacked. Nothing here raises on bad input.
"""

import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from bhi_utils.core.messages import Sentence, say

#: Formats that are opened; the others (EPS, PDF, …) would start foreign programs or carry no pixels.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
#: Side in pixels of the largest region, and with it the most pixels that are ever decoded; a header that claims more is refused.
MOST_SIDE = 10_000
# Pillow warns from its own limit on, 89 million, and fails from twice as many: both belong to what is refused here
Image.MAX_IMAGE_PIXELS = MOST_SIDE**2
_BAND = 512
#: Beginnings of files that are opened here: one that has it and is not opened is damaged.
_OPENED = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
#: Beginnings of files of other kinds: where in the file, what stands there, and what people call it.
_OTHERS = ((4, b"jP  ", "JPEG 2000"), (0, b"\xff\x4f\xff\x51", "JPEG 2000"), (4, b"ftyp", "HEIC, AVIF or video"), (128, b"DICM", "DICOM"))
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_2000, _FLOAT = (33003, 33005, 34712), 3


@dataclass(frozen=True)
class Pixels:
    """What became of an image.

    Attributes:
        array: uint8 array (height, width, 3), or None when the image is refused.
        problem: why it is refused and what to do; empty when it is not.
        notes: what was done to the image.
        size: width and height in pixels after the camera's rotation; (0, 0) when the file could not be read.
    """

    array: np.ndarray | None
    problem: str = ""
    notes: tuple[Sentence, ...] = ()
    size: tuple[int, int] = (0, 0)


def read(file: Path | BinaryIO, refuse: Callable[[int, int], Sentence | None], *, bomb: str) -> Pixels:
    """Decode a file or a stream of its bytes.

    Args:
        file: any file, whatever its name says.
        refuse: takes width and height as the header gives them, and says why such an image is not wanted; None for one that is.
        bomb: what to say of an image with too many pixels for Pillow to open, a key of `core.messages.SENTENCES`.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            return _decoded(image, refuse, _paged(image))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        return Pixels(None, say("unreadable"))
    except (UnidentifiedImageError, SyntaxError, KeyError):  # what Pillow says of a TIFF's page that it cannot read
        return Pixels(None, _unknown(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Pixels(None, say(bomb))
    except Exception:  # Pillow's readers raise whatever the damaged byte leads to
        return Pixels(None, say("damaged"))


def _unknown(file: Path | BinaryIO) -> Sentence:
    """Why Pillow does not know a file, and the way out, from the file's beginning."""
    with open(file, "rb") if isinstance(file, str | Path) else nullcontext(file) as stream:
        stream.seek(0)
        head = stream.read(132)
        if not head:
            return say("empty_file")
        if head[:4] in _TIFF:
            return _unknown_tiff(stream, head)
        if head[:2] == b"PK":
            return say("zip" if zipfile.is_zipfile(stream) else "damaged_zip")
    if head.startswith(_OPENED):
        return say("damaged")
    kind = next((kind for at, mark, kind in _OTHERS if head[at:].startswith(mark)), None)
    return say("other_format", kind=kind) if kind else say("not_an_image")


def _unknown_tiff(stream: BinaryIO, head: bytes) -> Sentence:
    try:
        page = TiffImagePlugin.ImageFileDirectory_v2(head[:16] if head[2:4].strip(b"\0") == b"+" else head[:8])
        stream.seek(page.next)
        page.load(stream)
        compression, bits = page.get(TiffImagePlugin.COMPRESSION, 1), page[TiffImagePlugin.BITSPERSAMPLE]
    except Exception:  # as in `read`
        return say("damaged")
    if compression in _JPEG_2000:
        return say("tiff_jpeg2000")
    if _FLOAT in page.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        return say("tiff_float")
    return say("tiff_other", compression=compression, bits=max(bits))


def _paged(image: Image.Image) -> tuple[Sentence, ...]:
    """Turn to the largest page of a TIFF, which may begin with a thumbnail, and to the first image of an animation; say so."""
    frames, largest = getattr(image, "n_frames", 1), 0
    if frames == 1:
        return ()
    if image.format == "TIFF":
        sizes = []
        for page in range(frames):
            image.seek(page)
            sizes.append(image.width * image.height)
        largest = sizes.index(max(sizes))
    image.seek(largest)
    return (say("frames_largest", frames=frames, number=largest + 1) if largest else say("frames", frames=frames),)


def _decoded(image: Image.Image, refuse: Callable[[int, int], Sentence | None], notes: tuple[Sentence, ...]) -> Pixels:
    """`read` for an image that is open; ``notes`` are handed on."""
    size = image.size
    # the camera's rotation can only swap the sides, so a wrong size is refused before anything is decoded
    if problem := refuse(*size):
        return Pixels(None, problem, size=size)
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
            image, notes = ImageOps.exif_transpose(image), (*notes, say("turned"))
        if image.mode in ("I", "F"):
            return Pixels(None, say("bits"), size=image.size)
        array, transparent = _rgb(image)
    except Exception:  # as in `read`
        return Pixels(None, say("damaged"), size=size)
    done = {"sixteen": image.mode.startswith("I;16"), "transparent": transparent, "cmyk": image.mode == "CMYK"}
    return Pixels(array, notes=(*notes, *(say(key) for key, true in done.items() if true)), size=image.size)


def _rgb(image: Image.Image) -> tuple[np.ndarray, bool]:
    """The pixels, and whether some were transparent. Converted band by band: a large image is never held in another mode as a whole."""
    width, height = image.size
    array, transparent = np.empty((height, width, 3), np.uint8), False
    image.load()
    for top in range(0, height, _BAND):
        band = image.crop((0, top, width, min(top + _BAND, height)))
        if band.mode.startswith("I;16"):
            values = np.rint(np.asarray(band).astype(np.float64) / 257)  # 65535 becomes 255
            band = Image.fromarray(values.astype(np.uint8))
        elif image.has_transparency_data:
            layers = band.convert("RGBA")
            transparent |= bool((np.asarray(layers)[..., 3] < 255).any())
            band = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
        array[top : top + band.height] = np.asarray(band.convert("RGB"))
    return array, transparent
