"""The benchmarks: every side reads the same patches, memory counts all processes, a result is whole. No test asks for a time."""

import json
import os
import sys

import numpy as np
import pytest

from bhi_utils.__main__ import main
from bhi_utils.core import provenance
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, decode, published
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.studies import benchmark, benchmark_archive, figures


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return synthetic_cohort.write(tmp_path_factory.mktemp("bench") / "cohort.zip", cases=12, patches_per_case=20)


@pytest.fixture(scope="module")
def studied(cohort, tmp_path_factory):
    run = Run.open(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(benchmark_archive, "LEAST", 0)
        return run, benchmark_archive.study(run, str(cohort), sizes=(100, 150, 10_000), repeats=1)


def test_every_side_gives_every_patch_once(cohort, tmp_path):
    pack = archive.pack(cohort, tmp_path / "cache")
    benchmark_archive._unpack(cohort, tmp_path / "files")
    whole = (pack.manifest["width"] == decode.PATCH) & (pack.manifest["height"] == decode.PATCH)
    expected = sorted(
        (int(patch.sum()), int(label)) for patch, label in zip(pack.patches[whole], pack.manifest["label"][whole], strict=True)
    )
    sides = benchmark_archive._sides(pack, tmp_path / "files")
    assert len(sides) == 2
    for epoch in sides.values():
        seen = []
        for patches, labels in epoch():
            assert patches.shape[1:] == (50, 50, 3)
            sums = np.asarray(patches, np.float64).sum((1, 2, 3))
            seen += [(int(pixels), int(label)) for pixels, label in zip(sums, np.asarray(labels)[:, 0], strict=True)]
        assert len(seen) == len(pack.patches) and not set(expected) - set(seen)
        assert [label for _, label in seen] != sorted(label for _, label in seen), "shuffled"


def test_an_epoch_of_another_length_is_no_measurement(cohort, tmp_path):
    pack = archive.pack(cohort, tmp_path / "cache")
    with pytest.raises(ValueError, match="not 7"):
        benchmark_archive._epoch_rate(lambda: [(pack.patches, pack.manifest["label"])], 7)


def test_memory_is_that_of_a_command_and_of_what_it_starts():
    hold = "import time; held = bytearray({}); time.sleep(1)"
    start = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {!r}]); {}; child.wait()"
    (_, small), (_, large) = (
        benchmark.measured([sys.executable, "-c", start.format(hold.format(size), hold.format(size))], dict(os.environ))
        for size in (1000, 40_000_000)
    )
    assert large - small > 1.5 * 40_000_000, "both processes hold theirs"


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(RuntimeError, match="ended with 3: oh"):
        benchmark.measured([sys.executable, "-c", "import sys; print('oh'); sys.exit(3)"], dict(os.environ))


@pytest.mark.slow
def test_a_study_measures_whole_cases_at_each_size_and_leaves_nothing_but_its_result(studied, cohort):
    run, result = studied
    assert json.loads((run.artifacts / benchmark_archive.RESULTS).read_text(encoding="utf-8")) == result
    sizes = [row["patches"] for row in result["ingest"]]
    assert sizes == [row["patches"] for row in result["epochs"]] == sorted(sizes) and len(sizes) == 2
    assert 100 <= sizes[0] < 150 <= sizes[1] < 200
    assert result["data"]["synthetic"] and result["data"]["patches"] == result["data"]["nested_copy"]
    assert "10000" in result["command"] and not list(run.root.glob("bench-*"))
    for row in result["ingest"]:
        assert row["peak_uss_mb"]["median"] > 0 and row["index_and_pack_seconds"]["low"] > 0


@pytest.mark.slow
def test_its_tables_and_figure_show_every_size_and_how_many_times_faster_the_pack_is(studied):
    _, result = studied
    epochs = benchmark_archive.epochs_table(result)
    ratio = epochs[benchmark_archive.PACK] / epochs[benchmark_archive.DIRECTORY]
    np.testing.assert_allclose(epochs[f"pack ÷ {benchmark_archive.DIRECTORY}"], ratio)
    assert len(epochs) == len(benchmark_archive.ingest_table(result)) == 2
    assert len(figures.benchmarks(result).axes) == 3


def test_the_recorded_result_is_of_the_whole_archives_size():
    result = provenance.result(benchmark_archive.RESULTS)
    assert result["ingest"][-1]["patches"] == result["data"]["patches"] == published.archive_totals()["patches"]
    assert result["repeats"] >= 3 and not result["commit"].endswith("-dirty")
    assert len(benchmark_archive.ingest_table(result)) == len(benchmark_archive.epochs_table(result)) == len(benchmark_archive.SIZES)


def test_without_a_zip_a_synthetic_archive_is_painted_once(monkeypatch, tmp_path):
    small = published.case_table().nsmallest(2, "patches")
    monkeypatch.setattr(published, "case_table", small.copy)
    monkeypatch.setenv("BHI_CACHE", str(tmp_path))
    path = benchmark_archive._source("phantom")
    painted = path.stat().st_mtime_ns
    cases, data = benchmark_archive._inventory(benchmark_archive._source("phantom"))
    assert path.stat().st_mtime_ns == painted
    assert cases.to_dict() == small.set_index("case")["patches"].to_dict() and data["synthetic"]


@pytest.mark.parametrize(("options", "words"), [({"repeats": 0}, "one repeat"), ({"sizes": [0]}, "one patch")])
def test_numbers_that_measure_nothing_are_refused(tmp_path, cohort, options, words):
    with pytest.raises(InputError, match=words):
        benchmark_archive.study(Run.open(tmp_path), str(cohort), **options)


def test_a_folder_cannot_be_timed_from_its_zip(tmp_path, capsys):
    (tmp_path / "patches").mkdir()
    assert main(["bench", "--data", str(tmp_path / "patches"), "--out", str(tmp_path / "out")]) == 2
    assert "is a folder, and the benchmark begins with a zip" in capsys.readouterr().err
