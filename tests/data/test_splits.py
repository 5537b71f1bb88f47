"""Cases are dealt fairly, no case is in two parts, and a split that was tampered with is refused."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhi_utils.core.paths import PACKAGE, InputError
from bhi_utils.core.run import Run
from bhi_utils.data import published, slide_grid, splits
from bhi_utils.data.archive import per_case


def cohort(count: int, *, seed: int = 0, first: int = 8000) -> pd.DataFrame:
    """A manifest of ``count`` cases on square grids, with sizes and IDC shares as uneven as the archive's."""
    rng = np.random.default_rng(seed)
    tables = []
    for case in range(first, first + count):
        side = int(rng.integers(8, 40))
        y, x = np.divmod(np.arange(side * side), side)
        share = rng.uniform(0.02, 0.8)
        tables.append(pd.DataFrame({"case": case, "x": 50 * x + 1, "y": 50 * y + 1, "label": (rng.random(side * side) < share)}))
    return pd.concat(tables, ignore_index=True).astype({"label": "int8"})


def every_case(ids: list[int]) -> pd.DataFrame:
    """Two patches of each id, one of each class."""
    return pd.DataFrame({"case": np.repeat(ids, 2), "x": [1, 51] * len(ids), "y": 1, "label": [0, 1] * len(ids)})


def test_each_case_is_in_exactly_one_part():
    manifest = cohort(48)
    table = splits.make(manifest)
    splits.assert_disjoint(table)
    assert sorted(table["case"]) == sorted(manifest["case"].unique())
    assert set(table["split"]) == {"train", "val", "test"}
    rows = [splits.indices(manifest, table, part) for part in splits.PARTS]
    assert sorted(np.concatenate(rows)) == list(range(len(manifest)))


def test_five_folds_give_sixty_twenty_twenty_with_equal_idc_shares():
    manifest = cohort(60)
    counts = splits.summary(manifest, splits.make(manifest, seed=3))
    assert counts["cases"].tolist() == [36, 12, 12]
    assert counts["patches"].div(len(manifest)).sub([0.6, 0.2, 0.2]).abs().max() < 0.01
    assert counts["IDC share"].max() - counts["IDC share"].min() < 0.01


@pytest.mark.parametrize("count", [10, 11, 13, 48])
def test_folds_differ_by_at_most_one_case(count):
    table = per_case(cohort(count))
    sizes = np.bincount(splits.deal(table, folds=5, seed=0), minlength=5)
    assert sizes.max() - sizes.min() <= 1


def test_ten_cases_are_enough_for_parts_of_similar_share():
    for seed in range(5):
        manifest = cohort(10, seed=seed)
        counts = splits.summary(manifest, splits.make(manifest, seed=seed))
        assert counts["cases"].tolist() == [6, 2, 2]
        assert counts["IDC share"].max() - counts["IDC share"].min() < 0.25


def test_row_order_does_not_change_the_split():
    manifest = cohort(30)
    shuffled = manifest.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(splits.make(manifest, seed=4), splits.make(shuffled, seed=4))


def test_a_seed_gives_the_draw_recorded_when_this_was_written():
    # Guards the promise that neither numpy nor a rewrite changes who is tested: published results depend on it.
    table = pd.DataFrame({"case": range(12), "patches": range(20, 32), "positive": [3, 9, 5, 7, 2, 8, 6, 4, 9, 3, 7, 5]})
    table["share"] = table["positive"] / table["patches"]
    assert splits.deal(table, folds=5, seed=0).tolist() == RECORDED


RECORDED = [4, 0, 4, 4, 0, 2, 3, 0, 1, 1, 3, 2]


def test_another_seed_gives_another_split():
    manifest = cohort(40)
    tested = {tuple(splits.indices(manifest, splits.make(manifest, seed=seed), "test")) for seed in range(5)}
    assert len(tested) == 5


