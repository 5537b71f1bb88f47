"""What the app refuses before it answers, and what it leaves behind: names, origins, frames, logins, sessions, uploads. Real HTTP."""

import http.client
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client, handle_file

from bhi_utils.app import gradio_guard, request_checks, server, start_options, upload_store
from bhi_utils.core.messages import text
from bhi_utils.core.paths import InputError


class Site:
    """A served page, asked without the help of a client."""

    def __init__(self, url: str) -> None:
        self.url, self.parts = url, urllib.parse.urlsplit(url)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers in lower case, and text."""
        connection = http.client.HTTPConnection(self.parts.hostname, self.parts.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def say(self, path: str, value: Any, **headers: str) -> tuple[int, dict[str, str], str]:
        return self.ask("POST", f"/gradio_api{path}", json.dumps(value).encode(), **{"Content-Type": "application/json", **headers})

    def upload(self, content: bytes, *, name: str = "a.png", **headers: str) -> tuple[int, dict[str, str], str]:
        return self.ask("POST", "/gradio_api/upload", parted(content, name), **{"Content-Type": PARTED, **headers})

    def file(self, path: Path) -> dict:
        """A file as a request names it, once it is uploaded."""
        return {"path": json.loads(self.upload(path.read_bytes())[2])[0], "meta": {"_type": "gradio.FileData"}}

    def login(self, user: str, password: str, **headers: str) -> tuple[int, dict[str, str], str]:
        body = urllib.parse.urlencode({"username": user, "password": password}).encode()
        return self.ask("POST", "/login", body, **{"Content-Type": "application/x-www-form-urlencoded", **headers})


PARTED = "multipart/form-data; boundary=xxxxxxxxxx"


def parted(content: bytes, name: str) -> bytes:
    head = f'--xxxxxxxxxx\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--xxxxxxxxxx--\r\n"


#: Several sites in one process, for the time that loading takes; what is waited for is shortened. It is asked by lines what it keeps.
SITES = """
import json, os, sys
from pathlib import Path
import gradio
from bhi_utils.app import server, request_checks, upload_store
from bhi_utils.model import predictor

bundle, certfile, keyfile = sys.argv[1:]
server.SWEEP, upload_store.ASKED, upload_store.UNASKED, request_checks.SILENCE, request_checks.Brake.DELAY = 0.2, 1, 6, 3, 0.2
gradio.close_all = lambda **_: None
model, kept, urls = predictor.Predictor.load(bundle), {}, {}
options = dict.fromkeys(("plain", "small", "secured", "flooded"), {})
options["proxied"] = {"allowed_hosts": ["hub.example.org:8000"], "frames": ["'self'"]}
if certfile:
    options["https"] = {"certfile": Path(certfile), "keyfile": Path(keyfile)}
for name, given in options.items():
    upload_store.MOST_DISK = 50_000 if name == "small" else 4 << 30
    for variable, value in (("BHI_USER", "me"), ("BHI_PASSWORD", "secret")):
        os.environ.pop(variable, None)
        if name in ("secured", "flooded"):
            os.environ[variable] = value
    kept[name] = upload_store.Kept()
    server.Kept = lambda: kept[name]
    urls[name], _ = server.launch(model, port=0, **given)
