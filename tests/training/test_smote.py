"""SMOTE as a plan gives imbalanced-learn's values, on training patches only, without its memory; a search is announced and done once."""

import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.neighbors
from imblearn.over_sampling import SMOTE

from bhi_utils.core.paths import InputError
from bhi_utils.data import archive, splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.training import samples, smote


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def kept(monkeypatch):
    """Small searches are kept on disk like long ones."""
    monkeypatch.setattr(smote, "KEPT", 0)


def patches_of_two_classes(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    patches = generator.integers(0, 256, (90, 50, 50, 3), dtype=np.uint8)
    labels = (generator.permutation(90) < 25).astype(np.int8)
    return patches, labels


def searches(monkeypatch) -> list[int]:
    """Counts how many searches are really done."""
    done, search = [], sklearn.neighbors.NearestNeighbors
    monkeypatch.setattr(sklearn.neighbors, "NearestNeighbors", lambda **options: done.append(1) or search(**options))
    return done


def same(plan: smote.SmotePlan, other: smote.SmotePlan) -> bool:
    return all(np.array_equal(getattr(plan, name), getattr(other, name)) for name in ("base", "neighbour", "step", "label"))


@pytest.mark.parametrize("seed", [0, 7])
def test_plan_draws_the_same_pixels_as_imbalanced_learn_on_float32(seed):
    patches, labels = patches_of_two_classes(seed)
    expected, classes = SMOTE(random_state=seed).fit_resample(patches.reshape(90, -1).astype(np.float32), labels)
    plan = smote.smote_plan(patches, labels, seed=seed)
    assert (classes == 1).sum() == (labels == 1).sum() + len(plan) == (labels == 0).sum()
    np.testing.assert_array_equal(smote.draw(patches, plan).reshape(len(plan), -1), expected[90:])


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("BHI_TEST_ARCHIVE"), reason="BHI_TEST_ARCHIVE names no real archive")
def test_on_the_real_sample_too_every_pixel_is_imbalanced_learns(cache, capsys):
    pack = archive.pack(Path(os.environ["BHI_TEST_ARCHIVE"]), cache, progress=False)
    labels = pack.manifest["label"].to_numpy()
    plan = smote.smote_plan(pack.patches, labels, seed=1)
    said = capsys.readouterr().out
    assert f"compares {np.bincount(labels).min():,} patches" in said
    expected, _ = SMOTE(random_state=1).fit_resample(pack.patches.reshape(len(labels), -1).astype(np.float32), labels)
    for start in range(0, len(plan), 500):
        part = np.arange(start, min(start + 500, len(plan)))
        np.testing.assert_array_equal(smote.draw(pack.patches, plan, part).reshape(len(part), -1), expected[len(labels) + part])
    assert same(smote.smote_plan(pack.patches, labels, seed=1), plan) and not capsys.readouterr().out, "read from the cache"


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_neighbours_do_not_depend_on_the_cores(monkeypatch, cores):
    generator = np.random.default_rng(4)
    # few different values, so that distances are often equal
    data = generator.integers(0, 4, (5000, 20)).astype(np.float32)
    expected = smote.nearest(data, np.arange(5000), neighbours=5)
    monkeypatch.setattr(smote, "cores", lambda: cores)
    np.testing.assert_array_equal(smote.nearest(data, np.arange(5000), neighbours=5), expected)


def test_every_synthetic_pixel_lies_between_its_parents():
    patches, labels = patches_of_two_classes()
    plan = smote.smote_plan(patches, labels, seed=3)
    drawn = smote.draw(patches, plan)
    low, high = np.minimum(patches[plan.base], patches[plan.neighbour]), np.maximum(patches[plan.base], patches[plan.neighbour])
    assert drawn.dtype == np.float32
    assert ((drawn >= low) & (drawn <= high)).all()
    assert (labels[plan.base] == plan.label).all() and (labels[plan.neighbour] == plan.label).all()


def test_a_part_of_the_plan_is_drawn_as_in_the_whole():
    patches, labels = patches_of_two_classes()
    plan = smote.smote_plan(patches, labels)
    np.testing.assert_array_equal(smote.draw(patches, plan, [5, 2]), smote.draw(patches, plan)[[5, 2]])
    assert smote.draw(patches, plan, np.arange(0)).shape == (0, 50, 50, 3)


def test_a_plan_among_some_rows_is_that_of_these_rows_alone():
    patches, labels = patches_of_two_classes()
    rows = np.random.default_rng(1).permutation(90)[:60]
    plan, alone = smote.smote_plan(patches, labels, rows=rows, seed=2), smote.smote_plan(patches[rows], labels[rows], seed=2)
    assert same(plan, smote.SmotePlan(rows[alone.base], rows[alone.neighbour], alone.step, alone.label))


def test_equal_classes_need_nothing_and_search_nothing(monkeypatch):
    done = searches(monkeypatch)
    patches, _ = patches_of_two_classes()
    plan = smote.smote_plan(patches, np.arange(90) % 2)
    assert len(plan) == 0 and smote.draw(patches, plan).shape == (0, 50, 50, 3) and not done


@pytest.mark.parametrize(("width", "dtype"), [(3, np.float32), (40, np.float32), (40, np.float16)])
def test_features_are_blended_as_imbalanced_learn_does(width, dtype):
    generator = np.random.default_rng(5)
    features, labels = generator.normal(size=(120, width)).astype(dtype), (generator.permutation(120) < 40).astype(int)
    plan = smote.smote_plan(features, labels, neighbours=3, seed=9)
    expected, _ = SMOTE(random_state=9, k_neighbors=3).fit_resample(features.astype(np.float32), labels)
    drawn = smote.blend(features[plan.base], features[plan.neighbour], plan.step)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, expected[120:])


