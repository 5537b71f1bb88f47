"""The runner: what it accepts, what it records, what it runs again, and what it makes of a failure."""

import io
import json
import os
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from bhi_utils.core import hardware
from bhi_utils.core.paths import InputError
from bhi_utils.runner import clean_outputs, kernel, parameters, pipeline, preflight

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
    def steps(self, write_notebook, values, profile=None):
        selected = [write_notebook("01_first", FIRST), write_notebook("02_second", SECOND)]
        return pipeline.plan(selected, values, profile=profile, notebooks=selected)

    def test_a_value_goes_to_every_notebook_that_declares_it(self, write_notebook):
        first, second = self.steps(write_notebook, {"SEED": "3", "RATE": "1"})
        assert first.given == {"SEED": 3, "RATE": 1.0} and isinstance(first.given["RATE"], float)
        assert second.given == {"SEED": 3} and second.values == {"SEED": 3, "FAIL": "", "OUT": "runs/walk"}

    def test_values_of_the_user_come_before_those_of_the_profile(self, write_notebook):
        first, second = self.steps(write_notebook, {"SEED": "3"}, profile={"SEED": 1, "RATE": 2})
        assert first.given == {"SEED": 3, "RATE": 2.0}

    def test_a_mistyped_name_is_refused_with_the_close_ones(self, write_notebook):
        with pytest.raises(InputError, match="parameter SEDE: did you mean SEED"):
            self.steps(write_notebook, {"SEDE": "3"})

    def test_a_profile_with_a_name_that_nobody_declares_is_refused(self, write_notebook):
        with pytest.raises(InputError, match="parameter EPOCHS"):
            self.steps(write_notebook, {}, profile={"EPOCHS": 3})

    def test_a_profile_may_speak_to_notebooks_that_are_not_selected(self, write_notebook):
        both = [write_notebook("01_first", FIRST), write_notebook("02_second", SECOND)]
        (second,) = pipeline.plan(both[1:], {}, profile={"SEED": 2, "RATE": 1.5}, notebooks=both)
        assert second.given == {"SEED": 2}
        with pytest.raises(InputError, match="RATE"):
            pipeline.plan(both[1:], {"RATE": "1.5"}, notebooks=both)

    def test_a_declaration_of_another_type_is_refused(self, write_notebook):
        with pytest.raises(InputError, match="declares SEED as dict"):
            pipeline.plan([write_notebook("01_first", "SEED: dict = {}  # no")], {})


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


@pytest.mark.parametrize("profile", parameters.profiles())
def test_every_profile_fits_the_notebooks(profile):
    notebooks = pipeline.find_notebooks()
    pipeline.plan(notebooks, {}, profile=parameters.read_profile(profile), notebooks=notebooks)


