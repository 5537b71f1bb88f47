"""The archive's download, against a server on loopback that answers like Kaggle: resumed, checked, kept as a zip, refused in a sentence."""

import base64
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from kagglehub import clients
from kagglesdk import kaggle_env
from PIL import Image

from bhi_utils import __main__
from bhi_utils.core import paths
from bhi_utils.core.paths import InputError
from bhi_utils.data import archive, kaggle_download

CREDENTIALS = ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
ELSEWHERE = ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_API_ENVIRONMENT")


def small_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for k in range(40):
            pixels = io.BytesIO()
            Image.fromarray(np.random.default_rng(k).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(pixels, "PNG")
            target.writestr(f"8863/{k % 2}/8863_idx5_x{1 + 50 * k}_y1_class{k % 2}.png", pixels.getvalue())
    return stream.getvalue()


class Kaggle(ThreadingHTTPServer):
    """What the client uses of Kaggle: a POST that redirects to the file's store, and the store with ranges and an MD5."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.status, self.cut, self.slow, self.md5 = small_archive(), 200, None, 0.0, None
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, None))
        if self.server.status != 200:
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(302)
        self.send_header("Location", f"{self.server.address}/store/archive.zip")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1)) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("Accept-Ranges", "bytes")
        digest = base64.b64encode(hashlib.md5(server.content).digest()).decode()
        self.send_header("x-goog-hash", f"crc32c=n03x6A==,md5={server.md5 or digest}")
        self.end_headers()
        end = len(server.content) if server.cut is None else server.cut
        for place in range(start, end, 10_000):
            self.wfile.write(server.content[place : min(place + 10_000, end)])
            time.sleep(server.slow)


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    for name in CREDENTIALS + ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "KAGGLEHUB_CACHE", "KAGGLE_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    server = Kaggle()
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.address)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_zip_is_kept_and_can_be_indexed_and_is_fetched_once(kaggle, tmp_path, capsys):
    found = archive.find_source("kaggle", cache=tmp_path)
    assert found == tmp_path / "kaggle" / "breast-histopathology-images.zip" and found.read_bytes() == kaggle.content
    assert list(found.parent.iterdir()) == [found]
    assert "/v1/datasets.DatasetApiService/DownloadDataset" in kaggle.asked[0][0]
    assert archive.pack(found, tmp_path, progress=False).info["patches"] == 40
    assert "100%" in capsys.readouterr().err, "a progress bar"
    asked = len(kaggle.asked)
    assert archive.find_source("kaggle", cache=tmp_path) == found and len(kaggle.asked) == asked


def test_a_download_that_was_cut_goes_on_where_it_ended(kaggle, tmp_path):
    half = len(kaggle.content) // 2
    part = tmp_path / "breast-histopathology-images.zip.part"
    part.write_bytes(kaggle.content[:half])
    assert kaggle_download.fetch(tmp_path).read_bytes() == kaggle.content
    assert [wanted for _, wanted in kaggle.asked] == [None, None, f"bytes={half}-"]


def test_a_line_that_drops_is_taken_up_again_by_itself_and_a_dead_one_is_told(kaggle, tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "CHUNK_SIZE", 10_000)
    kaggle.cut = len(kaggle.content) // 30_000 * 10_000
    with pytest.raises(InputError, match="is kept.*by hand"):
        kaggle_download.fetch(tmp_path)
    part = tmp_path / "breast-histopathology-images.zip.part"
    assert part.read_bytes() == kaggle.content[: kaggle.cut], "what came is kept"
    kaggle.cut = None
    assert kaggle_download.fetch(tmp_path).read_bytes() == kaggle.content and not part.exists()


def test_a_killed_download_goes_on(kaggle, tmp_path):
    kaggle.slow = 0.05
    code = f"""
        from pathlib import Path
        from kagglesdk import kaggle_env
        kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = {kaggle.address!r}
        import kagglehub.clients
        kagglehub.clients.CHUNK_SIZE = 10_000
        from bhi_utils.data import kaggle_download
        kaggle_download.fetch(Path({str(tmp_path)!r}))
    """
    part = tmp_path / "breast-histopathology-images.zip.part"
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    had = part.stat().st_size
    assert 0 < had < len(kaggle.content)
    kaggle.slow = 0
    assert kaggle_download.fetch(tmp_path).read_bytes() == kaggle.content
    assert kaggle.asked[-1][1] == f"bytes={had}-"


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "credentials"), (403, "accept the data set's terms"), (404, "does not know"), (429, "patience"), (503, "503")],
)
def test_each_refusal_is_one_sentence_with_the_way_by_hand(kaggle, tmp_path, status, words):
    kaggle.status = status
    with pytest.raises(InputError, match=words) as caught:
        kaggle_download.fetch(tmp_path)
    assert "kaggle.com/datasets/" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{broken", "[]", '{"username": "me"}'])
def test_credentials_that_are_none_are_one_sentence(kaggle, tmp_path, content):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "kaggle.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"credentials cannot be used \(.*kaggle.json.*by hand") as caught:
        kaggle_download.fetch(tmp_path / "here")
    assert "\n" not in str(caught.value) and not kaggle.asked and not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_one_sentence(kaggle, tmp_path, place):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="Cannot download to .*pass another --out"):
        kaggle_download.fetch(tmp_path / place)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine" and not kaggle.asked


def test_damaged_content_is_deleted(kaggle, tmp_path):
    kaggle.md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with pytest.raises(InputError, match="damaged on its way"):
        kaggle_download.fetch(tmp_path)
    assert not list(tmp_path.glob("*.zip*"))
    kaggle.md5, kaggle.content = None, b"<html>sign in</html>"
    with pytest.raises(InputError, match="is no zip"):
        kaggle_download.fetch(tmp_path)
    assert not list(tmp_path.glob("*.zip*"))


def test_a_part_of_another_and_longer_file_is_thrown_away(kaggle, tmp_path):
    (tmp_path / "breast-histopathology-images.zip.part").write_bytes(b"x" * (len(kaggle.content) + 5))
    assert kaggle_download.fetch(tmp_path).read_bytes() == kaggle.content


def test_the_disk_is_checked_before_the_first_byte(kaggle, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(InputError, match="Not enough disk space"):
        kaggle_download.fetch(tmp_path)
    assert not list(tmp_path.glob("*.zip*"))


def test_the_command_says_where_the_zip_is_and_exits_with_2_when_nobody_answers(kaggle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    assert __main__.main(["download", "--out", str(tmp_path / "here")]) == 0
    assert paths.shown(tmp_path / "here" / "breast-histopathology-images.zip") in capsys.readouterr().out
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    assert __main__.main(["download"]) == 2
    said = capsys.readouterr()
    assert re.fullmatch(r"bhi: Kaggle cannot be reached \(.*\): check the network\. .*pass its path as the data\.\n", said.err)
    assert not said.out
    assert not os.listdir(tmp_path / "cache" / "kaggle")


def test_a_mounted_data_set_is_used_where_it_lies(kaggle, tmp_path, monkeypatch):
    import kagglehub

    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("KAGGLE_DATA_PROXY_URL", kaggle.address)
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: f"/kaggle/input/{Path(handle).name}")
    assert kaggle_download.fetch(tmp_path) == Path("/kaggle/input/breast-histopathology-images") and not kaggle.asked


def test_a_dry_run_says_what_it_would_download_and_downloads_nothing(kaggle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**13, 0, 10**13))
    command = ["run", "--profile", "paper", "--data", "kaggle", "--only", "01", "--dry-run", "--out", str(tmp_path / "run")]
    assert __main__.main(command) == 0
    said = capsys.readouterr().out
    assert "download" in said and "277,524 patches" in said and not kaggle.asked


def test_a_library_without_the_parts_that_are_used_of_it_is_told_before_anything_is_asked(kaggle, tmp_path, monkeypatch):
    monkeypatch.delattr(clients, "download_file")
    with pytest.raises(InputError, match=r"^kagglehub [\d.]+ is not the one that was tried \(.*download_file.*\): .* Or do it by hand"):
        kaggle_download.fetch(tmp_path)
    assert not kaggle.asked
