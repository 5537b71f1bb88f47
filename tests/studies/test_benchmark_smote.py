"""The benchmark of SMOTE: both sides on the same patches, all pixels compared, memory that is really held. No test asks for a time."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bhi_utils.__main__ import main
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.studies import benchmark_smote

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return synthetic_cohort.write(tmp_path_factory.mktemp("bench") / "cohort.zip", cases=12, patches_per_case=20)


@pytest.fixture(scope="module")
def studied(cohort, tmp_path_factory):
    run = Run.open(tmp_path_factory.mktemp("study"))
    return run, benchmark_smote.study(run, str(cohort), repeats=2)


def turn(memory: float, drawing: float, pixels: str) -> dict:
    """What one repeat measures, as the sides print it."""
    library = {"search_seconds": 4.0, "remaining_seconds": 2.0, "remaining_cpu_seconds": 2.0, "peak_extra_bytes": 600, "pixels": "a"}
    plan = {"search_seconds": 4.0, "search_again_seconds": 0.1, "drawing_seconds": drawing, "drawing_cpu_seconds": drawing / 2}
    shared = {"synthetic": 50}
    return {
        benchmark_smote.IMBLEARN: library | shared,
        benchmark_smote.PLAN: plan | {"peak_extra_bytes": memory, "pixels": pixels} | shared,
    }


def test_both_sides_make_the_same_patches_and_the_result_is_whole(studied, cohort, cache):
    run, result = studied
    assert json.loads((run.artifacts / benchmark_smote.RESULTS).read_text(encoding="utf-8")) == result
    labels = archive.pack(cohort, cache, progress=False).manifest["label"].to_numpy()
    negative, positive = np.bincount(labels)
    assert result["equal"] and result["synthetic"] == abs(negative - positive)
    assert result["data"]["synthetic"] and result["data"]["patches"] == len(labels) and result["repeats"] == 2
    assert result["command"] == "bhi bench --of smote --data cohort.zip --repeats 2" and result["machine"]["imbalanced-learn"]
    for cells in result["sides"].values():
        assert all(cell["low"] <= cell["median"] <= cell["high"] for cell in cells.values())
    # the copy that imbalanced-learn returns counts
    assert result["sides"][benchmark_smote.IMBLEARN]["peak_extra_bytes"]["low"] > (len(labels) + result["synthetic"]) * 7500 * 4


def test_its_texts_say_what_was_wanted_and_what_was_measured(studied):
    _, result = studied
    assert len(benchmark_smote.goals(result)) == 4 and len(benchmark_smote.table(result)) == 2
    said = benchmark_smote.sentence(result)
    assert f"{result['data']['patches']:,} patches gives the same pixels" in said and f"all {result['synthetic']:,} synthetic" in said
    assert benchmark_smote.sentence({**result, "equal": False}).count("OTHER pixels") == 1


def test_a_ratio_compares_sides_of_the_same_repeat_and_one_other_pixel_fails_the_goal():
    good = benchmark_smote._compared([turn(100, 0.1, "a"), turn(60, 0.2, "a"), turn(90, 0.1, "a")])
    assert good["ratios"]["memory"] == pytest.approx({"median": 0.15, "low": 0.1, "high": 1 / 6})
    assert good["ratios"]["drawing"] == pytest.approx({"median": 0.05, "low": 0.05, "high": 0.1}) and good["equal"]
    assert benchmark_smote.goals(good)["met"].all()
    bad = benchmark_smote.goals(benchmark_smote._compared([turn(101, 0.3, "a"), turn(102, 0.3, "b"), turn(102, 0.3, "a")]))
    assert list(bad["met"]) == [False, False, False, True]


def test_the_peak_counts_what_was_freed_again_but_not_what_was_there_before():
    # in a process of its own, as the sides are: a long one holds freed memory that a new array takes without a rise
    code = (
        "import numpy as np; from bhi_utils.studies import benchmark_smote as smote; there = np.ones(5_000_000); before = smote._level(); "
        "taken = np.ones(10_000_000); del taken; print(smote._peak() - before, len(there))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 70e6 < int(said.split()[0]) < 120e6


def test_a_side_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)plan ended with 1: .*No whole pack"):
        benchmark_smote._measure(benchmark_smote.PLAN, tmp_path, 0)


def test_a_dry_run_says_the_cost_for_the_source_and_the_whole_archive_and_writes_nothing(cohort, tmp_path, capsys):
    assert main(["bench", "--of", "smote", "--dry-run", "--data", str(cohort), "--out", str(tmp_path / "out")]) == 0
    own, whole = capsys.readouterr().out.splitlines()
    assert "of the smaller class" in own and "compares 78,786 patches" in whole and "2.4 GB of memory" in whole
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--of", "smote", "--sizes", "10"], "--sizes is for --of archive"),
        (["--dry-run"], "--dry-run is for --of smote"),
        (["--of", "smote", "--repeats", "0"], "at least one repeat"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(cohort, tmp_path, capsys, options, words):
    assert main(["bench", *options, "--data", str(cohort), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_source_with_too_few_patches_of_a_class_cannot_be_balanced(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_smote, "NEIGHBOURS", 500)
    with pytest.raises(InputError, match="more than 500 patches of each class"):
        benchmark_smote.study(Run.open(tmp_path / "out"), str(cohort))


def test_the_recorded_result_is_of_the_real_sample_and_meets_its_goals():
    result = benchmark_smote.recorded()
    assert not result["data"]["synthetic"] and result["data"]["patches"] > 13_000
    assert result["repeats"] >= 3 and not result["commit"].endswith("-dirty")
    assert [cost["smaller_class"] for cost in result["estimates"]] == [result["data"]["positive"], 78_786]
    assert benchmark_smote.goals(result)["met"].all()
