"""What parameters cells declare, texts read as the declared type, and profiles."""

import json
from pathlib import Path

import pytest

from bhi_utils import notebook
from bhi_utils.__main__ import main
from bhi_utils.core.paths import InputError
from bhi_utils.model import augment
from bhi_utils.runner import kernel, parameters, pipeline


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("int", "12", 12),
        ("int", "-1_000", -1000),
        ("float", "3", 3.0),
        ("float", 3, 3.0),
        ("float", "1e-3", 1e-3),
        ("bool", "True", True),
        ("bool", "false", False),
        ("str", " 05 ", " 05 "),
        ("list", "[a, 2]", ["a", 2]),
        ("list", '["a", true]', ["a", True]),
    ],
)
def test_a_text_is_read_as_the_declared_type(kind, given, expected):
    value = parameters.typed("NAME", given, kind, notebook="01")
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("int", "1.5"),
        ("int", 1.0),
        ("int", True),
        ("int", ""),
        ("float", "fast"),
        ("float", "nan"),
        ("float", True),
        ("bool", "1"),
        ("bool", 1),
        ("str", 5),
        ("list", "a"),
        ("list", "[1"),
        ("list", {"a": 1}),
    ],
)
def test_a_value_of_another_type_is_refused(kind, given):
    with pytest.raises(InputError, match=r"NAME=.* is not .*, which notebook 01 expects"):
        parameters.typed("NAME", given, kind, notebook="01")


def test_a_declaration_of_another_type_is_refused(write_notebook):
    with pytest.raises(InputError, match="declares SEED as dict"):
        parameters.declared(write_notebook("01_first", "SEED: dict = {}  # no"))


@pytest.mark.parametrize("profile", parameters.profiles())
def test_every_name_of_a_profile_is_a_parameter_of_the_walk(profile):
    declared = set().union(*map(parameters.declared, pipeline.find_notebooks()))
    assert parameters.read_profile(profile).keys() <= declared


def test_the_data_source_is_found_from_another_folder(tmp_path):
    (tmp_path / "patches.zip").touch()
    made = parameters.absolute({"DATA": "patches.zip", "WEIGHTS": "none", "SEED": "1"}, base=tmp_path)
    assert made == {"DATA": str((tmp_path / "patches.zip").resolve()), "WEIGHTS": "none", "SEED": "1"}


WALK, STUDIES = pipeline.find_notebooks(), pipeline.find_studies()
DECLARED = {path: parameters.declared(path) for path in (*WALK, *STUDIES)}
EVERY = [(path, name) for path, declared in DECLARED.items() for name in declared]
#: Values that no notebook can run with, by parameter. Those of a type come on top.
BAD = {
    "DATA": ["", "nowhere.zip"],
    "WEIGHTS": ["", "phantom", "kaggle", "nowhere.h5", "."],
    "MODEL": ["phantom", "nowhere.bundle.json", "."],
    "OUT": ["", "  "],
    "SPLIT": ["foo", ""],
    "BALANCE": ["foo", ""],
    "THRESHOLD_RULE": ["recal 0.93", "recall 2", ""],
    "SIZES": [[], [0], [10, "a"], [1.5], [True]],
    "PHANTOM_CASES": [0],
    "PHANTOM_PATCHES": [11, 2401],
    "ALLOWED_HOST": ["http://a b/", "*", "hub.example.org/user"],
    "FOLDS": [2, -1],
    "FOLD": [-1, 5],
    "IMAGE_SIZE": [31, 1001],
    "CNN_IMAGE_SIZE": [31, 1001],
    "SMOTE_NEIGHBOURS": [0],
    "SHOWN_PATCHES": [49],
    "DRAWS": [0, 21],
    "PREVIEW_PATCHES": [0, 201],
    "BATCH_SIZE": [0, -3],
    "EPOCHS": [0],
    "FINE_TUNE_BLOCKS": [-1, 8, 7],
    "FINE_TUNE_RATE": [0.0, -0.1, 1.5, float("nan")],
    "VIEWS": [-1, 9],
    "RESAMPLES": [-5, 0, 39],
    "SHOWN": [0, 21],
    "PATCHES": [1, 41],
    "PORT": [-1, 65536],
    "PER_CASE": [0],
    "REPEATS": [0],
    "SIMULATIONS": [0],
    "TARGET_RECALL": [0.0, 1.2],
    "SEED": [-1, 2**31],
    "WORKERS": [-1],
}
FREE = {"RECOMPUTE", "KEEP_OPEN", "RELEASE"}
OTHER_TYPE = {"int": "many", "float": "fast", "bool": 1, "list": "a", "str": 5}


def label(entry):
    return entry.stem if isinstance(entry, Path) else entry


def defaults(path, **changes):
    return {name: default for name, (_, default) in DECLARED[path].items()} | changes


def refused_by_the_banner(path, tmp_path, monkeypatch, **changes):
    """The banner's sentence; a refusal comes before a run's folder is made."""
    monkeypatch.chdir(tmp_path)
    number = path.stem if path in STUDIES else path.stem[:2]
    with pytest.raises(InputError) as caught:
        notebook.banner(number, defaults(path, **{"OUT": str(tmp_path / "out"), **changes}), device=False, data="a test")
    assert not list(tmp_path.iterdir())
    return str(caught.value)


def refused_by_the_runner(path, **changes):
    with pytest.raises(InputError) as caught:
        pipeline.plan([path], changes)
    return str(caught.value)


def test_every_parameter_has_a_rule_of_its_type_and_every_rule_a_parameter():
    for path, declared in DECLARED.items():
        rules = parameters.rules(path.stem)
        assert {name: kind for name, (kind, _) in declared.items()} == {name: rules[name].kind for name in declared}
    assert {name for _, name in EVERY} == set(parameters.RULES)


