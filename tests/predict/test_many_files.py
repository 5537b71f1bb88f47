"""Many files in, one table out: each image gets the answer that it gets alone, and what is no patch is listed with its reason."""

import io
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit

from bhi_utils.__main__ import main
from bhi_utils.core import atomic_files
from bhi_utils.core.paths import InputError
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import networks
from bhi_utils.model.predictor import Predictor, save_bundle
from bhi_utils.predict import many_files


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = networks.cnn(image_size=32, seed=0, filters=(4, 8))
    logit = float(model.predict_on_batch(patch(0)[None].astype(np.float32))[0, 0])
    calibration = Calibration(0.7, -0.4)
    return save_bundle(model, tmp_path_factory.mktemp("bundle"), threshold=float(expit(logit)), calibration=calibration, card={})


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle)


def patch(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (50, 50, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def mixed(tmp_path):
    """A folder, a zip and a file, good and bad ones among them."""
    folder = tmp_path / "patches"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.png").write_bytes(encoded(patch(0)))
    (folder / "deeper" / "b.tif").write_bytes(encoded(patch(1), "TIFF"))
    (folder / "deeper" / "photo.jpg").write_bytes(encoded(np.zeros((300, 400, 3), np.uint8), "JPEG"))
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    (folder / "inner.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (folder / ".hidden.png").write_bytes(encoded(patch(7)))
    with zipfile.ZipFile(tmp_path / "more.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("c.png", encoded(patch(2)))
        target.writestr("../outside.png", encoded(patch(3)[:40]))
        target.writestr("bomb.png", b"\0" * (many_files.LONGEST + 1))
        target.writestr("__MACOSX/._c.png", b"shadow")
        target.writestr("report.png", b"%PDF-1.7")
    (tmp_path / "named.dat").write_bytes(encoded(patch(4)))
    return [folder, tmp_path / "more.zip", tmp_path / "named.dat"]


def test_each_image_gets_the_answer_that_it_gets_alone(mixed, predictor, monkeypatch):
    monkeypatch.setattr(many_files, "_BATCH", 2)
    outcome = many_files.predict(predictor, mixed, progress=False)
    folder, zipped, named = (path.as_posix() for path in mixed)
    names = [f"{folder}/a.png", f"{folder}/deeper/b.tif", f"{zipped}/c.png", f"{zipped}/../outside.png", named]
    assert list(outcome.answers.columns) == list(many_files.COLUMNS) and outcome.answers["file"].tolist() == names
    padded = np.full((50, 50, 3), 255, np.uint8)
    padded[:40] = patch(3)[:40]
    alone = predictor.predict(np.stack([patch(0), patch(1), patch(2), padded, patch(4)]))
    for column in alone.columns.drop("logit"):
        np.testing.assert_allclose(outcome.answers[column], alone[column], atol=1e-5)
    assert (outcome.answers["label"] == np.where(outcome.answers["predicted_label"] == 1, "IDC+", "IDC−")).all()
    said = [(note.split(" ")[1], count) for note, count in outcome.notes.items()]
    assert said == [("colours", 5), ("image", 1)], "noise is no tissue, and one image is filled up"


def test_what_is_no_patch_is_listed_with_its_reason_and_nothing_is_unpacked(mixed, predictor, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    rejected = many_files.predict(predictor, mixed, progress=False).rejected.set_index("file")["reason"]
    assert {name.rsplit("/", 1)[1]: reason.split(",")[0].split(":")[0] for name, reason in rejected.items()} == {
        "photo.jpg": "This image is 400×300 pixels",
        "bomb.png": "This file is longer than 64 MB",
        "report.png": "This file is not an image that can be read",
        "notes.txt": "This file is not an image that can be read",
        "inner.zip": "This is a zip and not an image",
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_writes_the_table_and_the_list_of_the_rejected(mixed, bundle, tmp_path, capsys):
    out = tmp_path / "new" / "answers.csv"
    assert main(["predict", *map(str, mixed), "--csv", str(out), "--model", str(bundle)]) == 0
    said = capsys.readouterr().out
    table, rejected = pd.read_csv(out), pd.read_csv(tmp_path / "new" / "answers.rejected.csv")
    positive = int(table["predicted_label"].sum())
    assert f"Patches: 5, IDC+ {positive} and IDC− {5 - positive} at the threshold" in said and "Research use only" in said
    assert len(table) == 5 and len(rejected) == 5 and said.count("  rejected: ") == 5
    contract = ["file", "probability", "probability_calibrated", "predicted_label", "threshold", "threshold_calibrated"]
    assert list(table.columns.drop("label")) == contract
    for scale in ("", "_calibrated"):
        np.testing.assert_array_equal(table["predicted_label"], table[f"probability{scale}"] >= table[f"threshold{scale}"])
    assert main(["predict", str(mixed[2]), "--csv", str(out), "--model", str(bundle)]) == 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["answers.csv"], "a list of an earlier call would mislead"


def test_of_a_folder_or_zip_without_a_file_that_is_said_and_the_others_are_answered(mixed, predictor, tmp_path):
    (tmp_path / "bare").mkdir()
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as target:
        target.writestr("folder/", b"")
    outcome = many_files.predict(predictor, [tmp_path / "bare", tmp_path / "bare.zip", mixed[2]], progress=False)
    assert len(outcome.answers) == 1 and outcome.rejected["file"].str.contains("/bare").all()
    assert len(outcome.rejected) == 2 and outcome.rejected["reason"].str.contains("no file").all()


def test_a_name_that_a_spreadsheet_would_run_is_made_harmless_in_every_table(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(('=cmd|" "!A0.png', "+1.png", "-1.png", "@x.png", "'=y.png")):
        (tmp_path / name).write_bytes(encoded(patch(number)))
    (tmp_path / "=report.png").write_bytes(b"%PDF-1.7")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert main(["predict", "--csv", "out/a.csv", "--model", str(bundle), "--", *names]) == 0
    for table, count in (("a.csv", 5), ("a.rejected.csv", 1)):
        files = pd.read_csv(tmp_path / "out" / table)["file"]
        assert len(files) == count and files.str.startswith("'").all()
        assert set(atomic_files.read_csv(tmp_path / "out" / table)["file"]) <= set(names)


def test_wrong_input_is_one_sentence_and_leaves_no_table(mixed, bundle, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.png").write_bytes(b"%PDF-1.7")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.zip").write_bytes(mixed[1].read_bytes()[:-30])
    out = tmp_path / "out.csv"
    for given, words in {
        "nowhere.png": "does not exist",
        "empty": "There is no image in",
        "report.png": "Of 1 file none can be used",
        "cut.zip": "This zip is damaged or cut short",
        "empty.png": "This file is empty",
    }.items():
        assert main(["predict", str(tmp_path / given), "--csv", str(out), "--model", str(bundle)]) == 2
        said = capsys.readouterr().err.splitlines()
        assert [words in line for line in said if line.startswith("bhi: ")] == [True] and not out.exists()
    for wrong, words in {
        tmp_path / "empty": "is a folder: name a file",
        tmp_path / "report.png" / "x.csv": "is a file: name a folder",
    }.items():
        assert main(["predict", str(mixed[2]), "--csv", str(wrong), "--model", str(bundle)]) == 2
        assert words in capsys.readouterr().err
    assert main(["predict", str(mixed[2]), "--csv", str(out), "--model", str(tmp_path / "none.bundle.json")]) == 2
    assert "none.bundle.json does not exist" in capsys.readouterr().err and not out.exists()


def test_a_zip_with_a_password_is_listed_and_a_broken_directory_is_one_sentence(predictor, mixed, tmp_path):
    data = bytearray(mixed[1].read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(mark)
        data[at + place] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    outcome = many_files.predict(predictor, [tmp_path / "locked.zip"], progress=False)
    assert "without a password" in outcome.rejected.set_index("file").loc[f"{(tmp_path / 'locked.zip').as_posix()}/c.png", "reason"]
    start = data.index(b"PK\x01\x02")
    data[start : start + 4] = os.urandom(2) + b"\0\0"
    (tmp_path / "broken.zip").write_bytes(data)
    with pytest.raises(InputError, match="Cannot read .*broken.zip"):
        many_files.predict(predictor, [tmp_path / "broken.zip"], progress=False)
