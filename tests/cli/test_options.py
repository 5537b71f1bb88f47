"""The ``bhi`` command: exit codes, messages, and what its small subcommands write."""

import os
import re
import subprocess
import sys
from typing import get_args

import pytest

from bhi_utils import __version__
from bhi_utils.__main__ import COMMANDS, main
from bhi_utils.cli.bench import Subject
from bhi_utils.cli.options import PAIR, one_value_each
from bhi_utils.cli.run import Profile
from bhi_utils.data import kaggle_download
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
    code = "import sys; from bhi_utils.__main__ import main; print(main(['--help']))\n"
    code += "print({'tensorflow', 'keras', 'gradio', 'papermill', 'pandas', 'rich'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert said.endswith("\n0\nset()\n") and "\x1b" not in said and "..." not in said.partition("Commands")[2]
    for command in ("run", "index", "download", "phantom", "bench", "notebooks", "predict", "map", "export", "evaluate", "card", "app"):
        assert f"\n  {command} " in said


def test_the_version_is_said(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"bhi_utils {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_option_says_what_it_is_for(command, capsys):
    assert main([command.__name__, "--help"]) == main([command.__name__, "-h"]) == 0
    said = capsys.readouterr().out.partition("Options:")[2]
    assert said and not re.search(r"^  --?[a-z-]+( <?[A-Z][^ ]*)?$\n(?!   )", said, re.M)


def test_the_profiles_on_offer_are_those_that_exist():
    assert sorted(get_args(Profile)) == sorted(profiles())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "A command is missing"),
        (["walk"], "No such command 'walk'"),
        (["run", "--profile", "fast"], "'fast' is not one of 'quick', 'cpu', 'paper', 'gpu'"),
        (["run", "--devices", "2"], "No such option: --devices"),
        (["run", "--only"], "'--only' requires an argument"),
        (["run", "-p", "SEED"], "-p takes a name and a value"),
        (["run", "-p"], "'-p' requires an argument"),
        (["app", "--port", "http"], "Invalid value for '--port'"),
        (["index"], "Missing argument 'SOURCE'"),
        (["predict", "patch.png"], "Missing option '--csv'"),
    ],
)
def test_a_malformed_command_line_is_one_sentence(arguments, words, capsys):
    assert words in wrong(capsys, *arguments)


def test_an_option_takes_many_values_after_one_name_and_p_takes_two():
    given = ["run", "--only", "05", "06", "-p", "SEED", "-1", "-p", "A", "--b", "--resume", "--only", "7"]
    expected = ["run", "--only", "05", "--only", "06", "-p", f"SEED{PAIR}-1", "-p", f"A{PAIR}--b", "--resume", "--only", "7"]
    assert one_value_each(given) == expected
    assert one_value_each(["bench", "--sizes", "8", "32", "--of", "training"]) == [
        "bench",
        "--sizes",
        "8",
        "--sizes",
        "32",
        "--of",
        "training",
    ]
    assert one_value_each(["predict", "a.png", "b.png", "--csv", "c.csv"]) == ["predict", "a.png", "b.png", "--csv", "c.csv"]


def test_an_interruption_is_said_and_exits_with_130(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(kaggle_download, "fetch", interrupted)
    assert main(["download"]) == 130
    assert capsys.readouterr().err == "bhi: interrupted\n"


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
    **{f"bench {of}": ["bench", "--of", of, "--data", "no.zip", "--out"] for of in get_args(Subject)},
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