def test_kfold_tests_every_case_once():
    manifest = cohort(23)
    tables = [splits.make(manifest, scheme="kfold", fold=fold) for fold in range(5)]
    tested = np.concatenate([table.loc[table["split"] == "test", "case"] for table in tables])
    assert sorted(tested) == sorted(manifest["case"].unique())
    pd.testing.assert_frame_equal(tables[0], splits.make(manifest))
    for fold, table in enumerate(tables):
        assert (table.loc[table["split"] == "test", "fold"] == fold).all()
        assert (table.loc[table["split"] == "val", "fold"] == (fold + 1) % 5).all()


def test_the_official_lists_are_the_published_84_29_49_and_do_not_overlap():
    lists = splits.official_lists()
    assert {part: len(ids) for part, ids in lists.items()} == {"train": 84, "val": 29, "test": 49}
    assert len({case for ids in lists.values() for case in ids}) == 162


def test_the_official_split_follows_the_lists_and_leaves_other_cases_unused():
    lists = splits.official_lists()
    manifest = every_case([*lists["train"], *lists["val"], *lists["test"], 8863])
    counts = splits.summary(manifest, splits.make(manifest, scheme="official"))
    assert counts["cases"].to_dict() == {"train": 84, "val": 29, "test": 49, "unused": 1}


def test_an_empty_official_part_is_named():
    lists = splits.official_lists()
    with pytest.raises(InputError, match="official test list has no case"):
        splits.make(every_case([*lists["train"], *lists["val"]]), scheme="official")
    with pytest.raises(InputError, match="official train list has no case"):
        splits.make(cohort(10, first=100), scheme="official")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "random"}, "use one of grouped, kfold, official"),
        ({"folds": 2}, "at least 3"),
        ({"folds": 13}, "12 cases, fewer than the 13 folds"),
        ({"fold": 1}, "use SPLIT='kfold'"),
        ({"scheme": "kfold", "fold": 5}, "runs from 0 to 4"),
    ],
)
def test_a_split_that_cannot_be_made_says_what_to_do(options, message):
    with pytest.raises(InputError, match=message):
        splits.make(cohort(12), **options)


def test_one_class_only_is_refused():
    with pytest.raises(InputError, match="no IDC\\+ patch"):
        splits.make(cohort(12).assign(label=0))


def test_a_part_with_one_class_is_refused():
    manifest = every_case(list(range(10)))
    lonely = manifest.assign(label=((manifest["case"] == 3) & (manifest["label"] == 1)).astype(int))
    with pytest.raises(InputError, match="part holds no IDC\\+ patch"):
        splits.make(lonely)


def test_a_manifest_with_an_unknown_case_is_refused():
    table = splits.make(cohort(12))
    with pytest.raises(InputError, match="run notebook 02_case_split again"):
        splits.indices(cohort(13), table, "train")


def test_a_case_in_two_parts_is_found():
    table = splits.make(cohort(12))
    with pytest.raises(ValueError, match="listed twice"):
        splits.assert_disjoint(pd.concat([table, table.head(1).assign(split="test")]))


def test_leakage_counts_cases_and_touching_patches():
    # One case of two by two patches, its left column in train and its right column in test; a second case in validation.
    manifest = pd.DataFrame({"case": [1, 1, 1, 1, 2], "x": [1, 51, 1, 51, 1], "y": [1, 1, 51, 51, 1], "label": [0, 1, 0, 1, 0]})
    table = slide_grid.leakage(manifest, part_of=np.array(["train", "test", "train", "test", "val"]))
    assert table.loc["train and test"].tolist() == [1, 2, 2, 2]
    assert table.loc["train and val"].tolist() == [0, 0, 1, 0]
    assert table.loc["val and test"].tolist() == [0, 0, 2, 0]


