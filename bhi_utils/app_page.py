"""The interface's texts, its HTML and its style; no Gradio and no model.

Used by ``app`` only. Every value that comes from outside the package is escaped. Fonts are the reader's own, so that nothing is
fetched from another host.
"""

from html import escape
from typing import Any

from bhi_utils.plots import CLASSES, COLOURS, NEGATIVE, POSITIVE
from bhi_utils.plots_app import number

TITLE = "Is there invasive ductal carcinoma in this patch?"
WARNING = "Research use only, not a medical device."
SEEN = "Seen in training: the model learned from exactly these pixels, so this answer says nothing about how it does on new patches."
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
FONTS_MONO = ("ui-monospace", "Consolas", "monospace")

CSS = f"""
.gradio-container {{ max-width: 1040px !important; margin: 0 auto !important; padding-top: 3.4rem !important; }}
.gradio-container .html-container {{ padding: 0 !important; }}
#warning {{ position: fixed; top: 0; left: 0; right: 0; z-index: 50; margin: 0; border-radius: 0; }}
#warning p {{ margin: 0; padding: .5rem 1rem; background: #fff3cd; border-bottom: 1px solid #d9b44a; text-align: center; }}
#warning p, #warning strong {{ color: #4d3800; font-size: .95rem; line-height: 1.35; }}
#patch img {{ object-fit: contain; width: 100%; height: 100%; text-align: center; line-height: 17rem; }}
.square {{ aspect-ratio: 1; height: auto !important; }}
#heading h1 {{ margin: 0 0 .3rem; font-size: 1.5rem; line-height: 1.25; }}
#heading p, .answer.empty {{ margin: 0; color: var(--neutral-600); }}
.dark #heading p, .dark .answer.empty {{ color: var(--neutral-300); }}
#examples > .gallery {{ display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 6px; }}
#examples button :is(span, div, img) {{ display: block; width: 100%; height: 100%; max-width: none; max-height: none; }}
#examples button {{ aspect-ratio: 1; }}
.answer {{ border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .8rem 1rem; }}
.answer p {{ margin: .5rem 0 0; }}
.answer ul {{ margin: .5rem 0 0; padding-left: 1.2rem; list-style: disc; }}
.answer .head {{ display: flex; flex-wrap: wrap; align-items: center; gap: .3rem .8rem; }}
.answer .class {{ padding: .1rem .8rem; border-radius: 999px; color: #fff; font-size: 1.35rem; font-weight: 700; }}
.answer .number {{ font-size: 1.35rem; font-weight: 700; font-variant-numeric: tabular-nums; }}
.answer .bar {{ position: relative; height: 16px; margin: .9rem 0 2.2rem; border-radius: 4px; background: var(--neutral-300); }}
.dark .answer .bar {{ background: var(--neutral-600); }}
.answer .bar > * {{ position: absolute; }}
.answer .bar > span {{ left: 0; top: 0; bottom: 0; border-radius: 4px; }}
.answer .bar > i {{ top: -4px; bottom: -4px; width: 3px; margin-left: -1px; background: var(--body-text-color); }}
.answer .bar > em {{ top: 20px; transform: translateX(-50%); font-style: normal; font-size: .85rem; white-space: nowrap; }}
.answer.problem {{ border-left: 6px solid #b42318; }}
.legend .ramp {{ height: 14px; border-radius: 4px; background: linear-gradient(90deg, {NEGATIVE}, #bbb, {POSITIVE}); }}
.legend .ends {{ display: flex; justify-content: space-between; font-size: .85rem; margin-top: .2rem; }}
.legend .ends span:nth-child(2) {{ text-align: center; }}
.legend .ends span:nth-child(3) {{ text-align: right; }}
.legend p {{ margin: .4rem 0 0; font-size: .9rem; }}
"""


def warning() -> str:
    """What stays in view wherever the page is scrolled to."""
    return f'<p role="note"><strong>{WARNING}</strong></p>'


def heading(bundle: dict[str, Any]) -> str:
    """The title, and which model answers."""
    data = bundle.get("data", {})
    kind = "synthetic phantom patches" if data.get("synthetic") else "patches of the archive"
    trained = f"trained on {kind} ({data['cases']:,} cases in all)" if "cases" in data else ""
    start = str(bundle.get("initialisation", ""))
    known = {"": "", "scratch": "from scratch", "imagenet": "from ImageNet weights", "packaged": "from the packaged model"}
    start = known.get(start, f"from {start}")
    parts = ", ".join(part for part in (trained, start) if part)
    return f"<h1>{TITLE}</h1><p>Model {escape(str(bundle.get('name', 'unnamed')))}{', ' + escape(parts) if parts else ''}.</p>"


def verdict(bundle: dict[str, Any], details: dict[str, Any] | None) -> str:
    """The answer: class, probability as number and bar, threshold and notes; or the problem; or what to do first."""
    if details is None:
        return '<div class="answer empty">Give a patch, or click an example: class, probability and evidence map appear here.</div>'
    if details["problem"]:
        return f'<div class="answer problem" role="alert"><strong>No answer.</strong><p>{escape(details["problem"])}</p></div>'
    label, colour = details["label"], COLOURS[details["predicted_label"]]
    probability, threshold = details["probability_calibrated"], details["threshold_calibrated"]
    side = "at or above" if details["predicted_label"] else "under"
    rule = bundle.get("threshold_rule")
    rule = f" It is the {escape(str(rule).replace('>=', '≥'))}." if rule else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in details["notes"])
    return f"""<div class="answer" role="status">
<div class="head"><span class="class" style="background:{colour}">{label}</span>
<span>calibrated probability of {CLASSES[1]} <span class="number">{number(probability)}</span></span></div>
<div class="bar" role="img" aria-label="Probability {number(probability)}, threshold {number(threshold)}">
<span style="width:{100 * probability:.1f}%;background:{colour}"></span><i style="left:{100 * threshold:.1f}%"></i>
<em style="left:clamp(3.6rem, {100 * threshold:.1f}%, 100% - 3.6rem)">threshold {number(threshold)}</em></div>
<p>The calibrated probability is {side} the threshold of {number(threshold)} from which a patch is called
{CLASSES[1]}.{rule}</p>{f"<ul>{notes}</ul>" if notes else ""}</div>"""


def legend(details: dict[str, Any] | None) -> str:
    """What the colours of the evidence map mean; nothing when there is no map."""
    if details is None or details["problem"]:
        return ""
    ends, logit = details["evidence_limit"], signed(details["logit"])
    return f"""<div class="legend"><div class="ramp"></div>
<div class="ends"><span>{signed(-ends)}<br>speaks for {CLASSES[0]}</span><span>0<br>neither</span>
<span>{signed(ends)}<br>speaks for {CLASSES[1]}</span></div>
<p>The map's mean over the patch is the model's logit, {logit}: the colours add up to the answer. The map is as coarse as the
network's last layer and outlines no tumour.</p></div>"""


def signed(value: float) -> str:
    """A number with its sign, one or two digits after the point, and a true minus."""
    return f"{value:+.3g}".replace("-", "−")
