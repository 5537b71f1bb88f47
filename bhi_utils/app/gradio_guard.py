"""Everything of Gradio's inside that the interface leans on or exchanges. Used by the interface only.

Gradio has no setting for these: fetching addresses, naming uploads after their content, answering other origins, reading what a program
sends, running a script before its own, and telling which requests still wait. A test of each fails if a later version stops using the
names; a version that was not tested is refused at the start.
"""

import os
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import gradio as gr
from gradio import processing_utils, route_utils, routes
from jinja2 import ChoiceLoader, DictLoader
from starlette.types import ASGIApp

from bhi_utils.core.paths import InputError

#: The versions with which this was tested, as pip writes them.
TESTED, _SERIES = ">=6.31,<6.32", "6.31."
#: The files of the upload that is being read; its list is set by ``app.request_checks``.
ARRIVING: ContextVar[list["Unguessable"]] = ContextVar("arriving")
#: Gradio's own page, with and without ``share``.
_PAGES = ("frontend/index.html", "frontend/share.html")


class Unguessable(route_utils.GradioUploadFile):
    """An uploaded file whose digest, and with it the name of its folder, depends on chance as well as on its content.

    By content alone, two windows that send the same patch would share one file, and whoever has a picture could ask whether it was sent.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.sha.update(secrets.token_bytes(32))
        ARRIVING.get([]).append(self)


async def refuse(*_: Any, **__: Any) -> str:
    """Takes the place of a download: a program may send an address instead of a file, and Gradio would fetch it."""
    raise gr.Error("Send the file itself: nothing is fetched from another host.", print_exception=False)


def no_origins(app: ASGIApp, **_: Any) -> ASGIApp:
    """Takes the place of Gradio's CORS headers, which every origin gets; ``app.request_checks`` refuses all but the app's own."""
    return app


def install(script: str) -> None:
    """Exchanges them, for all pages of this process; before the first is built, which leans on some already.

    Args:
        script: HTML for the very start of the page's head: Gradio runs its own ``head`` after it has chosen the language.

    Raises:
        InputError: this version of Gradio was not tested.
    """
    if not gr.__version__.startswith(_SERIES):
        raise InputError(
            f"Gradio {gr.__version__} was not tested, and the app leans on its inside: install a version that was, "
            f"with pip install 'gradio{TESTED}'."
        )
    vars(route_utils)["GradioUploadFile"] = Unguessable
    vars(processing_utils)["async_ssrf_protected_download"] = refuse
    vars(routes)["CustomCORSMiddleware"] = no_origins
    pages = routes.templates.env
    if pages.loader and not isinstance(pages.loader, ChoiceLoader):  # which an earlier page of this process has left
        sources = {name: pages.loader.get_source(pages, name)[0] for name in _PAGES}
        begun = {name: source.replace("<head>", f"<head>{{% raw %}}{script}{{% endraw %}}", 1) for name, source in sources.items()}
        pages.loader = ChoiceLoader([DictLoader(begun), pages.loader])


def waiting(demo: gr.Blocks) -> list[str]:
    """Paths of the uploads in requests that wait for their turn or are being answered."""
    return [path for event in list(demo._queue.event_ids_to_events.values()) if event.data for path in paths_in(event.data.data)]


def paths_in(value: Any) -> Iterator[str]:
    """Every ``path`` in what a request sends, however deep."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            if isinstance(found.get("path"), str):
                yield found["path"]
            left.extend(found.values())
        elif isinstance(found, list):
            left.extend(found)


def forget(demo: gr.Blocks, window: str | None = None) -> None:
    """Forgets what Gradio remembers of a window, or of uploads that are gone: it keeps their names for as long as the app runs."""
    if window is None:
        demo.upload_file_set.difference_update([name for name in demo.upload_file_set if not os.path.exists(name)])
    else:
        demo.app.state_holder.session_data.pop(window, None)


def log_out(app: Any, cookies: dict[str, str]) -> list[str]:
    """Ends the login that these cookies hold; returns their names."""
    names = [f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"]
    for name in names:
        app.tokens.pop(cookies.get(name), None)
    return names
