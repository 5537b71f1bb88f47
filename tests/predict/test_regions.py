"""A region is cut at its grid, its glass skipped, each patch answered as it is alone, and its threshold moved without the network."""

import io
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit

from bhi_utils import plots
from bhi_utils.__main__ import main
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import networks
from bhi_utils.model.predictor import Predictor, save_bundle
from bhi_utils.predict import regions


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """A synthetic slide of 7 × 9 patches, the last row and column cut, the first two rows glass."""
    slide = synthetic_cohort.draw_slide(0, patches=120, seed=3).image[:430, :320]
    slide = np.pad(slide, ((0, 430 - slide.shape[0]), (0, 320 - slide.shape[1]), (0, 0)), mode="reflect")
    slide[:100] = 250
    return np.ascontiguousarray(slide)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, pixels):
    model = networks.cnn(image_size=32, seed=0, filters=(4, 8))
    logit = float(np.median(model.predict_on_batch(regions.cut(pixels).patches.astype(np.float32))))
    calibration = Calibration(0.7, -0.4)
    return save_bundle(model, tmp_path_factory.mktemp("bundle"), threshold=float(expit(logit)), calibration=calibration, card={})


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle)


@pytest.fixture(scope="module")
def region(predictor, pixels):
    tiles = regions.cut(pixels)
    return regions.assembled(tiles, list(regions.answers(predictor, tiles.patches)))


def test_the_patches_are_those_of_the_grid_and_glass_is_skipped(pixels):
    tiles = regions.cut(pixels)
    assert tiles.size == (320, 430) and tiles.background + len(tiles.patches) == 7 * 9
    assert tiles.table["y"].min() == 100 and tiles.background >= 14
    for patch, row in zip(tiles.patches, tiles.table.itertuples(), strict=True):
        there = pixels[row.y : row.y + 50, row.x : row.x + 50]
        np.testing.assert_array_equal(patch[: there.shape[0], : there.shape[1]], there)
        assert (patch[there.shape[0] :] == 255).all() and (patch[:, there.shape[1] :] == 255).all()


def test_each_patch_has_the_answer_and_the_evidence_that_it_gets_alone(region, predictor):
    assert list(region.table.columns) == list(regions.COLUMNS)
    for row in (0, len(region.table) // 2, len(region.table) - 1):
        alone, maps = predictor.predict_with_evidence(region.tiles.patches[row][None])
        assert region.table["probability_calibrated"][row] == pytest.approx(alone["probability_calibrated"][0], abs=1e-5)
        np.testing.assert_allclose(region.maps[row], maps[0], atol=1e-4)


def test_the_share_follows_the_threshold_and_the_network_is_not_asked(region, predictor, monkeypatch):
    monkeypatch.setattr(Predictor, "predict_with_evidence", lambda *_: pytest.fail("the network ran again"))
    assert region.share == pytest.approx((region.table["predicted_label"] == 1).mean()) and 0.3 < region.share < 0.7
    assert region.at_threshold(predictor, 0.0).share == 1 and region.at_threshold(predictor, 1.0).share == 0
    none = region.at_threshold(predictor, 1.0).table
    assert (none["label"] == "IDC−").all() and (none["predicted_label"] == 0).all()
    assert region.at_threshold(predictor, predictor.threshold_calibrated).table.equals(region.table)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2, 0.31, 0.5, 0.8, 1.0])
