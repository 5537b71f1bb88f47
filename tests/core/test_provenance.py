"""What a study keeps is used again as long as all that it depends on is the same, and no longer."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bhi_utils.core import provenance
from bhi_utils.core.run import Run
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.studies.study_base import Study


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return synthetic_cohort.write(tmp_path_factory.mktemp("source") / "small.zip", cases=6, patches_per_case=12, seed=1, nested=False)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package, to be edited; its sources and tables are those that `provenance` reads."""
    copy = shutil.copytree(
        provenance.PACKAGE, tmp_path / "bhi_utils", ignore=shutil.ignore_patterns("*.keras", "*.npy", "__pycache__", "results")
    )
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    return copy


@pytest.fixture
def fitted(source, package, tmp_path, monkeypatch):
    """Answers a study anew, as after a restart; returns how many folds were fitted for it."""
    monkeypatch.setenv("BHI_CACHE", str(source.parent / "cache"))
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"some weights")

    def answer(values=(("EPOCHS", 1),), seed=0) -> int:
        calls = []

        def arm(fold):
            calls.append(fold.number)
            random = np.random.default_rng(fold.number)
            return {"": {part: fold.labels(part) + random.normal(size=len(fold.rows(part))) for part in ("val", "test")}}

        made = Study(Run.open(tmp_path / "run"), str(source), weights=str(weights), number=3, seed=seed, recall=0.9)
        made.answer("arm", dict(values), arm)
        return len(calls)

    assert answer() == 3 and answer() == 0
    return answer


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")


@pytest.mark.parametrize("module", ["app/server", "app/patch_answer", "reports/run_report", "plots/patches", "cli/run", "__main__"])
def test_a_change_of_app_pages_or_commands_keeps_a_study_s_answers(fitted, package, module):
    edit(package / f"{module}.py")
    assert fitted() == 0


@pytest.mark.parametrize(
    "module",
    [
        "training/samples",
        "training/train_networks",
        "training/smote",
        "training/cross_validation",
        "studies/study_base",
        "data/splits",
        "data/__init__",
    ],
)
def test_a_change_of_what_training_imports_at_any_depth_makes_them_anew(fitted, package, module):
    edit(package / f"{module}.py")
    assert fitted() == 3 and fitted() == 0


def test_new_module_that_training_comes_to_import_counts_from_then_on(fitted, package):
    (package / "training" / "newcomer.py").write_text("ONE = 1\n", encoding="utf-8")
    assert fitted() == 0
    path = package / "training" / "smote.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n\ndef late():\n    from bhi_utils.training import newcomer\n", encoding="utf-8")
    assert fitted() == 3
    edit(package / "training" / "newcomer.py")
    assert fitted() == 3


@pytest.mark.parametrize("what", ["keras", "numpy", "scikit-learn", "imbalanced-learn", "backend"])
def test_another_version_or_backend_makes_them_anew(fitted, monkeypatch, what):
    versions = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: versions | {what: "another"})
    assert fitted() == 3


def test_another_papermill_keeps_them(fitted, monkeypatch):
    versions = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: versions | {"papermill": "another"})
    assert fitted() == 0


def test_other_weights_of_the_same_name_settings_or_seed_make_them_anew(fitted, tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"more weights")
    assert fitted() == 3 and fitted() == 0
    assert fitted((("EPOCHS", 2),)) == 3 and fitted(seed=1) == 3


def test_the_hash_that_a_checkpoint_and_a_resumed_notebook_trust_knows_what_they_import(package, tmp_path):
    notebook = tmp_path / "n.ipynb"
    notebook.write_text('{"cells": [{"cell_type": "code", "source": ["from bhi_utils.data import splits"]}]}', encoding="utf-8")
    magic = tmp_path / "magic.ipynb"
    magic.write_text('{"cells": [{"cell_type": "code", "source": ["%matplotlib inline"]}]}', encoding="utf-8")

    def hashes():
        return provenance.code_hash("training.train_networks"), provenance.notebook_hash(notebook), provenance.notebook_hash(magic)

    before = hashes()
    edit(package / "app" / "server.py")
    app = hashes()
    assert app[:2] == before[:2] and app[2] != before[2]
    edit(package / "training" / "train_networks.py")
    training = hashes()
    assert training[0] != app[0] and training[1] == app[1]
    edit(package / "data" / "splits.py")
    folds = hashes()
    assert folds[1] != training[1]
    edit(package / "core" / "locales" / "es.json")
    assert provenance.notebook_hash(notebook) != folds[1], "a text that the notebook may show"
    assert provenance.code_hash("training.train_networks") == folds[0], "no text changes a training"


def test_a_module_that_is_not_there_is_no_code_to_trust():
    with pytest.raises(ValueError, match="bhi_utils.training is no module"):
        provenance.code_hash("training")


def test_the_papers_figures_are_those_of_the_paper():
    assert provenance.paper() == {"auc": 0.9558, "recall": 0.9319, "precision": 0.7163, "binary_accuracy": 0.8761, "loss": 0.2926}
