"""A packaged model is found without being named, starts other trainings, and is never judged or trained further on what it has seen."""

import json
import os
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bhi_utils.__main__ import main
from bhi_utils.core import atomic_files, titles
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation import metrics, thresholds
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import bundles, networks, seen
from bhi_utils.model.predictor import Predictor
from bhi_utils.runner import pipeline
from bhi_utils.studies import package_model
from bhi_utils.training import train_networks

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = 12


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return archive.pack(synthetic_cohort.write(folder / "phantom.zip", cases=CASES, patches_per_case=14, seed=1), folder, progress=False)


@pytest.fixture(scope="module")
def network():
    model = networks.efficientnetb0(image_size=32, weights="none", seed=5)
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    layer.set_weights([np.float32([0.485, 0.456, 0.406]), np.float32([0.0524, 0.0502, 0.0506]), np.array(0)])
    layer.finalize_state()
    return model


def save(network, pack, folder, **changes):
    """A packaged model of the network, as if trained on the pack's first half."""
    rng = np.random.default_rng(0)
    frame = pack.manifest[["case", "label"]].assign(logit=rng.normal(size=len(pack.manifest)) + pack.manifest["label"])
    frame["probability"] = 1 / (1 + np.exp(-frame["logit"]))
    options = {
        "threshold": 0.4,
        "calibration": Calibration(0.8, -0.1),
        "threshold_rule": {"rule": "recall", "value": 0.93, "where": "out_of_fold"},
        "out_of_fold": metrics.evaluate(frame, threshold=0.4, resamples=50),
        "initialisation": "imagenet",
        "training": {"image_size": 32, "epochs": 0},
        "rows": np.flatnonzero(pack.manifest["case"].isin(first_cases(pack, CASES // 2))),
    }
    return package_model.save(network, pack, folder=folder, **{**options, **changes})


def first_cases(pack, count):
    return sorted(int(case) for case in pack.manifest["case"].unique())[:count]


@pytest.fixture(scope="module")
def files(network, pack, tmp_path_factory):
    return save(network, pack, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def small(pack, tmp_path_factory):
    """The same with a network that is quick to load."""
    return save(networks.cnn(image_size=32, seed=0, filters=(4, 8)), pack, tmp_path_factory.mktemp("small"))


@pytest.fixture
def packaged(files, monkeypatch):
    monkeypatch.setattr(bundles, "PACKAGED", files[1])
    return files[1]


def changed(pack, tmp_path, change):
    """The pack's patches in a folder of the archive's layout, not marked as synthetic, ``change(case, pixels)`` applied."""
    for row, (case, x, y, label) in enumerate(pack.manifest[["case", "x", "y", "label"]].itertuples(index=False)):
        new, pixels = change(int(case), np.array(pack.patches[row]))
        folder = tmp_path / "source" / str(new) / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{new}_idx5_x{x}_y{y}_class{label}.png")
    return archive.pack(tmp_path / "source", tmp_path / "cache", progress=False)


class TestFiles:
    def test_four_files_hold_the_model_what_it_has_seen_and_its_card(self, files, pack, network):
        assert [path.name for path in files] == [
            "efficientnetb0.keras",
            "efficientnetb0.bundle.json",
            "efficientnetb0.seen.npy",
            "MODEL_CARD.md",
        ]
        assert sorted(files) == sorted(files[0].parent.iterdir()) and files[0].stat().st_size <= package_model.LARGEST
        loaded = Predictor.load(files[1])
        np.testing.assert_allclose(
            loaded.predict(pack.patches[:5])["logit"], network.predict_on_batch(np.float32(pack.patches[:5]))[:, 0], atol=1e-4
        )
        used = np.isin(pack.manifest["case"], loaded.bundle["train_cases"])
        assert loaded.bundle["train_cases"] == first_cases(pack, 6) and loaded.bundle["data"]["patches"] == used.sum()
        assert loaded.seen.pixels(pack.patches[used]).mean() > 0.99
        assert "source" not in loaded.bundle["data"], "the place where the data lay is nobody's business"

    def test_every_number_of_the_card_is_the_bundles(self, files):
        bundle = json.loads(files[1].read_text(encoding="utf-8"))
        text = files[3].read_text(encoding="utf-8")
        assert text == package_model.card(bundle)
        for name, title in titles.METRICS.items():
            if name in bundle["metrics"]["out_of_fold"]:
                assert f"| {title} | {titles.cell(bundle['metrics']['out_of_fold'][name])} |" in text

    def test_a_model_too_large_for_the_package_leaves_nothing(self, pack, tmp_path, monkeypatch):
        monkeypatch.setattr(package_model, "LARGEST", 1000)
        with pytest.raises(ValueError, match="more than the 1,000"):
            save(networks.cnn(image_size=32, seed=0, filters=(4, 8)), pack, tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("damage", ["missing", "exchanged"])
    def test_digests_that_are_not_the_bundles_are_refused(self, files, tmp_path, damage):
        for path in files[:3]:
            (tmp_path / path.name).write_bytes(path.read_bytes())
        if damage == "missing":
            (tmp_path / files[2].name).unlink()
        else:
            np.save(tmp_path / files[2].name, np.arange(3, dtype=np.uint64))
        with pytest.raises(InputError, match="copy the three files together" if damage == "missing" else "its hash differs"):
            Predictor.load(tmp_path / files[1].name)

    def test_the_model_that_is_packaged_fits_its_card_and_the_package(self):
        bundle, model = bundles.read(bundles.PACKAGED)
        assert model.stat().st_size <= package_model.LARGEST
        assert (model.parent / package_model.CARD).read_text(encoding="utf-8") == package_model.card(bundle)
        assert seen.Seen.of(bundles.PACKAGED).recorded and bundle["seen"]["patches"] and not bundle["data"]["synthetic"]
        assert "trained/*" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def released(pack, tmp_path_factory):
    """A release whose last three cases served for early stopping, and its network's own answers for them."""
    model, early = that_ranks(pack), first_cases(pack, CASES)[-3:]
    found = package_model.decide(model, pack, early, recall=0.8, resamples=50, seed=0)
    files = save(
        model, pack, tmp_path_factory.mktemp("released"), rows=np.arange(len(pack.manifest)), validation_cases=tuple(early), **found
    )
    rows = np.flatnonzero(pack.manifest["case"].isin(early))
    answers = Predictor.load(files[1]).predict(pack.patches[rows])
    return files, early, pack.manifest.iloc[rows][["case", "label"]].reset_index(drop=True).join(answers)


class TestThreshold:
    """Threshold and calibration are a network's own, from cases that it was not fitted on."""

    def test_they_come_from_the_networks_own_answers(self, released):
        files, early, answers = released
        bundle = bundles.read(files[1])[0]
        assert bundle["threshold_rule"] == {"rule": "recall", "value": 0.8, "where": "early_stopping"}
        assert bundle["threshold"] == pytest.approx(
            thresholds.choose(answers["label"], answers["probability"], rule="recall 0.8"), abs=1e-4
        )
        assert (answers["probability"][answers["label"] == 1] >= bundle["threshold"]).mean() >= 0.8
        assert answers["probability_calibrated"].mean() == pytest.approx(answers["label"].mean(), abs=1e-3), "right on average"
        found = bundle["metrics"]["early_stopping"]
        own = metrics.evaluate(answers, threshold=bundle["threshold"], resamples=50)
        for name in ("recall", "precision", "auc"):
            assert found[name] == pytest.approx(own[name], abs=1e-6), name
        assert not {"loss", "brier", "ece", "calibration_slope"} & set(found), "fitted on the same cases"
        assert bundles.served(bundle) == {"fitted_on": CASES - 3, "early_stopping_on": 3}

    def test_the_card_says_whose_threshold_each_recall_belongs_to(self, released):
        files, _, _ = released
        bundle, text = bundles.read(files[1])[0], files[3].read_text(encoding="utf-8")
        heads = "| metric | out of fold, at the folds' thresholds | early-stopping cases, at this threshold |"
        recalls = " | ".join(titles.cell(bundle["metrics"][part]["recall"]) for part in ("out_of_fold", "early_stopping"))
        assert heads in text and f"| recall (IDC+ patches found) | {recalls} |" in text
        for words in ("own answers on the 3 cases that served it for early stopping only", f"fitted on: {CASES - 3} cases"):
            assert words in text

    def test_they_are_set_anew_with_the_data_and_the_network_stays(self, released, pack, tmp_path, monkeypatch):
        monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
        files, answers = [Path(shutil.copy(path, tmp_path)) for path in released[0]], released[2]
        before, network = files[1].read_text(encoding="utf-8"), files[0].read_bytes()
        atomic_files.write_json(files[1], json.loads(before) | {"threshold": 0.9, "threshold_rule": "of an earlier version"})
        source = Path(pack.info["source"])
        assert package_model.recalibrate(str(source), recall=0.8, resamples=50, bundle=files[1]) == [files[1], files[3]]
        again = json.loads(files[1].read_text(encoding="utf-8"))
        assert list(again) == list(json.loads(before))
        assert again["threshold"] == pytest.approx(json.loads(before)["threshold"]) and files[0].read_bytes() == network
        assert again["threshold_rule"] == json.loads(before)["threshold_rule"]
        assert files[3].read_text(encoding="utf-8") == package_model.card(again)
        package_model.recalibrate(str(source), recall=1.0, resamples=50, bundle=files[1])
        lower = json.loads(files[1].read_text(encoding="utf-8"))
        assert lower["threshold"] <= answers["probability"][answers["label"] == 1].min() + 1e-4

    def test_other_data_are_refused_and_nothing_is_written(self, released, tmp_path, monkeypatch):
        files, before = released[0], released[0][1].read_bytes()
        monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
        other = synthetic_cohort.write(tmp_path / "other.zip", cases=3, patches_per_case=14, seed=9)
        with pytest.raises(InputError, match="was made from other data"):
            package_model.recalibrate(str(other), bundle=files[1])
        assert files[1].read_bytes() == before

    @pytest.mark.skipif(not os.environ.get("BHI_TEST_ARCHIVE"), reason="BHI_TEST_ARCHIVE names no archive")
    def test_the_packaged_models_are_those_that_its_data_give(self, tmp_path):
        kept = bundles.read(bundles.PACKAGED)[0]
        for path in bundles.PACKAGED.parent.iterdir():
            shutil.copy(path, tmp_path)
        package_model.recalibrate(os.environ["BHI_TEST_ARCHIVE"], resamples=50, bundle=tmp_path / bundles.PACKAGED.name)
        again = bundles.read(tmp_path / bundles.PACKAGED.name)[0]
        assert again["threshold"] == pytest.approx(kept["threshold"], abs=1e-3)
        assert again["calibration"]["slope"] == pytest.approx(kept["calibration"]["slope"], abs=1e-3)
        value = again["metrics"]["early_stopping"]["precision"]["value"]
        assert value == pytest.approx(kept["metrics"]["early_stopping"]["precision"]["value"], abs=0.01)

    def test_the_packaged_model_is_judged_by_its_own_answers(self):
        kept = bundles.read(bundles.PACKAGED)[0]
        assert kept["threshold_rule"]["where"] == "early_stopping"
        assert kept["metrics"]["early_stopping"]["recall"]["value"] >= kept["threshold_rule"]["value"]
        assert kept["metrics"]["early_stopping"]["recall"]["low"] < kept["threshold_rule"]["value"]


class TestDefault:
    def test_predict_takes_the_packaged_model_and_says_so(self, small, pack, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(bundles, "PACKAGED", small[1])
        Image.fromarray(pack.patches[0]).save(tmp_path / "seen.png")
        Image.fromarray(pack.patches[0] ^ 1).save(tmp_path / "new.png")
        out = tmp_path / "out.csv"
        assert main(["predict", str(tmp_path / "seen.png"), str(tmp_path / "new.png"), "--csv", str(out)]) == 0
        said = capsys.readouterr().out
        assert "(the packaged model; --model takes another)" in said and "  Seen in training: 1," in said
        assert len(pd.read_csv(out)) == 2

    def test_a_runs_folder_is_its_better_model(self, small, tmp_path, capsys, pack):
        run = Run.open(tmp_path / "run")
        for path in small[:3]:
            (run.models / path.name).write_bytes(path.read_bytes())
        run.write_json("training.json", {"better": "cnn"})
        Image.fromarray(pack.patches[-1]).save(tmp_path / "new.png")
        assert main(["predict", str(tmp_path / "new.png"), "--csv", str(tmp_path / "o.csv"), "--model", str(run.root)]) == 0
        said = capsys.readouterr().out
        assert "cnn.bundle.json\n" in said and "seen in training" not in said

    def test_a_copy_without_one_says_so_in_one_sentence(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(bundles, "PACKAGED", tmp_path / "none.bundle.json")
        assert main(["predict", str(tmp_path), "--csv", str(tmp_path / "o.csv")]) == 2
        assert "holds no trained model" in capsys.readouterr().err
        with pytest.raises(InputError, match="holds no trained model"):
            networks.require_weights("packaged")


class TestStart:
    def test_a_copy_without_the_model_is_told_before_any_notebook_runs(self, write_notebook, monkeypatch, tmp_path):
        path = write_notebook("01_weights", 'WEIGHTS: str = "none"  # weights\nOUT: str = "runs/x"  # folder')
        monkeypatch.setattr(bundles, "PACKAGED", tmp_path / "none.bundle.json")
        with pytest.raises(InputError, match="holds no trained model"):
            pipeline.run({"WEIGHTS": "packaged"}, out=str(tmp_path / "out"), folder=path.parent)

    @pytest.mark.slow
    def test_the_base_is_the_packaged_one_and_the_classifier_is_new(self, packaged, network, pack):
        networks.require_weights("packaged")
        started = networks.efficientnetb0(image_size=32, weights="packaged", seed=9)
        patches = np.float32(pack.patches[:4])
        pooled = [keras.Model(model.input, model.get_layer("pool").output).predict_on_batch(patches) for model in (network, started)]
        np.testing.assert_allclose(*pooled, atol=1e-5)
        assert not np.allclose(network.get_layer("logit").get_weights()[0], started.get_layer("logit").get_weights()[0])

    def test_what_the_start_has_seen_is_kept_with_what_is_trained_from_it(self, small, pack, tmp_path, monkeypatch):
        monkeypatch.setattr(bundles, "PACKAGED", small[1])
        pixels = np.random.default_rng(1)
        other = changed(pack, tmp_path, lambda case, _: (case + 500, pixels.integers(0, 256, (50, 50, 3), dtype=np.uint8)))
        table = splits.make(other.manifest)
        run = Run.open(tmp_path / "run")
        one = train_networks.Trained(that_ranks(other), "packaged", pd.DataFrame({"phase": []}), 0.0)
        train_networks.finish(run, other, table, [one], rule="recall 0.9", card={"data": {"synthetic": False}})
        bundle = run.read_json("models/cnn.bundle.json")
        assert bundle["seen"]["synthetic_cases"] == first_cases(pack, 6)
        used = table.loc[table["split"].isin(["train", "val"]), "case"]
        assert bundle["seen"]["real_cases"] == sorted(used) == sorted(bundle["train_cases"] + bundle["validation_cases"])
        found = seen.Seen.of(run.models / "cnn.bundle.json")
        np.testing.assert_array_equal(found.pixels(other.patches), other.manifest["case"].isin(used))
        assert found.pixels(pack.patches[pack.manifest["case"].isin(first_cases(pack, 6))]).mean() > 0.99


def that_ranks(pack):
    """A small network whose classifier ranks the pack's positives higher: noise could not be learned."""
    model = networks.cnn(image_size=32, seed=0, filters=(4, 64))
    labels = pack.manifest["label"].to_numpy()
    pool = keras.Model(model.input, model.get_layer("pool").output).predict(np.float32(pack.patches), verbose=0)
    kernel = np.linalg.lstsq(pool - pool.mean(axis=0), labels - labels.mean(), rcond=None)[0]
    model.get_layer("logit").set_weights([np.float32(kernel[:, None]), np.float32([-pool.mean(axis=0) @ kernel])])
    return model


class TestLeavingOut:
    def test_other_weights_leave_the_split_as_it_is(self, pack):
        table = splits.make(pack.manifest)
        assert seen.leave_out(pack, table, "imagenet") is table

    def test_training_loses_the_cases_seen_in_every_part_and_says_how_many(self, pack, tmp_path, monkeypatch, capsys):
        table = splits.make(pack.manifest)
        gone = [int(table.loc[table["split"] == part, "case"].iloc[0]) for part in splits.PARTS]
        rows = np.flatnonzero(pack.manifest["case"].isin(gone))
        monkeypatch.setattr(bundles, "PACKAGED", save(networks.cnn(image_size=32, seed=0, filters=(4, 8)), pack, tmp_path, rows=rows)[1])
        left = seen.leave_out(pack, table, "packaged")
        assert capsys.readouterr().out == f"Left out, as seen in training: 3 of {CASES} cases (3 by their id).\n"
        assert sorted(left.loc[left["split"] == "unused", "case"]) == sorted(gone)
        others = ~table["case"].isin(gone)
        pd.testing.assert_frame_equal(left[others], table[others])
        splits.assert_disjoint(left)

    def test_a_part_that_becomes_empty_is_one_sentence(self, pack, tmp_path, monkeypatch):
        table = splits.make(pack.manifest)
        rows = splits.indices(pack.manifest, table, "val")
        monkeypatch.setattr(bundles, "PACKAGED", save(networks.cnn(image_size=32, seed=0, filters=(4, 8)), pack, tmp_path, rows=rows)[1])
        with pytest.raises(InputError, match=r"Left out.*The val part then holds no IDC− patch: give data with more new cases"):
            seen.leave_out(pack, table, "packaged")

    def test_what_has_not_left_them_out_does_not_begin(self, small, pack, monkeypatch):
        monkeypatch.setattr(bundles, "PACKAGED", small[1])
        seen.guard(pack, "imagenet")
        seen.guard(pack, "packaged", cases=set(pack.manifest["case"]) - set(first_cases(pack, 6)))
        with pytest.raises(InputError, match="was trained on 6 of these cases"):
            seen.guard(pack, "packaged")

    def test_one_patch_with_seen_pixels_takes_its_case_out(self, small, pack, tmp_path):
        known = first_cases(pack, 6)
        spared = int(np.flatnonzero(pack.manifest["case"] == known[0])[0])
        lone = pack.patches[spared].tobytes()
        other = changed(pack, tmp_path, lambda case, pixels: (case, pixels if pixels.tobytes() == lone else pixels ^ 1))
        by_id, by_pixels = seen.Seen.of(small[1]).cases_in(other)
        assert by_id == set(), "these are real cases by their kind, the packaged one's are synthetic"
        assert by_pixels == {known[0]}

    def test_glass_of_one_colour_takes_no_case_out(self, pack, tmp_path):
        glass = np.full((3, 50, 50, 3), 243, np.uint8)
        glass[1, 30:] = 255  # padded
        glass[2, 3, 3], glass[2, 4, 4] = (9, 9, 9), (8, 8, 8)
        known = seen.Seen(digests=np.sort(seen.digests(glass)))
        assert known.pixels(glass).tolist() == [False, False, True]

    def test_an_older_bundle_leaves_out_the_cases_that_it_names(self, tmp_path, pack):
        case = first_cases(pack, 2)
        old = seen.Seen.read({"train_cases": case[:1], "validation_cases": case[1:], "data": {"synthetic": True}}, tmp_path)
        assert old.cases_in(pack) == (set(case), set())
        assert not seen.Seen.read({}, tmp_path).recorded
        rows, told = seen.unseen(pack, seen.Seen.read({}, tmp_path))
        assert len(rows) == len(pack.manifest) and re.search("names no case", told["sentence"])
