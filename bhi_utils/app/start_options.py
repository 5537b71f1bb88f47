"""What the interface is started with, checked before anything is loaded: address, port, certificate, password, names that it answers to.

Used by ``bhi app`` and ``app.server``. It imports nothing that takes time, so that a mistake is told at once.
"""

import errno
import ipaddress
import os
import signal
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from bhi_utils.core.paths import InputError, shown

PORT = 7860
USER, PASSWORD, NO_PASSWORD = "BHI_USER", "BHI_PASSWORD", "BHI_NO_PASSWORD"
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_HINT = "give 127.0.0.1, or 0.0.0.0 for every network"


@dataclass(frozen=True)
class Start:
    """What the interface is started with.

    Attributes:
        host: address to listen on; the default is reached from this machine only.
        port: its port; 0 takes a free one.
        share: whether Gradio's servers make it public, for which it asks another host.
        certfile: a certificate chain (PEM), with which the page is served over https.
        keyfile: its private key (PEM), unless the certificate's file holds it.
        allowed_hosts: further names, each perhaps with a port, that requests may name as host or origin, and whose pages may show this one.
        frames: further sources, in the words of CSP, whose pages may show this one.
        no_password: whether anybody may use what is open beyond this machine.
        auth: user and password, which `check` takes from the environment.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    share: bool = False
    certfile: Path | None = None
    keyfile: Path | None = None
    allowed_hosts: Sequence[str] = ()
    frames: Sequence[str] = ()
    no_password: bool = False
    auth: tuple[str, str] | None = None

    @property
    def everywhere(self) -> bool:
        """Whether it listens on all addresses of this machine."""
        return self.host in ("0.0.0.0", "::")

    def names(self) -> set[str]:
        """The hosts that requests may name, in lower case, without ports."""
        found = self.trusted() | {self.host.lower()}
        if self.everywhere:
            found |= _LOCAL | {socket.gethostname().lower(), socket.getfqdn().lower()} | set(_addresses())
        return found | _LOCAL if _is_local(self.host) else found

    def trusted(self) -> set[str]:
        """The hosts whose pages may send requests, apart from the app's own page."""
        return {host_of(one) for one in self.allowed_hosts}

    def frame_ancestors(self) -> str:
        """Who may show the page inside of its own, as a Content-Security-Policy says it."""
        named = [f"{scheme}://{one}" for one in self.allowed_hosts for scheme in ("https", "http")]
        return " ".join([*self.frames, *named]) or "'none'"

    def address(self) -> str:
        """The host that others can open, in the form of an address."""
        host = (_outward() or "localhost") if self.everywhere else self.host
        return f"[{host}]" if ":" in host else host


def check(**asked: Any) -> Start:
    """What was asked for, once everything is checked that can be checked before the model is loaded.

    Args:
        asked: the attributes of `Start`, without ``auth``.

    Raises:
        InputError: something of this cannot be, or the app would be open to others without a password and without ``no_password``.
    """
    start = Start(**asked)
    host = start.host.strip("[] ")
    if not host:
        raise InputError(f"--host is empty: {_HINT}.")
    free = _free_port(host)
    auth = _auth("--share" if start.share else "" if _is_local(host) else f"--host {host}", start.no_password)
    port = _find_port(host, start.port, free)
    _check_certificate(start.certfile, start.keyfile)
    for name in start.allowed_hosts:
        if not is_host(name):
            raise InputError(f"--allowed-host {name!r} is no name of a host: give one such as app.example.org or app.example.org:8000.")
    return replace(start, host=host, port=port, auth=auth)


def why(error: OSError, start: Start) -> InputError:
    """The sentence for an error while the app started: its cause, where it is known, else the system's words."""
    try:
        _find_port(start.host, start.port, _free_port(start.host))
    except InputError as found:
        return found
    if error.errno == errno.ENOSPC:
        return InputError(f"The disk is full{f' at {error.filename}' if error.filename else ''}: free some space and start again.")
    return InputError(f"The app could not be started: {error.strerror or error}{f' {error.filename}' if error.filename else ''}.")


def is_host(name: str) -> bool:
    """Whether it is a host's name, perhaps with a port, and nothing more."""
    return bool(host_of(name)) and not set(name) & set("/*;, \t'\"")


