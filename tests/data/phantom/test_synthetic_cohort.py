"""The synthetic cohort: the archive's layout, the same bytes again, and hard enough to mean something."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bhi_utils.__main__ import main
from bhi_utils.core import atomic_files
from bhi_utils.core.paths import PACKAGE, InputError
from bhi_utils.data import archive, patch_listing, published
from bhi_utils.data.phantom import painting, synthetic_cohort
from bhi_utils.data.phantom.synthetic_cohort import NESTED

NAME = re.compile(r"(?P<case>\d+)/(?P<folder>[01])/(?P=case)_idx5_x(?P<x>\d+)_y(?P<y>\d+)_class(?P<label>[01])\.png")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return synthetic_cohort.write(tmp_path_factory.mktemp("phantom") / "small.zip", cases=4, patches_per_case=30)


@pytest.fixture(scope="module")
def slides() -> list[synthetic_cohort.Slide]:
    """The first half of the default cohort."""
    return [synthetic_cohort.draw_slide(index, patches=60, seed=0) for index in range(24)]


@pytest.fixture(scope="module")
def cohort(slides) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Its patches, labels and cases, small patches padded with white."""
    patches, labels, cases = [], [], []
    for slide in slides:
        for name, pixels in slide.patches():
            padded = np.full((50, 50, 3), 255, np.uint8)
            padded[: pixels.shape[0], : pixels.shape[1]] = pixels
            patches.append(padded)
            labels.append(int(NAME.fullmatch(name)["label"]))
            cases.append(slide.case)
    return np.array(patches), np.array(labels), np.array(cases)