def test_the_data_source_is_found_from_another_folder(tmp_path):
    (tmp_path / "patches.zip").touch()
    made = parameters.absolute({"DATA": "patches.zip", "WEIGHTS": "none", "SEED": "1"}, base=tmp_path)
    assert made == {"DATA": str((tmp_path / "patches.zip").resolve()), "WEIGHTS": "none", "SEED": "1"}


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
        content = record(tmp_path)
        assert statuses(tmp_path) == {"01_first": "ok", "02_second": "ok"}
        assert content["parameters"] == {"SEED": "3"} and content["versions"]["papermill"] and len(content["code"]) == 64
        assert content["notebooks"]["02_second"]["parameters"]["SEED"] == 3
        assert content["notebooks"]["02_second"]["wrote"] == ["artifacts/second.json", "notebooks/02_second.ipynb"]
        assert content["notebooks"]["02_second"]["seconds"] > 0
        assert json.loads((tmp_path / "out/artifacts/second.json").read_text(encoding="utf-8")) == {"seed": 3}
        capsys.readouterr()
        two({"SEED": "3"}, resume=True)
        assert capsys.readouterr().out.count("finished earlier, skipped") == 2
        (tmp_path / "out/artifacts/second.json").unlink()
        two({"SEED": "3"}, resume=True)
        assert capsys.readouterr().out.count("finished earlier, skipped") == 1
        two({"SEED": "4"}, resume=True)
        assert capsys.readouterr().out.count("finished earlier, skipped") == 0

    def test_what_depends_on_a_rerun_notebook_runs_again(self, two, tmp_path, capsys):
        two()
        two({"SEED": "9"}, only=["01"])
        capsys.readouterr()
        two(only=["02"], resume=True)
        assert "skipped" not in capsys.readouterr().out

    def test_bad_input_in_a_notebook_is_told_in_its_sentence(self, two, tmp_path):
        with pytest.raises(InputError, match="^02_second: The file is empty: pass another.$"):
            two({"FAIL": "input"})
        assert statuses(tmp_path) == {"01_first": "ok", "02_second": "failed"}
        assert "The file is empty" in record(tmp_path)["notebooks"]["02_second"]["error"]
        assert (tmp_path / "out/notebooks/02_second.ipynb").is_file()

    def test_another_error_names_notebook_cell_and_line(self, two, tmp_path):
        with pytest.raises(kernel.NotebookFailed, match=r"02_second stopped at In \[3\] with ZeroDivisionError(.|\n)*1 / 0"):
            two({"FAIL": "bug"}, only=["02"])

    @pytest.mark.parametrize(
        ("last", "said"),
        [
            pytest.param(
                "os.kill(os.getpid(), signal.SIGKILL)",
                "was killed, most likely for want of memory",
                marks=pytest.mark.skipif(sys.platform == "win32", reason="no signals"),
            ),
            ("os._exit(9)", "ended with exit code 9 in the middle of a cell"),
        ],
    )
    def test_a_dead_kernel_is_a_failure_that_names_its_cause_and_leaves_nothing(self, write_notebook, tmp_path, monkeypatch, last, said):
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
        building = "from bhi_utils.core import atomic_files\nfrom bhi_utils.core.paths import cache_dir\npacks = cache_dir() / 'packs'"
        building += "\npacks.mkdir(parents=True)\nopened = atomic_files.building(packs / 'key')\nassert opened.__enter__().is_dir()"
        dying = f"import os, signal, tempfile\nassert os.path.isdir(tempfile.mkdtemp())\n{building}\n{last}"
        path = write_notebook("01_dies", OUT, dying)
        with pytest.raises(kernel.NotebookFailed, match=f"kernel of 01_dies {said}") as caught:
            pipeline.run({}, out=str(tmp_path / "out"), folder=path.parent)
        assert ("memory" in str(caught.value)) == ("SIGKILL" in last)
        assert statuses(tmp_path) == {"01_dies": "failed"}
        assert not list((tmp_path / "temporary").iterdir()) and not list((tmp_path / "cache" / "packs").iterdir())

    def test_a_kernel_that_does_not_start_is_told_in_its_own_words(self, write_notebook, tmp_path, monkeypatch):
        def broken(*_, **__):
            return {"argv": [sys.executable, "-c", "raise SystemExit('no module named kernel')"], "display_name": "x", "language": "python"}

        monkeypatch.setattr(kernel, "get_kernel_dict", broken)
        path = write_notebook("01_first", FIRST)
        with pytest.raises(kernel.NotebookFailed, match="ended with exit code 1(.|\n)*no module named kernel") as caught:
            pipeline.run({}, out=str(tmp_path / "out"), folder=path.parent)
        assert "memory" not in str(caught.value)

    def test_another_error_of_the_runner_is_told_in_its_own_words(self, write_notebook, tmp_path, monkeypatch):
        def refusing(*_, **__):
            raise RuntimeError("Can only launch a kernel on a local interface.")

        monkeypatch.setattr(kernel.ThisPythonKernel, "start_kernel", refusing)
        path = write_notebook("01_first", FIRST)
        with pytest.raises(kernel.NotebookFailed, match="could not run the notebook: Can only launch") as caught:
            pipeline.run({}, out=str(tmp_path / "out"), folder=path.parent)
        assert "memory" not in str(caught.value)

    def test_the_kernel_is_this_interpreter(self, write_notebook, tmp_path):
        path = write_notebook("01_who", OUT, f"import sys\nassert sys.executable == {sys.executable!r}, sys.executable")
        pipeline.run({}, out=str(tmp_path / "out {1}"), folder=path.parent)

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

    def test_a_damaged_record_counts_as_none(self, two, tmp_path, capsys):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/run.json").write_text("{", encoding="utf-8")
        two(only=["01"], resume=True)
        assert statuses(tmp_path) == {"01_first": "ok"}


class TestPreflight:
    def test_the_cost_grows_with_patches_and_pixels(self):
        def cost(patches, size):
            values = {"IMAGE_SIZE": size, "WEIGHTS": "file.h5"}
            return preflight.estimate(patches, {"01_x": {"DATA": "a.zip"}, "05_x": values})

        small, large = cost(1_000, 64), cost(100_000, 160)
        for name in ("memory", "disk"):
            assert getattr(small, name) < getattr(large, name)
        assert small.seconds["05_x"] < large.seconds["05_x"]

    def test_the_estimate_is_for_the_device_that_computes_and_counts_what_jax_compiles(self):
        values = {"IMAGE_SIZE": 200, "BATCH_SIZE": 256, "EPOCHS": 30, "FINE_TUNE_BLOCKS": 3, "WEIGHTS": "imagenet", "VIEWS": 0}
        given = {"05_x": values, "06_x": {}, "02_x": {}}
        large, old = hardware.Card(140e9, 9.0, "NVIDIA H200"), hardware.Card(16e9, 7.5, "Tesla T4")
        cpu, t4, h200 = (preflight.estimate(13_244, given, card=card) for card in (None, old, large))
        jax = preflight.estimate(13_244, given, card=large, compiles=True)
        assert cpu.seconds["05_x"] > 2 * t4.seconds["05_x"] > 2 * h200.seconds["05_x"]
        assert cpu.compiling == h200.compiling == 0 and cpu.card_memory == 0
        assert jax.compiling == sum(jax.seconds.values()) - sum(h200.seconds.values())
        assert jax.compiling >= 5 * 57, "the CNN's phase and four of EfficientNetB0, at the least that was seen on an H200"
        assert jax.seconds["02_x"] == h200.seconds["02_x"] and jax.seconds["06_x"] > h200.seconds["06_x"]
        assert h200.memory < cpu.memory, "what lies on the card is not in this machine's memory"
        assert h200.card_memory < t4.card_memory, "bfloat16 takes half"
        assert "on NVIDIA H200 (" in jax.sentence() and "compiling" in jax.sentence() and "of the GPU's" in jax.sentence()
        assert "without a GPU" in cpu.sentence() and "GPU's" not in cpu.sentence() and "compiling" not in cpu.sentence()

    def test_the_phases_that_are_compiled_are_those_that_are_trained(self):
        def compiling(**values):
            return preflight.estimate(1_000, {"05_x": {"WEIGHTS": "imagenet", "VIEWS": 0} | values}, compiles=True).compiling

        cached = compiling(VIEWS=2, FINE_TUNE_BLOCKS=3)
        assert compiling(WEIGHTS="none") == compiling(FINE_TUNE_BLOCKS=0) < cached < compiling(FINE_TUNE_BLOCKS=3)
        assert compiling(FINE_TUNE_BLOCKS=1) == cached, "from the cache all blocks open at once"

    @pytest.mark.skipif(sys.platform == "win32", reason="needs an executable script")
    def test_a_card_counts_when_the_backend_can_use_it(self, tmp_path, monkeypatch):
        script = tmp_path / "nvidia-smi"
        script.write_text("#!/bin/sh\necho '81559, 9.0, Test GPU'\necho '16384, 7.5, Small GPU'\n", encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        assert hardware.card() == (16384 * 2**20, 7.5, "Small GPU")
        assert hardware.card_in_use() is None

    def test_a_disk_that_is_too_small_stops_the_run(self, tmp_path):
        with pytest.raises(InputError, match="GB are free"):
            preflight.check_disk(1e18, {"run": tmp_path / "not" / "yet" / "there"})
        preflight.check_disk(1.0, {"run": tmp_path})


class TestLiveStderr:
    NOISE = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\nI0000 00:00:17.5 12 port.cc:153] oneDNN\n"
    )

    def test_a_log_gets_lines_and_the_last_state_of_a_bar(self):
        stream = io.StringIO()
        live = kernel.LiveStderr(stream)
        for text in (self.NOISE, "\rFit:  0%|", "\rFit: 50%|", "\rFit: 100%|", "\n", "a warning\n"):
            live.write(text)
        assert stream.getvalue() == "Fit: 100%|\na warning\n"

    def test_a_terminal_gets_one_line_that_is_blanked_at_the_end(self):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        stream = Terminal()
        live = kernel.LiveStderr(stream)
        live.write("\rcells |####|")
        live.write("\rFit |#|")
        live.write(self.NOISE)
        live.clear()
        assert stream.getvalue() == "\rcells |####|" + "\rFit |#|".ljust(13) + "\r" + " " * 7 + "\r"


