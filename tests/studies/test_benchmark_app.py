"""The load test and the benchmark, small: every answer arrives at whom it belongs to, and one that is ended leaves nothing behind."""

import json
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from bhi_utils.__main__ import main
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.studies import benchmark_app


@pytest.mark.slow
def test_no_answer_is_lost_or_mixed_up_and_everything_is_measured(bundle, tmp_path, monkeypatch):
    for name in ("REPEATS", "LEAST"):
        monkeypatch.setattr(benchmark_app, name, 2)
    run = Run.open(tmp_path)
    result = benchmark_app.study(run, bundle, single=3, clients=4, requests=24, region=20, files=5)
    assert json.loads((run.artifacts / benchmark_app.RESULTS).read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    assert result["load"]["lost"] == result["load"]["mixed"] == 0
    assert result["files"]["patches"] == 5 and result["region"]["patches"] >= 20
    table = benchmark_app.table(result)
    assert len(table) == 5 and (table > 0).all(axis=None)


ENDED = """
import sys, tempfile
from pathlib import Path
tempfile.tempdir = sys.argv[1]
from bhi_utils.studies import benchmark_app
from bhi_utils.core.run import Run

try:
    benchmark_app.study(Run.open(Path(sys.argv[2])), Path(sys.argv[3]), single=1, clients=1, requests=1, region=1, files=1)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could hear")
@pytest.mark.parametrize("serving", [False, True], ids=["its-folder", "its-server"])
def test_a_benchmark_that_is_ended_leaves_neither_folder_nor_server(bundle, tmp_path, serving):
    (scratch := tmp_path / "scratch").mkdir()
    command = [sys.executable, "-c", ENDED, str(scratch), str(tmp_path / "run"), str(bundle)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        started = []
        while process.poll() is None and not (started if serving else list(scratch.glob("tmp*"))):
            time.sleep(0.005)
            with suppress(psutil.Error):  # one of its children has ended this moment, such as git
                started = [one for one in psutil.Process(process.pid).children() if serving and "app" in one.cmdline()]
        process.terminate()
        assert process.wait(timeout=120) == 130
    assert not list(scratch.glob("tmp*"))
    assert bool(started) == serving and not psutil.wait_procs(started, timeout=120)[1]


def test_numbers_that_measure_nothing_are_refused(bundle, tmp_path):
    for wrong in ({"clients": 5, "requests": 4}, {"files": 1001}, {"single": 0}):
        with pytest.raises(InputError, match="at least 1"):
            benchmark_app.study(Run.open(tmp_path), bundle, **wrong)


def test_options_of_another_benchmark_are_refused(capsys):
    assert main(["bench", "--of", "app", "--sizes", "3"]) == 2 and "--sizes is for" in capsys.readouterr().err
    assert main(["bench", "--of", "archive", "--model", "x"]) == 2 and "--model is for" in capsys.readouterr().err
