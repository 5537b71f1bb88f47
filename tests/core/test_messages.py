"""How the interface words its answers, in both languages, and what it keeps of a window."""

import html
import json
import os
import re
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from bhi_utils.app import model_card, page_html, patch_answer, upload_store
from bhi_utils.core import messages
from bhi_utils.evaluation import calibration, thresholds
from bhi_utils.model import bundles

DETAILS = {
    "problem": "",
    "doubts": [],
    "notes": ["Filled up with <white>."],
    "label": "IDC+",
    "predicted_label": 1,
    "probability_calibrated": 0.61,
    "threshold_calibrated": 0.4,
    "seen": False,
    "evidence": [[0.5]],
    "evidence_limit": 2.0,
    "pictures": {"patch": "data:,", "evidence": "data:,"},
}
RULE = {"rule": "recall", "value": 0.93, "where": "validation"}


def test_every_text_exists_in_both_languages_with_the_same_values():
    for key, texts in messages.TEXTS.items():
        fields = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in texts]
        assert len(texts) == 2 and fields[0] == fields[1] and all(texts), key


NOUNS = "patches|cases|files|images|parches|casos|archivos|imágenes"


def test_every_count_of_one_agrees_with_its_noun_in_both_languages():
    for key, texts in (messages.TEXTS | messages.SENTENCES).items():
        for number, template in enumerate(texts):
            names = {name for _, name, _, _ in string.Formatter().parse(template) if name}
            language = messages.LANGUAGES[number]
            said = {n: messages.filled(re.sub(r":\.\d[%f]", "", template), **dict.fromkeys(names, n)) for n in ("1", "2")}
            assert not re.search(rf"\b1 ({NOUNS})\b", said["1"]) or "frames" in names, (key, language)
            assert "[" not in said["1"] + said["2"] and ("2 patch " not in said["2"]) and ("2 parche " not in said["2"])
    assert messages.text("strange", "en", count=1).startswith("1 patch does not look")
    assert messages.text("strange", "es", count="2").startswith("2 parches no parecen")
    assert messages.text("skipped", "es", count="1").startswith("Se omitió 1 parche de")
    assert (
        messages.counted(1, "patch") == "1 patch"
        and messages.counted(0, "case") == "0 cases"
        and messages.counted(1234, "patch") == "1,234 patches"
    )


def test_numbers_follow_the_language_and_carry_a_true_minus():
    assert page_html.signed(-1.234, "en") == "−1.23" and page_html.signed(2.0, "es") == "+2" and page_html.signed(3.512, "es") == "+3,51"
    assert messages.number(13244.5, "en", digits=1) == "13,244.5" and messages.number(13244.5, "es", digits=1) == "13\u202f244,5"
    assert messages.probability(0.614, "es") == "0,61" and messages.probability(0.9999, "en") == "> 0.99"
    assert messages.probability(0.0001, "es") == "< 0,01"


def test_a_probability_never_reads_as_if_it_lay_on_the_other_side_of_the_threshold():
    assert messages.threshold_said(0.16934, "es") == "0,1693" and messages.threshold_said(0.8, "en") == "0.80"
    assert messages.probability(0.16931, "en", beside=0.16934) == "0.169" and messages.probability(0.1694, "en", beside=0.16934) == "0.17"
    assert messages.probability(0.16999, "es", beside=0.17) == "0,16999"
    drawn = np.random.default_rng(0).random((500, 2))
    for value, threshold in np.concatenate([drawn, drawn[:, :1] + [[0, 2e-4]], drawn[:, :1] - [[0, 2e-4]]]).clip(0, 1):
        said = messages.probability(value, "en", beside=threshold)
        if said[0] not in "<>":
            assert (float(said) >= float(messages.threshold_said(threshold, "en"))) == (value >= threshold)


def test_of_a_threshold_that_somebody_has_set_the_models_rule_is_not_said():
    bundle = {"threshold_rule": RULE, "threshold": 0.3}
    assert "How it was chosen" not in (said := patch_answer.shown(bundle, {**DETAILS, "threshold": 0.5, "threshold_calibrated": 0.6}, "en"))
    assert "threshold 0.60" in said and "93 %" in patch_answer.shown(bundle, {**DETAILS, "threshold": 0.3}, "en")


def test_the_answer_says_class_probability_threshold_and_rule_and_escapes_what_it_is_given():
    said = patch_answer.shown({"threshold_rule": "recall >= 0.93 <script>"}, DETAILS, "en")
    for expected in (">IDC+<", "0.61", "threshold 0.40", "at or above", "recall ≥ 0.93 &lt;script&gt;", "&lt;white&gt;", "logit, +0.5"):
        assert expected in said
    assert "al menos 93 % de los parches IDC+" in patch_answer.shown({"threshold_rule": RULE}, DETAILS, "es")
    said = page_html.heading({"name": "<b>", "data": {"synthetic": False, "cases": 230}, "train_cases": [1, 2]}, "en")
    assert "&lt;b&gt;" in said and "fitted on 2 cases" in said and "230" not in said
    said = page_html.heading({"name": "x", "data": {"synthetic": False, "cases": 230}, "train_cases": [1, 2]}, "es")
    assert "2 casos del archivo" in said
    assert "synthetic patches" in page_html.heading({"name": "x", "data": {"synthetic": True}}, "en")