class TestClean:
    def executed(self):
        """A notebook as papermill leaves it."""
        cells = [
            new_markdown_cell("# 01"),
            new_code_cell("SEED = 0", metadata={"tags": ["parameters"], "papermill": {"duration": 1}}, execution_count=4),
            new_code_cell("SEED = 1", metadata={"tags": ["injected-parameters"]}, execution_count=5),
            new_code_cell("table  \n", metadata={"execution": {"iopub.status.busy": "2026"}}, execution_count=9),
        ]
        cells[3].outputs = [
            new_output("stream", name="stderr", text="50%|"),
            new_output("stream", name="stdout", text="a\n"),
            new_output("stream", name="stdout", text="b\n"),
            new_output(
                "display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "HBox(children=())"}
            ),
            new_output("execute_result", data={"text/plain": "7"}, execution_count=9, metadata={"took": 3}),
        ]
        metadata = {"papermill": {"duration": 3}, "widgets": {}, "language_info": {"name": "python", "version": "3.11.7"}}
        return new_notebook(cells=cells, metadata={**metadata, "kernelspec": {"name": "mine", "display_name": "Mine"}})

    def test_outputs_stay_and_what_differs_between_runs_goes(self):
        made = clean_outputs.clean(self.executed())
        assert made.metadata == {"kernelspec": clean_outputs.KERNELSPEC, "language_info": clean_outputs.LANGUAGE}
        assert [cell.metadata for cell in made.cells] == [{}, {"tags": ["parameters"]}, {}]
        assert [cell.execution_count for cell in made.cells[1:]] == [1, 2]
        assert made.cells[2].source == "table"
        stream, result = made.cells[2].outputs
        assert (stream.name, stream.text) == ("stdout", "a\nb\n")
        assert (result.data, result.execution_count, result.metadata) == ({"text/plain": "7"}, 2, {})

    def test_cleaning_twice_changes_nothing_and_leaves_the_original_alone(self):
        executed = self.executed()
        before = nbformat.writes(executed)
        once = clean_outputs.clean(executed)
        assert nbformat.writes(executed) == before
        assert clean_outputs.to_text(clean_outputs.clean(once)) == clean_outputs.to_text(once)
        assert [cell.id for cell in once.cells] == [executed.cells[i].id for i in (0, 1, 3)]

    def test_ids_that_are_missing_or_double_are_made_from_the_text(self):
        notebook = self.executed()
        notebook.cells[1].id = notebook.cells[0].id
        del notebook.cells[3]["id"]
        ids = [[cell.id for cell in clean_outputs.clean(notebook).cells] for _ in range(2)]
        assert ids[0] == ids[1] and len(set(ids[0])) == 3

    def test_the_text_ends_with_one_line_end_and_reads_back(self):
        made = clean_outputs.clean(self.executed())
        text = clean_outputs.to_text(made)
        assert text.endswith("}\n") and not text.endswith("\n\n") and nbformat.reads(text, 4) == made

    def test_a_notebook_with_an_error_is_refused(self):
        notebook = self.executed()
        notebook.cells[3].outputs = [new_output("error", ename="ValueError", evalue="no", traceback=[])]
        with pytest.raises(InputError, match="ValueError: no"):
            clean_outputs.clean(notebook)


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
