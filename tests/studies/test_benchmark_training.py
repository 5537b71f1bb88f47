"""The benchmark of training: the same patches and as many epochs on both sides, whole results. No test asks for a time."""

import json
import os

import numpy as np
import pytest

from bhi_utils.__main__ import main
from bhi_utils.core import provenance
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.runner import parameters
from bhi_utils.studies import benchmark_training
from bhi_utils.training import fit_phases


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return synthetic_cohort.write(tmp_path_factory.mktemp("bench") / "cohort.zip", cases=10, patches_per_case=24, nested=False)


@pytest.fixture(scope="module")
def pack(cohort, tmp_path_factory):
    return archive.pack(cohort, tmp_path_factory.mktemp("cache"), progress=False)


@pytest.fixture(scope="module")
def studied(cohort, tmp_path_factory):
    run = Run.open(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BHI_CACHE", str(tmp_path_factory.mktemp("cache")))
        patched.setattr(benchmark_training, "LEAST", 0)
        patched.delenv("BHI_PRECISION", raising=False)
        # a patience that would end a phase of random weights at once, were it not lifted
        patched.setattr(fit_phases, "PATIENCE", 0)
        options = {"batches": (8,), "epochs": 6, "blocks": 1, "repeats": 1, "image_size": 32, "patches": (48, 16)}
        # each kind of step is compiled by itself, which takes longer than all the rest
        for step in ("frozen", "all"):
            patched.delitem(benchmark_training.STEPS, step)
        found = benchmark_training.study(run, str(cohort), **options)
        assert fit_phases.PATIENCE == 0 and "BHI_PRECISION" not in os.environ
        yield run, found


def test_the_patches_are_fixed_and_keep_their_parts(pack):
    (one, table), (again, _) = (benchmark_training.fixed_patches(pack, 48, 16, seed=0) for _ in range(2))
    np.testing.assert_array_equal(one.patches, again.patches)
    assert one.info["fingerprint"] == again.info["fingerprint"] != pack.info["fingerprint"]
    whole = splits.make(pack.manifest, seed=0).set_index("case")["split"]
    counts = one.manifest["case"].map(whole).value_counts()
    assert counts.to_dict() == {"train": 48, "val": 16, "test": 1}
    assert [len(splits.indices(one.manifest, table, part)) for part in ("train", "val", "test")] == [48, 16, 1]
    at = one.manifest.merge(pack.manifest.reset_index(), on=["case", "x", "y", "label"])["index"]
    np.testing.assert_array_equal(one.patches, pack.patches[at])


def test_a_source_that_is_too_small_is_one_sentence(pack):
    with pytest.raises(InputError, match="need 1,000 patches of train cases"):
        benchmark_training.fixed_patches(pack, 1000, 16, seed=0)


@pytest.mark.slow
def test_both_recipes_run_all_epochs_to_the_same_depth_and_only_fast_caches(studied):
    run, result = studied
    assert json.loads((run.artifacts / benchmark_training.RESULTS).read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    found = result["recipes"]
    assert found["patches"] == {"train": 48, "val": 16} and found["epochs"] == 6
    paper, fast = (found[name]["settings"] for name in ("paper", "fast"))
    assert paper["batch_size"] == 8 and paper["balance"] == "smote" and paper["views"] == 0 and fast["views"] == benchmark_training.VIEWS
    assert fast["batch_size"] == parameters.read_profile("cpu")["BATCH_SIZE"] and paper["epochs"] == fast["epochs"]
    assert paper["samples"] > 48, "SMOTE adds samples"
    ratio = found["fast"]["seconds"]["median"] / found["paper"]["seconds"]["median"]
    assert found["ratio"]["median"] == pytest.approx(ratio)
    assert not list(run.root.glob("bench-*")), "scratch is gone"


@pytest.mark.slow
def test_the_table_has_a_row_a_batch_size_and_the_recipes_have_one_each(studied):
    _, result = studied
    table = benchmark_training.table(result)
    assert list(table.index) == [("host", "float32", 8)] and (table > 0).all(axis=None) and table.shape[1] == 2
    assert list(benchmark_training.recipes_table(result).index) == ["fast", "paper"]
    assert benchmark_training.recipes_table({name: value for name, value in result.items() if name != "recipes"}).empty


@pytest.mark.slow
def test_what_the_command_names_is_what_was_asked_without_anybodys_folders(studied, cohort):
    _, result = studied
    assert result["command"] == f"bhi bench --of training --data {cohort.name} --sizes 8 --epochs 6 --blocks 1 --repeats 1"
    assert result["weights"] == "random" and str(cohort.parent) not in json.dumps(result)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"repeats": 0}, "one repeat"), ({"batches": [0]}, "one patch"), ({"epochs": -1}, "0 epochs"), ({"blocks": 7}, "7 blocks")],
)
def test_numbers_that_measure_nothing_are_refused(tmp_path, cohort, options, words):
    with pytest.raises(InputError, match=words):
        benchmark_training.study(Run.open(tmp_path), str(cohort), **options)


def test_options_of_another_benchmark_are_refused(capsys):
    assert main(["bench", "--of", "archive", "--epochs", "3"]) == 2
    assert "--epochs and --blocks are for --of training" in capsys.readouterr().err


def test_the_record_in_the_package_is_of_real_patches_and_a_clean_commit():
    kept = provenance.result(benchmark_training.RESULTS)
    assert kept["data"]["synthetic"] is False and kept["commit"] and "-dirty" not in kept["commit"]
    recipes = kept["recipes"]
    assert recipes["fast"]["settings"]["views"] == benchmark_training.VIEWS and recipes["patches"]["train"] == benchmark_training.TRAIN
    assert {recipes[name]["settings"]["epochs"] for name in ("fast", "paper")} == {benchmark_training.EPOCHS}
    assert kept["image_size"] == benchmark_training.IMAGE_SIZE
    assert recipes["ratio"]["low"] <= recipes["ratio"]["median"] <= recipes["ratio"]["high"]
