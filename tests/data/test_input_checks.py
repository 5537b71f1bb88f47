"""What does not look like stained tissue at the archive's scale is said to be so, in both languages; what does is left alone."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image

from bhi_utils.core.messages import translated
from bhi_utils.data import archive, input_checks
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.predict import regions


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    found = [pixels for index in range(6) for _, pixels in synthetic_cohort.draw_slide(index, patches=24, seed=5).patches()]
    patches = np.stack([pixels for pixels in found if pixels.shape == (50, 50, 3)])
    return patches[(patches.min(axis=-1) >= input_checks.GLASS_LEVEL).mean(axis=(1, 2)) < input_checks.GLASS_SHARE]


def photograph(name: str) -> np.ndarray:
    image = load_sample_image(name)
    return np.stack([image[y : y + 50, x : x + 50] for y in range(0, 400, 50) for x in range(0, 600, 50)])


def test_tissue_is_not_doubted(tissue):
    assert input_checks.doubted(tissue)["any"].mean() < 0.03


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_photographs_are_doubted(name):
    assert input_checks.doubted(photograph(name))["any"].mean() > 0.85


def test_blurred_plain_and_grey_patches_are_doubted_for_that_reason(tissue):
    blurred = np.stack([np.asarray(Image.fromarray(patch).filter(ImageFilter.GaussianBlur(2.5))) for patch in tissue[:40]])
    assert input_checks.doubted(blurred)["blurred"].mean() > 0.8
    assert input_checks.doubted(np.full((1, 50, 50, 3), (190, 110, 170), np.uint8))["plain"].all()
    assert input_checks.doubted(np.repeat(tissue[:3, ..., :1], 3, axis=-1))["grey"].all()


def test_red_and_blue_swapped_are_told_of_a_patch_and_surely_of_many_together(tissue):
    pink = np.full((50, 50, 3), (240, 170, 205), np.uint8)
    pink[::3, ::2] = (110, 60, 140)
    assert "swapped" not in {one.key for one in input_checks.doubts(pink)} and [
        one.key for one in input_checks.doubts(pink[..., ::-1])
    ] == ["swapped"]
    assert input_checks.doubted(tissue)["swapped"].mean() < 0.03
    reddish = np.clip(tissue.astype(int) + (12, 0, 0), 0, 255).astype(np.uint8)  # the phantom's stain is bluer than the archive's
    assert input_checks.doubted(reddish[..., ::-1])["swapped"].mean() > 0.95
    assert input_checks.doubted(reddish[:5, ..., ::-1])["swapped"].mean() < 0.95, "few patches are judged one by one"


def test_a_field_seen_through_an_eyepiece_is_told_and_a_black_frame_is_not(tissue):
    wall = np.concatenate([np.concatenate(list(tissue[row : row + 8]), axis=1) for row in range(0, 48, 8)])
    down, across = np.indices(wall.shape[:2])
    for side, height in ((150, 300), (190, 300)):  # whole, and cut at the upper and lower edge
        round_field = np.where(((down - 150) ** 2 + (across - 200) ** 2 < side**2)[..., None], wall, 5)[:height].astype(np.uint8)
        round_field[3, 3] = 255  # a hot pixel
        assert input_checks.eyepiece(round_field) and regions.cut(round_field).doubt.key == "eyepiece"
    framed = np.pad(wall, ((60, 60), (60, 60), (0, 0)))
    assert (
        not input_checks.eyepiece(wall)
        and not input_checks.eyepiece(framed)
        and not input_checks.eyepiece(np.zeros((200, 200, 3), np.uint8))
    )


def test_one_patch_is_judged_as_among_many(tissue):
    for patch in (tissue[0], photograph("china.jpg")[0]):
        reasons = {sentence.key for sentence in input_checks.doubts(patch)}
        many = input_checks.doubted(np.stack([patch, tissue[1]]))
        assert reasons == {name for name, wrong in many.items() if wrong[0] and name != "any"}


def test_a_doubt_reaches_whoever_asks_about_a_file(tmp_path):
    Image.fromarray(photograph("china.jpg")[0]).save(tmp_path / "photo.png")
    found = input_checks.check_file(tmp_path / "photo.png")
    assert found.array is not None and "photograph" in " ".join(found.doubts)


@pytest.mark.skipif(not os.environ.get("BHI_TEST_ARCHIVE"), reason="BHI_TEST_ARCHIVE names no real archive")
def test_few_real_patches_are_doubted(tmp_path):
    pack = archive.pack(Path(os.environ["BHI_TEST_ARCHIVE"]), tmp_path / "cache", progress=False)
    sizes = pack.manifest[["width", "height"]].to_numpy()
    patches = np.asarray(pack.patches)[(sizes == 50).all(axis=1)]
    patches = patches[(patches.min(axis=-1) >= input_checks.GLASS_LEVEL).mean(axis=(1, 2)) < input_checks.GLASS_SHARE]
    found = input_checks.doubted(patches)
    assert 0.005 < found["any"].mean() < 0.03 and all(wrong.mean() < 0.015 for wrong in found.values() if wrong is not found["any"])
    assert not any(input_checks.eyepiece(patch) for patch in patches)


@pytest.fixture
def pixels() -> np.ndarray:
    """A patch in stain-like colours, no two places alike."""
    values = np.random.default_rng(0).integers(60, 200, (50, 50, 3))
    values[..., 1] //= 2
    return values.astype(np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "patch.png", **options) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def check(image: Image.Image) -> input_checks.Pixels:
    """What becomes of an image that is sent as a PNG."""
    image.save(stream := io.BytesIO(), "PNG")
    return input_checks.check_file(stream)


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def assert_refused(found: input_checks.Pixels, *words: str) -> None:
    assert found.array is None
    assert re.fullmatch(r"[A-Z].*\.", found.problem), "one sentence"
    assert "\n" not in found.problem
    for word in words:
        assert word in found.problem


def test_a_patch_arrives_pixel_for_pixel_and_without_notes(tmp_path, pixels):
    found = input_checks.check_file(saved(tmp_path, Image.fromarray(pixels)))
    assert found.problem == "" and found.notes == ()
    assert found.array.dtype == np.uint8
    np.testing.assert_array_equal(found.array, pixels)


def test_a_smaller_patch_is_filled_with_white_at_the_right_and_below(pixels):
    found = check(Image.fromarray(pixels[:20, :35]))
    np.testing.assert_array_equal(found.array[:20, :35], pixels[:20, :35])
    assert (found.array[20:] == 255).all() and (found.array[:, 35:] == 255).all()
    assert found.size == (35, 20)
    assert "35×20" in " ".join(found.notes)


@pytest.mark.parametrize("size", [(1, 1), (9, 50), (50, 9)])
def test_an_image_too_small_to_tell_anything_is_refused(size):
    assert_refused(check(Image.new("RGB", size)), f"{size[0]}×{size[1]}", "too small", "50×50")


@pytest.mark.parametrize("size", [(51, 50), (100, 100), (400, 30)])
def test_a_larger_image_is_refused_and_never_resized(size):
    assert_refused(check(Image.new("RGB", size)), f"{size[0]}×{size[1]}", "crop", "50×50")


def test_a_huge_image_is_refused_from_its_header_alone(tmp_path):
    for side in (3000, 12_000, 60_000):  # ours, Pillow's warning, Pillow's error
        path = tmp_path / f"{side}.png"
        path.write_bytes(png_header(side, side))
        assert_refused(input_checks.check_file(path), "too large", "crop")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.png", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n"),
        ("text.jpg", b"not an image"),
        ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='50' height='50'/>"),
        ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\nshowpage\n"),
    ],
)
def test_a_file_that_is_no_image_is_refused_whatever_its_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert_refused(input_checks.check_file(tmp_path / name), "not an image", "PNG")


def tiff(pixels: np.ndarray, *, compression: int = 1, kind: int = 1) -> bytes:
    """An uncompressed TIFF as Pillow does not write it: of any type of number, and claiming any compression."""
    height, width, channels = pixels.shape
    tags = {
        256: width,
        257: height,
        258: None,
        259: compression,
        262: 2,
        273: None,
        277: channels,
        278: height,
        279: pixels.nbytes,
        339: None,
    }
    after = 8 + 2 + 12 * len(tags) + 4
    tags |= {258: after, 339: after + 2 * channels, 273: after + 4 * channels}
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    for tag, value in tags.items():
        content += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, channels if tag in (258, 339) else 1, value)
    bits = [8 * pixels.dtype.itemsize] * channels
    return content + struct.pack(f"<I{2 * channels}H", 0, *bits, *[kind] * channels) + pixels.tobytes()


REASONS = {
    "an empty file": (lambda pixels: b"", "is empty"),
    "a TIFF of float32": (lambda pixels: tiff(pixels.astype(np.float32) / 255, kind=3), "floating-point numbers"),
    "a TIFF of JPEG 2000": (lambda pixels: tiff(pixels, compression=33005), "compressed as JPEG 2000"),
    "a TIFF of 32 bits": (lambda pixels: tiff(pixels.astype(np.uint32)), "compression 1, 32 bits a channel"),
    "a JPEG 2000": (lambda pixels: b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 file"),
    "a DICOM": (lambda pixels: bytes(128) + b"DICM" + bytes(40), "DICOM file"),
    "a zip cut short": (lambda pixels: b"PK\x03\x04" + bytes(40), "zip is damaged"),
    "a whole zip": (lambda pixels: b"PK\x05\x06" + bytes(18), "send it by itself in the tab Files"),
    "a PNG cut short": (lambda pixels: b"\x89PNG\r\n\x1a\n\0\0", "damaged or cut short"),
    "a larger image": (lambda pixels: tiff(np.tile(pixels, (3, 2, 1))), "tab Region"),
}


@pytest.mark.parametrize(("made", "words"), REASONS.values(), ids=REASONS)
def test_the_reason_is_the_true_one_and_names_the_way_out_in_both_languages(pixels, made, words):
    assert input_checks.check_file(io.BytesIO(tiff(pixels))).problem == "", "what the others are made like is read"
    found = input_checks.check_file(io.BytesIO(made(pixels)))
    assert_refused(found, words)
    assert "not an image that" not in found.problem and words not in translated(found.problem, "es")


def test_of_a_tiff_that_begins_with_a_thumbnail_the_largest_page_is_used_and_that_is_said(tmp_path, pixels):
    path = saved(tmp_path, Image.fromarray(pixels[:20, :20]), "pages.tif", save_all=True, append_images=[Image.fromarray(pixels)])
    found = input_checks.check_file(path)
    np.testing.assert_array_equal(found.array, pixels)
    assert "2 images" in (said := " ".join(found.notes)) and "number 2" in said
    found = regions.read(
        saved(tmp_path, Image.fromarray(pixels), "map.tif", save_all=True, append_images=[Image.fromarray(np.tile(pixels, (4, 3, 1)))])
    )
    assert found.array.shape == (200, 150, 3)


def test_a_missing_file_is_refused(tmp_path):
    assert_refused(input_checks.check_file(tmp_path / "none.png"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "webp"])
def test_a_file_cut_short_is_refused(tmp_path, pixels, suffix):
    path = saved(tmp_path, Image.fromarray(pixels), f"whole.{suffix}")
    assert input_checks.check_file(path).array is not None
    content = path.read_bytes()
    for share in (0.02, 0.5):
        path.write_bytes(content[: int(share * len(content))])
        assert_refused(input_checks.check_file(path))


def test_sixteen_bits_become_eight(tmp_path):
    deep = (np.arange(2500, dtype=np.uint16).reshape(50, 50) * 26).astype(np.uint16)
    found = input_checks.check_file(saved(tmp_path, Image.fromarray(deep)))
    np.testing.assert_allclose(found.array[..., 0], deep / 257, atol=0.51)
    assert "16-bit" in " ".join(found.notes)


def test_thirty_two_bits_are_refused(tmp_path):
    for kind in (np.float32, np.int32):
        path = saved(tmp_path, Image.fromarray(np.ones((50, 50), dtype=kind)), "deep.tif")
        assert_refused(input_checks.check_file(path), "32 bits", "8-bit")


def test_grey_is_read_and_doubted(pixels):
    found = check(Image.fromarray(pixels).convert("L"))
    assert (found.array[..., 0] == found.array[..., 2]).all()
    assert "grey" in " ".join(found.doubts)


def test_transparent_parts_are_laid_on_white(tmp_path, pixels):
    alpha = np.full((50, 50, 1), 255, dtype=np.uint8)
    opaque = input_checks.check_file(saved(tmp_path, Image.fromarray(np.concatenate([pixels, alpha], axis=-1))))
    assert opaque.notes == ()
    np.testing.assert_array_equal(opaque.array, pixels)
    alpha[:25] = 0
    found = input_checks.check_file(saved(tmp_path, Image.fromarray(np.concatenate([pixels, alpha], axis=-1))))
    assert (found.array[:25] == 255).all()
    np.testing.assert_array_equal(found.array[25:], pixels[25:])
    assert "white" in " ".join(found.notes)


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path):
    image = Image.new("P", (50, 50), 0)
    image.putpalette([10, 20, 30, 200, 100, 150])
    image.paste(1, (0, 0, 25, 50))
    found = input_checks.check_file(saved(tmp_path, image, transparency=0))
    assert (found.array[:, 25:] == 255).all()
    assert (found.array[:, :25] == (200, 100, 150)).all()


def test_cmyk_is_converted_and_said(tmp_path, pixels):
    found = input_checks.check_file(saved(tmp_path, Image.fromarray(pixels).convert("CMYK"), "print.tif"))
    assert np.abs(found.array.astype(int) - pixels).max() <= 2
    assert "CMYK" in " ".join(found.notes)


def test_of_an_animation_the_first_frame_is_used(tmp_path):
    frames = [Image.new("RGB", (50, 50), colour) for colour in ((180, 90, 160), (90, 60, 120))]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    found = input_checks.check_file(path)
    assert (found.array == (180, 90, 160)).all()
    assert "2 images" in " ".join(found.notes)


def test_the_cameras_rotation_is_undone(pixels):
    image = Image.fromarray(pixels[:30])
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    stream = io.BytesIO()
    image.save(stream, "png", exif=exif)
    found = input_checks.check_file(stream)
    assert found.size == (30, 50)
    np.testing.assert_array_equal(found.array[:, :30], np.rot90(pixels[:30], -1))
    assert "EXIF" in " ".join(found.notes)


def test_an_empty_patch_is_doubted():
    found = check(Image.new("RGB", (50, 50), (240, 238, 241)))
    assert found.array is not None
    assert "glass" in " ".join(found.doubts)
