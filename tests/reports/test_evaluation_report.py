"""``bhi evaluate``: a bundle's own answers on cases that it has not seen, measured without refitting; or one sentence."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bhi_utils.__main__ import main
from bhi_utils.core.paths import InputError
from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation import metrics
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import networks, seen
from bhi_utils.model.predictor import Predictor, save_bundle
from bhi_utils.reports import evaluation_report

HOUSE = "model split fold case x y label logit probability probability_calibrated".split()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return synthetic_cohort.write(tmp_path_factory.mktemp("data") / "phantom.zip", cases=10, patches_per_case=14, seed=4)


@pytest.fixture(scope="module")
def pack(source):
    return archive.pack(source, source.parent, progress=False)


@pytest.fixture(scope="module")
def make(pack, tmp_path_factory):
    """Writes the bundle of a small network that has seen the given cases."""

    def write(cases):
        rows = np.flatnonzero(pack.manifest["case"].isin(cases))
        known = seen.of_rows(pack, rows) if len(rows) else seen.Seen()
        model = networks.cnn(image_size=32, seed=0, filters=(4, 8))
        card = {"initialisation": "scratch", "threshold_rule": "one of a test", "data": {"synthetic": True}}
        folder = tmp_path_factory.mktemp("bundle")
        return save_bundle(model, folder, threshold=0.5, calibration=Calibration(0.7, 0.2), card=card, seen=known)

    return write


@pytest.fixture(scope="module")
def bundle(make, pack):
    return make(sorted(pack.manifest["case"].unique())[:4])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_leaves_predictions_metrics_figures_and_a_page(source, pack, bundle, tmp_path, capsys):
    out = tmp_path / "new" / "evaluated"
    assert main(["evaluate", str(source), "--out", str(out), "--model", str(bundle)]) == 0
    said, shown = capsys.readouterr()
    assert "Left out, as seen in training: 4 of 10 cases (4 by their id)." in said and "SYNTHETIC" in said and "Research use only" in said
    assert "on unseen cases: 100%" in shown
    assert sorted(files(out)) == sorted(
        ["predictions.csv.gz", "metrics.json", "report.html", "roc_precision_recall.png", "confusion.png", "calibration.png"]
    )
    table = pd.read_csv(out / "predictions.csv.gz")
    kept = pack.manifest[~pack.manifest["case"].isin(sorted(pack.manifest["case"].unique())[:4])]
    assert list(table.columns) == HOUSE
    pd.testing.assert_frame_equal(
        table[["case", "x", "y", "label"]], kept[["case", "x", "y", "label"]].reset_index(drop=True), check_dtype=False
    )
    loaded = Predictor.load(bundle)
    np.testing.assert_allclose(table["logit"], loaded.predict(pack.patches[kept.index])["logit"], atol=1e-4)
    np.testing.assert_allclose(table["probability_calibrated"], Calibration(0.7, 0.2).apply(table["logit"]), atol=1e-9)
    result = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    measured = result["models"]["cnn"]["test"]
    assert result["resamples"] == metrics.RESAMPLES == 2000 and measured["threshold"]["value"] == loaded.threshold
    again = metrics.evaluate(table, threshold=loaded.threshold, resamples=2000)
    assert set(measured) == {*metrics.NAMES, "threshold"}
    assert all(measured[name]["value"] == pytest.approx(again[name]["value"], abs=1e-6) for name in metrics.NAMES)
    assert all(measured[name]["low"] <= measured[name]["value"] <= measured[name]["high"] for name in ("auc", "recall", "loss"))
    assert result["evaluated"] == {"cases": 6, "patches": len(kept), "positive": int(kept["label"].sum())}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"<td>AUC</td><td>{measured['auc']['value']:.3f}</td>" in page and "patches are synthetic" in page
    assert all(f'src="{name}"' in page for name in files(out) if name.endswith(".png"))
    assert str(tmp_path) not in page and "http" not in page


def test_the_same_again_gives_the_same_numbers(pack, bundle):
    first, second = (evaluation_report.evaluate(bundle, pack, resamples=20, progress=False) for _ in range(2))
    assert first.metrics == second.metrics


def write_cases(folder, labels):
    """A folder of noise patches: case to the labels of its patches."""
    rng = np.random.default_rng(3)
    for case, marks in labels.items():
        for place, label in enumerate(marks):
            (folder / str(case) / str(label)).mkdir(parents=True, exist_ok=True)
            name = f"{case}_idx5_x{50 * place + 1}_y1_class{label}.png"
            Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(folder / str(case) / str(label) / name)
    return folder


def test_wrong_input_is_one_sentence_and_leaves_the_folder_untouched(source, pack, make, bundle, tmp_path, capsys):
    negative = write_cases(tmp_path / "negative", {1: [0, 0], 2: [0]})
    lone = write_cases(tmp_path / "lone", {1: [0, 1]})
    everything = make(pack.manifest["case"].unique())
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("mine", encoding="utf-8")
    for given, words in {
        (tmp_path / "nowhere", tmp_path / "out", bundle): "does not exist",
        (source, tmp_path / "file", bundle): "is a file: name a folder",
        (source, tmp_path / "file" / "deeper", bundle): "is a file: name a folder",
        (source, tmp_path / "out", tmp_path / "none.bundle.json"): "none.bundle.json does not exist",
        (source, tmp_path / "out", tmp_path / "out" / "metrics.json"): "is not a readable bundle",
        (source, tmp_path / "out", everything): "10 of 10 cases (10 by their id). None is left",
        (negative, tmp_path / "out", bundle): "are of class 0",
        (lone, tmp_path / "new", bundle): "one case",
    }.items():
        data, out, model = map(str, given)
        assert main(["evaluate", data, "--out", out, "--model", model]) == 2
        said = capsys.readouterr().err.splitlines()
        assert [words in line for line in said if line.startswith("bhi: ")] == [True], (words, said)
    assert files(tmp_path / "out") == {"metrics.json": b"mine"} and not (tmp_path / "new").exists()


def test_one_class_or_one_case_left_over_is_one_sentence(tmp_path):
    pack = archive.pack(write_cases(tmp_path / "real", {1: [0, 0], 2: [0], 3: [1, 0]}), tmp_path, progress=False)
    for gone, words in {
        (3,): "IDC− patches only, and metrics need both classes: `bhi predict`",
        (1, 2): "one case",
        (1, 2, 3): "None is left",
    }.items():
        with pytest.raises(InputError, match=words):
            seen.unseen(pack, seen.Seen(frozenset((case, False) for case in gone)))


def test_a_model_that_has_seen_a_copy_of_one_patch_loses_that_case(pack, make, tmp_path):
    shared = pack.patches[0]
    folder = write_cases(tmp_path / "real", {7: [0, 1, 1], 8: [0, 1], 9: [1, 0]})
    Image.fromarray(shared).save(folder / "8" / "1" / "8_idx5_x901_y1_class1.png")
    real = archive.pack(folder, tmp_path, progress=False)
    done = evaluation_report.evaluate(make([pack.manifest["case"].iloc[0]]), real, resamples=20, progress=False)
    assert set(done.predictions["case"]) == {7, 9}
    assert done.result["left_out"] == {
        "sentence": "Left out, as seen in training: 1 of 3 cases (1 by patches with equal pixels).",
        "seen_by_id": 0,
        "seen_by_pixels": 1,
    }


def test_a_bundle_that_records_nothing_says_that_none_could_be_left_out(pack, tmp_path):
    model = networks.cnn(image_size=32, seed=0, filters=(4, 8))
    old = save_bundle(model, tmp_path, threshold=0.5, calibration=Calibration(1.0, 0.0), card={})
    done = evaluation_report.evaluate(old, pack, resamples=5, progress=False)
    assert "names no case" in done.result["left_out"]["sentence"] and len(done.predictions) == len(pack.manifest)
