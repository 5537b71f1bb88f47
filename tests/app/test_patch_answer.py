"""How the answer for a patch is worded and drawn, in both languages."""

import html
import json

import numpy as np
import pytest

from bhi_utils.app import page_html, patch_answer
from bhi_utils.evaluation import thresholds
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


def test_a_picture_is_part_of_the_page():
    assert page_html.data_url(np.zeros((2, 2, 3), np.uint8)).startswith("data:image/png;base64,")


def test_a_name_that_a_spreadsheet_would_run_is_harmless_in_the_tables_that_the_page_saves():
    answers = {"file": ["=cmd.png"], "predicted_label": [1], "probability": [-0.5]}
    details = {"problem": "", "answers": answers, "rejected": {"file": ["@x.png"], "reason": ["-"]}, "threshold_calibrated": 0.4}
    said = html.unescape(patch_answer.files_shown(details, "en"))
    assert "\n'=cmd.png,1,-0.5\n" in said and "\n'@x.png,'-\n" in said
