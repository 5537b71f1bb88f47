"""How notebook 07 shows the app: in a frame below its cell, inside JupyterLab, JupyterHub or Colab. Used by that notebook only."""

import os
from typing import Any
from urllib.parse import urlsplit

from IPython.display import IFrame, display

from bhi_utils.app import start_options

_HUB = "JUPYTERHUB_SERVICE_PREFIX"
#: Where Colab's own page and the frames of its outputs come from. Written after its documentation: this was never run there.
_COLAB = ("https://colab.research.google.com", "https://*.googleusercontent.com", "https://*.colab.dev")


def options(port: int, allowed_host: str = "") -> dict[str, Any]:
    """What ``app.server.launch`` needs to be shown beside this notebook: ``port, allowed_hosts, frames``.

    Args:
        port: the app's port; 0 takes a free one.
        allowed_host: the name of the JupyterHub or proxy in the browser's address, perhaps with a port; empty without one.
    """
    port = start_options.check(port=port).port
    hosts = [allowed_host] if allowed_host else []
    if colab := _colab():
        hosts.append(urlsplit(colab.eval_js(f"google.colab.kernel.proxyPort({port})")).netloc)
    return {"port": port, "allowed_hosts": hosts, "frames": frames()}


def frames() -> tuple[str, ...]:
    """The sources, in the words of CSP, of the notebook that this kernel runs for; empty without a browser, as in papermill."""
    if _colab():
        return _COLAB
    if os.environ.get(_HUB):  # through jupyter-server-proxy, the app has the notebook's own origin
        return ("'self'",)
    if "JPY_SESSION_NAME" not in os.environ:
        return ()
    from jupyter_server.serverapp import list_running_servers

    own = [one for one in list_running_servers() if str(one["pid"]) == os.environ.get("JPY_PARENT_PID")]
    found = {f"{parts.scheme}://{host}:{parts.port}" for parts in (urlsplit(one["url"]) for one in own) for host in _names(parts.hostname)}
    return tuple(sorted(found))


def show(url: str, *, height: int = 900) -> None:
    """Print the app's address, and show it below the cell where a browser shows the notebook.

    Args:
        url: what ``app.server.launch`` returned.
        height: of the frame, in pixels.
    """
    port = urlsplit(url).port
    print(f"Open {url} in a browser.")
    if colab := _colab():
        colab.serve_kernel_port_as_iframe(port, height=height)
    elif prefix := os.environ.get(_HUB):
        display(IFrame(f"{prefix}proxy/{port}/", "100%", height))
    elif "JPY_SESSION_NAME" in os.environ:
        display(IFrame(url, "100%", height))


def _names(host: str | None) -> set[str]:
    return {"localhost", "127.0.0.1"} if host in ("localhost", "127.0.0.1") else {str(host)}


def _colab() -> Any:
    """Colab's module for outputs; None elsewhere."""
    try:
        from google.colab import output
    except ImportError:
        return None
    return output