def test_corners_do_not_touch_and_each_patch_counts_once():
    # A plus sign: the centre in test, its four arms in train, and a corner patch in train that does not touch the centre.
    manifest = pd.DataFrame({"case": 1, "x": [51, 1, 101, 51, 51, 1], "y": [51, 51, 51, 1, 101, 1], "label": 0})
    table = slide_grid.leakage(manifest, part_of=np.array(["test"] + ["train"] * 5))
    assert table.loc["train and test", ["touching pairs", "with a neighbour"]].tolist() == [4, 1]


def test_a_split_by_image_leaks_and_a_split_by_case_does_not():
    manifest = cohort(20)
    by_image = slide_grid.leakage(manifest, seed=0)
    assert (by_image["shared cases"] == 20).all()
    assert by_image.loc["train and test", "with a neighbour"] > 0.9 * by_image.loc["train and test", "second part"]
    by_case = slide_grid.leakage(manifest, part_of=splits.parts(manifest, splits.make(manifest)))
    assert not by_case[["shared cases", "touching pairs", "with a neighbour"]].to_numpy().any()


def save(run: Run, manifest: pd.DataFrame) -> dict:
    return splits.save(run, splits.make(manifest), manifest=manifest, scheme="grouped", seed=0, folds=5, fold=0)


def test_a_saved_split_is_read_back_and_its_hash_is_that_of_the_file(tmp_path):
    run, manifest = Run.open(tmp_path), cohort(12)
    about = save(run, manifest)
    pd.testing.assert_frame_equal(splits.load(run), splits.make(manifest))
    content = (run.artifacts / "splits.csv").read_bytes()
    assert about["sha256"] == hashlib.sha256(content).hexdigest()
    assert run.read_json("splits.json") == about
    assert about["counts"]["test"]["cases"] in (2, 3)
    assert content.startswith(b"case,split,fold\n8000,") and b"\r" not in content


def test_saving_twice_gives_the_same_bytes(tmp_path):
    manifest = cohort(12)
    first, second = (save(Run.open(tmp_path / name), manifest)["sha256"] for name in ("a", "b"))
    assert first == second


def test_a_changed_split_is_refused(tmp_path):
    run = Run.open(tmp_path)
    save(run, cohort(12))
    path = run.artifacts / "splits.csv"
    path.write_bytes(path.read_bytes().replace(b"test", b"train", 1))
    with pytest.raises(InputError, match="SHA-256 differs"):
        splits.load(run)


def test_a_missing_split_names_the_notebook(tmp_path):
    with pytest.raises(InputError, match="02_case_split"):
        splits.load(Run.open(tmp_path))


# ---- runs of ids, one case out, and by image


