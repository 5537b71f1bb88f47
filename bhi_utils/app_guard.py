"""Two of Gradio's habits that the interface does without: fetching addresses, and naming uploads after their content. Used by ``app`` only.

Gradio has no setting for either, so its own functions are exchanged; a test of each fails if a later version stops calling them.
"""

import secrets
from typing import Any

import gradio as gr
from gradio import processing_utils, route_utils


class Unguessable(route_utils.GradioUploadFile):
    """An uploaded file whose digest, and with it the name of its folder, depends on chance as well as on its content.

    By content alone, two windows that send the same patch would share one file, and whoever has a picture could ask whether it was sent.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.sha.update(secrets.token_bytes(32))


async def refuse(*_: Any, **__: Any) -> str:
    """What takes the place of a download: a program may send an address instead of a file, and Gradio would fetch it."""
    raise gr.Error("Send the file itself: nothing is fetched from another host.", print_exception=False)


def install() -> None:
    """Exchange both, for all pages of this process."""
    route_utils.GradioUploadFile = Unguessable
    processing_utils.async_ssrf_protected_download = refuse


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
