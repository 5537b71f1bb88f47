"""The interface through its API, as a program uses it: each way of use, and each bad input that somebody will try."""

import base64
import io
import json
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from bhi_utils import plots
from bhi_utils.app import patch_answer
from bhi_utils.app.slide_answer import Cases
from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import seen
from bhi_utils.predict import regions

ENDPOINTS = ["/predict", "/views", "/region", "/threshold", "/place", "/files", "/cases", "/case", "/card"]


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def ask(client: Client, path: Path, **options) -> dict:
    found = client.predict(handle_file(str(path)), api_name="/predict", **options)
    json.dumps(found)
    return found


def decoded(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.split(",", 1)[1]))))


def left(served) -> list[Path]:
    return [path for path in served[1].rglob("*") if path.is_file()]


def test_the_answer_is_the_predictors(client, predictor, patches, tmp_path):
    table, maps = predictor.predict_with_evidence(np.stack(patches))
    assert set(table["predicted_label"]) == {0, 1}
    for number in (0, 3):
        path = tmp_path / f"{number}.png"
        Image.fromarray(patches[number]).save(path)
        details = ask(client, path)
        assert details["problem"] == "" and details["size"] == [50, 50] and details["in_scope"]
        assert details["label"] == ("IDC−", "IDC+")[table["predicted_label"][number]]
        for name in ("logit", "probability", "probability_calibrated", "threshold"):
            assert details[name] == pytest.approx(table[name][number], abs=1e-5)
        assert details["threshold_calibrated"] == pytest.approx(predictor.threshold_calibrated)
        assert np.mean(details["evidence"]) == pytest.approx(details["logit"], abs=1e-3)
        expected = plots.overlay(patches[number], maps[number], side=patch_answer.SIDE)
        assert np.abs(decoded(details["pictures"]["evidence"]).astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(decoded(details["pictures"]["patch"]), plots.enlarged(patches[number], side=patch_answer.SIDE))


def test_the_eight_views_follow_on_request(client, predictor, patches, patch_file):
    found = client.predict(handle_file(str(patch_file)), api_name="/views")
    turned = np.stack([np.rot90(one, turn) for one in (patches[0], patches[0][:, ::-1]) for turn in range(4)])
    np.testing.assert_allclose(sorted(found["probabilities"]), sorted(predictor.predict(turned)["probability_calibrated"]), atol=1e-5)
    assert found["low"] == min(found["probabilities"]) and found["high"] == max(found["probabilities"])


def test_a_region_is_mapped_once_and_its_threshold_and_places_go_on_from_there(url, predictor, region_file):
    client = Client(url, verbose=False, analytics_enabled=False)
    assert "no map" in client.predict(10, 10, api_name="/place")["problem"]
    found = client.predict(handle_file(str(region_file)), api_name="/region")
    tiles = regions.cut(np.asarray(opened(region_file)))
    expected = predictor.predict(tiles.patches)
    table = pd.DataFrame(found["table"])
    np.testing.assert_allclose(table["probability"], expected["probability"], atol=1e-5)
    assert found["share"] == pytest.approx(expected["predicted_label"].mean()) and found["background"] == tiles.background
    assert client.predict(0.0, api_name="/threshold")["share"] == 1
    assert "between 0 and 1" in client.predict(7, api_name="/threshold")["problem"]
    here = float(table["x"][5]) + 20, float(table["y"][5]) + 20
    for threshold, label in ((0.0, "IDC+"), (1.0, "IDC−"), (float(predictor.threshold_calibrated), table["label"][5])):
        moved = client.predict(threshold, api_name="/threshold")
        place = client.predict(*here, api_name="/place")
        assert place["label"] == label == moved["table"]["label"][5], "one threshold is in force"
        assert place["threshold_calibrated"] == moved["threshold_calibrated"] == threshold and place["threshold"] == moved["threshold"]
    assert place["threshold"] == pytest.approx(predictor.threshold) and moved["above"] == expected["predicted_label"].sum()
    assert place["probability_calibrated"] == pytest.approx(expected["probability_calibrated"][5], abs=1e-5)
    np.testing.assert_array_equal(decoded(place["pictures"]["patch"]), plots.enlarged(tiles.patches[5], side=patch_answer.SIDE))
    for wrong in ("0.5", None, [0.5], {"value": 0.5}, True, 10**400):
        assert "between 0 and 1" in client.predict(wrong, api_name="/threshold")["problem"]
        assert "two numbers" in client.predict(10, wrong, api_name="/place")["problem"]
    other = Client(url, verbose=False, analytics_enabled=False)
    assert "no map" in other.predict(10, 10, api_name="/place")["problem"], "another window's region"


def test_many_files_and_a_zip_give_one_table_and_names_never_become_paths(client, served, predictor, patches, tmp_path):
    png = io.BytesIO()
    Image.fromarray(patches[1]).save(png, "PNG")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("../../outside.png", png.getvalue())
        archive.writestr("report.png", b"%PDF-1.7")
        archive.writestr("notes.txt", b"of the person who sent it")
        archive.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "some.zip").read_bytes()[:60])
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as archive:
        archive.writestr("folder/", b"")
    Image.fromarray(patches[0]).save(tmp_path / "one.png")
    names = ("one.png", "some.zip", "cut.zip", "bare.zip")
    found = client.predict([handle_file(str(tmp_path / name)) for name in names], api_name="/files")
    answers = pd.DataFrame(found["answers"])
    assert answers["file"].tolist() == ["one.png", "some.zip/../../outside.png"]
    expected = predictor.predict(np.stack(patches[:2]))["probability_calibrated"]
    np.testing.assert_allclose(answers["probability_calibrated"], expected, atol=1e-5)
    for scale in ("", "_calibrated"):
        assert ((answers[f"probability{scale}"] >= answers[f"threshold{scale}"]) == (answers["predicted_label"] == 1)).all()
    reasons = dict(zip(found["rejected"]["file"], found["rejected"]["reason"], strict=True))
    expected = {"some.zip/report.png": "not an image", "some.zip/notes.txt": "not an image", "some.zip/inner.zip": "is a zip"}
    expected |= {"cut.zip": "zip is damaged", "bare.zip": "no file"}
    assert reasons.keys() == expected.keys() and all(words in reasons[name] for name, words in expected.items())
    assert not list(served[1].parent.rglob("outside.png"))