@pytest.mark.parametrize("place", thresholds.WHERE)
@pytest.mark.parametrize("rule", ["recall 0.93", "f1", "youden", "cost 5", "cost 0.25", "fixed 0.5"])
def test_every_rule_for_the_threshold_is_said_in_the_readers_language(rule, place):
    kept = thresholds.kept(rule, place)
    english, spanish = (patch_answer.rule({"threshold_rule": kept}, language) for language in ("en", "es"))
    assert (
        thresholds.sentence(kept) not in (english, spanish)
        and english != spanish
        and not {"threshold", "highest", "with"} & set(spanish.split())
    )
    assert {"cost 5": " 5 ", "cost 0.25": " 0,25 ", "recall 0.93": " 93"}.get(rule, "") in spanish
    words = {"validation": "validación", "out_of_fold": "cruzada", "early_stopping": "parada temprana"}
    assert rule == "fixed 0.5" or words[place] in spanish


def test_the_packaged_models_rule_is_one_of_those():
    packaged = json.loads(bundles.PACKAGED.read_text(encoding="utf-8"))
    assert "solo sirvieron para la parada temprana" in patch_answer.rule(packaged, "es")


def test_what_the_threshold_means_is_said_with_its_intervals():
    metrics = {"test": {name: {"value": 0.93, "low": 0.9, "high": 0.95} for name in ("recall", "precision")}}
    assert "93 % (90–95 %) of IDC+ patches are found" in patch_answer.shown({"metrics": metrics}, DETAILS, "en")
    assert "are found" not in patch_answer.shown({}, DETAILS, "en")
    said = patch_answer.shown({"metrics": {"early_stopping": metrics["test"]}}, DETAILS, "en")
    assert "On the cases that chose it, 93 % (90–95 %)" in said and "too favourable" in said and "test cases" not in said


def test_doubts_come_before_the_number_and_hide_it():
    said = patch_answer.shown({}, {**DETAILS, "doubts": ["It is blurred."]}, "en")
    assert said.index("It is blurred.") < said.index("<details") < said.index("0.61")


def test_the_spread_over_the_views_is_said_and_drawn():
    found = {"probabilities": [0.3, 0.5], "low": 0.3, "high": 0.5, "mean": 0.4, "classes": 2}
    said = patch_answer.shown({}, DETAILS, "en", found=found)
    assert "from 0.30 to 0.50" in said and "both sides of the threshold" in said and said.count("<b style") == 2


def test_without_an_answer_there_is_the_problem_alone():
    said = patch_answer.shown({}, {"problem": "No <image>.", "doubts": []}, "en")
    assert "No &lt;image&gt;." in said and "legend" not in said


class Model:
    bundle = {"name": "cnn", "calibration": {"method": "platt", "slope": 0.7, "intercept": -0.2, "other": [1, 2]}, "train_cases": [1, 2]}
    threshold, threshold_calibrated = 0.5, 0.4


def test_the_card_says_what_is_not_recorded():
    said = model_card.shown(Model(), "en")
    assert (
        "not recorded" in said and "Platt: slope 0.7000, intercept -0.2000" in said and "no metrics" in said and "Research use only" in said
    )
    Model.bundle |= {"metrics": {"test": {"auc": {"value": None, "low": None, "high": None}, "loss": {"value": 0.3}}}}
    said = model_card.shown(Model(), "es")
    assert "<td>–</td>" in said and "<td>0,300</td>" in said


class Packaged:
    bundle = json.loads(bundles.PACKAGED.read_text(encoding="utf-8"))
    threshold, threshold_calibrated = 0.25, 0.125


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_card_shows_all_that_the_packaged_bundle_knows_under_its_true_name(language):
    said, bundle = model_card.shown(Packaged(), language), Packaged.bundle
    fitted, early = len(bundle["train_cases"]), len(bundle["validation_cases"])
    assert messages.text("card_none", language) not in said
    for key, count in (("fitted_on", fitted), ("early_stopping_on", early)):
        row = f"<th scope=row>{messages.text(key, language)}</th><td>{messages.text('card_cases', language, count=count)}</td>"
        assert row in said
    for part in ("out_of_fold", "early_stopping"):
        recall = messages.number(bundle["metrics"][part]["recall"]["value"], language, digits=3)
        assert f"<th scope=col>{messages.text(part, language)}</th>" in said and f"<td>{recall} (" in said
        assert messages.text(f"note_{part}", language) in html.unescape(said)
    heading = page_html.heading(bundle, language)
    assert f" {fitted} " in heading and str(fitted + early) not in heading
    given = model_card.facts(Packaged(), language)
    assert given["cases"] == {"fitted_on": fitted, "early_stopping_on": early} and not {"train_cases", "validation_cases"} & set(given)


