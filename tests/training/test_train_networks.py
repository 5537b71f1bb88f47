"""Training: only training cases, balanced as asked, the same result for the same seed, and the best weights of all phases."""

import ctypes
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.evaluation import metrics
from bhi_utils.model import networks
from bhi_utils.model.augment import dihedral
from bhi_utils.model.bundles import find_bundle
from bhi_utils.model.predictor import Predictor
from bhi_utils.training import checkpoint, fit_phases, samples, smote, train_networks
from bhi_utils.training.frozen_features import CachedBase

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def pack(cache) -> archive.Pack:
    return archive.pack(
        synthetic_cohort.write(cache / "small.zip", cases=10, patches_per_case=24, seed=1, nested=False), cache, progress=False
    )


@pytest.fixture(scope="module")
def network(weights) -> keras.Model:
    """An EfficientNetB0 as it starts; a test may change what of it learns, and nothing else."""
    return networks.efficientnetb0(image_size=32, weights=weights, seed=0)


def recipe(folder: Path, **changes) -> fit_phases.FitSettings:
    return fit_phases.FitSettings(**{"epochs": 3, "batch_size": 16, "seed": 0, "folder": folder, **changes})


def test_only_the_rows_that_are_asked_for_are_learned_from(pack, table):
    rows = splits.indices(pack.manifest, table, "train")[::2]
    train = samples.training_samples(pack, table, mode="smote", seed=0, rows=rows)
    assert set(train.real) == set(rows) and set(train.plan.base) | set(train.plan.neighbour) <= set(rows)
    samples.guard(pack, table, train)


@pytest.mark.parametrize("mode", smote.BALANCES)
def test_samples_come_from_training_cases_and_are_balanced_as_asked(pack, table, mode):
    train = samples.training_samples(pack, table, mode=mode, seed=0)
    allowed = set(table.loc[table["split"] == "train", "case"])
    used = np.concatenate([train.rows, [] if train.plan is None else np.r_[train.plan.base, train.plan.neighbour]]).astype(int)
    assert set(pack.manifest["case"].to_numpy()[used]) <= allowed
    negative, positive = np.bincount(train.labels)
    weight = [train.weights[train.labels == label].sum() for label in (0, 1)]
    assert (negative == positive) == (mode in ("oversample", "smote"))
    # feature_smote is balanced later, by the cut that has the features
    assert weight[0] == pytest.approx(weight[1]) or mode in ("none", "feature_smote")
    batch = train.fetch(np.arange(len(train)))
    assert batch.dtype == (np.float32 if mode == "smote" else np.uint8) and batch.shape == (len(train), 50, 50, 3)
    np.testing.assert_array_equal(batch[: len(train.rows)], pack.patches[train.rows])


def test_a_network_learns_the_same_from_whole_numbers_as_from_floats(pack):
    batch, labels = pack.patches[:8], pack.manifest["label"].to_numpy(np.float32)[:8, None]
    found = []
    for patches in (batch, batch.astype(np.float32)):
        model = networks.cnn(image_size=32, seed=0, filters=(4, 4))
        model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        loss = float(model.train_on_batch(patches, labels))
        found.append([loss, *(weight.sum() for weight in model.get_weights())])
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(*found)


def test_a_case_in_two_parts_stops_training(pack, table):
    doubled = pd.concat([table, table[table["split"] == "test"].assign(split="train")])
    with pytest.raises(ValueError, match="is listed twice in the split"):
        samples.training_samples(pack, doubled, mode="none", seed=0)


@pytest.mark.parametrize("path", ["cnn", "efficientnetb0", "cached"])
@pytest.mark.parametrize("tampered", ["a case twice", "by image", "samples of another split", "a parent of another part"])
def test_no_way_of_training_begins_on_a_split_that_shares_a_case(pack, table, weights, tmp_path, monkeypatch, path, tampered):
    for build in ("cnn", "efficientnetb0"):
        monkeypatch.setattr(networks, build, lambda **_: pytest.fail("a network was made"))
    train, given = samples.training_samples(pack, table, mode="smote", seed=0), table
    if tampered == "a case twice":
        given = pd.concat([table, table[table["split"] == "test"].assign(split="train")])
    elif tampered == "by image":
        given = splits.make(pack.manifest, scheme="image")
    elif tampered == "samples of another split":
        given = splits.make(pack.manifest, scheme="kfold", fold=2)
    else:
        outside = np.full_like(train.plan.neighbour, splits.indices(pack.manifest, table, "test")[0])
        train = replace(train, plan=replace(train.plan, neighbour=outside))
    with pytest.raises(ValueError, match="listed twice|leakage.ipynb|draw them anew"):
        if path == "cnn":
            train_networks.train_cnn(pack, given, train, recipe(tmp_path), image_size=32)
        else:
            cached = {"views": 1 if path == "cached" else 0, "blocks": 1, "rate": 1e-4, "image_size": 32}
            train_networks.train_efficientnetb0(pack, given, train, recipe(tmp_path), weights=weights, **cached)


