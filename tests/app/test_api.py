"""The interface through its API, as a program uses it."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from bhi_utils import app, plots_app
from bhi_utils.paths import InputError


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def ask(client: Client, path: Path) -> tuple[dict, np.ndarray | None, np.ndarray | None]:
    details, *pictures = client.predict(handle_file(str(path)), api_name="/predict")
    json.dumps(details)
    return details, *(None if picture is None else np.asarray(Image.open(picture)) for picture in pictures)


def test_the_answer_is_the_predictors(client, predictor, patches, tmp_path):
    table, maps = predictor.predict_with_evidence(np.stack(patches))
    assert set(table["predicted_label"]) == {0, 1}
    for number, patch in enumerate(patches):
        path = tmp_path / f"{number}.png"
        Image.fromarray(patch).save(path)
        details, evidence, read = ask(client, path)
        assert details["problem"] == "" and details["size"] == [50, 50]
        assert details["label"] == ("IDC−", "IDC+")[table["predicted_label"][number]]
        for name in ("logit", "probability", "probability_calibrated", "threshold"):
            assert details[name] == pytest.approx(table[name][number], abs=1e-5)
        assert details["threshold_calibrated"] == pytest.approx(predictor.threshold_calibrated)
        assert (details["probability_calibrated"] >= details["threshold_calibrated"]) == bool(details["predicted_label"])
        expected = plots_app.overlay(patch, maps[number])
        assert np.abs(evidence.astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(read, plots_app.enlarged(patch))


def test_a_smaller_patch_is_answered_and_its_padding_said(client, tmp_path):
    path = tmp_path / "edge.png"
    Image.new("RGB", (50, 22), (180, 90, 160)).save(path)
    details, _, read = ask(client, path)
    assert "50×22" in " ".join(details["notes"])
    assert (read[300:] == 255).all()


@pytest.mark.parametrize("kind", ["pdf", "cut", "dot", "wide", "empty"])
def test_a_bad_file_gets_a_sentence_and_the_next_one_an_answer(client, patch_file, tmp_path, kind):
    content = patch_file.read_bytes()
    path = tmp_path / "bad.png"
    if kind in ("dot", "wide"):
        Image.new("RGB", (1, 1) if kind == "dot" else (400, 300)).save(path)
    else:
        path.write_bytes({"pdf": b"%PDF-1.7\n%%EOF\n", "cut": content[: len(content) // 2], "empty": b""}[kind])
    details, evidence, read = ask(client, path)
    assert details["problem"].endswith(".") and "label" not in details
    assert evidence is None and read is None
    assert ask(client, patch_file)[0]["problem"] == ""


def test_answers_asked_for_at_once_do_not_mix(url, predictor, patches, tmp_path):
    expected = predictor.predict(np.stack(patches))["logit"]
    paths = []
    for number, patch in enumerate(patches):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(patch).save(paths[-1])
    clients = [Client(url, verbose=False, analytics_enabled=False) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(ask, clients[number % 3], path) for number, path in enumerate(paths * 2)]
        logits = [job.result()[0]["logit"] for job in jobs]
    np.testing.assert_allclose(logits, [*expected, *expected], atol=1e-5)


def test_predict_is_the_only_public_endpoint(client):
    assert list(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == ["/predict"]


def test_the_page_answers_on_this_machine_only_and_names_no_other_host(url):
    assert url.startswith("http://127.0.0.1:")
    page = urllib.request.urlopen(url).read().decode("utf-8")
    assert "fonts.googleapis" not in page
    assert '"analytics_enabled":false' in page.replace(" ", "")


RELAUNCH = """
import json, socket, sys
from pathlib import Path
from gradio_client import Client, handle_file
from bhi_utils import app, predictor

bundle, patch, cache = sys.argv[1:]
model = predictor.Predictor.load(bundle)
kept = lambda: len(list(Path(cache).rglob(Path(patch).name)))
first, demo = app.launch(model, port=0)
Client(first, verbose=False, analytics_enabled=False).predict(handle_file(patch), api_name="/predict")
found = {"uploaded": kept()}
second, again = app.launch(model, port=demo.server_port)
found |= {"same_address": first == second, "uploads_after": kept()}
again.close(verbose=False)
with socket.socket() as probe:
    found["free"] = probe.connect_ex(("127.0.0.1", again.server_port)) != 0
print("found", json.dumps(found))
"""


@pytest.mark.slow
def test_a_second_launch_ends_the_first_takes_its_port_and_no_upload_stays(bundle, patch_file, tmp_path):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", RELAUNCH, str(bundle), str(patch_file), str(cache)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=180)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = json.loads(lines[-1].removeprefix("found "))
    assert found == {"uploaded": 1, "same_address": True, "uploads_after": 0, "free": True}
    assert len(lines) == 1, "neither launching nor closing prints"


def test_a_taken_port_is_said_with_another_one_to_try(predictor):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"Port {port} is taken.*: try \d+"):
            app.launch(predictor, port=port)


@pytest.mark.parametrize(("host", "port", "words"), [("192.0.2.1", 0, "no address of this machine"), ("127.0.0.1", 70000, "no port")])
def test_an_impossible_address_is_refused(predictor, host, port, words):
    with pytest.raises(InputError, match=words):
        app.launch(predictor, host=host, port=port)
