"""The record of a run: what it tells, and which notebooks need not run again."""

import json

import pytest

from bhi_utils.core.run import Run
from bhi_utils.runner.run_record import Record, Step


@pytest.fixture
def steps(write_notebook):
    """Two notebooks of a run, given a seed each."""

    def make(first: int = 0, second: int = 0) -> list[Step]:
        return [Step(path, {"SEED": seed}, {"SEED": seed}) for path, seed in zip(paths, (first, second), strict=True)]

    paths = [write_notebook(name, "SEED: int = 0  # seed") for name in ("01_first", "02_second")]
    return make


@pytest.fixture
def run(tmp_path):
    return Run.open(tmp_path / "out")


def execute(run, steps, selected=None, **options):
    """Record as the runner does, a file in place of a notebook's work; the names of those that ran."""
    record = Record(run, [step.path for step in steps], profile="", values={"SEED": "3"})
    selected = steps if selected is None else selected
    done = record.finished(selected) if options.get("resume") else set()
    record.begin([step.name for step in selected if step.name not in done])
    for step in selected:
        if step.name not in done:
            with record.step(step):
                run.write_json(f"{step.name}.json", step.given)
    return [step.name for step in selected if step.name not in done]


def content(run):
    return json.loads((run.root / "run.json").read_text(encoding="utf-8"))


def test_it_tells_what_ran_with_which_parameters_and_what_it_wrote(run, steps):
    execute(run, steps(3))
    found = content(run)
    assert found["parameters"] == {"SEED": "3"} and found["versions"]["papermill"] and len(found["code"]) == 64
    assert list(found["notebooks"]) == ["01_first", "02_second"]
    entry = found["notebooks"]["01_first"]
    assert entry["status"] == "ok" and entry["parameters"] == {"SEED": 3} and entry["seconds"] >= 0
    assert entry["wrote"] == ["artifacts/01_first.json"]


def test_a_notebook_runs_again_when_its_values_its_file_or_an_earlier_notebook_changed(run, steps, write_notebook):
    execute(run, steps())
    assert execute(run, steps(), resume=True) == []
    assert execute(run, steps(second=4), resume=True) == ["02_second"]
    assert execute(run, steps(first=9, second=4), resume=True) == ["01_first", "02_second"]
    (run.artifacts / "02_second.json").unlink()
    assert execute(run, steps(first=9, second=4), resume=True) == ["02_second"]
    write_notebook("02_second", "SEED: int = 0  # seed", "print('another text')")
    assert execute(run, steps(first=9, second=4), resume=True) == ["02_second"]


def test_what_depends_on_a_rerun_notebook_runs_again(run, steps):
    execute(run, steps())
    execute(run, steps(first=9), selected=steps(first=9)[:1])
    assert execute(run, steps(first=9), selected=steps(first=9)[1:], resume=True) == ["02_second"]


def test_a_file_that_was_replaced_in_place_is_another_input(run, steps, tmp_path):
    weights = tmp_path / "own.h5"
    weights.write_bytes(b"one")
    given = [Step(step.path, {"WEIGHTS": str(weights)}, {}) for step in steps()]
    execute(run, given)
    assert execute(run, given, resume=True) == []
    weights.write_bytes(b"another")
    assert execute(run, given, resume=True) == ["01_first", "02_second"]


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError("one\ntwo"), "one"), (ValueError(), "ValueError"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_failure_is_recorded_in_one_line(run, steps, error, said):
    record = Record(run, [step.path for step in steps()], profile="", values={})
    record.begin(["01_first", "02_second"])
    with pytest.raises(type(error)), record.step(steps()[0]):
        raise error
    found = content(run)["notebooks"]
    assert (found["01_first"]["status"], found["01_first"]["error"]) == ("failed", said)
    assert found["02_second"] == {"status": "pending", "seconds": None}


@pytest.mark.parametrize("text", ["{", "[]", '{"notebooks": 5}'])
def test_a_damaged_record_counts_as_none(run, steps, text):
    (run.root / "run.json").write_text(text, encoding="utf-8")
    assert execute(run, steps(), resume=True) == ["01_first", "02_second"]