def auc_by_case(features: np.ndarray, labels: np.ndarray, cases: np.ndarray) -> float:
    """Pooled out-of-fold AUC of a logistic regression, five folds, no case in two."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    scores = cross_val_predict(model, features, labels, groups=cases, cv=GroupKFold(5), method="predict_proba")
    return roc_auc_score(labels, scores[:, 1])


def texture(patches: np.ndarray) -> np.ndarray:
    """How uneven a patch is at four scales, relative to its own brightness: 20 numbers without colour."""
    grey = patches.astype(np.float32).mean(axis=3)
    grey /= grey.mean(axis=(1, 2), keepdims=True)
    features = []
    for scale in (0.7, 1.4, 2.8, 5.6):
        band = ndimage.gaussian_filter(grey, (0, scale, scale)) - ndimage.gaussian_filter(grey, (0, 1.6 * scale, 1.6 * scale))
        spread = band.std(axis=(1, 2)) + 1e-6
        local = np.sqrt(ndimage.gaussian_filter(band**2, (0, 4, 4)))
        dy, dx = np.gradient(band, axis=(1, 2))
        aligned = np.hypot((dx**2 - dy**2).mean(axis=(1, 2)), 2 * (dx * dy).mean(axis=(1, 2)))
        features += [spread, np.abs(band).mean(axis=(1, 2)), np.abs((band**3).mean(axis=(1, 2))) / spread**3]
        features += [local.std(axis=(1, 2)), aligned / ((dx**2 + dy**2).mean(axis=(1, 2)) + 1e-9)]
    return np.log1p(np.stack(features, axis=1))


def test_every_name_has_the_archive_s_layout_and_every_patch_stands_twice(small):
    with zipfile.ZipFile(small) as archive:
        names = [name for name in archive.namelist() if name != patch_listing.PHANTOM_MARKER]
        first = [name for name in names if not name.startswith(synthetic_cohort.NESTED)]
        assert {f"{synthetic_cohort.NESTED}/{name}" for name in first} == set(names) - set(first)
        assert all(archive.read(name) == archive.read(f"{synthetic_cohort.NESTED}/{name}") for name in first[:5])
        found = [NAME.fullmatch(name) for name in first]
        assert all(match and match["folder"] == match["label"] for match in found)
        assert all(int(match[axis]) % 50 == 1 for match in found for axis in "xy")
        assert len({(match["case"], match["x"], match["y"]) for match in found}) == len(first)
        assert {int(match["case"]) for match in found} == {90001, 90002, 90003, 90004}
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in archive.infolist())
        facts = json.loads(archive.read(patch_listing.PHANTOM_MARKER))
    assert facts["parameters"] == {"cases": 4, "patches_per_case": 30, "seed": 0, "nested": True}
    assert facts["patches"] == len(first) and facts["positive"] == sum(int(match["label"]) for match in found)
    assert 4 * 21 <= len(first) <= 4 * 39


def test_equal_arguments_give_equal_bytes_and_another_seed_gives_others(small, tmp_path):
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    again = synthetic_cohort.write(tmp_path / "again.zip", cases=4, patches_per_case=30)
    other = synthetic_cohort.write(tmp_path / "other.zip", cases=4, patches_per_case=30, seed=1)
    assert digest(again) == digest(small) != digest(other)


def test_a_case_does_not_depend_on_how_many_others_there_are(small, tmp_path):
    fewer = synthetic_cohort.write(tmp_path / "fewer.zip", cases=2, patches_per_case=30, nested=False)
    with zipfile.ZipFile(small) as many, zipfile.ZipFile(fewer) as few:
        names = [name for name in few.namelist() if name != patch_listing.PHANTOM_MARKER]
        assert {name for name in many.namelist() if name.startswith(("90001/", "90002/"))} == set(names)
        assert all(many.read(name) == few.read(name) for name in names)


def test_a_folder_holds_the_same_files_as_the_zip(small, tmp_path):
    (tmp_path / "cohort").mkdir()
    folder = synthetic_cohort.write(tmp_path / "cohort", cases=4, patches_per_case=30)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(small) as archive:
        assert files == {name: archive.read(name) for name in archive.namelist()}
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_a_phantom_is_recognised_and_nothing_else_is(small, tmp_path):
    folder = synthetic_cohort.write(tmp_path / "cohort", cases=1, patches_per_case=12, nested=False)
    with zipfile.ZipFile(small) as archive:
        archive.extractall(tmp_path / "unpacked")
        files = {name: archive.read(name) for name in archive.namelist() if name.startswith("90001/")}
    for name in ("real.zip", "marked.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
            if name == "marked.zip":
                archive.writestr(patch_listing.PHANTOM_MARKER, "{}")
    for path, content in {**files, patch_listing.PHANTOM_MARKER: b"[]"}.items():
        (tmp_path / "list" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "list" / path).write_bytes(content)
    assert all(patch_listing.index(path).synthetic for path in (small, folder, tmp_path / "unpacked", tmp_path / "marked.zip"))
    assert not any(patch_listing.index(tmp_path / name).synthetic for name in ("real.zip", "list"))


def test_the_patches_of_a_case_are_one_piece_of_tissue_with_both_classes(slides):
    for slide in slides:
        grid = np.zeros(slide.cells.max(axis=0) + 1, bool)
        grid[tuple(slide.cells.T)] = True
        assert ndimage.label(grid)[1] == 1
        assert set(slide.labels) == {0, 1} and 42 <= len(slide.labels) <= 78


def test_structures_continue_over_the_borders_of_patches(slides):
    image = slides[0].image.astype(float)
    jump = np.abs(np.diff(image, axis=1)).mean(axis=(0, 2))
    at_border = jump[49::50].mean()
    assert at_border < 1.25 * np.delete(jump, np.s_[49::50]).mean()


def test_the_cohort_has_the_archive_s_class_balance_and_a_few_small_edge_patches(slides):
    shares = np.array([slide.labels.mean() for slide in slides])
    sizes = [pixels.shape[:2] for slide in slides for _, pixels in slide.patches()]
    small = [size for size in sizes if size != (50, 50)]
    assert 0.2 < shares.mean() < 0.36 and shares.min() < 0.12 and shares.max() > 0.5
    assert 0.003 < len(small) / len(sizes) < 0.015
    assert all(50 in size and min(size) >= 7 for size in small)


def test_patches_look_like_haematoxylin_and_eosin(cohort):
    patches = cohort[0]
    glass = patches.min(axis=3) > 225
    assert 0.1 < glass.mean() < 0.4
    red, green, blue = patches[~glass].astype(int).mean(axis=0)
    # pink to purple: green is taken away most, and tissue is neither black nor pale
    assert green < blue and green < red and 90 < green < 190
    means = np.array([patches[cohort[2] == case].mean(axis=(0, 1, 2)) for case in np.unique(cohort[2])])
    assert means.std(axis=0).min() > 4


def test_mean_colour_hardly_tells_the_classes_apart(cohort):
    patches, labels, cases = cohort
    assert auc_by_case(patches.mean(axis=(1, 2)), labels, cases) < 0.75


def test_texture_without_colour_tells_the_classes_apart(cohort):
    patches, labels, cases = (array[::2] for array in cohort)
    assert 0.75 < auc_by_case(texture(patches), labels, cases) < 0.97


@pytest.mark.skipif(not os.environ.get("BHI_TEST_WEIGHTS"), reason="BHI_TEST_WEIGHTS names no EfficientNetB0 weights")
def test_frozen_imagenet_features_land_where_real_patches_do(cohort):
    import keras

    patches, labels, cases = cohort
    weights = os.environ["BHI_TEST_WEIGHTS"]
    base = keras.applications.EfficientNetB0(
        weights=weights, include_top=False, pooling="avg", input_shape=(96, 96, 3), name="frozen_probe"
    )
    batches = (patches[start : start + 64].astype(np.float32) for start in range(0, len(patches), 64))
    features = [base.predict_on_batch(np.asarray(keras.ops.image.resize(batch, (96, 96)))) for batch in batches]
    assert 0.85 < auc_by_case(np.concatenate(features), labels, cases) < 0.97


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cases": 0}, "at least one case, not 0"),
        ({"cases": -3}, "at least one case"),
        ({"patches_per_case": 5}, "at least 12 patches, not 5"),
    ],
)
def test_numbers_too_small_are_one_sentence(tmp_path, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        synthetic_cohort.write(tmp_path / "cohort.zip", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep", encoding="utf-8")
    (tmp_path / "folder.zip").mkdir()
    for name, sentence in (("full", "is not empty"), ("folder.zip", "is a folder"), ("full/mine.txt", "is a file")):
        with pytest.raises(InputError, match=sentence):
            synthetic_cohort.write(tmp_path / name, cases=1, patches_per_case=12)
    for name in ("full/mine.txt/below", "full/mine.txt/below.zip"):
        with pytest.raises(InputError, match="Cannot write"):
            synthetic_cohort.write(tmp_path / name, cases=1, patches_per_case=12)
    assert (tmp_path / "full" / "mine.txt").read_text(encoding="utf-8") == "keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.zip", "full"]


def test_what_is_written_decodes_to_what_was_drawn(small):
    slide = synthetic_cohort.draw_slide(2, patches=30, seed=0)
    with zipfile.ZipFile(small) as archive:
        for name, pixels in slide.patches():
            with archive.open(name) as stream, Image.open(stream) as image:
                np.testing.assert_array_equal(np.asarray(image), pixels)


LIKE_NAME = re.compile(r"(\d+)/([01])/\1_idx5_x(\d+)_y(\d+)_class\2\.png")
#: The slide's edge cuts the tissue of the first two cases, whose ids 6 divides; the second has one patch of IDC+.
COUNTS = pd.DataFrame({"case": [8868, 9000, 16895], "negative": [14, 40, 30], "positive": [20, 1, 9]})


@pytest.fixture(scope="module")
def like_archive(tmp_path_factory) -> Path:
    return synthetic_cohort.write_archive(tmp_path_factory.mktemp("like") / "a.zip", counts=COUNTS, workers=1, progress=False)


@pytest.fixture
def unpainted(monkeypatch):
    """Slides of the right size without their pixels: geometry and labels take a tenth of the time."""
    monkeypatch.setattr(painting, "paint", lambda rng, style, tissue, invasive: np.zeros((*tissue.shape, 3), np.uint8))


def counted(paths: list[str]) -> pd.DataFrame:
    """``case, negative, positive`` of paths in the archive's layout, whose positions must all be different."""
    places = [tuple(map(int, LIKE_NAME.fullmatch(path).groups())) for path in paths]
    table = pd.DataFrame(places, columns=["case", "label", "x", "y"])
    assert not table.duplicated(["case", "x", "y"]).any() and (table[["x", "y"]] % 50 == 1).all(axis=None)
    table = table.groupby("case")["label"].agg(negative=lambda labels: (labels == 0).sum(), positive="sum")
    return table.reset_index().astype("int64")


