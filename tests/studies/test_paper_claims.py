"""The paper's claims: every verdict follows from an interval, whichever way it falls, and every number from a recorded result."""

import copy
import functools
import json
from pathlib import Path

import pytest

from bhi_utils.core import provenance, titles
from bhi_utils.core.run import Run
from bhi_utils.data import published
from bhi_utils.studies import paper_claims


@pytest.fixture(scope="module")
def found():
    return paper_claims.results()


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.open(tmp_path)


def verdict(table, words: str) -> str:
    (row,) = table.loc[table["claim"].str.contains(words, regex=False)].itertuples()
    return row.verdict


def test_every_topic_has_rows_and_all_is_written(found, run):
    table = paper_claims.compare(run, found)
    assert set(table["topic"]) == set(paper_claims.TOPICS) and not table["claim"].duplicated().any()
    assert json.loads((run.artifacts / paper_claims.RESULTS).read_text(encoding="utf-8"))["claims"] == table.to_dict("records")
    assert (table != "").all(axis=None) and paper_claims.tally(table)["claims"].sum() == len(table)
    for topic in paper_claims.TOPICS:
        lines = paper_claims.shown(table, topic).data.splitlines()
        assert len(lines) == 2 + (table["topic"] == topic).sum() and {line.count(" | ") for line in lines} == {4}


def test_a_value_agrees_when_the_papers_lies_in_its_interval(found, run):
    for metric, said in provenance.paper().items():
        title = f"{titles.PAPER_METRICS[metric]} {said:.4f}"
        for low, high, expected in ((said - 0.01, said + 0.01, "agrees"), (said + 0.001, said + 0.01, "disagrees")):
            changed = copy.deepcopy(found)
            changed["recipes"]["models"]["fast"][metric] = {"value": (low + high) / 2, "low": low, "high": high}
            assert verdict(paper_claims.compare(run, changed), title) == expected


def set_gap(found, place: tuple, value: float) -> dict:
    """The results with one difference in AUC set to ``value``, its interval 0.01 to either side."""
    changed, gap = copy.deepcopy(found), {"value": value, "low": value - 0.01, "high": value + 0.01}
    if place[0] == "ablations":
        rows = [*changed["ablations"]["arms"], *changed["ablations"]["pairs"]]
        (row,) = [row for row in rows if place[1:] in ((row["question"], row.get("arm")), (row.get("first"), row.get("second")))]
        row["difference"] = gap
    else:
        functools.reduce(dict.__getitem__, place, changed)["auc"] = gap
    return changed


@pytest.mark.parametrize(
    ("words", "place", "sign"),
    [
        ("fine-tuning", ("recipes", "differences", "fast − probe"), 1),
        ("split", ("leakage", "differences", "one hidden layer", "image − case"), 1),
        ("SMOTE", ("ablations", "SMOTE on pixels", "none"), 1),
        ("[0,1]", ("ablations", "input range", "[0,1] into EfficientNetB0"), 1),
        ("augmentations", ("ablations", "the paper's seven", "off"), 1),
        ("200×200", ("ablations", "resolution", "200 px"), 1),
        ("custom CNN", ("ablations", "network", "custom CNN"), -1),
        ("ten hours", ("paper_recipe", "difference"), -1),
    ],
)
def test_a_choice_is_judged_by_the_sign_of_its_interval(found, run, words, place, sign):
    for value, expected in ((0.02, "agrees"), (-0.02, "disagrees"), (0.001, "not told apart")):
        table = paper_claims.compare(run, set_gap(found, place, sign * value))
        assert verdict(table, words) == expected
        (said,) = table.loc[table["claim"].str.contains(words, regex=False), "measured"]
        assert f"{value:+.3f}" in said


def test_an_interface_that_keeps_people_waiting_is_not_in_real_time(found, run):
    changed = copy.deepcopy(found)
    changed["app"]["patch_ms"]["p95"] = 1500.0
    assert verdict(paper_claims.compare(run, changed), "real time") == "disagrees"


def test_the_papers_rates_imply_a_test_set_as_patches_come():
    share = paper_claims.prevalence()
    rates = provenance.paper()
    false_alarms = share * rates["recall"] * (1 / rates["precision"] - 1)
    assert share * rates["recall"] + (1 - share) - false_alarms == pytest.approx(rates["binary_accuracy"])
    totals = published.archive_totals()
    assert share == pytest.approx(totals["positive"] / totals["patches"], abs=0.005)


def test_the_arm_that_learned_nothing_is_not_called_the_cost_of_the_input_scale(found, run):
    table = paper_claims.compare(run, found)
    (why,) = table.loc[table["claim"].str.contains("[0,1]", regex=False), "why"]
    arm = next(row for row in found["ablations"]["arms"] if row["question"] == "input range")
    assert arm["auc"]["low"] < 0.5 < arm["auc"]["high"], "it ranks by chance"
    notebook = (Path(__file__).resolve().parent.parent.parent / "notebooks/studies/ablations.ipynb").read_text(encoding="utf-8")
    prose = " ".join("".join("".join(cell["source"]) for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "markdown").split())
    for said in (why, prose):
        assert "cannot learn from features that differ by a 255th" in said and "not what the input scale costs" in said.replace(
            "It is", "it is"
        )
