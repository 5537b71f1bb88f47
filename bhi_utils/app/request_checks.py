"""What every request meets before Gradio does: names, origins, frames, logins, the size of what is sent, and what is left of it.

Used by ``app.server`` only, as ASGI middleware. A refusal is one sentence in both languages, without headers that let other origins read
it.
"""

import asyncio
import ipaddress
import json
import re
import time
from collections import OrderedDict, deque
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from bhi_utils.app import gradio_guard
from bhi_utils.app.upload_store import Uploads
from bhi_utils.core.messages import LANGUAGES, text

HEALTH, UPLOAD = "/health", "/gradio_api/upload"
#: Gradio's ways of keeping a window's contents in files, which nothing here uses.
CLOSED = {"/gradio_api/deep_link", "/gradio_api/process_recording", "/gradio_api/component_server"}
#: Most bytes of a request that is no upload, and seconds of silence after which a connection counts as broken.
MOST_BODY, SILENCE = 4 << 20, 60
#: Where ``Door`` leaves the session that a request itself has named, for ``app.api``: Gradio invents one where there is none.
SESSION = "bhi_session"


class Brake:
    """Slows down those who try passwords. An attempt counts as wrong until it is known to be right, so that many at once gain nothing.

    An address that was wrong ``FREE`` times waits a minute, and after each further try twice as long, up to ``LONGEST`` seconds. When
    many addresses together were wrong ``MANY`` times within a minute, every login takes some seconds, the right ones too.
    """

    FREE, WAIT, LONGEST, MANY, DELAY, AT_ONCE, KNOWN = 5, 60, 900, 100, 2, 32, 4096

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._recent: deque[float] = deque(maxlen=self.MANY)
        self.delayed = 0

    def wait(self, address: str) -> float:
        """Seconds that an address has to wait; 0 lets it try, which counts as wrong until ``right`` is called."""
        now, (count, last) = time.monotonic(), self._wrong.get(address, (0, 0.0))
        if count and now - last > self.LONGEST:
            count = 0
        if count >= self.FREE and (left := last + min(self.WAIT * 2 ** min(count - self.FREE, 10), self.LONGEST) - now) > 0:
            return left
        self._wrong.pop(address, None)
        self._wrong[address] = (count + 1, now)
        self._recent.append(now)
        if len(self._wrong) > self.KNOWN:
            self._wrong.popitem(last=False)
        return 0

    def right(self, address: str) -> None:
        """The last try of this address was right."""
        self._wrong.pop(address, None)
        if self._recent:
            self._recent.pop()

    def slow(self) -> bool:
        """Whether there have been too many wrong tries of all addresses together."""
        return len(self._recent) == self.MANY and time.monotonic() - self._recent[0] < 60


