"""What notebooks open and close with: banner, data source, figures, result table."""

import io
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from bhi_utils import notebook, plots
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run

DATA = {"source": "phantom", "kind": "zip", "synthetic": True, "fingerprint": "ab" * 32, "cases": 48, "patches": 2880}


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path)
    run.write_json("dataset.json", DATA)
    return run


def test_the_banner_opens_the_run_and_names_parameters_and_data(run, capsys):
    variables = {"SEED": 7, "OUT": str(run.root), "NAMES": ["a"], "np": np, "lower": 1, "_HIDDEN": 2, "ARRAY": np.zeros(2)}
    assert notebook.banner("02", variables) == run
    said = capsys.readouterr().out
    assert "Notebook 02" in said and "SEED=7" in said and "NAMES=['a']" in said
    assert "SYNTHETIC zip, 48 cases, 2,880 patches, fingerprint abababababab" in said
    assert "lower" not in said and "ARRAY" not in said and "HIDDEN" not in said


def test_the_first_notebook_speaks_of_the_source_that_it_is_going_to_read(run, capsys):
    notebook.banner("01", {"DATA": "phantom", "OUT": str(run.root)}, device=False)
    said = capsys.readouterr().out
    assert "Data: phantom (indexed below)" in said and "not used in this notebook" in said


def test_a_later_notebook_without_data_names_the_first(tmp_path):
    with pytest.raises(InputError, match="01_dataset_exploration"):
        notebook.banner("02", {"OUT": str(tmp_path)})


def test_the_banner_loads_no_keras_by_itself(run):
    code = f"import sys; from bhi_utils import notebook; notebook.banner('02', dict(OUT={str(run.root)!r}))\n"
    code += "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs an executable script")
@pytest.mark.parametrize("hidden", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_device_line_says_that_a_gpu_is_not_used(tmp_path, hidden):
    # a machine with a GPU that TensorFlow may not see: an nvidia-smi that names one is enough for that
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho '16384, 7.5, Test GPU'\n", encoding="utf-8")
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"CUDA_VISIBLE_DEVICES": "-1"} if hidden else {}
    code = "from bhi_utils.core.hardware import device_line; print(device_line())"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    if hidden:
        assert said.startswith("CPU, ") and "Test GPU is present but unused: CUDA_VISIBLE_DEVICES hides it" in said
    else:
        assert "Test GPU is present but unused: " in said or said.startswith("GPU")


def figure(tissue: bool) -> Figure:
    made = Figure(figsize=(4, 3))
    axes = made.subplots()
    if tissue:
        axes.imshow(np.random.default_rng(0).integers(0, 255, (300, 400, 3)), interpolation="nearest")
    axes.set_title("IDC+")
    return made


@pytest.mark.parametrize("tissue", [False, True])
def test_a_figure_is_saved_whole_and_shown_small(run, tissue, capsys):
    assert notebook.save_figure(run, figure(tissue), "01_grid") is None
    content = (run.figures / "01_grid.png").read_bytes()
    saved = Image.open(io.BytesIO(content))
    assert saved.format == "PNG" and saved.width > 500 and {path.name for path in run.figures.iterdir()} == {"01_grid.png", "01_grid.pdf"}
    assert (run.figures / "01_grid.pdf").read_bytes().startswith(b"%PDF"), "vectors for print"
    small, kind = notebook._compact(content)
    assert kind == ("jpeg" if tissue else "png") and Image.open(io.BytesIO(small)).size == saved.size


def test_the_small_copy_keeps_the_rare_hues_of_an_evidence_map_beside_tissue():
    random = np.random.default_rng(0)
    tissue = np.clip(random.normal((190, 120, 180), 30, (200, 200, 3)), 0, 255).astype(np.uint8)
    orange = np.array(to_rgb("#D55E00")) * 255
    ramp = np.linspace((235.0, 235, 235), orange, 200)[None].repeat(10, axis=0).astype(np.uint8)
    stream = io.BytesIO()
    plots.write_palette(Image.fromarray(np.concatenate([tissue, ramp])), stream)
    found = np.asarray(Image.open(stream).convert("RGB"), dtype=int)[-10:]
    assert np.abs(found - ramp).max() < 20 and np.abs(found - ramp).mean() < 5


def test_equal_figures_give_equal_files(run):
    files = []
    for name in ("01_a", "01_b"):
        notebook.save_figure(run, figure(False), name, shown=False)
        files.append([(run.figures / f"{name}.{kind}").read_bytes() for kind in ("png", "pdf")])
    assert files[0] == files[1]


def test_a_figure_says_where_its_data_came_from(run):
    made = figure(False)
    notebook.save_figure(run, made, "01_note")
    assert [text.get_text() for text in made.texts] == ["Data: SYNTHETIC zip, 48 cases, 2,880 patches"]


def test_the_result_table_is_rounded_without_negative_zeros(capsys):
    notebook.result(pd.DataFrame({"name": ["a", "b"], "value": [0.123456, -0.00001], "count": [1, 2]}))
    assert capsys.readouterr().out.split() == ["name", "value", "count", "0", "a", "0.123", "1", "1", "b", "0.000", "2"]