def whole_archive() -> pd.DataFrame:
    """Cases and labels of all 277,524 patches, in rows of forty."""
    counts = published.case_table()
    case, number = np.repeat(counts["case"], counts["patches"]).to_numpy(), np.concatenate([np.arange(n) for n in counts["patches"]])
    label = number >= np.repeat(counts["negative"], counts["patches"]).to_numpy()
    return pd.DataFrame({"case": case, "x": 1 + 50 * (number % 40), "y": 1 + 50 * (number // 40), "label": label.astype("int8")})


@pytest.mark.parametrize("scheme", ["grouped", "runs"])
def test_the_shipped_folds_of_the_archive_are_what_the_code_deals(monkeypatch, scheme):
    manifest = whole_archive()
    shipped = pd.read_csv(PACKAGE / "data" / "folds_279.csv")
    assert len(shipped) == 279 and shipped["case"].tolist() == published.case_table()["case"].tolist()
    made = splits.make(manifest, scheme=scheme)
    assert made["fold"].tolist() == shipped[scheme].tolist()
    monkeypatch.setattr(splits, "shipped_folds", lambda *_: None)
    assert splits.make(manifest, scheme=scheme).equals(made)
    counts = splits.summary(manifest, made)
    assert counts["patches"].div(len(manifest)).sub([0.6, 0.2, 0.2]).abs().max() < 0.002
    assert counts["IDC share"].max() - counts["IDC share"].min() < 0.002


def test_another_seed_or_other_counts_do_not_get_the_shipped_folds():
    manifest = whole_archive()
    assert splits.make(manifest, seed=1)["fold"].tolist() != splits.make(manifest)["fold"].tolist()
    assert splits.shipped_folds(per_case(manifest.iloc[1:]), "grouped", 5, 0) is None
    assert splits.shipped_folds(per_case(manifest), "grouped", 4, 0) is None


def test_the_archive_has_88_runs_and_a_missing_id_does_not_break_one():
    ids = published.case_table()["case"].to_numpy()
    assert len(np.unique(splits.runs_of(ids))) == 88
    assert ids[:3].tolist() == [8863, 8864, 8865]
    first, second = splits.runs_of(np.array([8863, 8865]))
    assert first == second and len(np.unique(splits.runs_of(np.array([1, 3])))) == 2


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_every_scheme_gives_each_case_one_part_and_runs_stay_whole(data):
    ids = data.draw(st.lists(st.integers(1, 100), min_size=12, max_size=20, unique=True))
    seed, fold = data.draw(st.integers(0, 99)), data.draw(st.integers(0, 4))
    manifest = every_case(ids)
    for scheme in ("kfold", "runs", "loco"):
        try:
            table = splits.make(manifest, scheme=scheme, seed=seed, fold=fold)
        except InputError as error:
            assert scheme == "runs" and re.search("runs? of consecutive ids", str(error))
            continue
        splits.assert_disjoint(table)
        assert table["case"].tolist() == sorted(ids) and set(table["split"]) == {"train", "val", "test"}
        shuffled = manifest.sample(frac=1, random_state=seed)
        assert splits.make(shuffled, scheme=scheme, seed=seed, fold=fold).equals(table)
        if scheme == "runs":
            part = dict(zip(table["case"], table["split"], strict=True))
            assert all(part[case] == part[case + 1] for case in ids if case + 1 in part)
        if scheme == "loco":
            assert table.loc[table["split"] == "test", "case"].tolist() == [sorted(ids)[fold]]


def test_leaving_one_out_tests_every_case_once():
    manifest = cohort(8)
    tested = [splits.make(manifest, scheme="loco", folds=3, fold=fold).query("split == 'test'")["case"].item() for fold in range(8)]
    assert tested == sorted(manifest["case"].unique())
    with pytest.raises(InputError, match="with 8 cases it runs from 0 to 7"):
        splits.make(manifest, scheme="loco", folds=3, fold=8)


def test_cases_in_one_run_cannot_be_split_by_runs():
    with pytest.raises(InputError, match="1 run of consecutive ids, fewer than the 5 folds"):
        splits.make(cohort(20, first=90001), scheme="runs")


def test_a_split_by_image_can_be_drawn_and_saved_but_not_be_loaded_for_training(tmp_path):
    run, manifest = Run.open(tmp_path), cohort(12)
    table = splits.make(manifest, scheme="image", seed=4, fold=2)
    assert (table["fold"] == splits.image_folds(len(manifest), seed=4)).all() and (table["split"] == "test").equals(table["fold"] == 2)
    shuffled = manifest.sample(frac=1, random_state=0)
    assert (pd.Series(splits.parts(shuffled, table), index=shuffled.index).sort_index() == table["split"]).all()
    about = splits.save(run, table, manifest=manifest, scheme="image", seed=4, folds=5, fold=2)
    assert about["sha256"] == hashlib.sha256((run.artifacts / "splits.csv").read_bytes()).hexdigest()
    assert about["counts"]["test"]["cases"] == 12
    for refused in (lambda: splits.load(run), lambda: splits.assert_disjoint(table)):
        with pytest.raises(InputError, match="leakage.ipynb"):
            refused()
    with pytest.raises(InputError, match="not in splits.csv"):
        splits.parts(cohort(13), table)
