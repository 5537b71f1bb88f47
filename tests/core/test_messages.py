"""The interface's texts are complete in both languages, agree with counts, and write numbers as each language does."""

import re
import string

import numpy as np
import pytest

from bhi_utils.app import page_html
from bhi_utils.core import messages

BOTH = {"interface": messages.TEXTS, "sentences": messages.SENTENCES}
#: Sentences that describe a calibration begin with its name.
CALIBRATIONS = {"temperature", "platt", "isotonic"}
NOUNS = "patches|cases|files|images|parches|casos|archivos|imágenes"


def fields(template: str) -> set[str]:
    """The names that a template is filled in with."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("kind", BOTH)
def test_every_text_exists_in_both_languages_with_the_same_values(kind):
    english, spanish = (BOTH[kind][language] for language in messages.LANGUAGES)
    assert list(english) == list(spanish)
    for key, text in english.items():
        assert text and spanish[key] and fields(text) == fields(spanish[key]), key
        if kind == "sentences":
            assert text != spanish[key], key
            assert key in CALIBRATIONS or all(one[0].isupper() or one[0] == "{" for one in (text, spanish[key])), key


@pytest.mark.parametrize("language", messages.LANGUAGES)
@pytest.mark.parametrize("kind", BOTH)
def test_every_count_of_one_agrees_with_its_noun(kind, language):
    for key, template in BOTH[kind][language].items():
        names = fields(template)
        said = {n: messages.filled(re.sub(r":\.\d[%f]", "", template), **dict.fromkeys(names, n)) for n in ("1", "2")}
        assert not re.search(rf"\b1 ({NOUNS})\b", said["1"]) or "frames" in names, key
        assert "[" not in said["1"] + said["2"] and ("2 patch " not in said["2"]) and ("2 parche " not in said["2"]), key


def test_words_agree_with_a_count():
    assert messages.text("strange", "en", count=1).startswith("1 patch does not look")
    assert messages.text("strange", "es", count="2").startswith("2 parches no parecen")
    assert messages.text("skipped", "es", count="1").startswith("Se omitió 1 parche de")
    assert messages.text("skipped", "xx", count="1").startswith("1 patch of"), "an unknown language means English"
    assert messages.counted(0, "case") == "0 cases" and messages.counted(1234, "patch") == "1,234 patches"


def test_a_sentence_is_its_english_text_and_can_be_said_in_spanish():
    said = messages.say("mostly_strange", share=0.7, reason=messages.say("grey"))
    assert said.startswith("70% of the tissue") and said.endswith("such a patch.")
    assert messages.translated(said, "es").endswith("nunca ha visto un parche así.")
    assert messages.translated("as it is", "es") == "as it is" and messages.translated(said, "xx") == said


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