def test_feature_maps_are_blended_value_by_value():
    generator = np.random.default_rng(6)
    first, second = generator.normal(size=(2, 30, 5, 5, 112)).astype(np.float16)
    step = generator.random(30)
    drawn = smote.blend(first, second, step)
    low, high = np.minimum(first, second).astype(np.float32), np.maximum(first, second).astype(np.float32)
    assert drawn.dtype == np.float32 and ((drawn >= low) & (drawn <= high)).all()
    wanted = first.astype(np.float64) + step[:, None, None, None] * (second.astype(np.float64) - first)
    np.testing.assert_allclose(drawn, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(smote.blend(first, second, np.zeros(30)), first)


class TestSearch:
    def test_it_is_done_once_for_equal_pixels_and_again_for_others(self, kept, monkeypatch):
        done, (patches, labels) = searches(monkeypatch), patches_of_two_classes()
        plan = smote.smote_plan(patches, labels)
        assert same(smote.smote_plan(patches.astype(np.float32), labels), plan) and done == [1]
        assert not same(smote.smote_plan(patches, labels, seed=1), plan) and done == [1], "a seed needs no other neighbours"
        smote.smote_plan(patches, labels, neighbours=4)
        smote.smote_plan(np.where(patches == 7, 8, patches), labels)
        smote.smote_plan(patches, np.roll(labels, 1))
        assert len(done) == 4

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "a folder"])
    def test_what_is_damaged_on_disk_is_computed_again(self, kept, cache, monkeypatch, damage):
        done, (patches, labels) = searches(monkeypatch), patches_of_two_classes()
        plan = smote.smote_plan(patches, labels)
        (path,) = cache.rglob("*.npz")
        content = bytearray(path.read_bytes())
        if damage == "flipped":
            content[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[:-40], "empty": b""}.get(damage, content))
        if damage == "a folder":
            path.unlink()
            path.mkdir()
        assert same(smote.smote_plan(patches, labels), plan) and len(done) == 2
        if damage != "a folder":
            assert same(smote.smote_plan(patches, labels), plan) and len(done) == 2, "mended"

    def test_nothing_is_left_of_a_search_that_was_broken_off(self, kept, cache, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        patches, labels = patches_of_two_classes()
        monkeypatch.setattr(sklearn.neighbors, "NearestNeighbors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            smote.smote_plan(patches, labels)
        assert not list(cache.rglob("*.npz"))

    def test_a_small_one_is_silent_and_leaves_no_file(self, cache, capsys):
        smote.smote_plan(*patches_of_two_classes())
        assert capsys.readouterr() == ("", "") and not cache.exists()

    def test_a_long_one_says_its_cost_before_it_starts(self, monkeypatch, capsys):
        monkeypatch.setattr(smote, "ANNOUNCED", 0)
        monkeypatch.setattr(smote, "RATE", 2 * 25**2 * 7500 / 720)  # twelve minutes on one core
        monkeypatch.setattr(smote, "cores", lambda: 2)
        monkeypatch.setattr(sklearn.neighbors, "NearestNeighbors", lambda **_: pytest.fail(capsys.readouterr().out))
        said = (
            "compares 25 patches of the smaller class with each other, 7,500 values each: about 6.0 min and 0.1 GB of memory where 2 core"
        )
        with pytest.raises(pytest.fail.Exception, match=said):
            smote.smote_plan(*patches_of_two_classes())


@pytest.mark.parametrize("few", [1, 4, 5])
def test_too_few_patches_of_the_smaller_class_is_one_sentence(few):
    patches, labels = patches_of_two_classes()
    labels[:] = 0
    labels[:few] = 1
    with pytest.raises(InputError, match=f"more than 5 training patches of each class, but class 1 has {few}: lower"):
        smote.smote_plan(patches, labels)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone_cannot_be_balanced(only):
    patches, _ = patches_of_two_classes()
    with pytest.raises(InputError, match=f"of both classes, but class {1 - only} has none: add cases"):
        smote.smote_plan(patches, np.full(90, only))


class TestFeatureSmote:
    def test_its_samples_are_the_real_ones_and_the_cut_is_told(self, tmp_path):
        pack = archive.pack(synthetic_cohort.write(tmp_path / "p.zip", cases=10, patches_per_case=24), tmp_path / "cache", progress=False)
        table = splits.make(pack.manifest, seed=0)
        train = samples.training_samples(pack, table, mode="feature_smote", seed=0)
        weighed = samples.training_samples(pack, table, mode="class_weight", seed=0)
        assert train.mode == "feature_smote" and train.plan is None and len(train) == len(train.real)
        np.testing.assert_array_equal(train.rows, weighed.rows)
        # for what trains on the patches themselves, which has no features
        np.testing.assert_array_equal(train.weights, weighed.weights)

    @pytest.mark.parametrize(
        "without", [{"views": 0}, {"weights": "none"}, {"weights": "none", "views": 3}, {"weights": "imagenet", "views": 0}]
    )
    def test_without_cached_features_it_is_refused_in_one_sentence(self, without):
        with pytest.raises(InputError, match="needs the cached features of a pretrained network: set VIEWS to 1 or more and WEIGHTS to"):
            smote.check_balance("feature_smote", **without)

    def test_other_balances_need_no_features(self):
        for mode in set(smote.BALANCES) - {"feature_smote"}:
            smote.check_balance(mode, weights="none", views=0)
        smote.check_balance("feature_smote", weights="imagenet", views=1)
        with pytest.raises(InputError, match="BALANCE 'smoot' does not exist: choose one of none, class_weight"):
            smote.check_balance("smoot", weights="none", views=0)