def test_an_unknown_balance_is_one_sentence(pack, table):
    with pytest.raises(InputError, match="BALANCE 'smoot' does not exist"):
        samples.training_samples(pack, table, mode="smoot", seed=0)


def test_each_epoch_has_an_order_of_its_own_that_covers_every_sample_once():
    def orders():
        batches = samples.Batches(lambda index, _: index, np.arange(25) % 2, batch_size=10, seed=4)
        found = []
        for _ in range(2):
            batches.on_epoch_begin()
            found.append(np.concatenate([batches[number][0] for number in range(len(batches))]))
        return found

    first, second = orders()
    assert sorted(first) == sorted(second) == list(range(25))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(orders(), [first, second])


@pytest.fixture(scope="module")
def cached(pack, table, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    train = samples.training_samples(pack, table, mode="smote", seed=0)
    options = {"image_size": 32, "weights": weights, "blocks": 2, "rate": 1e-4, "views": 2}
    return [train_networks.train_efficientnetb0(pack, table, train, recipe(folder / name), **options) for name in ("first", "again")]


def test_training_from_the_cache_repeats_itself(cached):
    first, second = cached
    pd.testing.assert_frame_equal(first.history, second.history)
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(first.history["phase"]) == ["frozen base", "last 2 block(s)", "last 2 block(s)"]


@pytest.mark.parametrize(
    ("views", "opened"), [(0, ["frozen base", "last 1 block(s)", "last 2 block(s)"]), (1, ["frozen base", "last 2 block(s)"])]
)
def test_blocks_are_opened_one_by_one_on_patches_and_at_once_from_the_cache(pack, table, weights, tmp_path, monkeypatch, views, opened):
    train, seen = samples.training_samples(pack, table, mode="none", seed=0), []

    def fit(self, phase, part, train, valid, *, epochs, rate):
        blocks = {layer.name[5] for layer in part.layers if layer.name.startswith("block") and layer.trainable and layer.weights}
        seen.append((phase, len(blocks), epochs))

    monkeypatch.setattr(fit_phases.Phases, "fit", fit)
    options = {"image_size": 32, "weights": weights, "blocks": 2, "rate": 1e-4, "views": views}
    train_networks.train_efficientnetb0(pack, table, train, recipe(tmp_path, epochs=6), **options)
    assert [phase for phase, *_ in seen] == opened and sum(epochs for *_, epochs in seen) == 6
    assert [blocks for _, blocks, _ in seen] == ([0, 1, 2] if views == 0 else [0, 2])


def test_only_the_last_blocks_learn_and_batchnorm_keeps_its_statistics(cached, network):
    for before, after in zip(network.layers, cached[0].model.layers, strict=True):
        same = all(np.array_equal(a, b) for a, b in zip(before.get_weights(), after.get_weights(), strict=True))
        name = after.name
        frozen = isinstance(after, keras.layers.BatchNormalization) or name.startswith(
            ("stem", "block1", "block2", "block3", "block4", "block5")
        )
        assert same or not frozen, name
    assert not np.array_equal(network.get_layer("logit").get_weights()[0], cached[0].model.get_layer("logit").get_weights()[0])


def test_the_whole_network_answers_as_the_part_that_was_trained_from_the_cache(cached, pack, table, weights):
    trained = cached[0]
    rows = splits.indices(pack.manifest, table, "val")
    from_cache = trained.cut.logits(rows)
    from_patches = trained.model.predict(pack.patches[rows].astype(np.float32), verbose=0)[:, 0]
    np.testing.assert_allclose(from_cache, from_patches, atol=5e-3)
    eight = [trained.model.predict(dihedral(pack.patches[rows], view).astype(np.float32), verbose=0)[:, 0] for view in range(8)]
    np.testing.assert_allclose(trained.cut.logits(rows, views=8), np.mean(eight, axis=0), atol=5e-3)


def test_the_weights_kept_are_those_of_the_best_validation_epoch_of_all_phases(pack, table, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "cnn", partial(networks.cnn, filters=(4, 8)))
    train = samples.training_samples(pack, table, mode="none", seed=0)
    trained = train_networks.train_cnn(pack, table, train, recipe(tmp_path, epochs=4), image_size=32)
    rows = splits.indices(pack.manifest, table, "val")
    logits = trained.model.predict(pack.patches[rows].astype(np.float32), verbose=0)[:, 0]
    auc = keras.metrics.AUC(from_logits=True)
    auc.update_state(pack.manifest["label"].to_numpy()[rows, None], logits[:, None])
    assert float(auc.result()) == pytest.approx(trained.history["val_auc"].max(), abs=1e-3)


def test_finish_leaves_models_bundles_and_predictions_that_agree(cached, pack, table, tmp_path):
    run = Run.open(tmp_path / "run")
    run.checkpoints.mkdir()
    (run.checkpoints / f"cnn.1{checkpoint.SUFFIX}").touch()
    result = train_networks.finish(run, pack, table, [cached[0]], rule="recall 0.8", card={"data": {"synthetic": True}})
    predictions = run.read_csv("predictions.csv.gz")
    assert list(predictions.columns) == "model split fold case x y label logit probability probability_calibrated".split()
    assert set(predictions["model"]) == {"efficientnetb0", "logistic_regression"}
    assert set(predictions["split"]) == {"val", "test"}
    by_part = predictions.groupby("split")["case"].agg(set)
    for part, cases in by_part.items():
        assert cases == set(table.loc[table["split"] == part, "case"])
    one = Predictor.load(find_bundle(run))
    rows = predictions[(predictions["model"] == "efficientnetb0") & (predictions["split"] == "val")]
    again = one.predict(pack.patches[splits.indices(pack.manifest, table, "val")])
    np.testing.assert_allclose(again["logit"], rows["logit"], atol=1e-4)
    assert metrics.evaluate(rows, threshold=one.threshold, resamples=0)["recall"]["value"] >= 0.8
    assert one.bundle["train_cases"] == sorted(table.loc[table["split"] == "train", "case"])
    assert result["better"] == "efficientnetb0" and result["data"] == pack.info["fingerprint"]
    assert result["threshold_rule"] == one.bundle["threshold_rule"] == {"rule": "recall", "value": 0.8, "where": "validation"}
    assert result["models"]["efficientnetb0"]["calibration"] == one.bundle["calibration"]
    assert not run.checkpoints.exists()


@pytest.mark.parametrize(("changes", "sentence"), [({"epochs": 0}, "EPOCHS 0"), ({"batch_size": 0}, "BATCH_SIZE 0")])
def test_impossible_settings_are_one_sentence(pack, table, tmp_path, changes, sentence):
    train = samples.training_samples(pack, table, mode="none", seed=0)
    with pytest.raises(InputError, match=sentence):
        train_networks.train_cnn(pack, table, train, recipe(tmp_path, **changes), image_size=32)


def test_smote_on_features_blends_maps_of_both_parents_under_one_view(pack, table, network, tmp_path):
    train = samples.training_samples(pack, table, mode="feature_smote", seed=0)
    part = CachedBase(network, 1, pack, table, train, recipe(tmp_path), 1)
    batches, _ = part.batches()
    negative, positive = np.bincount(batches.labels)
    assert negative == positive > np.bincount(train.labels).min()
    pooled, _ = part.batches(pooled=True)
    plan = smote.smote_plan(pooled.fetch(np.arange(len(train)), [0, 0, 0]), train.labels, seed=0)
    synthetic = batches.fetch(np.arange(len(train), len(train) + 5), [0, 0, 0])
    parents = [batches.fetch(rows[:5], [0, 0, 0]) for rows in (plan.base, plan.neighbour)]
    np.testing.assert_array_equal(synthetic, smote.blend(*parents, plan.step[:5]))


@pytest.mark.slow
def test_every_fold_and_every_balance_but_pixel_smote_finds_the_others_features(pack, table, network, tmp_path, capsys):
    def cut_of(split, mode):
        train = samples.training_samples(pack, split, mode=mode, seed=0)
        CachedBase(network, 1, pack, split, train, recipe(tmp_path), 2)
        return capsys.readouterr().out

    cut_of(table, "none")
    for mode in ("oversample", "feature_smote"):
        assert cut_of(table, mode).count("all known") == 2
    assert "SMOTE's patches" in cut_of(table, "smote")
    next_fold = splits.make(pack.manifest, scheme="kfold", fold=1, seed=0)
    said = cut_of(next_fold, "none")
    assert "of them known" in said and "none known" not in said
    assert cut_of(next_fold, "none").count("all known") == 2


@pytest.mark.skipif(not sys.platform.startswith("linux") or keras.backend.backend() != "tensorflow", reason="glibc under TensorFlow")
def test_a_training_keeps_the_memory_of_its_steps():
    resource = pytest.importorskip("resource")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            np.ones(2**20)  # 8 MB, of which each page is touched
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # what TensorFlow's generator data sets do
    ctypes.CDLL(None).mallopt(-1, 128 * 1024)
    ctypes.CDLL(None).mallopt(-3, 128 * 1024)
    given_back = faults()
    networks.keep_memory()
    faults()
    assert faults() < given_back / 10
