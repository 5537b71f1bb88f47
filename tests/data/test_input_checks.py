"""What does not look like stained tissue at the archive's scale is said to be so, in both languages; what does is left alone."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image

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
    assert found.patch is not None and "photograph" in " ".join(found.doubts)


@pytest.mark.skipif(not os.environ.get("BHI_TEST_ARCHIVE"), reason="BHI_TEST_ARCHIVE names no real archive")
def test_few_real_patches_are_doubted(tmp_path):
    pack = archive.pack(Path(os.environ["BHI_TEST_ARCHIVE"]), tmp_path / "cache", progress=False)
    sizes = pack.manifest[["width", "height"]].to_numpy()
    patches = np.asarray(pack.patches)[(sizes == 50).all(axis=1)]
    patches = patches[(patches.min(axis=-1) >= input_checks.GLASS_LEVEL).mean(axis=(1, 2)) < input_checks.GLASS_SHARE]
    found = input_checks.doubted(patches)
    assert 0.005 < found["any"].mean() < 0.03 and all(wrong.mean() < 0.015 for wrong in found.values() if wrong is not found["any"])
    assert not any(input_checks.eyepiece(patch) for patch in patches)
