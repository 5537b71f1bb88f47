"""Fills the Jinja2 templates of ``reports/templates``, whose names end in ``.html.j2`` or ``.md.j2``. Used by the other report modules.

Templates hold all text; the modules gather facts. HTML is escaped, Markdown is not.
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from bhi_utils.core.messages import counted
from bhi_utils.core.titles import METRICS, MODEL_NAMES, PART_NAMES, cell, origin
from bhi_utils.evaluation import calibration, thresholds


def render(template: str, **facts: Any) -> str:
    """Returns a template filled with ``facts``; one that lacks a fact is a ``jinja2.UndefinedError``."""
    return _TEMPLATES.get_template(template).render(part_names=PART_NAMES, titles=METRICS, **facts)


def _numbers(table: str) -> str:
    """Keeps each value and its interval on one line, and makes wide tables scroll."""
    html = re.sub(r"<td>([+−-]?\d[^<]*)</td>", r'<td class="number">\1</td>', str(table))
    return f'<div class="wide">{html}</div>'


def _shown(value: Any) -> str:
    """Returns a parameter as text; of a path its last part only, since folders name the machine."""
    return Path(value).name if isinstance(value, str) and value else str(value)


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {
    "cell": cell,
    "counted": counted,
    "described": calibration.describe,
    "named": lambda name: MODEL_NAMES.get(name, name),
    "numbers": _numbers,
    "origin": origin,
    "rule": thresholds.sentence,
    "shown": _shown,
}