class Door:
    """The middleware. ``hosts`` are the names that requests may use, ``frames`` the sources that may show the page."""

    def __init__(self, app: Any, *, hosts: set[str], trusted: set[str], frames: str, uploads: Uploads) -> None:
        self._app, self._hosts, self._trusted, self._uploads, self._brake = app, hosts, trusted, uploads, Brake()
        self._added = {"Content-Security-Policy": f"frame-ancestors {frames}", "X-Content-Type-Options": "nosniff"}
        if frames == "'none'":
            self._added["X-Frame-Options"] = "DENY"

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: dict) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._added)
            await send(message)

        path = scope["path"].rstrip("/") or "/"
        if path == HEALTH:  # asked by machines, under any name; it shows nothing
            await PlainTextResponse("ok")(scope, receive, marked)
        elif not self._welcome(Headers(scope=scope)):
            await _refusal("no_entry", 403)(scope, receive, marked)
        elif path in CLOSED:
            await PlainTextResponse("Not found", 404)(scope, receive, marked)
        elif path == "/logout":
            await self._logout(scope)(scope, receive, marked)
        else:
            await self._enter(path, self._proxied(scope), receive, marked)

    def _welcome(self, headers: Headers) -> bool:
        """Whether the request's names are the app's, and the page that sends it is the app's own."""
        hosts = headers.getlist("host") + [one for value in headers.getlist("x-forwarded-host") for one in value.split(",")]
        if not headers.get("host") or any(_host(one.strip()) not in self._hosts for one in hosts):
            return False
        origin = headers.get("origin")
        if origin is None:
            return True
        own = {headers["host"].lower()}
        return bool(re.match("https?://", origin)) and (origin.split("://")[1].lower() in own or _host(origin) in self._trusted)

    def _proxied(self, scope: dict) -> dict:
        """The request with the path under which a proxy shows the app, and without a header by which it could be shown another address."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"x-gradio-server"]
        prefix = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
        named = {"root_path": prefix} if re.fullmatch(r"(/[\w.~@%+-]+)+", prefix) else {}
        return {**scope, **named, "headers": headers}

    async def _enter(self, path: str, scope: dict, receive: Any, send: Any) -> None:
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
        elif path != "/login" and Headers(scope=scope).get("content-type", "").lower().startswith("multipart/"):
            if path == UPLOAD:
                await self._upload(scope, receive, send)
            else:
                await PlainTextResponse("Not found", 404)(scope, receive, send)
        elif (body := await _read(receive)) is None:
            await _refusal("too_long", 413)(scope, receive, send)
        else:
            await self._passed(path, scope, body, receive, send)

    async def _passed(self, path: str, scope: dict, body: bytes, receive: Any, send: Any) -> None:
        """Hand on a request that is no upload, once its session and files are known and a login may be tried."""
        messages = [{"type": "http.request", "body": body}]

        async def replayed() -> dict:
            return messages.pop() if messages else await receive()

        if path == "/login":
            await self._login(scope, replayed, send)
            return
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):  # Gradio says what is wrong with it
            said = {}
        if isinstance(said, dict):
            if (session := said.get("session_hash")) == "":  # which Gradio takes for a session that all share
                await _refusal("no_session", 400)(scope, receive, send)
                return
            scope[SESSION] = session if isinstance(session, str) else ""
            self._uploads.asked(gradio_guard.paths_in(said))
        await self._app(scope, replayed, send)

    async def _login(self, scope: dict, receive: Any, send: Any) -> None:
        address = _network((scope.get("client") or ("",))[0])
        left = self._brake.wait(address)
        if left or (self._brake.slow() and self._brake.delayed >= Brake.AT_ONCE):
            said = {language: text("too_many_tries", language, seconds=int(left or Brake.DELAY) + 1) for language in LANGUAGES}
            response = JSONResponse({"detail": " ".join(said.values())}, 429, {"Retry-After": str(int(left or Brake.DELAY) + 1)})
            await response(scope, receive, send)
            return
        if self._brake.slow():
            self._brake.delayed += 1
            try:
                await asyncio.sleep(Brake.DELAY)
            finally:
                self._brake.delayed -= 1

        async def heard(message: dict) -> None:
            if message.get("status") == 200:
                self._brake.right(address)
            await send(message)

        await self._app(scope, receive, heard)

    def _logout(self, scope: dict) -> Response:
        request = Request(scope)
        language = request.query_params.get("lang")
        response = RedirectResponse(f"./?lang={language}" if language in LANGUAGES else "./", 303)
        for name in gradio_guard.log_out(scope["app"], request.cookies):
            response.delete_cookie(name)
        return response

    async def _upload(self, scope: dict, receive: Any, send: Any) -> None:
        """Hand on an upload; nothing of it stays unless it is complete and was accepted."""
        files: list[gradio_guard.Unguessable] = []
        status, size, room = 0, 0, self._uploads.arriving(0)

        async def watched() -> dict:
            nonlocal size, room
            message = await _within(receive)
            size += (more := len(message.get("body", b"")))
            room = self._uploads.arriving(more) and room
            return message if room else {"type": "http.disconnect"}

        async def heard(message: dict) -> None:
            nonlocal status
            if (status := message.get("status", status)) == 200 and "status" in message:
                for file in files:  # before the client hears of them and asks
                    self._uploads.arrived(file.folder(self._uploads.root), file.size or 0)
            await send(message)

        token = gradio_guard.ARRIVING.set(files)
        try:
            await self._app(scope, watched, heard)
        except ClientDisconnect:
            pass
        finally:
            gradio_guard.ARRIVING.reset(token)
            for file in files if status != 200 else ():
                self._uploads.discard(file.folder(self._uploads.root))
                file.discard()
            self._uploads.arriving(-size)
        if not room:
            for _ in range(1 << 16):  # who is still sending would not hear the answer
                if not (await _within(receive)).get("more_body"):
                    break
            await _refusal("no_room", 413)(scope, receive, send)


def _host(value: str) -> str:
    """The host in a Host or Origin header, without its port; empty for what is none."""
    try:
        return (urlsplit(value if "://" in value else f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _network(address: str) -> str:
    """What counts as one address: whoever has one of IPv6 has 2⁶⁴ of them."""
    try:
        return str(ipaddress.ip_network(f"{address}/64", strict=False)) if ":" in address else address
    except ValueError:
        return address


async def _within(receive: Any) -> dict:
    """The next message, or that the connection is broken, when none comes for too long."""
    try:
        return await asyncio.wait_for(receive(), SILENCE)
    except TimeoutError:
        return {"type": "http.disconnect"}


async def _read(receive: Any) -> bytes | None:
    """A whole body; None when it is too long or breaks off."""
    body = b""
    while True:
        message = await _within(receive)
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or len(body) > MOST_BODY:
            return None
        if not message.get("more_body"):
            return body


async def malformed(*_: Any) -> Response:
    """The answer to a body that FastAPI cannot take; its own repeats that body, and fails where a number in it is not finite."""
    return JSONResponse({"detail": " ".join(text("malformed", language) for language in LANGUAGES)}, 422)


def _refusal(key: str, status: int) -> Response:
    return PlainTextResponse("\n".join(text(key, language) for language in LANGUAGES), status)