print("urls", json.dumps(urls), flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def sites(bundle, tmp_path_factory) -> Iterator[dict[str, Site]]:
    root = tmp_path_factory.mktemp("sites")
    certfile, keyfile = certificate(root, "mine") or ("", "")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BHI_")}
    environment |= {"BHI_CACHE": str(root / "cache"), "GRADIO_TEMP_DIR": str(root / "uploads")}
    command = [sys.executable, "-c", SITES, str(bundle), str(certfile), str(keyfile)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with subprocess.Popen(command, env=environment, **pipes) as server:
        said = next(filter(lambda line: line.startswith("urls "), server.stdout))
        found = {name: Site(url) for name, url in json.loads(said.removeprefix("urls ")).items()}
        for site in found.values():
            site.folder, site.certfile = root / "uploads", certfile

        def ask(code: str) -> str:
            server.stdin.write(code + "\n")
            server.stdin.flush()
            said = "".join(itertools.takewhile(lambda line: line != "done\n", server.stdout))
            assert server.poll() is None, said
            return said.strip()

        found["plain"].inside = ask
        yield found
        server.terminate()


@pytest.fixture
def site(sites) -> Site:
    return sites["plain"]


@pytest.fixture
def secured(sites) -> Site:
    return sites["secured"]


def files(folder: Path) -> list[Path]:
    """What uploads have left; Gradio makes one empty folder beside them."""
    found = [Path(root, name) for root, folders, names in os.walk(folder) for name in (*folders, *names)]
    return [path for path in found if path.name != "vibe_edit_history"]


def becomes(true: Callable[[], bool]) -> bool:
    """Whether something comes true; how long it takes is not what is tested."""
    for _ in range(300):
        if true():
            return True
        time.sleep(0.1)
    return False


# ---- sessions


#: Ways to ask, and sessions that are none. Each way and each session is asked once in the quick part, all pairs in the slow one.
WAYS, NONE = ("run", "api", "call", "queue"), ({}, {"session_hash": None}, {"session_hash": ""})
QUICK = {("run", 0), ("api", 1), ("call", 2), ("queue", 0)}


@pytest.mark.parametrize(
    ("way", "session"),
    [
        pytest.param(way, session, id=f"{way}-{number}", marks=[] if (way, number) in QUICK else pytest.mark.slow)
        for way in WAYS
        for number, session in enumerate(NONE)
    ],
)
def test_nothing_is_remembered_for_a_request_without_a_session(site, region_file, way, session):
    config = json.loads(site.ask("GET", "/config")[2])
    kinds = {one["id"]: one["type"] for one in config["components"]}
    refused = 0
    for function in config["dependencies"]:
        if not function["backend_fn"] or function["cancels"]:
            continue
        data = []
        for one in function["inputs"]:
            data.append({"file": lambda: site.file(region_file), "textbox": lambda: "en"}.get(kinds[one], lambda: 10)())
        sent = {"data": data, "fn_index": function["id"], "event_data": {"x": 10, "y": 10, "index": 0}, **session}
        if way == "queue":
            status, _, said = site.say("/queue/join", sent)
            refused += status == 400 and "ession" in said
        elif way == "call":
            if function["api_name"] in ("region", "threshold", "place"):
                said = site.say(f"/call/{function['api_name']}", {"data": data, **session})[2]
                if event := json.loads(said).get("event_id") if said.startswith("{") else "":
                    said = site.ask("GET", f"/gradio_api/call/{function['api_name']}/{event}")[2]
                refused += "session_hash" in said
        else:
            refused += "session_hash" in site.say(f"/{way}/{function['api_name']}", sent)[2]
    assert refused >= 3 and site.inside("print(len(kept['plain']))") == "0"
    assert becomes(lambda: not files(site.folder))


def test_a_region_is_its_sessions_own_and_ends_with_its_window(site, region_file):
    asked = {"data": [site.file(region_file), "en"], "session_hash": "one-that-is-mine"}
    found = json.loads(site.say("/run/region", asked)[2])["data"][0]
    assert found["problem"] == "" and site.inside("print(len(kept['plain']))") == "1"
    where = [found["table"]["x"][0] + 1, found["table"]["y"][0] + 1, "en"]
    for session, problem in (("one-that-is-mine", ""), ("another", text("no_region", "en"))):
        said = site.say("/run/place", {"data": where, "session_hash": session})[2]
        assert json.loads(said)["data"][0]["problem"] == problem
    with socket.create_connection((site.parts.hostname, site.parts.port)) as window:
        window.sendall(b"GET /gradio_api/heartbeat/one-that-is-mine HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in window.recv(1000)
    assert becomes(lambda: site.inside("print(len(kept['plain']))") == "0")


def test_the_bound_on_memory_is_kept_and_a_region_that_nobody_looks_at_goes_by_itself(site, region_file):
    for window in range(4):
        site.inside(f"kept['plain']._most = {1 if window == 2 else 1 << 30}")
        assert site.say("/run/region", {"data": [site.file(region_file), "en"], "session_hash": f"window-{window}"})[0] == 200
    assert site.inside("print(*kept['plain']._found)") == "window-2 window-3", "the third had the memory for itself"
    site.inside("kept['plain']._longest = 0.1")
    assert becomes(lambda: site.inside("print(len(kept['plain']))") == "0"), "without anybody asking for anything"
    site.inside("kept['plain']._longest = 1800")


# ---- uploads


def test_what_comes_of_an_upload_that_fails_or_breaks_off_is_gone(site):
    assert site.upload(bytes(1000), name="..")[0] == 400 and becomes(lambda: not files(site.folder))
    two = parted(bytes(1000), "good.png").replace(b"--xxxxxxxxxx--\r\n", b"") + parted(bytes(1000), "..")
    assert site.ask("POST", "/gradio_api/upload", two, Content_Type=PARTED)[0] == 400
    assert becomes(lambda: not files(site.folder))
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PARTED}\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((site.parts.hostname, site.parts.port)) as broken:
        broken.sendall(head.encode() + parted(bytes(4_000_000), "a.png")[:3_000_000])
        assert becomes(lambda: bool(files(site.folder)))
    assert becomes(lambda: not files(site.folder))
    for path in ("component_server", "process_recording"):
        assert site.ask("POST", f"/gradio_api/{path}", parted(bytes(1000), "a.png"), Content_Type=PARTED)[0] == 404


def test_a_connection_that_falls_silent_counts_as_broken(site):
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PARTED}\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((site.parts.hostname, site.parts.port)) as silent:
        silent.sendall(head.encode() + parted(bytes(1_000_000), "a.png")[:500_000])
        assert becomes(lambda: bool(files(site.folder)))
        assert becomes(lambda: not files(site.folder))


def test_an_upload_goes_with_its_answer_with_its_failure_and_when_nobody_asks(site, patch_file):
    for path, data in (("/run/predict", []), ("/run/predict", [1, 2, 3]), ("/call/nothing", []), ("/queue/join", [])):
        file = site.file(patch_file)
        assert site.say(path, {"data": [*data, file], "session_hash": "x", "fn_index": 999})[0] >= 400 and Path(file["path"]).exists()
        assert becomes(lambda: not files(site.folder)), path
    asked = site.file(patch_file)
    assert json.loads(site.say("/run/predict", {"data": [asked, "en"]})[2])["data"][0]["problem"] == ""
    assert not Path(asked["path"]).parent.exists()
    assert site.file(patch_file) and becomes(lambda: not files(site.folder)), "never asked about"


def test_a_file_that_waits_for_its_turn_stays_and_goes_when_its_window_closes(tmp_path, monkeypatch):
    monkeypatch.setattr(upload_store, "ASKED", 0)
    uploads = upload_store.Uploads(tmp_path)
    path = tmp_path / "x" / "a.png"
    path.parent.mkdir()
    path.touch()
    uploads.arrived(path.parent, 1)
    uploads.asked([str(path)])
    with uploads.taken([{"path": str(path)}]) as used:
        uploads.sweep()
        assert used == [path] and path.exists(), "being read"
        uploads.sweep([str(path)])
        assert path.exists()
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    uploads.arrived(path.parent, 1)
    monkeypatch.setattr(upload_store, "ASKED", 60)
    uploads.sweep([str(path)])
    uploads.sweep()
    assert path.exists(), "it waits, or did a moment ago"
    monkeypatch.setattr(upload_store, "ASKED", -1)
    uploads.asked([str(path)])
    uploads.sweep()
    assert not path.exists()


def test_the_disk_is_bounded_and_there_is_room_again_after_an_answer(sites, patch_file):
    site = sites["small"]
    first = site.file(patch_file)
    status, _, said = site.upload(bytes(60_000))
    assert status == 413 and text("no_room", "en") in said and text("no_room", "es") in said
    assert becomes(lambda: [path for path in files(site.folder) if path.is_file()] == [Path(first["path"])])
    assert site.upload(bytes(30_000))[0] == 200 and site.upload(bytes(30_000))[0] == 413
    assert site.say("/run/predict", {"data": [first, "en"]})[0] == 200
    status, _, said = site.ask("POST", "/gradio_api/run/card", bytes(request_checks.MOST_BODY + 1), Content_Type="application/json")
    assert status == 413 and text("too_long", "es") in said


def test_nothing_is_written_for_a_link_to_a_windows_contents(site):
    site.say("/run/card", {"data": ["en"], "session_hash": "mine"})
    assert site.ask("GET", "/gradio_api/deep_link?session_hash=mine")[0] == 404 and not (site.folder / "deep_links").exists()


# ---- names, origins and frames


def test_only_its_own_names_and_origins_are_answered(url, patch_file):
    site = Site(url)
    own, other = f"{site.parts.hostname}:{site.parts.port}", "evil.example.org"
    paths = ("/", "/config", "/gradio_api/info", "/gradio_api/heartbeat/x", "/nothing")
    for headers in (
        {"Host": other},
        {"Host": f"{other}:80"},
        {"Origin": f"http://{other}"},
        {"Origin": "null"},
        {"X-Forwarded-Host": other},
    ):
        for path in paths:
            status, sent, said = site.ask("GET", path, **headers)
            assert status == 403 and text("no_entry", "en") in said and text("no_entry", "es") in said
            assert not [name for name in sent if name.startswith("access-control")]
        assert site.say("/run/cases", {"data": []}, **headers)[0] == 403
        assert site.upload(patch_file.read_bytes(), **headers)[0] == 403
        assert site.ask("OPTIONS", "/gradio_api/run/cases", Access_Control_Request_Method="POST", **headers)[0] == 403
    # another program's page on this machine is another origin too
    assert site.say("/run/cases", {"data": []}, Origin="http://127.0.0.1:1")[0] == 403
    for headers in ({}, {"Origin": f"http://{own}"}, {"Host": f"localhost:{site.parts.port}"}, {"Host": "[::1]"}):
        status, sent, _ = site.say("/run/cases", {"data": []}, **headers)
        assert status == 200 and not [name for name in sent if name.startswith("access-control")]


def test_nobody_may_show_the_page_in_a_frame(url):
    for path in ("/", "/config", "/health", "/nothing"):
        _, sent, _ = Site(url).ask("GET", path)
        assert sent["content-security-policy"] == "frame-ancestors 'none'" and sent["x-frame-options"] == "DENY"


def test_a_proxy_that_was_named_is_let_in_with_its_path_and_may_show_the_page(sites, patch_file):
    site = sites["proxied"]
    for headers in ({"Host": "hub.example.org"}, {"X-Forwarded-Host": "hub.example.org:8000"}):
        headers |= {"X-Forwarded-Prefix": "/user/me/proxy/7860", "X-Gradio-Server": "http://evil.example.org"}
        status, sent, page = site.ask("GET", "/", **headers)
        assert status == 200 and ".org/user/me/proxy/7860" in page.replace(":8000", "") and "evil" not in page
        csp = "frame-ancestors 'self' https://hub.example.org:8000 http://hub.example.org:8000"
        assert sent["content-security-policy"] == csp and "x-frame-options" not in sent
        assert site.upload(patch_file.read_bytes(), Origin="https://hub.example.org", **headers)[0] == 200
        assert site.ask("GET", "/", **{**headers, "X-Forwarded-Prefix": "//evil.example.org"})[2].count("evil") == 0
    assert site.ask("GET", "/", Host="evil.example.org")[0] == 403


def test_health_is_told_to_anybody_and_says_nothing_else(secured):
    status, _, said = secured.ask("GET", "/health", Host="10.0.0.1")
    assert (status, said) == (200, "ok") and secured.ask("GET", "/config")[0] == 401


# ---- logins


def test_wrong_passwords_are_slowed_down_and_the_right_one_gets_in_from_elsewhere(secured):
    tries = [secured.login("me", f"wrong{number}")[0] for number in range(30)]
    assert tries == [400] * request_checks.Brake.FREE + [429] * (30 - request_checks.Brake.FREE)
    status, sent, said = secured.login("me", "secret")
    assert status == 429 and int(sent["retry-after"]) > 0 and "wrong passwords" in said and "contraseñas" in said
    assert secured.login("me", "secret", X_Forwarded_For="203.0.113.7")[0] == 200


def test_many_addresses_together_are_slowed_down_too_and_memory_is_bounded(sites):
    site, inside = sites["flooded"], sites["plain"].inside
    for number in range(request_checks.Brake.MANY):
        assert site.login("me", "wrong", X_Forwarded_For=f"203.0.113.{number}")[0] == 400
    assert site.login("me", "secret", X_Forwarded_For="198.51.100.1")[0] == 200, "slowly"
    assert site.login("me", "wrong", X_Forwarded_For="198.51.100.2")[0] == 400
    inside("request_checks.Brake.AT_ONCE = 0")
    assert site.login("me", "wrong", X_Forwarded_For="198.51.100.3")[0] == 429, "no more at once"
    brake = request_checks.Brake()
    for number in range(2 * brake.KNOWN):
        brake.wait(str(number))
    assert len(brake._wrong) == brake.KNOWN and len(brake._recent) == brake.MANY


def test_who_logs_out_is_out_and_others_stay_in(secured):
    def cookies() -> str:
        connection = http.client.HTTPConnection(secured.parts.hostname, secured.parts.port, timeout=60)
        body = urllib.parse.urlencode({"username": "me", "password": "secret"})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-For": "192.0.2.55"}
        connection.request("POST", "/login", body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return next(value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie" and "unsecure" in value)

    one, two = cookies(), cookies()
    assert secured.ask("GET", "/config", Cookie=one)[0] == 200
    status, sent, _ = secured.ask("GET", "/logout?lang=es", Cookie=one)
    assert status == 303 and sent["location"] == "./?lang=es"
    assert secured.ask("GET", "/config", Cookie=one)[0] == 401 and secured.ask("GET", "/config", Cookie=two)[0] == 200


def test_the_login_page_says_what_it_is_in_both_languages(secured):
    page = secured.ask("GET", "/")[2]
    assert all(json.dumps(text("login", language))[1:-1] in page or text("login", language) in page for language in ("en", "es"))
    assert "trained on" not in page and "90001" not in page


# ---- certificates


def certificate(folder: Path, name: str) -> tuple[Path, Path] | None:
    """A certificate and its key; None without the command that makes them."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    except FileNotFoundError:
        return None
    return cert, key


def test_a_certificate_serves_https_and_a_wrong_one_is_told_at_once(sites, patch_file, tmp_path):
    if (other := certificate(tmp_path, "other")) is None:
        pytest.skip("no openssl command here")
    site = sites["https"]
    cert, key = site.certfile, site.certfile.with_suffix(".key")
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    connection = http.client.HTTPSConnection("127.0.0.1", site.parts.port, context=context, timeout=60)
    connection.request("GET", "/health")
    assert site.url.startswith("https://") and connection.getresponse().read() == b"ok"
    connection.close()
    client = Client(site.url, verbose=False, analytics_enabled=False, ssl_verify=False)
    assert client.predict(handle_file(str(patch_file)), api_name="/predict")["problem"] == ""
    for given, words in (
        ({"certfile": other[0], "keyfile": key}, "is not the key of"),
        ({"certfile": tmp_path / "none.pem"}, "Cannot read"),
        ({"certfile": patch_file, "keyfile": patch_file}, "No certificate and key"),
        ({"certfile": cert}, "No certificate and key"),
        ({"keyfile": key}, "--certfile as well"),
    ):
        with pytest.raises(InputError, match=words):
            start_options.check(port=0, **given)


# ---- Gradio's inside


def test_a_version_that_was_not_tested_is_refused_with_the_tested_range(predictor, monkeypatch):
    for version in ("6.30.9", "6.32.0", "7.0.0"):
        monkeypatch.setattr(gr, "__version__", version)
        with pytest.raises(InputError, match=rf"Gradio {version} was not tested.*gradio>=\d") as caught:
            server.launch(predictor, port=0)
        assert gradio_guard.TESTED in str(caught.value)
