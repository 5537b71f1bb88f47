"""Every recorded result can be made again: the command that it names runs as it stands, with the settings that the file holds."""

import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from bhi_utils.__main__ import bhi
from bhi_utils.cli.options import one_value_each
from bhi_utils.core import provenance, run
from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.runner import parameters
from bhi_utils.studies import ablations, recipes, study_base
from bhi_utils.training import cross_validation

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "bhi_utils" / "results").glob("*.json"))
    if path.stem != "paper"  # what the paper says, which nothing here computes
}
#: What a result calls a notebook's parameter.
PARAMETERS = {"folds": "FOLDS", "seed": "SEED", "recall": "TARGET_RECALL", "image_size": "IMAGE_SIZE", "weights": "WEIGHTS"}
PARAMETERS |= {"resamples": "RESAMPLES", "simulations": "SIMULATIONS", "per_case": "PER_CASE"}


def words(name: str, program: str) -> list[str]:
    """The words of a result's command after the program's name; the test is skipped for another program's."""
    first, *rest = shlex.split(KEPT[name]["command"])
    if first != program:
        pytest.skip(f"made with {first}")
    return rest


def called(name: str) -> dict:
    """The arguments of `recipes.study` in a result's command."""
    program, flag, code = shlex.split(KEPT[name]["command"])
    assert (program, flag) == ("python", "-c")
    said = {}
    calls = {"recipes": type("Recipes", (), {"study": lambda *given, **options: said.update(given=given, options=options)})}
    calls["Run"] = type("Run", (), {"open": str})
    # the imports are those of the commit that the result was computed at
    exec(re.sub(r"from [\w.]+ import [\w, ]+; ", "", code), calls)
    return dict(inspect.signature(recipes.study).bind(*said["given"], **said["options"]).arguments)


def test_each_names_a_program_of_this_project():
    assert {shlex.split(kept["command"])[0] for kept in KEPT.values()} == {"papermill", "bhi", "python"}


@pytest.mark.parametrize("name", KEPT)
def test_a_notebook_takes_its_parameters_and_they_are_the_results(name):
    notebook, out, *given = words(name, "papermill")
    assert out == "OUT.ipynb" and given[::3] == ["-p"] * (len(given) // 3)
    declared = parameters.declared(ROOT / notebook)
    values = parameters.assign(dict(zip(given[1::3], given[2::3], strict=True)), {notebook: declared})[notebook]
    assert values["RECOMPUTE"] is True and (ROOT / notebook).read_text(encoding="utf-8").count("RECOMPUTE else") >= 1
    values = {key: default for key, (_, default) in declared.items()} | values
    kept = KEPT[name] | KEPT[name]["parameters"]
    assert {key: kept[key] for key in PARAMETERS if key in kept} == {
        key: values.get(PARAMETERS[key], kept[key]) for key in PARAMETERS if key in kept
    }


@pytest.mark.parametrize("name", KEPT)
def test_bhi_takes_its_options_and_they_are_the_results(name):
    if name == "smote":
        pytest.skip("measured once; that every pixel is imbalanced-learn's is a test of training.smote")
    command, *given = one_value_each(words(name, "bhi"))
    options, kept = typer.main.get_command(bhi).commands[command].make_context(command, given).params, KEPT[name]
    assert options["repeats"] == kept.get("repeats", options["repeats"])
    assert Path(options["weights"]).name == kept.get("weights", options["weights"])
    assert options["epochs"] == kept.get("recipes", {}).get("epochs", options["epochs"])
    assert options["blocks"] == kept.get("blocks", options["blocks"])


@pytest.mark.parametrize("name", ["recipes", "custom_cnn"])
def test_a_call_fits_the_models_that_the_result_holds_with_its_settings(name):
    given, kept = called(name), KEPT[name]
    assert given["results"] == f"{name}.json" and {one.partition(",")[0] for one in kept["models"]} == set(given["names"])
    about = kept["parameters"]
    assert (given["number"], given["seed"], given["recall"]) == (about["folds"], about["seed"], about["recall"])
    assert given["weights"] == about["weights"] and given["resamples"] == kept["resamples"]
    now = recipes.settings("fast") | (recipes.CNN if "cnn" in given["names"] else {})
    used = set(now) if "cnn" in given["names"] else {key for key in now if not key.startswith("CNN_")}
    assert {key: now[key] for key in used} == {key: about["values"][key] for key in used}
    line = recipes.command(given["source"], **{key: value for key, value in given.items() if key not in ("run", "source")})
    assert shlex.split(line) == shlex.split(kept["command"])


def test_the_settings_of_the_other_studies_are_those_recorded():
    assert KEPT["ablations"]["base"] == KEPT["learning_curve"]["base"] == ablations.BASE
    for name, values in KEPT["paper_recipe"]["values"].items():
        assert values.items() <= recipes.paper_settings(name).items() | {("CNN_IMAGE_SIZE", values["CNN_IMAGE_SIZE"])}


@pytest.mark.slow
def test_the_command_of_the_custom_cnn_runs_as_it_stands(tmp_path, monkeypatch):
    """On a small cohort in place of the archive, and with a quick model in place of the network, whose training other tests cover."""
    asked = []
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "project_root", lambda: tmp_path)
    source = synthetic_cohort.write(tmp_path / called("custom_cnn")["source"], cases=20, patches_per_case=20, seed=1, nested=False)
    pack = archive.pack(source, tmp_path / "cache")

    def quick(values, *, seed):
        asked.append((values, seed))
        arm = cross_validation.linear(pack.patches.mean(axis=(1, 2)))
        return lambda fold: {way: arm(fold)[""] for way in ("", ", 8 views")}

    monkeypatch.setattr(study_base, "custom_cnn", quick)
    exec(shlex.split(KEPT["custom_cnn"]["command"])[2], {})
    made = json.loads((tmp_path / "runs/studies/artifacts/custom_cnn.json").read_text(encoding="utf-8"))
    assert set(made) == set(KEPT["custom_cnn"]) and set(made["models"]) == set(KEPT["custom_cnn"]["models"])
    assert set(made["differences"]) == set(KEPT["custom_cnn"]["differences"])
    assert made["parameters"] == KEPT["custom_cnn"]["parameters"] and made["command"] == KEPT["custom_cnn"]["command"]
    assert asked == [(KEPT["custom_cnn"]["parameters"]["values"], 0)]


def test_a_line_gives_back_what_was_asked_for():
    line = provenance.command("ablations", DATA="my archive.zip", FOLDS=3, SEED=0)
    notebook, _, *given = shlex.split(line)[1:]
    assert notebook == "notebooks/studies/ablations.ipynb" and dict(zip(given[1::3], given[2::3], strict=True)) == {
        "RECOMPUTE": "True",
        "DATA": "my archive.zip",
        "FOLDS": "3",
        "SEED": "0",
    }