def test_each_case_has_its_counts_twice_and_the_copy_is_equal(like_archive):
    with zipfile.ZipFile(like_archive) as target:
        names = target.namelist()
        first = [name for name in names if name[0].isdigit()]
        assert sorted(names) == sorted([*first, *(f"{NESTED}/{name}" for name in first), patch_listing.PHANTOM_MARKER])
        assert all(target.read(name) == target.read(f"{NESTED}/{name}") for name in first)
        facts = json.loads(target.read(patch_listing.PHANTOM_MARKER))
    assert counted(first).equals(COUNTS)
    assert facts["parameters"] == {"like_archive": True, "cases": 3, "seed": 0}
    assert (facts["format"], facts["patches"], facts["positive"]) == ("bhi-phantom", 114, 30)


def test_it_packs_as_synthetic_with_the_same_counts_and_a_few_small_edge_patches(like_archive, tmp_path):
    pack = archive.pack(like_archive, tmp_path, progress=False)
    assert pack.info["synthetic"] and pack.info["kind"] == "phantom" and pack.rejected.empty
    assert counted(list(pack.manifest["path"])).equals(COUNTS) and pack.info["nested_copy"] == pack.info["patches"] == 114
    small = pack.manifest[(pack.manifest["width"] < 50) | (pack.manifest["height"] < 50)]
    assert set(small["case"]) == {8868, 9000}
    assert len({patch.tobytes() for patch in pack.patches}) == 114


