"""The ``bhi`` command: exit codes, messages, and what its small subcommands write."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from bhi_utils.__main__ import BENCHES, PROFILES, main
from bhi_utils.core.provenance import paper
from bhi_utils.core.run import Run
from bhi_utils.reports.summary import summary
from bhi_utils.runner.parameters import profiles


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))


def wrong(capsys, *arguments):
    """The one sentence that the command says about wrong input."""
    assert main(list(map(str, arguments))) == 2
    said = capsys.readouterr().err
    assert said.startswith("bhi: ") and said.count("\n") == 1 and "Traceback" not in said
    return said


def test_help_names_every_command_and_needs_no_heavy_library():
    code = "import sys; from bhi_utils.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print({'tensorflow', 'keras', 'gradio', 'papermill'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert said.endswith("set()\n")
    for command in ("run", "index", "download", "phantom", "bench", "notebooks", "predict", "map", "export", "evaluate", "card", "app"):
        assert f"\n    {command}" in said


def test_the_profiles_on_offer_are_those_that_exist():
    assert sorted(PROFILES) == sorted(profiles())


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--profile", "fast"], ["run", "-p", "SEED"], ["app", "--port", "http"]])
def test_a_malformed_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_a_phantom_is_written_and_indexed(tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "p.zip"), "--cases", "4", "--patches", "12", "--seed", "3"]) == 0
    assert main(["index", str(tmp_path / "p.zip"), "--out", str(tmp_path / "lists")]) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC" in said and "IDC share" in said
    facts = json.loads((tmp_path / "lists" / "index.json").read_text(encoding="utf-8"))
    assert " ".join(said.splitlines()[:-1]).endswith(facts["verdict"]) and said.splitlines()[-1].startswith("Wrote index.json")
    assert len(pd.read_csv(tmp_path / "lists" / "measures.csv.gz")) == facts["totals"]["patches"]["found"]
    manifest = pd.read_csv(tmp_path / "lists" / "manifest.csv.gz")
    assert manifest["case"].nunique() == 4 and list(manifest.columns) == ["case", "x", "y", "label", "path", "width", "height"]
    assert (tmp_path / "lists" / "rejected.csv").is_file()


#: Every command that writes, with the place left out; what it reads does not exist, which it would say later.
WRITING = {
    "run": ["run", "--data", "phantom", "--out"],
    "index": ["index", "no.zip", "--out"],
    "download": ["download", "--out"],
    "phantom": ["phantom"],
    "predict": ["predict", "no.png", "--csv"],
    "map": ["map", "no.png", "--out"],
    "export": ["export", "--model", "no.bundle.json"],
    "evaluate": ["evaluate", "no.zip", "--model", "no.bundle.json", "--out"],
    "card": ["card"],
    **{f"bench {of}": ["bench", "--of", of, "--data", "no.zip", "--out"] for of in BENCHES},
}


@pytest.mark.parametrize("command", WRITING)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder.onnx").mkdir()
    for place in ("file/deeper/still.onnx", "folder.onnx" if command in ("predict", "export") else "file"):
        said = wrong(capsys, *WRITING[command], place)
        assert f"{place.split('/')[0]} is a " in said or "Not a directory" in said
        assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder.onnx"} and (tmp_path / "file").read_text() == "mine"


def test_a_relative_place_is_one_in_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["phantom", "p.zip", "--cases", "4", "--patches", "20"]) == 0
    assert main(["index", "p.zip", "--out", "lists"]) == 0 and (tmp_path / "lists" / "index.json").is_file()
    assert main(["bench", "--of", "smote", "--data", "p.zip", "--repeats", "1", "--out", "times"]) == 0
    assert (tmp_path / "times" / "artifacts" / "smote.json").is_file()
    assert main(["run", "--dry-run", "--data", "p.zip", "--out", "walk"]) == 0
    assert f"Run {(tmp_path / 'walk').as_posix()}, profile quick" in capsys.readouterr().out


def test_wrong_input_exits_with_2_and_one_sentence(tmp_path, capsys):
    (tmp_path / "text.zip").write_text("no zip", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    assert "does not exist" in wrong(capsys, "index", tmp_path / "nowhere")
    wrong(capsys, "index", tmp_path / "text.zip")
    wrong(capsys, "index", tmp_path / "empty")
    wrong(capsys, "phantom", tmp_path / "p.zip", "--cases", "0")
    assert "make run" in wrong(capsys, "app", "--model", tmp_path / "no.bundle.json")
    for command in (["evaluate", "nowhere", "--out", tmp_path / "out"], ["bench", "--of", "app", "--out", tmp_path / "out"]):
        assert "is not a readable bundle" in wrong(capsys, *command, "--model", tmp_path / "text.zip")
    assert "no notebook 12" in wrong(capsys, "run", "--only", "12", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_module_runs_as_a_program():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "bhi_utils", "index", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and done.stderr.startswith("bhi: nowhere does not exist")


def test_the_summary_sets_both_models_beside_the_paper(tmp_path):
    run = Run.open(tmp_path)
    values = {"auc": {"value": 0.91234, "low": 0.88, "high": 0.94}, "loss": {"value": None, "low": None, "high": None}}
    data = {"kind": "zip", "synthetic": True, "cases": 48, "patches": 2880}
    run.write_json("metrics.json", {"data": data, "models": {"cnn": {"test": values}, "efficientnetb0": {"test": values}}})
    run.write_json("training.json", {"better": "cnn", "models": {"cnn": {"initialisation": "scratch"}}})
    text = summary(run)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "cnn (scratch)" in text and "efficientnetb0" in text and "SYNTHETIC zip, 48 cases, 2,880 patches, so nothing here says" in text
    assert "0.9123 (0.880–0.940)" in rows["AUC"] and rows["AUC"].endswith(f"{paper()['auc']:.4f}")
    assert rows["loss"].count("–") == 2 and "Figures: " in text
    assert "No metrics" in summary(run, fresh=False)


def test_the_papers_figures_are_those_of_the_paper():
    assert paper() == {"auc": 0.9558, "recall": 0.9319, "precision": 0.7163, "binary_accuracy": 0.8761, "loss": 0.2926}
    assert json.dumps(paper())
