"""Starting and ending: ports, addresses, passwords, and what is left behind."""

import json
import os
import socket
import subprocess
import sys

import pytest

from bhi_utils import app
from bhi_utils.paths import InputError

RELAUNCH = """
import json, socket, sys
from pathlib import Path
from gradio_client import Client, handle_file
from bhi_utils import app, predictor

bundle, patch, cache = sys.argv[1:]
model = predictor.Predictor.load(bundle)
first, demo = app.launch(model, port=0)
found = {"problem": Client(first, verbose=False, analytics_enabled=False).predict(handle_file(patch), api_name="/predict")["problem"]}
second, again = app.launch(model, port=demo.server_port)
found |= {"same_address": first == second, "uploads": len(list(Path(cache).rglob(Path(patch).name)))}
again.close(verbose=False)
with socket.socket() as probe:
    found["free"] = probe.connect_ex(("127.0.0.1", again.server_port)) != 0
print("found", json.dumps(found))
"""


@pytest.mark.slow
def test_a_second_launch_ends_the_first_takes_its_port_and_no_upload_stays(bundle, patch_file, tmp_path):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", RELAUNCH, str(bundle), str(patch_file), str(cache)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=180)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert json.loads(lines[-1].removeprefix("found ")) == {"problem": "", "same_address": True, "uploads": 0, "free": True}
    assert len(lines) == 1, "neither launching nor closing prints"


def test_a_taken_port_is_said_with_another_one_to_try(predictor):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"Port {port} is taken.*: try \d+"):
            app.launch(predictor, port=port)


@pytest.mark.parametrize(("host", "port", "words"), [("192.0.2.1", 0, "no address of this machine"), ("127.0.0.1", 70000, "no port")])
def test_an_impossible_address_is_refused(predictor, host, port, words):
    with pytest.raises(InputError, match=words):
        app.launch(predictor, host=host, port=port)


def test_a_user_without_a_password_is_refused(predictor, monkeypatch):
    monkeypatch.setenv("BHI_USER", "me")
    monkeypatch.delenv("BHI_PASSWORD", raising=False)
    with pytest.raises(InputError, match="belong together"):
        app.launch(predictor, port=0)
