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
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bhi_utils.app import gradio_guard
from bhi_utils.app.start_options import host_of
from bhi_utils.app.upload_store import Uploads
from bhi_utils.core.messages import LANGUAGES, text

HEALTH, UPLOAD, LOGIN = "/health", "/gradio_api/upload", "/login"
#: Gradio's ways of keeping a window's contents in files, which nothing here uses.
CLOSED = {"/gradio_api/deep_link", "/gradio_api/process_recording", "/gradio_api/component_server"}
#: Most bytes of a request that is no upload, and seconds of silence after which a connection counts as broken.
MOST_BODY, SILENCE = 4 << 20, 60
#: Where ``Door`` leaves the session that a request itself has named, for ``app.api``: Gradio invents one where there is none.
SESSION = "bhi_session"
_BROKEN: Message = {"type": "http.disconnect"}


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
        if now - last > self.LONGEST:
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

    def __init__(self, app: ASGIApp, *, hosts: set[str], trusted: set[str], frames: str, uploads: Uploads) -> None:
        self._app, self._hosts, self._trusted, self._uploads, self._brake = app, hosts, trusted, uploads, Brake()
        self._added = {"Content-Security-Policy": f"frame-ancestors {frames}", "X-Content-Type-Options": "nosniff"}
        if frames == "'none'":
            self._added["X-Frame-Options"] = "DENY"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._added)
            await send(message)

        answer = self._answer(scope) if scope["type"] == "http" else self._app
        await answer(scope, receive, marked)

    def _answer(self, scope: Scope) -> ASGIApp:
        """Who answers a request, by what its head says."""
        path, headers = _path(scope), Headers(scope=scope)
        if path == HEALTH:  # asked by machines, under any name; it shows nothing
            return PlainTextResponse("ok")
        if not self._welcome(headers):
            return _refusal("no_entry", 403)
        form = scope["method"] not in ("GET", "HEAD", "OPTIONS") and headers.get("content-type", "").lower().startswith("multipart/")
        if path in CLOSED or (form and path not in (UPLOAD, LOGIN, "/logout")):
            return PlainTextResponse("Not found", 404)
        if path == "/logout":
            return self._logout(scope)
        # a proxy says under which path it shows the app; with the other header, the app could be shown another address
        prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
        if re.fullmatch(r"(/[\w.~@%+-]+)+", prefix):
            scope["root_path"] = prefix
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-gradio-server"]
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return self._app
        return self._upload if form and path == UPLOAD else self._read

    def _welcome(self, headers: Headers) -> bool:
        """Whether the request's names are the app's, and the page that sends it is the app's own or a trusted one."""
        hosts = headers.getlist("host") + [one for value in headers.getlist("x-forwarded-host") for one in value.split(",")]
        if not headers.get("host") or any(host_of(one.strip()) not in self._hosts for one in hosts):
            return False
        scheme, _, origin = headers.get("origin", f"http://{headers['host']}").partition("://")
        return scheme in ("http", "https") and (origin.lower() == headers["host"].lower() or host_of(origin) in self._trusted)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on a request that is no upload, once all of it is there."""
        body, more = b"", True
        while more:
            message = await _within(receive)
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if message["type"] == "http.disconnect" or len(body) > MOST_BODY:
                await _refusal("too_long", 413)(scope, receive, send)
                return
        messages: list[Message] = [{"type": "http.request", "body": body}]

        async def replayed() -> Message:
            return messages.pop() if messages else await receive()

        answer = self._login if _path(scope) == LOGIN else self._known(scope, body)
        await answer(scope, replayed, send)

    def _known(self, scope: Scope, body: bytes) -> ASGIApp:
        """Who answers a request for an answer, once its session and files are noted."""
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):  # Gradio says what is wrong with it
            return self._app
        if isinstance(said, dict):
            if (session := said.get("session_hash")) == "":  # which Gradio takes for a session that all share
                return _refusal("no_session", 400)
            scope[SESSION] = session if isinstance(session, str) else ""
            self._uploads.asked(gradio_guard.paths_in(said))
        return self._app

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on a login, unless its address or all together have tried too often."""
        brake, address = self._brake, _network((scope.get("client") or ("",))[0])
        left = brake.wait(address)
        if left or (brake.slow() and brake.delayed >= Brake.AT_ONCE):
            seconds = int(left or Brake.DELAY) + 1
            said = " ".join(text("too_many_tries", language, seconds=seconds) for language in LANGUAGES)
            await JSONResponse({"detail": said}, 429, {"Retry-After": str(seconds)})(scope, receive, send)
            return
        if brake.slow():
            brake.delayed += 1
            try:
                await asyncio.sleep(Brake.DELAY)
            finally:
                brake.delayed -= 1

        async def heard(message: Message) -> None:
            if message.get("status") == 200:
                brake.right(address)
            await send(message)

        await self._app(scope, receive, heard)

    def _logout(self, scope: Scope) -> Response:
        request = Request(scope)
        language = request.query_params.get("lang")
        response = RedirectResponse(f"./?lang={language}" if language in LANGUAGES else "./", 303)
        for name in gradio_guard.log_out(scope["app"], request.cookies):
            response.delete_cookie(name)
        return response

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on an upload; nothing of it stays unless it is complete and was accepted."""
        files: list[gradio_guard.Unguessable] = []
        status, size, room = 0, 0, self._uploads.arriving(0)

        async def watched() -> Message:
            nonlocal size, room
            message = await _within(receive)
            size += (more := len(message.get("body", b"")))
            room = self._uploads.arriving(more) and room
            return message if room else _BROKEN

        async def heard(message: Message) -> None:
            nonlocal status
            if (status := message.get("status", status)) == 200 and "status" in message:
                for file in files:  # before the client hears of them and asks
                    self._uploads.arrived(self._uploads.root / file.sha.hexdigest(), file.size or 0)
            await send(message)

        token = gradio_guard.ARRIVING.set(files)
        try:
            await self._app(scope, watched, heard)
        except ClientDisconnect:
            pass
        finally:
            gradio_guard.ARRIVING.reset(token)
            for file in files if status != 200 else ():
                self._uploads.discard(self._uploads.root / file.sha.hexdigest())
                file.file.close()
                Path(file.file.name).unlink(missing_ok=True)
            self._uploads.arriving(-size)
        if not room:
            for _ in range(1 << 16):  # who is still sending would not hear the answer
                if not (await _within(receive)).get("more_body"):
                    break
            await _refusal("no_room", 413)(scope, receive, send)


def _path(scope: Scope) -> str:
    return scope["path"].rstrip("/") or "/"


def _network(address: str) -> str:
    """What counts as one address: whoever has one of IPv6 has 2⁶⁴ of them."""
    try:
        return str(ipaddress.ip_network(f"{address}/64", strict=False)) if ":" in address else address
    except ValueError:
        return address


async def _within(receive: Receive) -> Message:
    """The next message, or that the connection is broken, when none comes for too long."""
    try:
        return await asyncio.wait_for(receive(), SILENCE)
    except TimeoutError:
        return _BROKEN


async def malformed(*_: object) -> Response:
    """The answer to a body that FastAPI cannot take; its own repeats that body, and fails where a number in it is not finite."""
    return JSONResponse({"detail": " ".join(text("malformed", language) for language in LANGUAGES)}, 422)


def _refusal(key: str, status: int) -> Response:
    return PlainTextResponse("\n".join(text(key, language) for language in LANGUAGES), status)
