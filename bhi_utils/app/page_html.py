"""The interface's HTML, from the templates in ``templates``; its style and script lie in ``page``. Used by the interface only.

The templates escape every value. Fonts are the reader's own and pictures are part of the page, so that nothing is fetched from another host
and no picture of an upload is ever a file.
"""

import base64
import io
import json
import secrets
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from bhi_utils.core.messages import LANGUAGES, number, percent, probability, text, threshold_said
from bhi_utils.core.titles import CLASSES
from bhi_utils.model import bundles

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
FONTS_MONO = ("ui-monospace", "Consolas", "monospace")
#: What each language is called in itself.
_NAMES = {"en": "English", "es": "Español"}


def signed(value: float, language: str) -> str:
    """A number with its sign, three digits at most, and the language's decimal sign.

    >>> signed(-1.234, "en"), signed(3.5, "es")
    ('−1.23', '+3,5')
    """
    return f"{value:+.3g}".replace("-", "−").replace(".", "," if language == "es" else ".")


_TEMPLATES = Environment(
    loader=PackageLoader("bhi_utils.app"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_WORDS = (text, number, percent, probability, threshold_said, signed)


def render(name: str, language: str, **values: Any) -> str:
    """Fills in ``templates/<name>.html``.

    In a template, the functions of `_WORDS` know the language, and ``fresh`` is new with every answer: by it the page's script knows that
    sliders begin anew.
    """
    words = {function.__name__: partial(function, language=language) for function in _WORDS}
    given = {"language": language, "names": _NAMES, "classes": CLASSES, "fresh": secrets.token_hex(4)}
    return _TEMPLATES.get_template(f"{name}.html").render(words | given | values)


def asset(name: str) -> str:
    """The text of a file in ``page``."""
    return (resources.files("bhi_utils.app") / "page" / name).read_text(encoding="utf-8")


def head() -> str:
    """What stands in the page's head: the script that runs before Gradio's own."""
    titles = json.dumps({language: text("title", language) for language in LANGUAGES}, ensure_ascii=False)
    return f"<script>window.bhiTitles = {titles};\n{asset('app.js')}</script>"


def heading(bundle: bundles.Bundle, language: str, *, logout: bool = False) -> str:
    """The title, the switch between languages, perhaps a way out, and which model answers."""
    synthetic = bundle.get("data", {}).get("synthetic", False)
    return render("heading", language, bundle=bundle, cases=bundles.served(bundle), synthetic=synthetic, logout=logout)


def data_url(picture: np.ndarray, *, kind: str = "PNG") -> str:
    """A picture, uint8 array (h, w, 3 or 4), as a URL that holds it."""
    stream = io.BytesIO()
    # little compression: the picture goes over loopback, and packing it tightly takes longer than the network
    Image.fromarray(picture).save(stream, kind, quality=85, compress_level=1)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
