"""The interface's texts in English and in Spanish, words that agree with a count, and numbers as a language writes them.

The texts are data, ``locales/<language>.json``: ``interface`` holds what the app's pages show, ``sentences`` what an input is answered
with. Used by everything that speaks to a reader.
"""

import json
import re
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "es")

_LOCALES: dict[str, dict[str, dict[str, str]]] = {
    language: json.loads((Path(__file__).parent / "locales" / f"{language}.json").read_text(encoding="utf-8")) for language in LANGUAGES
}
#: By language, then key: the texts of the app's pages, and the sentences that `say` fills in.
TEXTS = {language: locale["interface"] for language, locale in _LOCALES.items()}
SENTENCES = {language: locale["sentences"] for language, locale in _LOCALES.items()}

#: Words that agree with a count: ``[patch|patches:count]`` is "patch" where ``count`` is 1.
_AGREEING = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*):(\w+)\]")


def filled(template: str, **values: Any) -> str:
    """Returns ``template`` with its ``values`` filled in; ``[one|many:name]`` becomes one of both words, by the value of that name.

    >>> filled("{n} [patch|patches:n]", n=2)
    '2 patches'
    """
    return _AGREEING.sub(lambda found: found[1] if str(values[found[3]]) == "1" else found[2], template).format(**values)


def counted(count: int, noun: str) -> str:
    """Returns a count with its English noun.

    >>> counted(1, "patch"), counted(13244, "patch")
    ('1 patch', '13,244 patches')
    """
    plural = noun + ("es" if noun.endswith(("ch", "sh", "s", "x")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"


class Sentence(str):
    """An English sentence that remembers its key and values, so that `translated` can say it in another language."""

    key: str
    values: dict[str, Any]


def say(key: str, **values: Any) -> Sentence:
    """Returns the sentence called ``key`` in English, with its ``values`` filled in."""
    sentence = Sentence(filled(SENTENCES["en"][key], **values))
    sentence.key, sentence.values = key, values
    return sentence


def translated(text: str, language: str) -> str:
    """Returns ``text`` in ``language``; a text that is no `Sentence` stays as it is, and an unknown language means English."""
    if not isinstance(text, Sentence) or language not in LANGUAGES:
        return str(text)
    values = {name: translated(value, language) if isinstance(value, str) else value for name, value in text.values.items()}
    return filled(SENTENCES[language][text.key], **values)


def text(key: str, language: str, **values: Any) -> str:
    """Returns the interface's text called ``key`` in ``language``, English for anything else, with its ``values`` filled in."""
    return filled(TEXTS[language if language in LANGUAGES else "en"][key], **values)


def percent(share: float, language: str, *, digits: int = 0) -> str:
    """Returns a share (0–1) as a percentage.

    >>> percent(0.125, "es", digits=1)
    '12,5 %'
    """
    return number(100 * share, language, digits=digits) + " %"


def probability(value: float, language: str, *, beside: float | None = None) -> str:
    """Returns a probability with two decimals, never rounded to 0 or 1.

    >>> probability(0.4, "en"), probability(0.9999, "es")
    ('0.40', '> 0,99')

    It gets up to six decimals where fewer would put it on the wrong side of ``beside``, the threshold shown next to it. Where the two
    differ by less than 0.0001, even six may not be enough.
    """
    written = [f"{value:.{digits}f}" for digits in range(2, 7)]
    right = [one for one in written if beside is None or (float(one) >= round(beside, 4)) == (value >= beside)]
    said = (right or written[-1:])[0]
    if said == written[0]:
        said = "< 0.01" if value < 0.005 else "> 0.99" if value > 0.995 else said
    return said.replace(".", ",") if language == "es" else said


def threshold_said(value: float, language: str) -> str:
    """Returns a threshold with as many decimals as it has, at least two and at most four."""
    said = f"{value:.4f}"
    said = said[:-2] if said.endswith("00") else said.removesuffix("0")
    return said.replace(".", ",") if language == "es" else said


def number(value: float, language: str, *, digits: int = 0) -> str:
    """Returns a number with the language's signs for thousands and decimals.

    >>> number(13244.5, "en", digits=1)
    '13,244.5'
    """
    written = f"{value:,.{digits}f}"
    return written.translate(str.maketrans(",.", "\u202f,")) if language == "es" else written
