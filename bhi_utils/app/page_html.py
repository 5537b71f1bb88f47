"""The interface's pieces of HTML, apart from Gradio and the model; its style and script lie in ``page``.

Used by the interface only. Every value that comes from outside the package is escaped. Fonts are the reader's own and pictures are part of
the page, so that nothing is fetched from another host and no picture of an upload is ever a file.
"""

import base64
import io
import json
import secrets
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from bhi_utils.core.messages import LANGUAGES, number, text
from bhi_utils.core.titles import CLASSES
from bhi_utils.model import bundles

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
FONTS_MONO = ("ui-monospace", "Consolas", "monospace")
#: What the language is called in itself.
_OWN_NAMES = {"en": "English", "es": "Español"}


def style() -> str:
    """The page's CSS."""
    return (resources.files("bhi_utils.app") / "page" / "app.css").read_text(encoding="utf-8")


def head() -> str:
    """What stands in the page's head: the script that runs before Gradio's own."""
    titles = json.dumps({language: text("title", language) for language in LANGUAGES}, ensure_ascii=False)
    script = (resources.files("bhi_utils.app") / "page" / "app.js").read_text(encoding="utf-8")
    return f"<script>window.bhiTitles = {titles};\n{script}</script>"


def data_url(picture: np.ndarray, *, kind: str = "PNG") -> str:
    """A picture, uint8 array (h, w, 3 or 4), as a URL that holds it."""
    stream = io.BytesIO()
    # little compression: the picture goes over loopback, and packing it tightly takes longer than the network
    Image.fromarray(picture).save(stream, kind, **({"quality": 85} if kind == "JPEG" else {"compress_level": 1}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def warning(language: str) -> str:
    """What stays in view wherever the page is scrolled to."""
    return f'<p role="note"><strong>{text("warning", language)}</strong></p>'


def login() -> str:
    """What the login page says, before anybody's language is known."""
    said = (f'<div lang="{one}"><h1>{text("title", one)}</h1><p>{text("login", one)}</p></div>' for one in LANGUAGES)
    return "".join(said)


def heading(bundle: dict[str, Any], language: str, *, logout: bool = False) -> str:
    """The title, the switch between languages, perhaps a way out, and which model answers."""
    data = bundle.get("data", {})
    parts = [text("model", language, name=escape(str(bundle.get("name", "?"))))]
    synthetic, cases = data.get("synthetic"), bundles.served(bundle)
    if "fitted_on" in cases:
        key = "trained_phantom" if synthetic else "trained_archive"
        parts.append(text(key, language, cases=number(cases["fitted_on"], language)))
    elif synthetic:
        parts.append(text("phantom", language))
    links = "".join(
        f'<a href="?lang={one}" lang="{one}" hreflang="{one}"{" aria-current=true" if one == language else ""}>{_OWN_NAMES[one]}</a>'
        for one in LANGUAGES
    )
    if logout:
        links += f'<a href="logout?lang={language}" class="logout">{text("logout", language)}</a>'
    switch = f'<nav aria-label="{text("language", language)}">{links}</nav>'
    return f'<div class="top"><h1>{text("title", language)}</h1>{switch}</div><p>{", ".join(parts)}.</p>'


def hint(key: str, language: str) -> str:
    """What to do first, where an answer will stand."""
    return f'<div class="answer empty">{text(key, language)}</div>'


def problem(sentence: str, language: str) -> str:
    """Why there is no answer."""
    return f'<div class="answer problem" role="alert"><strong>{text("no_answer", language)}</strong><p>{escape(sentence)}</p></div>'


def doubt(sentences: Sequence[str], language: str) -> str:
    """Why an answer would mean little; nothing without a reason."""
    if not sentences:
        return ""
    reasons = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="answer doubt" role="alert"><strong>{text("doubt", language)}</strong><ul>{reasons}</ul></div>'


def bullets(sentences: Sequence[str]) -> str:
    """A list of sentences; nothing without any."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""


def fresh() -> str:
    """An attribute that is new with every answer, by which the page's script knows that sliders begin anew."""
    return f'data-fresh="{secrets.token_hex(4)}"'


def opacity(language: str, *, value: int = 80) -> str:
    """The slider that the page's script listens to."""
    slider = f'<input type="range" min="0" max="100" step="5" value="{value}">'
    return f'<label class="opacity"><span>{text("opacity", language)}</span>{slider}<output>{value} %</output></label>'


def progress(done: int, total: int, language: str) -> str:
    """How far a long run is."""
    said = text("progress", language, done=number(done, language), all=number(total, language)) if total else text("reading", language)
    bar = f'<progress max="{total}" value="{done}" aria-label="{said}"></progress>' if total else "<progress></progress>"
    return f'<div class="answer" role="status"><p>{said}</p>{bar}</div>'


def download(label: str, name: str, csv: str) -> str:
    """A button that saves a table which the page holds."""
    return f'<button type="button" data-name="{escape(name)}" data-csv="{escape(csv)}">{escape(label)}</button>'


def attribute(value: Any) -> str:
    """A value as JSON within an attribute."""
    return escape(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def legend(ends: float, logit: float, language: str) -> str:
    """What the colours of an evidence map mean."""
    sides = [f"{signed(side * ends, language)}<br>{text('speaks', language, label=CLASSES[side > 0])}" for side in (-1, 1)]
    return f"""<div class="legend"><div class="ramp"></div>
<div class="ends"><span>{sides[0]}</span><span>0<br>{text("neither", language)}</span><span>{sides[1]}</span></div>
<p>{text("adds_up", language, logit=signed(logit, language))}</p></div>"""


def signed(value: float, language: str) -> str:
    """A number with its sign, a true minus, three digits at most, and the language's sign for decimals."""
    return f"{value:+.3g}".replace("-", "−").replace(".", "," if language == "es" else ".")
