"""Everything of Gradio's inside that the interface leans on or exchanges, with a check that it is there. Used by the interface only.

Gradio has no setting for these: fetching addresses, naming uploads after their content, answering other origins, reading what a program
sends, and telling which requests still wait. A test of each fails if a later version stops using the names; a version without them is
refused at the start.
"""

import os
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils, queueing, route_utils, routes
from gradio.state_holder import StateHolder

from bhi_utils.core.paths import InputError

#: The versions with which this was tested, as pip writes them.
TESTED = ">=6.31,<6.32"
#: The files of the upload that is being read; its list is set by ``app.request_checks``.
ARRIVING: ContextVar[list["Unguessable"]] = ContextVar("arriving")


class Unguessable(getattr(route_utils, "GradioUploadFile", object)):
    """An uploaded file whose digest, and with it the name of its folder, depends on chance as well as on its content.

    By content alone, two windows that send the same patch would share one file, and whoever has a picture could ask whether it was sent.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.sha.update(secrets.token_bytes(32))
        ARRIVING.get([]).append(self)

    def folder(self, root: Path) -> Path:
        """Where it lies when it is complete."""
        return root / self.sha.hexdigest()

    def discard(self) -> None:
        """Delete it, unless it has been moved to its folder already."""
        self.file.close()
        Path(self.file.name).unlink(missing_ok=True)


async def refuse(*_: Any, **__: Any) -> str:
    """What takes the place of a download: a program may send an address instead of a file, and Gradio would fetch it."""
    raise gr.Error("Send the file itself: nothing is fetched from another host.", print_exception=False)


class NoOrigins:
    """Replaces Gradio's CORS headers, which it gives to every origin; ``app.request_checks`` refuses all but the app's own."""

    def __init__(self, app: Any, **_: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def install() -> None:
    """Exchange them, for all pages of this process; before the first is built, which leans on some already.

    Raises:
        InputError: this version of Gradio lacks a name that is leaned on.
    """
    wanted = [(route_utils, "GradioUploadFile"), (processing_utils, "async_ssrf_protected_download"), (routes, "CustomCORSMiddleware")]
    wanted += [(gr.Blocks, "preprocess_data")]
    lacking = [name for holder, name in wanted if not hasattr(holder, name)]
    # what only their instances have, and making one would open an event loop
    made = {routes.App: {"tokens", "cookie_id", "state_holder"}, StateHolder: {"session_data"}, queueing.Event: {"data"}}
    made |= {gr.Blocks: {"upload_file_set"}, queueing.Queue: {"event_ids_to_events"}}
    for kind, names in made.items():
        lacking += [f"{kind.__name__}.{name}" for name in sorted(names - set(kind.__init__.__code__.co_names))]
    if "_queue" not in gr.Blocks.queue.__code__.co_names:
        lacking.append("Blocks._queue")
    if lacking:
        raise InputError(
            f"Gradio {gr.__version__} lacks {', '.join(lacking)}, on which the app leans: install one that was tested, "
            f"with pip install 'gradio{TESTED}'."
        )
    route_utils.GradioUploadFile = Unguessable
    processing_utils.async_ssrf_protected_download = refuse
    routes.CustomCORSMiddleware = NoOrigins


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
    """Forget what Gradio remembers of a window, or of uploads that are gone: it keeps their names for as long as the app runs."""
    if window is None:
        demo.upload_file_set.difference_update([name for name in demo.upload_file_set if not os.path.exists(name)])
    else:
        demo.app.state_holder.session_data.pop(window, None)


def log_out(app: Any, cookies: dict[str, str]) -> list[str]:
    """End the login that these cookies hold; their names."""
    names = [f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"]
    for name in names:
        app.tokens.pop(cookies.get(name), None)
    return names


class Early:
    """Puts a script at the very start of the page: Gradio runs its own ``head`` after it has chosen the language."""

    def __init__(self, app: Any, script: str) -> None:
        self._app, self._script = app, script.encode()

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        start, body = {}, b""

        async def gather(message: dict) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                whole = body.replace(b"<head>", b"<head>" + self._script, 1)
                kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
                await send({**start, "headers": [*kept, (b"content-length", str(len(whole)).encode())]})
                await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, gather)
