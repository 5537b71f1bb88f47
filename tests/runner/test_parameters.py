"""What parameters cells declare, texts read as the declared type, and profiles."""

import pytest

from bhi_utils.core.paths import InputError
from bhi_utils.runner import parameters, pipeline


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
