"""The runner: which values it accepts, what it runs and runs again, and what it publishes."""

import json

import nbformat
import pytest
from PIL import Image

from bhi_utils.core.paths import InputError
from bhi_utils.runner import kernel, pipeline

OUT = 'OUT: str = "runs/walk"  # the run\'s folder'
FIRST = f"SEED: int = 0  # seed\nRATE: float = 0.5  # step\nNAMES: list = []  # names\n{OUT}"
SECOND = f"SEED: int = 0  # seed\nFAIL: str = ''  # how to fail\n{OUT}"
WRITE = "from bhi_utils.core.run import Run\nRun.open(OUT).write_json('{}.json', {{'seed': SEED}})"
FAILING = """from bhi_utils.core.paths import InputError
if FAIL == 'input':
    raise InputError('The file is empty: pass another.')
if FAIL == 'bug':
    1 / 0"""


@pytest.fixture
def two(write_notebook, tmp_path):
    """Two notebooks, and a function that runs them into ``tmp_path/out``."""
    first = write_notebook("01_first", FIRST, WRITE.format("first"))
    write_notebook("02_second", SECOND, FAILING, WRITE.format("second"))

    def run(values=None, **options):
        return pipeline.run(values or {}, out=str(tmp_path / "out"), folder=first.parent, **options)

    return run


def record(tmp_path):
    return json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))


def statuses(tmp_path):
    return {name: entry["status"] for name, entry in record(tmp_path)["notebooks"].items()}


class TestPlan:
    @pytest.fixture
    def plan(self, write_notebook):
        selected = [write_notebook("01_first", FIRST), write_notebook("02_second", SECOND)]
        return lambda values, **options: pipeline.plan(selected, values, **options)

    def test_a_value_goes_to_every_notebook_that_declares_it(self, plan):
        first, second = plan({"SEED": "3", "RATE": "1"})
        assert first.given == {"SEED": 3, "RATE": 1.0} and isinstance(first.given["RATE"], float)
        assert second.given == {"SEED": 3} and second.values == {"SEED": 3, "FAIL": "", "OUT": "runs/walk"}

    def test_values_of_the_user_come_before_those_of_the_profile(self, plan):
        first, second = plan({"SEED": "3"}, profile={"SEED": 1, "RATE": 2, "FOR_OTHER_NOTEBOOKS": 5})
        assert first.given == {"SEED": 3, "RATE": 2.0} and second.given == {"SEED": 3}

    def test_a_mistyped_name_is_refused_with_the_close_ones(self, plan):
        with pytest.raises(InputError, match="parameter SEDE: did you mean SEED"):
            plan({"SEDE": "3"})

    def test_a_value_for_notebooks_that_are_not_selected_is_refused(self, write_notebook):
        with pytest.raises(InputError, match="parameter RATE: they have FAIL, OUT, SEED"):
            pipeline.plan([write_notebook("02_second", SECOND)], {"RATE": "1.5"})


def test_notebooks_are_selected_by_number_or_name(write_notebook):
    first, second = write_notebook("01_first", FIRST), write_notebook("02_second", SECOND)
    notebooks = pipeline.find_notebooks(first.parent)
    assert notebooks == [first, second]
    assert pipeline.select(notebooks, ["2"]) == pipeline.select(notebooks, ["02_second"]) == [second]
    assert pipeline.select(notebooks, ["02", "01"]) == [first, second]
    with pytest.raises(InputError, match="no notebook 03"):
        pipeline.select(notebooks, ["03"])


@pytest.mark.parametrize("rule", ["recal 0.93", "recall", "fixed 2"])
def test_an_impossible_threshold_rule_is_refused_before_anything_runs(write_notebook, tmp_path, rule):
    path = write_notebook("05_rule", 'THRESHOLD_RULE: str = "f1"  # rule\nOUT: str = "runs/x"  # folder')
    with pytest.raises(InputError, match="threshold rule"):
        pipeline.run({"THRESHOLD_RULE": rule}, out=str(tmp_path / "out"), folder=path.parent)
    assert not (tmp_path / "out" / "notebooks" / "05_rule.ipynb").exists()


def test_a_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(InputError, match="no notebooks"):
        pipeline.find_notebooks(tmp_path)