def stop_by_signal() -> None:
    """Has SIGTERM end this process as Ctrl+C does: by itself, Python would leave folders and processes behind."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def host_of(name: str) -> str:
    """The host without its port, in lower case; empty for what is none.

    >>> host_of("App.example.org:8000"), host_of("[::1]:7860"), host_of("[x")
    ('app.example.org', '::1', '')
    """
    try:
        return (urlsplit(f"//{name}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _addresses() -> list[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    found = [one.address.split("%")[0] for each in psutil.net_if_addrs().values() for one in each if one.family in families]
    return [one for one in found if one not in _LOCAL]


def _outward() -> str:
    """The address by which this machine reaches others, or its first one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of no machine; a datagram socket sends nothing yet
            return probe.getsockname()[0]
        except OSError:
            return next((one for one in _addresses() if ":" not in one), "")


def _auth(beyond: str, no_password: bool) -> tuple[str, str] | None:
    """User and password, None without them. ``beyond`` names the option that opens the app to others, if one does."""
    said = os.environ.get(NO_PASSWORD, "")
    if said not in ("", "0", "1"):
        raise InputError(f"{NO_PASSWORD} is {said!r}: set it to 1 to let anybody in, or leave it out.")
    anybody = no_password or said == "1"
    if USER not in os.environ and PASSWORD not in os.environ:
        if beyond and not anybody:
            raise InputError(
                f"{beyond} opens the app beyond this machine: set {USER} and {PASSWORD}, or say --no-password "
                f"(or {NO_PASSWORD}=1) to let anybody in."
            )
        return None
    user, password = os.environ.get(USER, "").strip(), os.environ.get(PASSWORD, "")
    if not user or not password:
        raise InputError(f"{USER} and {PASSWORD} belong together: set both, neither of them empty, or leave both out.")
    if anybody:
        raise InputError(f"A password and no password were asked for: leave out {USER} and {PASSWORD}, or --no-password and {NO_PASSWORD}.")
    return user, password


def _check_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    if certfile is None:
        if keyfile is not None:
            raise InputError("--keyfile is the key of a certificate: pass --certfile as well.")
        return

    def locked() -> str:
        raise InputError("The certificate's key is locked by a passphrase: pass a --keyfile without one.")

    path = certfile
    try:
        for path in filter(None, (certfile, keyfile)):
            path.read_bytes()  # load_cert_chain does not say which of the two it cannot read
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password=locked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InputError(
                f"{shown(keyfile or certfile)} is not the key of {shown(certfile)}: pass the two that belong together."
            ) from error
        named = shown(certfile) + (f" and {shown(keyfile)}" if keyfile else "")
        raise InputError(f"No certificate and key can be read from {named}: pass PEM files with --certfile and --keyfile.") from error
    except OSError as error:
        raise InputError(f"Cannot read {shown(path)}: {error.strerror or error}.") from error


def _bind(host: str, port: int) -> int:
    """Listens for a moment, and returns the port's number. OSError when it is taken."""
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.create_server(where, family=family, backlog=1) as probe:
        return probe.getsockname()[1]


def _free_port(host: str) -> int:
    """A port of this address at which nobody listens."""
    try:
        return _bind(host, 0)
    except (socket.gaierror, UnicodeError) as error:
        raise InputError(f"{host} is no address, and no name that this machine knows: {_HINT}.") from error
    except OSError as error:
        raise InputError(f"{host} is no address of this machine ({os.strerror(error.errno or 0)}): {_HINT}.") from error


def _find_port(host: str, port: int, free: int) -> int:
    """``port`` itself when nobody listens there, or the ``free`` one for 0."""
    if not 0 <= port <= 65535:
        raise InputError(f"{port} is no port: give a number from 1024 to 65535, or 0 for any free one.")
    try:
        return _bind(host, port) if port else free
    except PermissionError as error:
        raise InputError(f"Port {port} needs an administrator: give one from 1024 up, such as {PORT}.") from error
    except OSError as error:
        taken = error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", None))
        what = "is taken by another program" if taken else f"cannot be used ({os.strerror(error.errno or 0)})"
        raise InputError(f"Port {port} {what}: try {free}, or 0 for any free one.") from error