def test_either_threshold_of_a_table_gives_its_classes_and_each_is_on_its_own_probabilitys_scale(region, predictor, threshold):
    values = sorted(region.table["probability_calibrated"])
    # also one that is a patch's own probability
    for one in (threshold, values[len(values) // 3]):
        table = (region if one is None else region.at_threshold(predictor, one)).table
        for scale in ("", "_calibrated"):
            np.testing.assert_array_equal(table[f"probability{scale}"] >= table[f"threshold{scale}"], table["predicted_label"] == 1)
        calibrated = table["threshold_calibrated"].iloc[0]
        assert calibrated == (predictor.threshold_calibrated if one is None else one)
        if 0 < calibrated < 1:
            assert predictor.calibration.move(table["threshold"].iloc[0]) == pytest.approx(calibrated, abs=1e-9)


def test_a_place_leads_to_its_patch(region):
    row = region.table.iloc[3]
    assert region.at(row["x"] + 49.9, row["y"]) == 3
    assert region.at(row["x"], 20) is None, "glass"


def test_answering_stops_when_nobody_asks_on(predictor, monkeypatch):
    asked = []
    monkeypatch.setattr(regions, "STEP", 2)
    monkeypatch.setattr(Predictor, "predict_with_evidence", lambda self, patches: asked.append(len(patches)) or (None, None))
    steps = regions.answers(predictor, np.zeros((9, 50, 50, 3), np.uint8))
    next(steps)
    steps.close()
    assert asked == [2]


@pytest.mark.parametrize("size", [(49, 300), (10_001, 60)])
def test_an_image_of_another_size_is_refused_with_a_sentence(size):
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, "PNG")
    found = regions.read(stream)
    assert found.array is None and f"{size[0]}×{size[1]}" in found.problem


def test_a_bomb_is_never_unpacked():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000_000))) + chunk(b"IEND", b"")
    assert "far more pixels" in regions.read(io.BytesIO(content)).problem


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGBA", "P", "I;16"])
def test_a_region_may_have_any_mode(pixels, mode):
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF" if mode == "CMYK" else "PNG")
    found = regions.read(stream)
    reference = pixels if mode in ("CMYK", "RGBA") else np.asarray(image.convert("RGB")) if mode != "I;16" else pixels[..., :1]
    assert np.abs(found.array.astype(int) - reference).max() <= 2


def test_a_grey_region_is_doubted_as_a_whole_and_glass_alone_is_refused(pixels):
    grey = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert "grey" in regions.cut(grey).doubt and regions.cut(pixels).doubt is None
    assert "no tissue" in regions.cut(np.full((200, 200, 3), 250, np.uint8))


def test_orange_is_above_the_threshold_blue_under_it_and_glass_stays_grey():
    picture = np.full((50, 150, 3), 200, np.uint8)
    places = pd.DataFrame({"x": [0, 50], "y": [0, 0]})
    drawn = plots.coloured(picture, (150, 50), places, plots.scaled(np.array([0.1, 0.9]), 0.3)).astype(int)
    assert drawn[25, 25, 2] > drawn[25, 25, 0] + 60 and drawn[25, 75, 0] > drawn[25, 75, 2] + 60
    assert (drawn[25, 125] == 200).all()
    np.testing.assert_allclose(plots.scaled(np.array([0, 0.3, 1]), 0.3), [-1, 0, 1])


def test_the_command_writes_map_and_table(pixels, bundle, region, tmp_path, capsys):
    Image.fromarray(pixels).save(tmp_path / "region.png")
    asked = ["map", str(tmp_path / "region.png"), "--out", str(tmp_path / "map"), "--model", str(bundle)]
    assert main([*asked, "--threshold", "0.999"]) == 0
    assert "0.0% of" in capsys.readouterr().out
    assert main(asked) == 0
    said, table = capsys.readouterr().out, pd.read_csv(tmp_path / "map" / "map.csv")
    assert f"of {len(region.table)} patches of tissue" in said and "Research use only" in said
    np.testing.assert_allclose(table["probability"], region.table["probability"], atol=1e-5)
    np.testing.assert_array_equal(table["predicted_label"], table["probability"] >= table["threshold"])
    np.testing.assert_array_equal(table["predicted_label"], table["probability_calibrated"] >= table["threshold_calibrated"])
    with Image.open(tmp_path / "map" / "map.png") as drawn:
        assert drawn.size[0] > 1000


def test_a_region_of_one_patch_is_said_in_the_singular(pixels, bundle, tmp_path, capsys):
    Image.fromarray(pixels[150:200, 100:150]).save(tmp_path / "region.png")
    assert main(["map", str(tmp_path / "region.png"), "--out", str(tmp_path), "--model", str(bundle)]) == 0
    assert "% of 1 patch of tissue at or above" in capsys.readouterr().out


def test_wrong_input_is_one_sentence(bundle, tmp_path, capsys):
    (tmp_path / "report.png").write_bytes(b"%PDF-1.7")
    for arguments, words in {
        ("nowhere.png",): "does not exist",
        ("report.png",): "not an image",
        ("report.png", "--threshold", "2"): "no probability",
    }.items():
        asked = [str(tmp_path / arguments[0]), *arguments[1:]]
        assert main(["map", *asked, "--out", str(tmp_path / "out"), "--model", str(bundle)]) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bhi: ")]
        assert len(said) == 1 and words in said[0]