class TestRun:
    def test_a_run_is_recorded_and_resumed(self, two, tmp_path, capsys):
        two({"SEED": "3"})
        assert statuses(tmp_path) == {"01_first": "ok", "02_second": "ok"}
        entry = record(tmp_path)["notebooks"]["02_second"]
        assert entry["parameters"] == {"SEED": 3, "OUT": (tmp_path / "out").as_posix()} and entry["seconds"] > 0
        assert entry["wrote"] == ["artifacts/second.json", "notebooks/02_second.ipynb"]
        assert json.loads((tmp_path / "out/artifacts/second.json").read_text(encoding="utf-8")) == {"seed": 3}
        (tmp_path / "out/artifacts/second.json").unlink()
        capsys.readouterr()
        two({"SEED": "3"}, resume=True)
        assert capsys.readouterr().out.count("finished earlier, skipped") == 1
        assert (tmp_path / "out/artifacts/second.json").is_file()

    def test_a_failure_ends_the_run_and_is_recorded(self, two, tmp_path):
        with pytest.raises(InputError, match="^02_second: The file is empty: pass another.$"):
            two({"FAIL": "input"}, only=["02"])
        assert statuses(tmp_path) == {"02_second": "failed"}
        assert "The file is empty" in record(tmp_path)["notebooks"]["02_second"]["error"]
        assert (tmp_path / "out/notebooks/02_second.ipynb").is_file()

    def test_what_a_dead_kernel_was_building_in_the_cache_is_removed(self, write_notebook, tmp_path, monkeypatch):
        monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
        building = "from bhi_utils.core import atomic_files\nfrom bhi_utils.core.paths import cache_dir\npacks = cache_dir() / 'packs'"
        building += "\npacks.mkdir(parents=True)\nopened = atomic_files.building(packs / 'key')\nassert opened.__enter__().is_dir()"
        path = write_notebook("01_dies", OUT, f"import os\n{building}\nos._exit(9)")
        with pytest.raises(kernel.NotebookFailed):
            pipeline.run({}, out=str(tmp_path / "out"), folder=path.parent)
        assert statuses(tmp_path) == {"01_dies": "failed"} and not list((tmp_path / "cache" / "packs").iterdir())

    def test_nothing_is_written_when_a_name_is_mistyped_or_the_run_is_dry(self, two, tmp_path, capsys):
        with pytest.raises(InputError, match="SEEDS"):
            two({"SEEDS": "1"})
        with pytest.raises(InputError, match="--out"):
            two({"OUT": "elsewhere"})
        assert two(dry_run=True) is None
        assert "Preflight" in capsys.readouterr().out
        assert not (tmp_path / "out").exists()

    def test_a_missing_source_stops_the_run_before_it_starts(self, write_notebook, tmp_path):
        path = write_notebook("01_data", f'DATA: str = "phantom"  # source\n{OUT}')
        with pytest.raises(InputError, match="folder or zip that exists"):
            pipeline.run({"DATA": str(tmp_path / "nowhere")}, out=str(tmp_path / "out"), folder=path.parent)
        assert not (tmp_path / "out").exists()

    def test_a_missing_weight_file_stops_the_run_before_it_starts(self, write_notebook, tmp_path):
        path = write_notebook("05_weights", f'WEIGHTS: str = "none"  # weights\n{OUT}')
        with pytest.raises(InputError, match="WEIGHTS='imagenett' is impossible .* weight file that exists"):
            pipeline.run({"WEIGHTS": "imagenett"}, out=str(tmp_path / "out"), folder=path.parent)
        assert not (tmp_path / "out").exists()


def test_publishing_replaces_notebooks_by_clean_copies_and_keeps_the_figures(write_notebook, tmp_path):
    out = (tmp_path / "run").as_posix()
    path = write_notebook(
        "01_first",
        f'OUT: str = "{out}"  # folder of the run',
        "from matplotlib.figure import Figure\nfrom bhi_utils.core.run import Run",
        'run = Run.open(OUT)\nFigure(figsize=(1, 1)).savefig(run.figures / "01_square.png")\nprint("done")',
    )
    pipeline.publish(folder=path.parent)
    notebook = nbformat.read(path, 4)
    assert notebook.cells[-1].outputs[0]["text"] == "done\n" and "papermill" not in notebook.metadata
    with Image.open(tmp_path / "figures/01_square.png") as image:
        assert image.mode == "P" and image.size == (100, 100)