def test_cases_that_the_start_had_seen_are_counted_apart():
    walk = {"train_cases": [1, 2, 3], "validation_cases": [4], "seen": {"real_cases": [7, 8], "synthetic_cases": [1, 2, 3, 4]}}
    assert bundles.served(walk) == {"fitted_on": 3, "early_stopping_on": 1, "known_to_the_start": 2}
    assert bundles.served({}) == {}


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_calibration_is_described_alike_wherever_it_is_shown(language):
    grid = np.linspace(-3, 3, 40)
    fit = calibration.fit_calibration((grid > 0.1).astype(int), grid, method="isotonic")
    said = calibration.describe(fit.to_json(), language)
    assert said.startswith({"en": "isotonic regression: ", "es": "regresión isotónica: "}[language]) and str(len(fit.knots)) in said
    model = Packaged()
    model.bundle = Packaged.bundle | {"calibration": fit.to_json()}
    shown = model_card.shown(model, language)
    assert said in shown and "Platt" not in shown and "1.00" not in said


def test_a_name_that_a_spreadsheet_would_run_is_harmless_in_the_tables_that_the_page_saves():
    answers = {"file": ["=cmd.png"], "predicted_label": [1], "probability": [-0.5]}
    details = {"problem": "", "answers": answers, "rejected": {"file": ["@x.png"], "reason": ["-"]}, "threshold_calibrated": 0.4}
    said = html.unescape(patch_answer.files_shown(details, "en"))
    assert "\n'=cmd.png,1,-0.5\n" in said and "\n'@x.png,'-\n" in said


def test_a_window_keeps_its_own_region_and_the_oldest_goes_first():
    kept = upload_store.Kept(most=100, longest=60)
    for window in ("a", "b"):
        kept.put(window, window.upper(), 40)
    assert kept.get("a") == "A" and kept.get("c") is None
    kept.put("c", "C", 40)
    assert kept.get("b") is None and kept.get("a") == "A", "the one not looked at for longest"
    kept.drop("a")
    assert kept.get("a") is None and len(kept) == 1
    kept.put("d", "D", 500)
    assert kept.get("d") == "D", "one alone may be larger"


def test_a_region_that_nobody_looks_at_goes():
    kept = upload_store.Kept(longest=-1)
    kept.put("a", "A", 1)
    assert kept.get("a") is None


def test_uploads_are_gone_when_the_block_ends_and_other_files_are_never_touched(tmp_path):
    root = tmp_path / "uploads"
    inside, outside = root / "x1" / "a.png", tmp_path / "y" / "b.png"
    for path in (inside, outside):
        path.parent.mkdir(parents=True)
        path.touch()
    with (
        pytest.raises(ValueError, match="stop"),
        upload_store.Uploads(root).taken([{"path": str(inside)}, {"path": str(outside)}, {"path": ""}]) as paths,
    ):
        assert paths == [inside.resolve()]
        raise ValueError("stop")
    assert not inside.parent.exists() and outside.exists()


def test_what_a_killed_app_left_is_swept_and_what_a_running_one_has_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    code = "import time; from bhi_utils.app.upload_store import own_folder\nwith own_folder() as folder:\n"
    code += "    print(folder, flush=True); time.sleep(60)"
    environment = os.environ | {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path)}
    running, killed = (subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2))
    try:
        theirs, orphan = (Path(process.stdout.readline().strip()) for process in (running, killed))
        killed.kill()
        killed.wait()
        stranger = tmp_path / "bhi-app-notes-of-mine"
        reused = tmp_path / f"bhi-app-{os.getpid()}-1-{theirs.name.split('-')[4]}-x"
        elsewhere = tmp_path / "bhi-app-999999999-1-12345-x"  # the process of a container that shares the folder
        for folder in (stranger, reused, elsewhere):
            folder.mkdir()
        assert theirs.is_dir() and orphan.is_dir()
        with upload_store.own_folder() as ours:
            assert theirs.is_dir() and ours.is_dir() and stranger.is_dir() and elsewhere.is_dir()
            assert not orphan.exists() and not reused.exists()
        assert not ours.exists()
    finally:
        for process in (running, killed):
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_picture_is_part_of_the_page():
    assert page_html.data_url(np.zeros((2, 2, 3), np.uint8)).startswith("data:image/png;base64,")
