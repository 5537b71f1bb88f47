"""The synthetic cohort of the archive's own size: true counts, both copies, equal bytes, and nothing half-written."""

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

from bhi_utils.__main__ import main
from bhi_utils.core import atomic_files
from bhi_utils.core.paths import PACKAGE, InputError
from bhi_utils.data import archive, published, sources
from bhi_utils.data.phantom import painting, synthetic_cohort
from bhi_utils.data.phantom.synthetic_cohort import NESTED

NAME = re.compile(r"(\d+)/([01])/\1_idx5_x(\d+)_y(\d+)_class\2\.png")
#: The slide's edge cuts the tissue of the first two cases, whose ids 6 divides; the second has one patch of IDC+.
COUNTS = pd.DataFrame({"case": [8868, 9000, 16895], "negative": [14, 40, 30], "positive": [20, 1, 9]})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return synthetic_cohort.write_archive(tmp_path_factory.mktemp("like") / "a.zip", counts=COUNTS, workers=1, progress=False)


@pytest.fixture
def unpainted(monkeypatch):
    """Slides of the right size without their pixels: geometry and labels take a tenth of the time."""
    monkeypatch.setattr(painting, "paint", lambda rng, style, tissue, invasive: np.zeros((*tissue.shape, 3), np.uint8))


def counted(paths: list[str]) -> pd.DataFrame:
    """``case, negative, positive`` of paths in the archive's layout, whose positions must all be different."""
    places = [tuple(map(int, NAME.fullmatch(path).groups())) for path in paths]
    table = pd.DataFrame(places, columns=["case", "label", "x", "y"])
    assert not table.duplicated(["case", "x", "y"]).any() and (table[["x", "y"]] % 50 == 1).all(axis=None)
    table = table.groupby("case")["label"].agg(negative=lambda labels: (labels == 0).sum(), positive="sum")
    return table.reset_index().astype("int64")


def test_each_case_has_its_counts_twice_and_the_copy_is_equal(cohort):
    with zipfile.ZipFile(cohort) as target:
        names = target.namelist()
        first = [name for name in names if name[0].isdigit()]
        assert sorted(names) == sorted([*first, *(f"{NESTED}/{name}" for name in first), sources.PHANTOM_MARKER])
        assert all(target.read(name) == target.read(f"{NESTED}/{name}") for name in first)
        facts = json.loads(target.read(sources.PHANTOM_MARKER))
    assert counted(first).equals(COUNTS)
    assert facts["parameters"] == {"like_archive": True, "cases": 3, "seed": 0}
    assert (facts["format"], facts["patches"], facts["positive"]) == ("bhi-phantom", 114, 30)


def test_it_packs_as_synthetic_with_the_same_counts_and_a_few_small_edge_patches(cohort, tmp_path):
    pack = archive.pack(cohort, tmp_path, progress=False)
    assert pack.info["synthetic"] and pack.info["kind"] == "phantom" and pack.rejected.empty
    assert counted(list(pack.manifest["path"])).equals(COUNTS) and pack.info["nested_copy"] == pack.info["patches"] == 114
    small = pack.manifest[(pack.manifest["width"] < 50) | (pack.manifest["height"] < 50)]
    assert set(small["case"]) == {8868, 9000}
    assert len({patch.tobytes() for patch in pack.patches}) == 114


def test_one_and_two_processes_give_equal_bytes_and_another_seed_others(cohort, tmp_path):
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    two = synthetic_cohort.write_archive(tmp_path / "two.zip", counts=COUNTS, workers=2, progress=False)
    other = synthetic_cohort.write_archive(tmp_path / "other.zip", counts=COUNTS.iloc[:1], seed=1, workers=1, progress=False)
    assert digest(two) == digest(cohort) and sorted(path.name for path in tmp_path.iterdir()) == ["other.zip", "two.zip"]
    with zipfile.ZipFile(other) as target, zipfile.ZipFile(cohort) as first:
        shared = [name for name in set(target.namelist()) & set(first.namelist()) if name.endswith(".png")]
        assert all(target.read(name) != first.read(name) for name in shared)


def test_a_folder_holds_the_zips_files(cohort, tmp_path):
    folder = synthetic_cohort.write_archive(tmp_path / "like", counts=COUNTS, workers=1, progress=False)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(cohort) as target:
        assert found == {name: target.read(name) for name in target.namelist()}
    assert sources.index(folder).synthetic and os.listdir(tmp_path) == ["like"]


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

    def files(case: int, negative: int, positive: int, seed: int) -> list[tuple[str, bytes]]:
        asked.append((case, negative, positive))
        return [(f"{case}", b"")]

    monkeypatch.setattr(synthetic_cohort, "_files", files)
    synthetic_cohort.write_archive(tmp_path / "like.zip", workers=1, progress=False)
    assert asked == list(published.case_table()[["case", "negative", "positive"]].itertuples(index=False, name=None))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("out", ["like.zip", pytest.param("like", marks=pytest.mark.slow)])
def test_a_killed_job_leaves_nothing_under_the_name_and_a_rerun_is_clean_and_equal(cohort, tmp_path, out):
    code = f"""
import sys, time
from pathlib import Path
import pandas as pd
from bhi_utils.data.phantom import synthetic_archive
if __name__ == "__main__":
    counts = pd.DataFrame({COUNTS.to_dict("list")})
    synthetic_archive.write(Path(sys.argv[1]), counts=pd.concat([counts] * 50), workers=2, progress=False)
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
        assert (tmp_path / out).read_bytes() == cohort.read_bytes()


def test_an_interrupted_job_cleans_up_and_leaves_an_older_zip_alone(tmp_path, monkeypatch):
    (tmp_path / "like.zip").write_bytes(b"older")

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic_cohort, "_files", interrupted)
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