def test_only_switches_are_free():
    free = {name for name, rule in parameters.RULES.items() if not rule.allowed}
    assert free == FREE and free | set(BAD) == {name for _, name in EVERY}


@pytest.mark.parametrize("path", DECLARED, ids=label)
def test_the_defaults_pass(path):
    parameters.check(path.stem, defaults(path))


@pytest.mark.parametrize("profile", parameters.profiles())
def test_every_profile_passes(profile):
    steps = pipeline.plan(WALK, {"WEIGHTS": "none"}, profile=parameters.read_profile(profile))
    assert len(steps) == len(WALK)


@pytest.mark.parametrize(("path", "name"), EVERY, ids=label)
def test_a_bad_value_is_refused_by_runner_and_banner_in_the_same_sentence(path, name, tmp_path, monkeypatch):
    for value in [*BAD.get(name, []), OTHER_TYPE[DECLARED[path][name][0]]]:
        said = refused_by_the_banner(path, tmp_path, monkeypatch, **{name: value})
        assert said == refused_by_the_runner(path, **{name: value}), value
        assert (name in said or name.lower().replace("_", " ") in said) and "\n" not in said and said.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {"SPLIT": "kfold", "FOLDS": 4, "FOLD": 4},
        {"SPLIT": "runs", "FOLDS": 3, "FOLD": 3},
        {"SPLIT": "grouped", "FOLD": 1},
        {"WEIGHTS": "imagenet", "VIEWS": 0, "BALANCE": "feature_smote"},
        {"WEIGHTS": "none", "VIEWS": 2, "BALANCE": "feature_smote"},
        {"WEIGHTS": "imagenet", "VIEWS": 1, "FINE_TUNE_BLOCKS": 7},
    ],
    ids=str,
)
def test_values_that_do_not_go_together_are_refused_alike(changes, tmp_path, monkeypatch):
    path = WALK[1 if "SPLIT" in changes else 4]
    assert refused_by_the_banner(path, tmp_path, monkeypatch, **changes) == refused_by_the_runner(path, **changes)


def test_what_is_possible_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.h5").touch()
    (tmp_path / "patches").mkdir()
    assert parameters.RULES["VIEWS"].test(augment.DIHEDRAL) and not parameters.RULES["VIEWS"].test(augment.DIHEDRAL + 1)
    for number, values in (
        ("05", {"WEIGHTS": "own.h5", "VIEWS": 8, "FINE_TUNE_BLOCKS": 6, "THRESHOLD_RULE": "cost 5"}),
        ("05", {"WEIGHTS": "none", "VIEWS": 8, "FINE_TUNE_BLOCKS": 7, "BALANCE": "smote", "FINE_TUNE_RATE": 1}),
        ("02", {"SPLIT": "loco", "FOLDS": 5, "FOLD": 200}),
        ("02", {"SPLIT": "kfold", "FOLDS": 5, "FOLD": 4}),
        ("02", {"SPLIT": "official", "FOLDS": 5, "FOLD": 0}),
        ("recipes", {"WEIGHTS": "own.h5", "DATA": "patches"}),
        ("01", {"DATA": "bhi_utils"}),  # the project's folder is looked into as well
        ("07", {"MODEL": "pyproject.toml"}),
        ("a notebook of one's own", {"EPOCHS": -3}),
    ):
        defaults_of = {name: default for path in WALK if path.stem[:2] == number for name, default in defaults(path).items()}
        parameters.check(number, defaults_of | values)
    for words in ({"WEIGHTS": "none"}, {"WEIGHTS": "packaged"}):
        with pytest.raises(InputError, match="in notebook leakage: give imagenet"):
            parameters.check("leakage", words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", "phantom"], "WEIGHTS='phantom'"),
        (["--weights", ""], "WEIGHTS=''"),
        (["-p", "BATCH_SIZE", "-3"], "BATCH_SIZE=-3"),
        (["-p", "VIEWS", "9"], "VIEWS=9 is impossible in notebook 05: give a whole number from 0 to 8."),
        (["-p", "SPLIT", "foo"], "use one of grouped, kfold"),
        (["--only", "6", "-p", "RESAMPLES", "-5"], "RESAMPLES=-5"),
    ],
)
def test_the_command_refuses_before_the_preflight(arguments, words, tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr()
    assert not said.out and words in said.err and said.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_plain_papermill_is_refused_in_the_first_cell_after_the_parameters(tmp_path):
    target, values = tmp_path / "out.ipynb", {"SPLIT": "kfold", "FOLD": 7, "OUT": str(tmp_path / "run")}
    with pytest.raises(InputError, match="FOLD is 7: with FOLDS=5 it runs from 0 to 4"):
        kernel.execute(WALK[1], target, values, label="")
    ran = [cell for cell in json.loads(target.read_text(encoding="utf-8"))["cells"] if cell.get("execution_count")]
    assert "notebook.banner" in "".join(ran[-1]["source"]) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, refused",
    [
        ({"PHANTOM_CASES": 4}, True),
        ({"PHANTOM_CASES": 4, "FOLDS": 4}, False),
        ({"PHANTOM_CASES": 4, "DATA": str(Path(__file__).parent)}, False),
    ],
)
def test_fewer_cases_are_drawn_than_folds_are_dealt(changes, refused):
    if not refused:
        assert pipeline.plan(WALK[:2], changes)
        return
    with pytest.raises(InputError, match="PHANTOM_CASES=4 is impossible with FOLDS=5"):
        pipeline.plan(WALK[:2], changes)
