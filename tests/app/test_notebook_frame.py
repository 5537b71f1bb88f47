"""How notebook 07 shows the app: who may frame it, and what is displayed, in papermill, JupyterLab, a JupyterHub and Colab."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
from IPython.display import IFrame

from bhi_utils.app import notebook_frame, start_options

URL = "http://127.0.0.1:7861/"


@pytest.fixture
def shown(monkeypatch) -> list[IFrame]:
    """What is displayed; no environment of a notebook is set, wherever the tests themselves run."""
    for name in ("JPY_SESSION_NAME", "JPY_PARENT_PID", "JUPYTERHUB_SERVICE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    found: list[IFrame] = []
    monkeypatch.setattr(notebook_frame, "display", found.append)
    return found


def ancestors(**given) -> str:
    """Who may show the page of ``launch(**options(...))``, as its answers say it."""
    return start_options.check(**notebook_frame.options(0, **given)).frame_ancestors()


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory) -> Iterator[tuple[int, str, str]]:
    """A Jupyter server's process, port, and folder of running servers."""
    folder = tmp_path_factory.mktemp("jupyter")
    places = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--ServerApp.jpserver_extensions={}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **places}, cwd=folder) as server:
        said = [""]
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                break
        else:
            pytest.fail("".join(said))
        yield server.pid, found[1], places["JUPYTER_RUNTIME_DIR"]
        server.terminate()
        server.stderr.read()


def test_papermill_displays_nothing_and_nobody_may_frame_the_page(shown, capsys):
    options = notebook_frame.options(0)
    assert options["port"] > 0 and options["allowed_hosts"] == [] and ancestors() == "'none'"
    notebook_frame.show(URL)
    assert not shown and capsys.readouterr().out == f"Open {URL} in a browser.\n"


def test_in_jupyterlab_only_its_own_server_may_frame_the_page(shown, monkeypatch, jupyter):
    pid, port, runtime = jupyter
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", runtime)
    monkeypatch.setenv("JPY_SESSION_NAME", "07_gradio_app.ipynb")
    monkeypatch.setenv("JPY_PARENT_PID", str(pid))
    assert ancestors() == f"http://127.0.0.1:{port} http://localhost:{port}"
    notebook_frame.show(URL, height=700)
    assert [(one.src, one.width, one.height) for one in shown] == [(URL, "100%", 700)]
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))  # another server than the one that started this kernel
    assert ancestors() == "'none'"


def test_on_a_jupyterhub_the_page_is_shown_through_its_proxy(shown, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
    monkeypatch.setenv("JPY_SESSION_NAME", "07_gradio_app.ipynb")
    assert notebook_frame.options(0, "hub.example.org")["allowed_hosts"] == ["hub.example.org"]
    assert ancestors(allowed_host="hub.example.org") == "'self' https://hub.example.org http://hub.example.org"
    notebook_frame.show(URL)
    assert [one.src for one in shown] == ["/user/me/proxy/7861/"]


def test_on_colab_its_own_helper_shows_the_port(shown, monkeypatch):
    served, asked = [], []

    def proxy(code: str) -> str:
        asked.append(code)
        return "https://7861-m-s-abc.us-central1-0.prod.colab.dev/"

    output = SimpleNamespace(eval_js=proxy, serve_kernel_port_as_iframe=lambda port, **given: served.append((port, given)))
    colab = ModuleType("google.colab")
    colab.output, colab.__spec__ = output, SimpleNamespace(name="google.colab")
    google = ModuleType("google")
    google.__path__, google.colab = [], colab
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    options = notebook_frame.options(0)
    assert asked == [f"google.colab.kernel.proxyPort({options['port']})"]
    assert options["allowed_hosts"] == ["7861-m-s-abc.us-central1-0.prod.colab.dev"]
    assert "https://colab.research.google.com" in options["frames"] and "'none'" not in ancestors()
    notebook_frame.show(URL)
    assert served == [(7861, {"height": 900})] and not shown
