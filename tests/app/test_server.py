"""Starting and ending: ports, addresses, passwords, and what is left behind."""

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile

import pytest

from bhi_utils.app import server, start_options
from bhi_utils.core.paths import InputError

RELAUNCH = """
import json, socket, sys
from pathlib import Path
from gradio_client import Client, handle_file
from bhi_utils.app import server
from bhi_utils.model import predictor

bundle, patch, temporary = sys.argv[1:]
model = predictor.Predictor.load(bundle)
first, demo = server.launch(model, port=0)
client = Client(first, auth=("me", "secret"), verbose=False, analytics_enabled=False)
found = {"problem": client.predict(handle_file(patch), api_name="/predict")["problem"], "refused": False}
try:
    Client(first, verbose=False, analytics_enabled=False)
except Exception:
    found["refused"] = True
second, again = server.launch(model, port=demo.server_port)
found |= {"same_address": first == second, "uploads": len(list(Path(temporary).rglob(Path(patch).name)))}
again.close(verbose=False)
with socket.socket() as probe:
    found["free"] = probe.connect_ex(("127.0.0.1", again.server_port)) != 0
found["folders"] = len(list(Path(temporary).glob("bhi-app-*")))
print("found", json.dumps(found))
"""


def test_a_second_launch_ends_the_first_takes_its_port_asks_for_the_password_and_leaves_nothing(bundle, patch_file, tmp_path):
    (temporary := tmp_path / "temporary").mkdir()
    command = [sys.executable, "-c", RELAUNCH, str(bundle), str(patch_file), str(temporary)]
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    environment |= {"BHI_USER": "me", "BHI_PASSWORD": "secret", "TMPDIR": str(temporary), "TEMP": str(temporary)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=180)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = {"problem": "", "refused": True, "same_address": True, "uploads": 0, "free": True, "folders": 0}
    assert json.loads(lines[-1].removeprefix("found ")) == found
    assert len(lines) == 1, "neither launching nor closing prints"


def test_a_taken_port_is_said_with_another_one_to_try(predictor):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"Port {port} is taken.*: try \d+"):
            server.launch(predictor, port=port)


@pytest.mark.parametrize(("host", "port", "words"), [("192.0.2.1", 0, "no address of this machine"), ("127.0.0.1", 70000, "no port")])
def test_an_impossible_address_is_refused(predictor, host, port, words):
    with pytest.raises(InputError, match=words):
        server.launch(predictor, host=host, port=port)


def test_a_user_without_a_password_is_refused(predictor, monkeypatch):
    monkeypatch.setenv("BHI_USER", "me")
    monkeypatch.delenv("BHI_PASSWORD", raising=False)
    with pytest.raises(InputError, match="belong together"):
        server.launch(predictor, port=0)


STARTS = [
    (["--port", "70000"], {}, "no port"),
    (["--host", "192.0.2.1"], {}, "no address of this machine"),
    (["--host", "no such name"], {}, "no name that this machine knows"),
    (["--host", ""], {}, "--host is empty"),
    (["--host", "0.0.0.0"], {}, "set BHI_USER and BHI_PASSWORD, or say --no-password"),
    (["--share"], {}, "--share opens the app beyond this machine"),
    (["--share"], {"BHI_NO_PASSWORD": "0"}, "--share opens the app beyond this machine"),
    ([], {"BHI_NO_PASSWORD": "yes"}, "set it to 1"),
    ([], {"BHI_USER": "me"}, "belong together"),
    ([], {"BHI_PASSWORD": "secret"}, "belong together"),
    ([], {"BHI_USER": "", "BHI_PASSWORD": ""}, "belong together"),
    (["--host", "0.0.0.0"], {"BHI_USER": "", "BHI_PASSWORD": "secret"}, "belong together"),
    (["--no-password"], {"BHI_USER": "me", "BHI_PASSWORD": "secret"}, "no password were asked for"),
    (["--keyfile", "none.pem"], {}, "--certfile as well"),
    (["--certfile", "none.pem"], {}, "Cannot read none.pem"),
    (["--allowed-host", "https://x/y"], {}, "is no name of a host"),
    (["--data", "nowhere.zip"], {}, "nowhere.zip does not exist"),
]


def test_what_can_be_checked_is_checked_before_anything_is_loaded():
    """All in one process, so that its imports are told apart: a mistake is a sentence and exit code 2, and no library was waited for."""
    code = (
        "import contextlib, io, json, os, sys\nfrom bhi_utils.__main__ import main\nfound = []\n"
        "for options, variables in json.loads(sys.argv[1]):\n"
        "    for name in ('BHI_USER', 'BHI_PASSWORD', 'BHI_NO_PASSWORD'): os.environ.pop(name, None)\n"
        "    os.environ.update(variables)\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said: code = main(['app', *options])\n"
        "    found.append([code, said.getvalue()])\n"
        "print(json.dumps([found, sorted({'keras', 'tensorflow', 'gradio'} & set(sys.modules))]))\n"
    )
    given = json.dumps([[options, variables] for options, variables, _ in STARTS])
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, encoding="utf-8", timeout=180)
    found, loaded = json.loads(done.stdout.splitlines()[-1])
    for (options, _, words), (code, said) in zip(STARTS, found, strict=True):
        assert code == 2 and words in said and said.count("\n") == 1, (options, said)
    assert not loaded


@pytest.mark.parametrize(
    ("variables", "options", "auth"),
    [
        ({"BHI_USER": "me", "BHI_PASSWORD": "secret"}, {"host": "0.0.0.0"}, ("me", "secret")),
        ({}, {"host": "0.0.0.0", "no_password": True}, None),
        ({"BHI_NO_PASSWORD": "1"}, {"share": True}, None),
        ({}, {"host": "localhost"}, None),
    ],
)
def test_beyond_this_machine_a_password_or_its_lack_is_said_aloud(monkeypatch, variables, options, auth):
    for name in ("BHI_USER", "BHI_PASSWORD", "BHI_NO_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start = start_options.check(port=0, **options)
    assert start.auth == auth
    if start.everywhere:
        assert start.address() not in ("0.0.0.0", "127.0.0.1") and start.address() in start.names() and "localhost" in start.names()
    assert "evil.example.org" not in start.names()


def test_a_failed_start_names_the_cause_that_was_found_and_leaves_nothing(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("GRADIO_TEMP_DIR", "BHI_USER", "BHI_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for error, words in (
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "models"), "The disk is full at models"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "frpc"), "Permission denied frpc"),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(server, "build", fail)
        with pytest.raises(InputError, match=words) as caught:
            server.launch(predictor, port=0)
        assert "taken" not in str(caught.value) and not list(tmp_path.glob("bhi-app-*"))
