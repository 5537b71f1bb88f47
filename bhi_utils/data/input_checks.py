"""Reads any image file, and tells whether it is a readable patch of H&E tissue at the archive's scale.

Used by ``predict``, the app and the inspection of a source. This is the one place that decodes images. A file's header is read before its
pixels, so a decompression bomb is never unpacked. Nothing here raises on bad input: an answer holds the pixels, or one sentence that says
why not.
"""

import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from bhi_utils.core.messages import Sentence, say
from bhi_utils.data.decode import PATCH, pad

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
        array: uint8 array (height, width, 3), or None when the image is refused; (50, 50, 3) from `check_file`.
        problem: one sentence that says why it is refused and what to do; empty when it is not.
        notes: sentences on what was done to the image.
        doubts: sentences on why a patch does not look like stained tissue at the archive's scale, so that an answer means little.
        size: width and height in pixels after the camera's rotation; (0, 0) when the file could not be read.
    """

    array: np.ndarray | None
    problem: str = ""
    notes: tuple[Sentence, ...] = ()
    doubts: tuple[Sentence, ...] = ()
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
    frames = getattr(image, "n_frames", 1)
    if frames == 1:
        return ()

    def pixels(page: int) -> int:
        image.seek(page)
        return image.width * image.height

    largest = max(range(frames), key=pixels) if image.format == "TIFF" else 0
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


#: Side in pixels of the smallest patch that is still worth an answer.
SMALLEST = 10
#: An image with more pixels than this is far too large for a patch, and is told so.
MAX_PIXELS = 4_000_000
#: A pixel whose darkest channel is at least this (0–255) counts as glass; a patch with this share of it, as empty.
GLASS_LEVEL, GLASS_SHARE = 215, 0.9
#: Mean difference between a pixel's largest and smallest channel below which an image counts as grey.
GREY_LEVEL = 3.0
#: Haematoxylin and eosin absorb green most: of the coloured pixels (not glass, channels so far apart) at least this share has green no
#: more than a little above red and blue. Of the real patches 1 % have less than 0.67, most of them inked; of squares of photographs most.
COLOURED, OVER_RED, OVER_BLUE, FITTING = 12, 4, 8, 0.6
#: Where fewer pixels than this share are coloured, their hue says nothing.
ENOUGH = 0.05
#: Standard deviation of brightness in grey levels under which a patch is plain: 0.1 % of the real ones.
PLAIN = 6.5
#: Mean size of the Laplacian over that deviation under which a patch is blurred: 0.4 % of the real ones are.
BLURRED = 0.25
#: Mean optical density of green over the coloured pixels from which a patch is too dark to be stained tissue: 0.4 % of the real ones.
DARK = 1.4
#: Mean of red minus blue over the coloured pixels under which both look swapped. Of one patch: 0.14 % of the real ones that nothing else
#: speaks against, and 64 % of them with both swapped. Of `TOGETHER` patches or more of one image: no case of 222, and 97 % of them swapped.
SWAPPED, SWAPPED_TOGETHER, TOGETHER = -20.0, -8.0, 10
#: Brightness of the largest channel (0–255) under which the surroundings of an eyepiece's field are, and from which its middle is.
BLACK, BRIGHT = 40, 100
#: Patches that are measured at a time, so that floats of a whole region never exist at once.
_CHUNK = 512


def check_file(file: Path | BinaryIO) -> Pixels:
    """Turn a file, or a stream of its bytes, into a patch, or say why it cannot be one.

    Accepted are sides of 10 to 50 pixels; what is missing to 50×50 is filled with white at the right and below, as at the edges of the
    archive's slides. Nothing is resized: the models know one scale only.

    Args:
        file: any file, whatever its name says.
    """
    found = read(file, _wrong_size, bomb="far_too_large")
    if found.array is None:
        return found
    height, width = found.array.shape[:2]
    whole = (width, height) == (PATCH, PATCH)
    notes = found.notes if whole else (*found.notes, say("padded", width=width, height=height))
    return replace(found, array=pad(found.array), notes=notes, doubts=doubts(found.array, whole=whole))


def _wrong_size(width: int, height: int) -> Sentence | None:
    if width * height > MAX_PIXELS:
        return say("too_large", what=f"{width}×{height}")
    if min(width, height) < SMALLEST:
        return say("too_small", width=width, height=height)
    if max(width, height) <= PATCH:
        return None
    return say("no_patch_but_region" if min(width, height) >= PATCH else "no_patch", width=width, height=height)


def doubts(patch: np.ndarray, *, whole: bool = True) -> tuple[Sentence, ...]:
    """Why an answer for one patch means little; empty for what looks like stained tissue at the archive's scale.

    Args:
        patch: uint8 array (height, width, 3), without padding.
        whole: whether it is 50×50; sharpness of smaller ones is not judged.
    """
    found = measure(patch[None])
    if found["glass"][0] >= GLASS_SHARE:
        return (say("glass"),)
    if eyepiece(patch):
        return (say("eyepiece"),)
    return tuple(say(name) for name, wrong in judged(found).items() if wrong[0] and (whole or name != "blurred"))


def doubted(patches: np.ndarray) -> dict[str, np.ndarray]:
    """Reason to bool array (n,): which of the 50×50 ``patches`` (uint8 (n, 50, 50, 3)) are doubted for it; and the key ``any``.

    They are patches of one image with tissue: emptiness is not judged, and red and blue of many are held together.
    """
    parts = [measure(patches[start : start + _CHUNK]) for start in range(0, max(len(patches), 1), _CHUNK)]
    measured = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found, coloured = judged(measured), measured["coloured"] >= ENOUGH
    if coloured.sum() >= TOGETHER and measured["redness"][coloured].mean() < SWAPPED_TOGETHER:
        found["swapped"] = coloured & ~found["grey"]
    return {**found, "any": np.any(list(found.values()), axis=0)}


def eyepiece(pixels: np.ndarray) -> bool:
    """Whether a picture, uint8 array (height, width, 3), is a round bright field on black, as through a microscope's eyepiece."""
    bright = pixels.max(axis=-1) >= BLACK
    # a few bright points outside, such as hot pixels, do not widen the field
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > 0.02) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return False
    field = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].max(axis=-1)
    height, width = field.shape
    side = max(min(height, width) // 20, 1)
    corners = (field[:side, :side], field[:side, -side:], field[-side:, :side], field[-side:, -side:])
    middle = field[height // 3 : height - height // 3, width // 3 : width - width // 3]
    return all(corner.mean() < BLACK for corner in corners) and float(middle.mean()) >= BRIGHT


def judged(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What was measured, held against the levels: reason, a key of `core.messages.SENTENCES`, to bool array. Grey ones have no other."""
    grey = found["spread"] < GREY_LEVEL
    coloured = ~grey & (found["coloured"] >= ENOUGH)
    plain = ~grey & (found["deviation"] < PLAIN)
    return {
        "grey": grey,
        "colours": coloured & (found["fitting"] < FITTING),
        "swapped": coloured & (found["redness"] < SWAPPED),
        "dark": coloured & (found["density"] > DARK),
        "plain": plain,
        "blurred": ~grey & ~plain & (found["detail"] < BLURRED),
    }


def measure(patches: np.ndarray) -> dict[str, np.ndarray]:
    """Float arrays (n,) for patches, uint8 (n, height, width, 3).

    Returns:
        ``glass`` (share of pixels), ``spread`` (mean of largest minus smallest channel), ``coloured`` (share of pixels), ``fitting``
        (share of the coloured ones that haematoxylin and eosin could give), ``redness`` (mean of red minus blue over them), ``density``
        (mean optical density of green over them), ``deviation`` (of brightness) and ``detail`` (mean size of the Laplacian over that).
    """
    red, green, blue = (patches[..., channel].astype(np.int16) for channel in range(3))
    darkest, brightest = patches.min(axis=-1), patches.max(axis=-1)
    spread = brightest - darkest
    coloured = (darkest < GLASS_LEVEL) & (spread >= COLOURED)
    count = np.maximum(np.count_nonzero(coloured, axis=(1, 2)), 1)
    fits = coloured & (green <= red + OVER_RED) & (green <= blue + OVER_BLUE)
    density = np.where(coloured, -np.log((green.astype(np.float32) + 1) / 256), 0)
    grey = patches.mean(axis=-1, dtype=np.float32)
    middle = 4 * grey[:, 1:-1, 1:-1]
    laplacian = middle - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    deviation = grey.std(axis=(1, 2))
    return {
        "glass": (darkest >= GLASS_LEVEL).mean(axis=(1, 2)),
        "spread": spread.mean(axis=(1, 2)),
        "coloured": coloured.mean(axis=(1, 2)),
        "fitting": np.count_nonzero(fits, axis=(1, 2)) / count,
        "redness": np.where(coloured, red - blue, 0).sum(axis=(1, 2)) / count,
        "density": density.sum(axis=(1, 2)) / count,
        "deviation": deviation,
        "detail": np.abs(laplacian).mean(axis=(1, 2)) / np.maximum(deviation, 1e-3),
    }
