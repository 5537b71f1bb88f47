"""Is this a readable patch at the archive's scale? Turns any file or image into a uint8 50×50 patch, or says why not.

Used by the interface and by prediction on files. Nothing here raises on bad input: a ``Quality`` carries either a patch
or one sentence for the person who sent it. A file's header is read before its pixels, so a decompression bomb is never
unpacked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

#: Side in pixels of the patches that the models are trained on, and the smallest one that is still worth an answer.
PATCH, SMALLEST = 50, 10
#: Formats that are opened; the others (EPS, PDF, …) would start foreign programs or carry no pixels.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
#: An image with more pixels than this is refused from its header alone.
MAX_PIXELS = 4_000_000
#: A pixel whose darkest channel is at least this (0–255) counts as glass; a patch with this share of it, as empty.
GLASS_LEVEL, GLASS_SHARE = 215, 0.9
#: Mean difference between a pixel's largest and smallest channel below which an image counts as grey.
GREY_LEVEL = 3.0


@dataclass(frozen=True)
class Quality:
    """What became of an image.

    Attributes:
        patch: uint8 array (50, 50, 3), or None when the image is refused.
        problem: one sentence that says why it is refused and what to do; empty when it is not.
        notes: sentences on what was done to the image, or what makes an answer doubtful.
        size: width and height in pixels after the camera's rotation; (0, 0) when the file could not be read.
    """

    patch: np.ndarray | None
    problem: str = ""
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)


def check_file(file: Path | BinaryIO) -> Quality:
    """Check a file, or a stream of its bytes, whatever its name says; see ``check``."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return check(image)
    except (UnidentifiedImageError, FileNotFoundError):
        return Quality(None, f"This file is not an image that can be read: send a {_listed(FORMATS)} file.")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Quality(None, _too_large("far more"))
    except Exception:  # Pillow's readers raise whatever the damaged byte leads to
        return Quality(None, _DAMAGED)


def check(image: Image.Image) -> Quality:
    """Turn an image into a patch, or say why it cannot be one.

    Accepted are sides of 10 to 50 pixels; what is missing to 50×50 is filled with white at the right and below, as at
    the edges of the archive's slides. Nothing is resized: the models know one scale only.

    Args:
        image: an image of any mode, also one whose pixels are not decoded yet.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        return Quality(None, _too_large(f"{width}×{height}"), size=image.size)
    # the camera's rotation can only swap the sides, so a wrong size is refused before anything is decoded
    problem = _size_problem(width, height)
    if problem:
        return Quality(None, problem, size=image.size)
    try:
        array, notes = _to_rgb(image)
    except Exception:  # as in check_file
        return Quality(None, _DAMAGED, size=(width, height))
    if array is None:
        return Quality(None, notes[0], size=(width, height))
    height, width = array.shape[:2]
    if (width, height) != (PATCH, PATCH):
        notes.append(f"The image is {width}×{height} pixels, so it is filled up with white to {PATCH}×{PATCH}.")
    notes.extend(_doubts(array))
    patch = np.full((PATCH, PATCH, 3), 255, dtype=np.uint8)
    patch[:height, :width] = array
    return Quality(patch, notes=tuple(notes), size=(width, height))


_DAMAGED = "This image is damaged or cut short and cannot be decoded: send the file again, or export it anew as PNG."


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]


def _too_large(what: str) -> str:
    return (
        f"This image is too large to open here ({what} pixels): crop a patch of {PATCH}×{PATCH} pixels at the "
        "archive's scale, about 4 µm a pixel, and send that."
    )


def _size_problem(width: int, height: int) -> str:
    if min(width, height) < SMALLEST:
        return (
            f"This image is {width}×{height} pixels, too small to tell anything: send a patch of {PATCH}×{PATCH} "
            f"pixels, with no side under {SMALLEST}."
        )
    if max(width, height) > PATCH:
        return (
            f"This image is {width}×{height} pixels, but the model reads one patch of {PATCH}×{PATCH} pixels at the "
            f"archive's scale, about 4 µm a pixel: crop a {PATCH}×{PATCH} part and send that; nothing is resized."
        )
    return ""


def _to_rgb(image: Image.Image) -> tuple[np.ndarray | None, list[str]]:
    """The upright first frame as uint8 (height, width, 3), what was done; None and why when their range is unknown."""
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        image.seek(0)
        notes.append(f"The file holds {frames} images; only the first is used.")
    if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
        image = ImageOps.exif_transpose(image)
        notes.append("The image is turned upright as its EXIF data asks.")
    if image.mode in ("I", "F"):
        return None, ["This image stores 32 bits a channel, whose range is unknown: export it as an 8-bit RGB PNG."]
    if image.mode.startswith("I;16"):
        values = np.rint(np.asarray(image).astype(np.float64) / 257)  # 65535 becomes 255
        image = Image.fromarray(values.astype(np.uint8))
        notes.append("The 16-bit values are brought to 8 bits.")
    elif image.has_transparency_data:
        layers = image.convert("RGBA")
        if layers.getchannel("A").getextrema()[0] < 255:
            notes.append("Transparent parts are laid on white.")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    elif image.mode == "CMYK":
        notes.append("The print colours (CMYK) are converted to RGB without a profile, so the stain may look off.")
    return np.asarray(image.convert("RGB")), notes


def _doubts(array: np.ndarray) -> list[str]:
    """What makes the answer for these pixels doubtful."""
    doubts = []
    glass = (array.min(axis=-1) >= GLASS_LEVEL).mean()
    spread = (array.max(axis=-1).astype(int) - array.min(axis=-1)).mean()
    if glass >= GLASS_SHARE:
        doubts.append("Almost all of the patch is empty glass; the answer says little.")
    elif spread < GREY_LEVEL:
        doubts.append("The image is grey, without haematoxylin and eosin; the model has never seen such a patch.")
    return doubts
