"""The seven notebooks, run once by the command as a user runs it: checked tables, what they leave, and what they say of wrong input."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from bhi_utils.__main__ import main
from bhi_utils.runner import clean_outputs
from bhi_utils.runner.pipeline import find_notebooks

METRICS = "auc auprc recall precision specificity binary_accuracy balanced_accuracy f1 loss brier ece threshold".split()
ARTIFACTS = """dataset.json manifest.csv.gz rejected.csv splits.csv splits.json smote.json training.json predictions.csv.gz metrics.json
models/cnn.keras models/cnn.bundle.json models/efficientnetb0.keras models/efficientnetb0.bundle.json""".split()
COLUMNS = {
    "manifest.csv.gz": "case x y label path width height",
    "splits.csv": "case split fold",
    "predictions.csv.gz": "model split fold case x y label logit probability probability_calibrated",
}


@pytest.fixture(scope="module")
def bhi(tmp_path_factory):
    """Runs ``bhi``, with caches of its own, and returns the finished process."""
    environment = {**os.environ, "BHI_CACHE": str(tmp_path_factory.mktemp("cache")), "PYTHONIOENCODING": "utf-8"}

    def run(*arguments):
        command = [sys.executable, "-m", "bhi_utils", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=1500, check=False)

    return run


@pytest.fixture(scope="module")
def walk(bhi, tmp_path_factory):
    """The run's folder and what the command printed. The profile's values are the notebooks' defaults."""
    out = tmp_path_factory.mktemp("walk") / "run"
    done = bhi("run", "--profile", "quick", "--out", out)
    assert done.returncode == 0, done.stderr[-4000:]
    return out, done


@pytest.fixture(scope="module")
def metrics(walk):
    return json.loads((walk[0] / "artifacts/metrics.json").read_text(encoding="utf-8"))


def test_every_notebook_ends_well_and_is_recorded(walk):
    record = json.loads((walk[0] / "run.json").read_text(encoding="utf-8"))
    names = [path.stem for path in find_notebooks()]
    assert list(record["notebooks"]) == names
    for entry in record["notebooks"].values():
        assert entry["status"] == "ok" and entry["seconds"] > 0
    assert record["profile"] == "quick" and record["data"]["synthetic"] is True and len(record["data"]["fingerprint"]) == 64
    assert sorted(path.stem for path in (walk[0] / "notebooks").glob("*.ipynb")) == names


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_the_checked_table_is_the_committed_one(walk, path):
    """What nbval compares, on the same run: the outputs of the cells tagged for it, pictures apart."""

    def checked(notebook):
        cells = [cell for cell in clean_outputs.clean(notebook).cells if "nbval-check-output" in cell.metadata.get("tags", ())]
        return [
            output.get("text") or {kind: output.data[kind] for kind in output.data if "image" not in kind} for output in cells[0].outputs
        ]

    made, kept = (nbformat.read(folder / path.name, 4) for folder in (walk[0] / "notebooks", path.parent))
    assert checked(made) == checked(kept) != []


def test_a_person_can_follow_it_and_gets_a_table_beside_the_paper(walk):
    said = walk[1].stdout
    for number, path in enumerate(find_notebooks(), start=1):
        assert re.search(rf"\[{number}/7\] {path.stem} …  \d+ s\n", said)
    assert "Preflight" in said and "SYNTHETIC" in said and "Figures: " in said
    assert re.search(r"cnn \(.*scratch.*\).*efficientnetb0 \(.*packaged.*\).*paper", said)
    assert re.search(r"^AUC .*0\.9558$", said, flags=re.MULTILINE)
    page = (walk[0] / "report.html").read_text(encoding="utf-8")
    assert said.splitlines()[-1].startswith("Report: ") and page.count("data:image/png") == len(list((walk[0] / "figures").glob("*.png")))
    assert "absl" not in walk[1].stderr and walk[1].stderr.count("\n") < 200