def test_more_than_a_thousand_files_are_refused_with_a_sentence(client, tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(1001):
            archive.writestr(f"{number}.png", b"")
    found = client.predict([handle_file(str(tmp_path / "many.zip"))], api_name="/files", language="es")
    assert found["problem"].startswith("Son 1\u202f001 archivos")


def test_one_file_in_place_of_a_list_is_answered_and_a_list_of_one_in_place_of_a_file(client, patch_file):
    one = handle_file(str(patch_file))
    assert client.predict(one, api_name="/files")["count"] == 1
    assert client.predict([one], api_name="/predict")["problem"] == ""


def test_a_patch_that_was_seen_in_training_is_remarked_among_many_files(predictor, patches, tmp_path, monkeypatch):
    for number in (0, 1):
        Image.fromarray(patches[number]).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(predictor, "seen", seen.Seen(digests=seen.digests(patches[1][None])))
    *_, found = patch_answer.files_answered(predictor, [tmp_path / "0.png", tmp_path / "1.png"], "es")
    assert ["Visto en el entrenamiento" in remark for remark in found["answers"]["remark"]] == [False, True]


def test_a_case_has_truth_beside_probability(client):
    listed = client.predict(api_name="/cases")
    assert listed["synthetic"] and len(listed["cases"]) == 6
    first = listed["cases"][0]
    found = client.predict(first["case"], api_name="/case")
    table = pd.DataFrame(found["table"])
    assert len(table) == first["patches"] and table["label"].sum() == first["positive"] == found["positive"]
    assert found["found"] + found["false"] == table["predicted_label"].sum() and "learned from this case" in found["notes"][0]
    assert "no case 5" in client.predict(5, api_name="/case")["problem"]


def test_the_card_has_metrics_with_intervals(client):
    found = client.predict(api_name="/card")
    assert found["metrics"]["test"]["recall"] == {"value": 0.93, "low": 0.9, "high": 0.95}
    assert "Research use only" in found["warning"] and len(found["limits"]) == 4 and "train_cases" not in found


def test_a_smaller_patch_is_answered_and_its_padding_said(client, tmp_path):
    path = tmp_path / "edge.png"
    Image.new("RGB", (50, 22), (180, 90, 160)).save(path)
    details = ask(client, path)
    assert "50×22" in " ".join(details["notes"])
    assert (decoded(details["pictures"]["patch"])[patch_answer.SIDE * 3 // 4 :] == 255).all()


# ---- what somebody will try


def header_only(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")


def written(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def tried(kind: str, patch: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "a PDF named .png": lambda: b"%PDF-1.7\n%%EOF\n",
        "a truncated JPEG": lambda: (whole := written(patch, "JPEG"))[: len(whole) // 2],
        "1×1": lambda: written(Image.new("RGB", (1, 1)), "PNG"),
        "30,000×30,000": lambda: header_only(30_000),
        "a bomb": lambda: header_only(9_999),
        "an empty file": lambda: b"",
        "a zip with ..": lambda: b"PK\x03\x04../..",
        "CMYK": lambda: written(patch.convert("CMYK"), "TIFF"),
        "16-bit": lambda: written(Image.fromarray(np.asarray(patch)[..., 0].astype(np.uint16) * 257), "PNG"),
        "grey": lambda: written(patch.convert("L"), "PNG"),
        "alpha": lambda: written(patch.convert("RGBA"), "PNG"),
        "animated": lambda: written(patch, "GIF", save_all=True, append_images=[patch.rotate(90)]),
        "EXIF-rotated": lambda: written(patch, "JPEG", exif=exif),
    }[kind]()


REFUSED = {
    "a PDF named .png": "no es una imagen",
    "a truncated JPEG": "dañada",
    "1×1": "1×1",
    "30,000×30,000": "muchos más píxeles",
    "a bomb": "demasiado grande",
    "an empty file": "vacío",
    "a zip with ..": "zip está dañado",
}
READ = {"CMYK": "CMYK", "16-bit": "16 bits", "grey": "gris", "alpha": "", "animated": "2 imágenes", "EXIF-rotated": "EXIF"}


@pytest.mark.parametrize(("kind", "words"), REFUSED.items(), ids=REFUSED)
def test_bad_input_gets_a_sentence_in_the_users_language_and_the_app_goes_on(client, served, patch_file, tmp_path, kind, words):
    path = tmp_path / "given.png"
    path.write_bytes(tried(kind, opened(patch_file)))
    for name in ("/predict", "/region"):
        found = client.predict(handle_file(str(path)), api_name=name, language="es")
        assert found["problem"].endswith(".") and "label" not in found
        assert words in found["problem"] or (name == "/region" and kind in ("a bomb", "1×1"))
    assert ask(client, patch_file)["problem"] == ""
    assert not left(served)


@pytest.mark.parametrize(("kind", "words"), READ.items(), ids=READ)
def test_unusual_images_are_read_and_what_was_done_is_said(client, patch_file, tmp_path, kind, words):
    path = tmp_path / "given.png"
    path.write_bytes(tried(kind, opened(patch_file)))
    found = ask(client, path, language="es")
    assert found["problem"] == "" and words in " ".join((*found["doubts"], *found["notes"]))


def test_a_photograph_is_doubted_before_its_probability(client, tmp_path):
    from sklearn.datasets import load_sample_image

    Image.fromarray(load_sample_image("china.jpg")[:50, :50]).save(tmp_path / "sky.png")
    found = ask(client, tmp_path / "sky.png")
    assert found["doubts"] and not found["in_scope"]
    assert list(found).index("doubts") < list(found).index("probability")


def raw(url: str, name: str, *data) -> str:
    """What the server says without the client's help, which would upload a local path."""
    body = json.dumps({"data": data}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}gradio_api/call{name}", body, {"Content-Type": "application/json"})
    ) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}gradio_api/call{name}/{event}", timeout=60) as answer:
        return answer.read().decode()


WRONG = (
    "words",
    "",
    7,
    -1.5,
    True,
    None,
    [],
    [[]],
    [1, None],
    ["words"],
    {},
    {"path": 7},
    {"path": None},
    {"meta": {"_type": "gradio.FileData"}},
)
WRONG += ({"path": "../../etc/hosts", "meta": {"_type": "gradio.FileData"}}, {"path": "\0"}, 10**400, [{"path": "/etc/hosts"}])


def said_by(url: str, way: str, name: str, data: list) -> list[str]:
    """The sentences of a problem or an error, or what is wrong with the answer."""
    if way == "/call":
        event, line = raw(url, name, *data).strip().split("\n")[-2:]
        found = json.loads(line.removeprefix("data: "))
        found = found[0] if "complete" in event else found
    else:
        body = json.dumps({"data": data, "session_hash": "wrong"}).encode()
        sent = urllib.request.Request(f"{url}gradio_api/run{name}", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(sent, timeout=60) as answer:
                found = json.load(answer)["data"][0]
        except urllib.error.HTTPError as error:
            found = json.load(error)
    return found.get("error") or found.get("problem")


@pytest.mark.parametrize("way", ["/run", "/call"])
@pytest.mark.parametrize(
    ("name", "good"),
    {"/predict": 0, "/views": 0, "/region": 0, "/files": 0, "/threshold": 0, "/place": 2, "/case": 0, "/card": None}.items(),
)
def test_wrong_types_and_missing_fields_are_refused_in_a_sentence_on_every_way_in(url, way, name, good):
    if name == "/card":  # which takes a language only, and any word for one is English
        assert "Research use only" in raw(url, "/card", ["no", "language"])
        return
    for value in WRONG:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        for data in ([value, *[1] * max(good - 1, 0), "es"], *([[1, value, "en"]] if good else [])):
            sentence = said_by(url, way, name, data)
            assert (number and name == "/place") or (isinstance(sentence, str) and sentence.endswith(".")), (value, sentence)
    for data in ([], ["es"] if name != "/case" else []):
        assert f"no son los de {name}" in (sentence := said_by(url, way, name, data)) or f"do not fit {name}" in sentence
        assert ("handle_file" in sentence) == (name in ("/predict", "/views", "/region", "/files"))


@pytest.mark.parametrize("body", ["", "{", "[]", '{"data": NaN}', '{"data": 1e999}', '{"data": "x"}'])
def test_a_body_that_cannot_be_read_is_refused_in_a_sentence(url, body):
    for way in ("run", "call", "queue/join"):
        address = f"{url}gradio_api/{way}" + ("" if "queue" in way else "/card")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"}), timeout=60)
        assert caught.value.code == 422 and "cannot be read" in json.load(caught.value)["detail"]


def test_an_address_in_place_of_a_file_is_not_fetched(url):
    sent = {"path": "http://192.0.2.1/x.png", "meta": {"_type": "gradio.FileData"}}
    assert "nothing is fetched from another host" in raw(url, "/predict", sent, "en")


def test_a_file_of_the_server_is_not_read(url, served):
    own = served[1].parent / "secret" / "secret.png"
    own.parent.mkdir()
    Image.new("RGB", (50, 50)).save(own)
    for sent in ({"path": str(own), "meta": {"_type": "gradio.FileData"}}, {"path": str(own)}):
        said = raw(url, "/predict", sent, "en")
        assert "event: error" in said and "probability" not in said
    assert own.exists()


def test_an_upload_is_gone_with_its_answer_and_equal_ones_lie_apart(url, served, patch_file):
    def upload() -> str:
        boundary = "x" * 20
        body = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="../a.png"\r\n\r\n'.encode()
        body += patch_file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        with urllib.request.urlopen(urllib.request.Request(f"{url}gradio_api/upload", body, kind)) as answer:
            return json.load(answer)[0]

    one, two = upload(), upload()
    assert one != two and Path(one).name == "a.png" and served[1] in Path(one).parents
    sent = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in (one, two)]
    assert "probability_calibrated" in raw(url, "/predict", sent[0], "en")
    assert not Path(one).exists() and Path(two).exists(), "the other window's file is still there"
    assert "probability_calibrated" in raw(url, "/predict", sent[1], "en")
    assert not left(served)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{url}gradio_api/file={two}")


def test_answers_asked_for_at_once_do_not_mix(url, predictor, patches, tmp_path):
    expected = predictor.predict(np.stack(patches))["logit"]
    paths = []
    for number, patch in enumerate(patches):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(patch).save(paths[-1])
    clients = [Client(url, verbose=False, analytics_enabled=False) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(ask, clients[number % 3], path) for number, path in enumerate(paths * 2)]
        logits = [job.result()["logit"] for job in jobs]
    np.testing.assert_allclose(logits, [*expected, *expected], atol=1e-5)


def test_the_endpoints_are_named_and_no_others_are_public(client):
    found = client.view_api(return_format="dict", print_info=False)
    assert sorted(found["named_endpoints"]) == sorted(ENDPOINTS) and not found["unnamed_endpoints"]
    assert [one["parameter_name"] for one in found["named_endpoints"]["/place"]["parameters"]] == ["x", "y", "language"]


def test_the_page_answers_on_this_machine_only_and_names_no_other_host(url):
    assert url.startswith("http://127.0.0.1:")
    page = urllib.request.urlopen(url).read().decode("utf-8")
    assert "fonts.googleapis" not in page
    assert '"analytics_enabled":false' in page.replace(" ", "")


def test_a_case_counts_as_seen_by_its_id_and_by_its_pixels(tmp_path):
    pack = archive.pack(synthetic_cohort.write(tmp_path / "few.zip", cases=6, patches_per_case=20), tmp_path)
    cases, ids = Cases(lambda: pack), [int(case) for case in pack.manifest["case"].unique()]
    pixels = seen.of_rows(pack, cases.rows(ids[2])).digests
    known = seen.Seen(frozenset({(ids[0], True), (ids[1], False)}), pixels)
    tuned = SimpleNamespace(seen=known)
    assert [cases.seen(tuned, case) for case in ids] == [True, False, True, False, False, False]