def test_one_and_two_processes_give_equal_bytes_and_another_seed_others(like_archive, tmp_path):
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    two = synthetic_cohort.write_archive(tmp_path / "two.zip", counts=COUNTS, workers=2, progress=False)
    other = synthetic_cohort.write_archive(tmp_path / "other.zip", counts=COUNTS.iloc[:1], seed=1, workers=1, progress=False)
    assert digest(two) == digest(like_archive) and sorted(path.name for path in tmp_path.iterdir()) == ["other.zip", "two.zip"]
    with zipfile.ZipFile(other) as target, zipfile.ZipFile(like_archive) as first:
        shared = [name for name in set(target.namelist()) & set(first.namelist()) if name.endswith(".png")]
        assert all(target.read(name) != first.read(name) for name in shared)


def test_a_folder_holds_the_zips_files(like_archive, tmp_path):
    folder = synthetic_cohort.write_archive(tmp_path / "like", counts=COUNTS, workers=1, progress=False)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(like_archive) as target:
        assert found == {name: target.read(name) for name in target.namelist()}
    assert patch_listing.index(folder).synthetic and os.listdir(tmp_path) == ["like"]


def test_published_cases_small_and_large_are_drawn_with_their_counts(unpainted):
    cases = published.case_table().sort_values("patches")
    chosen = cases.iloc[[*range(6), len(cases) // 2, -1]]
    for case in chosen.itertuples():
        pieces = synthetic_cohort.draw_case(case.case, negative=case.negative, positive=case.positive, seed=0)
        assert len(pieces) == -(-case.patches // synthetic_cohort.LARGEST_PIECE)
        found = counted([path for piece in pieces for path, _ in piece.patches()])
        assert found.to_numpy().tolist() == [[case.case, case.negative, case.positive]]
        assert all(0 not in pixels.shape for piece in pieces for _, pixels in piece.patches())


def test_by_default_every_published_case_is_drawn_with_its_counts(tmp_path, monkeypatch):
    asked = []

    def draw(case: int, *, negative: int, positive: int, seed: int) -> list:
        asked.append((case, negative, positive))
        return []

    monkeypatch.setattr(synthetic_cohort, "draw_case", draw)
    synthetic_cohort.write_archive(tmp_path / "like.zip", workers=1, progress=False)
    assert asked == list(published.case_table()[["case", "negative", "positive"]].itertuples(index=False, name=None))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("out", ["like.zip", pytest.param("like", marks=pytest.mark.slow)])
def test_a_killed_job_leaves_nothing_under_the_name_and_a_rerun_is_clean_and_equal(like_archive, tmp_path, out):
    code = f"""
import sys, time
from pathlib import Path
import pandas as pd
from bhi_utils.data.phantom import synthetic_cohort
if __name__ == "__main__":
    counts = pd.DataFrame({COUNTS.to_dict("list")})
    synthetic_cohort.write_archive(Path(sys.argv[1]), counts=pd.concat([counts] * 50), workers=2, progress=False)
"""
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(code, encoding="utf-8")
    (tmp_path / ".bhi-other.zip-x.lock").touch()
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    with subprocess.Popen([sys.executable, str(script), str(tmp_path / out)], env=environment) as process:
        deadline = time.monotonic() + 60
        while not any(path.is_file() and path.stat().st_size for path in tmp_path.glob(f".bhi-{out}-*.part/**/*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        atomic_files.sweep(tmp_path, f"bhi-{out}")
        assert len(list(tmp_path.glob(f".bhi-{out}-*.part"))) == 2, "a living job's are left alone"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / out).exists()
    synthetic_cohort.write_archive(tmp_path / out, counts=COUNTS, workers=1, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {out, "elsewhere", ".bhi-other.zip-x.lock"}
    if out.endswith(".zip"):
        assert (tmp_path / out).read_bytes() == like_archive.read_bytes()


def test_an_interrupted_job_cleans_up_and_leaves_an_older_zip_alone(tmp_path, monkeypatch):
    (tmp_path / "like.zip").write_bytes(b"older")

    def interrupted(*_, **__) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic_cohort, "draw_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthetic_cohort.write_archive(tmp_path / "like.zip", counts=COUNTS, workers=1, progress=False)
    assert os.listdir(tmp_path) == ["like.zip"] and (tmp_path / "like.zip").read_bytes() == b"older"


def test_a_painting_process_that_dies_is_one_sentence(tmp_path, monkeypatch):
    def kill_workers(*_) -> None:
        import multiprocessing

        for worker in multiprocessing.active_children():
            worker.kill()

    monkeypatch.setattr(synthetic_cohort.tqdm, "update", kill_workers)
    counts = pd.concat([COUNTS.assign(case=COUNTS["case"] + 6 * k) for k in range(5)])
    with pytest.raises(InputError, match="ended early.*is not written"):
        synthetic_cohort.write_archive(tmp_path / "like.zip", counts=counts, workers=2, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [["--cases", "5"], ["--patches", "30"]])
def test_counts_of_ones_own_do_not_go_with_the_archives(tmp_path, capsys, option):
    assert main(["phantom", str(tmp_path / "like.zip"), "--like-archive", *option]) == 2
    said = capsys.readouterr().err
    assert "leave out --cases and --patches" in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("out", "size"), [("like.zip", "3.61 GB"), ("like", "4.55 GB")])
def test_a_disk_that_is_too_small_is_one_sentence(tmp_path, monkeypatch, capsys, out, size):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 7 * 10**9, 3 * 10**9))
    assert main(["phantom", str(tmp_path / out), "--like-archive"]) == 2
    said = capsys.readouterr().err
    assert f"{size} are needed and 3.00 GB are free" in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_as_many_processes_paint_as_find_memory(monkeypatch):
    class Memory:
        available = 1_300_000_000

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(synthetic_cohort.psutil, "virtual_memory", Memory)
    assert synthetic_cohort._processes(0, 279) == 2
    Memory.available = 10**12
    assert synthetic_cohort._processes(0, 279) == 32 and synthetic_cohort._processes(0, 5) == 5
    Memory.available = 0
    assert synthetic_cohort._processes(0, 279) == 1
