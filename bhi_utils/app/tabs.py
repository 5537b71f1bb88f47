"""The page's tabs: boxes, buttons and what happens when they are used.

Used by ``app.server`` only; ``app.patch_answer`` and its kin give the answers.

Every handler takes the language as its last input, and gives HTML that holds its pictures, so that no picture of an upload becomes a file.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from bhi_utils.app import case_slide, files_answer, page_html, patch_answer, region_answer
from bhi_utils.app.api import LONG, Endpoints, window
from bhi_utils.core.messages import text, translated

#: A run with a page of its own: nothing of Gradio's is drawn over the answer, which shows its own progress.
_LONG = {"concurrency_id": "long", "concurrency_limit": LONG, "preprocess": False}
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def piece(value: str = "", **options: Any) -> gr.HTML:
    """A piece of HTML in the page's own style, without Gradio's."""
    return gr.HTML(value, apply_default_css=False, **options)


def patch_tab(endpoints: Endpoints, language: gr.Textbox, examples: Sequence[np.ndarray], i18n: gr.I18n) -> tuple[gr.HTML, gr.HTML]:
    """One patch; the examples and the answer, whose texts the page fills in when it opens."""

    def said(patch: np.ndarray | None, details: dict[str, Any], spoken: str) -> Iterator[tuple[str, None]]:
        if patch is not None:
            details |= patch_answer.answer(endpoints.predictor, patch, spoken)
        yield patch_answer.shown(endpoints.predictor.bundle, details, spoken), None
        if patch is not None:  # the eight views follow: the answer need not wait for them
            found = patch_answer.views(endpoints.predictor, patch)
            yield patch_answer.shown(endpoints.predictor.bundle, details, spoken, found=found), None

    def given(file: dict | None, spoken: str) -> Iterator[tuple[str, None]]:
        yield from said(*endpoints.patch(file, spoken), spoken)

    def chosen(spoken: str, event: gr.EventData) -> Iterator[tuple[str, None]]:
        patch = examples[int(event.index) % len(examples)]
        yield from said(patch, {"problem": "", "doubts": [], "notes": [], "size": [50, 50], "in_scope": True}, spoken)

    with gr.Row():
        with gr.Column(scale=2):
            box = gr.File(label=i18n("box_patch"), elem_id="patch", elem_classes="upload", height=190)
            offered = piece(elem_id="examples", js_on_load=_clicked("button", "choose", "index"))
        with gr.Column(scale=3):
            answer = piece(page_html.hint("empty_patch", "en"), elem_id="answer")
    # "multiple": the next patch need not wait for the eight views of the last one, which Gradio would take for a click too many
    limits = {"concurrency_id": "patch", "concurrency_limit": 1, "preprocess": False, "trigger_mode": "multiple"}
    box.upload(given, [box, language], [answer, box], **limits, **_QUIET)
    offered.choose(chosen, [language], [answer, box], **limits, **_QUIET)
    return offered, answer


def examples_shown(examples: Sequence[np.ndarray], language: str) -> str:
    """Thumbnails that answer when they are clicked."""
    buttons = ""
    for number, patch in enumerate(examples):
        label = text("example", language, number=number + 1)
        picture = f'<img src="{page_html.data_url(patch)}" alt="">'
        buttons += f'<button type="button" data-index="{number}" aria-label="{label}" title="{label}">{picture}</button>'
    return f'<p class="hint">{text("examples", language)}</p><div class="examples">{buttons}</div>' if buttons else ""


def _clicked(selector: str, event: str, name: str) -> str:
    """Script that turns a click on part of a piece of HTML into an event which Python hears."""
    return (
        f"element.addEventListener('click', (click) => {{ const hit = click.target.closest('{selector}');"
        f" if (hit) trigger('{event}', {{ {name}: Number(hit.dataset.{name}) }}); }});"
    )


def region_tab(endpoints: Endpoints, language: gr.Textbox, i18n: gr.I18n) -> gr.HTML:
    """A region with its map; the place that is looked at stands below."""
    predictor = endpoints.predictor

    def mapped(tiles: Any, spoken: str, session: str) -> Iterator[tuple]:
        if not session:
            tiles = text("no_session", spoken)
        if isinstance(tiles, str):
            yield page_html.problem(translated(tiles, spoken), spoken), None, "", gr.update(visible=False)
            return
        total = len(tiles.patches)
        yield page_html.progress(0, total, spoken), None, "", gr.update(visible=True)
        for step in region_answer.answered(predictor, tiles):
            if isinstance(step, int):
                yield page_html.progress(step, total, spoken), None, "", gr.update(visible=True)
            else:
                endpoints.kept.put(session, step, region_answer.size(step))
                yield region_answer.shown(predictor, step, spoken), None, "", gr.update(visible=False)

    def given(file: dict | None, spoken: str, request: gr.Request) -> Iterator[tuple]:
        yield page_html.progress(0, 0, spoken), gr.skip(), "", gr.update(visible=True)
        with endpoints.take([file] if file else []) as paths:
            tiles = region_answer.read(paths[0]) if paths else text("gone", spoken)
        yield from mapped(tiles, spoken, window(request))

    def drawn(spoken: str, request: gr.Request) -> Iterator[tuple]:
        yield from mapped(region_answer.synthetic(), spoken, window(request))

    def looked(spoken: str, event: gr.EventData, request: gr.Request) -> str:
        region = endpoints.kept.get(window(request))
        if region is not None:  # the page's slider has told nobody yet where it stands
            region = region.at_threshold(predictor, float(event.threshold))
        details = region_answer.place(predictor, region, float(event.x), float(event.y), spoken)
        return region_answer.place_shown(predictor.bundle, details, spoken)

    with gr.Row(equal_height=True):
        box = gr.File(label=i18n("box_region"), elem_id="region", elem_classes="upload", height=150, scale=4)
        with gr.Column(scale=1, min_width=170):
            example = gr.Button(i18n("example_region"), elem_id="region-example")
            cancel = gr.Button(i18n("cancel"), variant="stop", visible=False, elem_id="region-cancel")
    passed_on = "element.addEventListener('place', (event) => trigger('place', event.detail));"
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            answer = piece(page_html.hint("empty_region", "en"), elem_id="map", js_on_load=passed_on)
        with gr.Column(scale=2, min_width=300):
            place = piece(elem_id="place")
    outputs = [answer, box, place, cancel]
    runs = [
        box.upload(given, [box, language], outputs, **_LONG, **_QUIET),
        example.click(drawn, [language], outputs, **_LONG, **_QUIET),
    ]
    _cancelled(cancel, language, answer, runs)
    answer.place(looked, [language], place, trigger_mode="always_last", **_QUIET)
    return answer


def _cancelled(button: gr.Button, language: gr.Textbox, answer: gr.HTML, runs: Sequence[Any]) -> None:
    def said(spoken: str) -> tuple:
        return page_html.hint("cancelled", spoken), gr.update(visible=False)

    # said after the run has stopped: together with it, its last progress could come later and stay on the page
    button.click(None, cancels=runs, queue=False, **_QUIET).then(said, [language], [answer, button], queue=False, **_QUIET)


def files_tab(endpoints: Endpoints, language: gr.Textbox, i18n: gr.I18n) -> gr.HTML:
    """Many files, their table, and the list of what was rejected."""

    def given(files: list[dict] | None, spoken: str) -> Iterator[tuple]:
        yield page_html.progress(0, 0, spoken), gr.skip(), gr.update(visible=False), gr.update(visible=True)
        with endpoints.take(files or []) as paths:
            for step in files_answer.answered(endpoints.predictor, paths, spoken):
                if isinstance(step, tuple):
                    yield page_html.progress(*step, spoken), gr.skip(), gr.skip(), gr.skip()
                    continue
                table = gr.update(value=files_answer.rows(step, spoken), visible=step["count"] > 0)
                yield files_answer.shown(step, spoken), None, table, gr.update(visible=False)

    box = gr.File(label=i18n("box_files"), file_count="multiple", elem_id="files", elem_classes="upload", height=150)
    cancel = gr.Button(i18n("cancel"), variant="stop", visible=False, elem_id="files-cancel")
    answer = piece(page_html.hint("empty_files", "en"), elem_id="files-answer")
    # kinds of columns, so that numbers sort as numbers
    kinds = ["str", "number", "str", "str"]
    table = gr.Dataframe(
        label=i18n("answers"),
        visible=False,
        interactive=False,
        datatype=kinds,
        column_widths=["380px", "170px", "90px", "420px"],
        max_height=420,
        wrap=True,
        elem_id="files-table",
    )
    run = box.upload(given, [box, language], [answer, box, table, cancel], **_LONG, **_QUIET)
    _cancelled(cancel, language, answer, [run])
    return answer


def case_tab(endpoints: Endpoints, language: gr.Textbox, i18n: gr.I18n, tab: gr.Tab) -> gr.HTML:
    """A case of the archive; its list is made when the tab is opened for the first time."""
    cases, predictor = endpoints.cases, endpoints.predictor

    def listed() -> tuple[Any, Any]:
        found = [row["case"] for row in cases.listed()["cases"]]
        return gr.update(choices=[(str(case), case) for case in found], value=found[0]), gr.update(interactive=True)

    def given(case: int | None, spoken: str) -> Iterator[str]:
        rows = cases.rows(int(case or 0))
        if not len(rows):
            yield page_html.problem(text("no_case", spoken, case=case), spoken)
            return
        for step in cases.answered(predictor, int(case)):
            if isinstance(step, int):
                yield page_html.progress(step, len(rows), spoken)
            else:
                yield case_slide.shown(cases, case_slide.facts(cases, predictor, step, spoken), step, spoken)

    with gr.Row(equal_height=True):
        choice = gr.Dropdown(label=i18n("case"), elem_id="case", scale=3)
        show = gr.Button(i18n("show"), interactive=False, elem_id="case-show", scale=1)
    answer = piece(page_html.hint("empty_case", "en"), elem_id="case-answer")
    tab.select(listed, None, [choice, show], show_progress="minimal", api_visibility="private")
    show.click(given, [choice, language], answer, **_LONG, **_QUIET)
    return answer