def test_the_artefacts_have_their_agreed_form(walk):
    folder = walk[0] / "artifacts"
    for name in ARTIFACTS:
        assert (folder / name).stat().st_size > 0, name
    for name, columns in COLUMNS.items():
        assert list(pd.read_csv(folder / name).columns) == columns.split(), name
    assert not [path for path in walk[0].rglob(".*") if path.is_file()], "a temporary file was left behind"


def test_no_case_is_in_two_parts_and_every_prediction_is_of_a_case_held_out(walk):
    folder = walk[0] / "artifacts"
    splits = pd.read_csv(folder / "splits.csv")
    assert splits["case"].is_unique and set(splits["split"]) == {"train", "val", "test"}
    predictions = pd.read_csv(folder / "predictions.csv.gz")
    merged = predictions.merge(splits, on="case", suffixes=("", "_of_case"))
    assert len(merged) == len(predictions) and (merged["split"] == merged["split_of_case"]).all()
    assert predictions[["probability", "probability_calibrated"]].stack().between(0, 1).all()


def test_the_metrics_are_complete_and_their_intervals_hold_them(metrics):
    assert set(metrics["models"]) >= {"cnn", "efficientnetb0"}
    for name in ("cnn", "efficientnetb0"):
        for part in ("val", "test"):
            found = metrics["models"][name][part]
            assert set(METRICS) <= set(found)
            for metric, entry in found.items():
                assert set(entry) == {"value", "low", "high"}, metric
                if None not in entry.values() and metric not in ("ece",):
                    assert entry["low"] <= entry["value"] <= entry["high"], (name, part, metric)


def test_efficientnetb0_learns_the_phantom_from_the_packaged_model(metrics, walk):
    assert metrics["models"]["efficientnetb0"]["val"]["auc"]["value"] >= 0.75
    training = json.loads((walk[0] / "artifacts/training.json").read_text(encoding="utf-8"))
    models = training["models"]
    aucs = {name: models[name]["validation_auc"] for name in ("cnn", "efficientnetb0")}
    assert training["better"] == max(aucs, key=aucs.get)
    assert {name: models[name]["initialisation"] for name in aucs} == {"cnn": "scratch", "efficientnetb0": "packaged"}


def test_every_figure_is_there(walk):
    wanted = set()
    for path in find_notebooks():
        sources = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
        wanted |= set(re.findall(rf'"({path.name[:2]}_\w+)"', sources))
    figures = {path.stem: path.stat().st_size for path in (walk[0] / "figures").glob("*.png")}
    assert wanted and wanted <= set(figures)
    assert all(size > 5_000 for size in figures.values())


def test_what_is_finished_is_skipped(walk, bhi):
    done = bhi("run", "--profile", "quick", "--out", walk[0], "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished earlier, skipped") == 7 and "AUC" in done.stdout


def test_a_missing_artefact_names_the_notebook_that_makes_it(bhi, tmp_path):
    done = bhi("run", "--only", "02", "--out", tmp_path / "run")
    assert done.returncode == 2 and "01_dataset_exploration" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("bhi: 02_case_split: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "EPOCS", "3"], "No selected notebook has a parameter EPOCS: did you mean EPOCHS?"),
        (["--data", "nowhere.zip"], "zip that exists"),
        (["--weights", "no.h5"], "file that exists"),
    ],
)
def test_wrong_input_stops_the_run_before_it_starts(tmp_path, capsys, arguments, words):
    assert main(["run", *arguments, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert not said.out and words in said.err and said.err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_split_with_an_empty_part_is_refused(bhi, walk, tmp_path):
    for name in ("dataset.json", "manifest.csv.gz", "rejected.csv"):
        (tmp_path / "run/artifacts").mkdir(parents=True, exist_ok=True)
        shutil.copy(walk[0] / "artifacts" / name, tmp_path / "run/artifacts")
    done = bhi("run", "--only", "02", "-p", "SPLIT", "official", "--out", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("bhi: 02_case_split: ")
    assert "official" in done.stderr.splitlines()[-1] and not (tmp_path / "run/artifacts/splits.csv").exists()
