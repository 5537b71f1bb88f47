"""The page's tabs: boxes, buttons and what happens when they are used.

Used by ``app.server`` only; ``app.api`` is asked for the answers.

Every handler takes the language as its last input, and gives HTML that holds its pictures, so that no picture of an upload becomes a file.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from bhi_utils.app import patch_answer, slide_answer
from bhi_utils.app.api import LONG, PATCH, Endpoints, window
from bhi_utils.app.page_html import render
from bhi_utils.core.messages import TEXTS, text
from bhi_utils.predict.regions import Tiles

#: Texts that the browser chooses by its language.
I18N = gr.I18n(**TEXTS)
#: Nothing of Gradio's is drawn over an answer, which shows its own progress, and no handler is public.
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
#: Scripts that turn what is done in a piece of HTML into an event which Python hears.
_CHOOSE = """element.addEventListener('click', (click) => { const hit = click.target.closest('button');
    if (hit) trigger('choose', { index: Number(hit.dataset.index) }); });"""
_PLACE = "element.addEventListener('place', (event) => trigger('place', event.detail));"


def piece(value: str = "", **options: Any) -> gr.HTML:
    """A piece of HTML in the page's own style, without Gradio's."""
    return gr.HTML(value, apply_default_css=False, **options)


def _progress(done: int, total: int, language: str) -> str:
    """How far a long run is; with a total of 0, that the files are being read."""
    return render("progress", language, done=done, total=total)


def patch_tab(endpoints: Endpoints, language: gr.Textbox, examples: Sequence[np.ndarray]) -> tuple[gr.HTML, gr.HTML]:
    """One patch; the examples and the answer, whose texts the page fills in when it opens."""
    predictor = endpoints.predictor

    def said(patch: np.ndarray | None, details: dict[str, Any], spoken: str) -> Iterator[tuple[str, None]]:
        if patch is not None:
            details |= patch_answer.answer(predictor, patch)
        yield patch_answer.shown(predictor.bundle, details, spoken), None
        if patch is not None:  # the eight views follow: the answer need not wait for them
            yield patch_answer.shown(predictor.bundle, details, spoken, found=patch_answer.views(predictor, patch)), None

    def given(file: dict | None, spoken: str) -> Iterator[tuple[str, None]]:
        yield from said(*endpoints.patch(file, spoken), spoken)

    def chosen(spoken: str, event: gr.EventData) -> Iterator[tuple[str, None]]:
        yield from said(examples[int(event.index) % len(examples)], {"problem": "", "doubts": [], "notes": []}, spoken)

    with gr.Row():
        with gr.Column(scale=2):
            box = gr.File(label=I18N("box_patch"), elem_id="patch", elem_classes="upload", height=190)
            offered = piece(elem_id="examples", js_on_load=_CHOOSE)
        with gr.Column(scale=3):
            answer = piece(render("hint", "en", key="empty_patch"), elem_id="answer")
    # "multiple": the next patch need not wait for the eight views of the last one, which Gradio would take for a click too many
    box.upload(given, [box, language], [answer, box], trigger_mode="multiple", **PATCH, **_QUIET)
    offered.choose(chosen, [language], [answer, box], trigger_mode="multiple", **PATCH, **_QUIET)
    return offered, answer


def region_tab(endpoints: Endpoints, language: gr.Textbox) -> gr.HTML:
    """A region with its map; the place that is looked at stands beside it."""
    predictor = endpoints.predictor

    def mapped(tiles: Tiles | str, spoken: str, request: gr.Request) -> Iterator[tuple]:
        for step in endpoints.mapped(request, tiles, spoken):
            if isinstance(step, tuple):
                yield _progress(*step, spoken), None, "", gr.update(visible=True)
            elif isinstance(step, str):
                yield render("problem", spoken, problem=step), None, "", gr.update(visible=False)
            else:
                yield slide_answer.region_shown(predictor, step, spoken), None, "", gr.update(visible=False)

    def given(file: dict | None, spoken: str, request: gr.Request) -> Iterator[tuple]:
        yield _progress(0, 0, spoken), gr.skip(), "", gr.update(visible=True)
        yield from mapped(endpoints.tiles(file, spoken), spoken, request)

    def drawn(spoken: str, request: gr.Request) -> Iterator[tuple]:
        yield from mapped(slide_answer.synthetic(), spoken, request)

    def looked(spoken: str, event: gr.EventData, request: gr.Request) -> str:
        region = endpoints.kept.get(window(request))
        if region is not None:  # the page's slider has told nobody yet where it stands
            region = region.at_threshold(predictor, float(event.threshold))
        details = slide_answer.place(predictor, region, float(event.x), float(event.y), spoken)
        return patch_answer.shown(predictor.bundle, details, spoken)

    with gr.Row(equal_height=True):
        box = gr.File(label=I18N("box_region"), elem_id="region", elem_classes="upload", height=150, scale=4)
        with gr.Column(scale=1, min_width=170):
            example = gr.Button(I18N("example_region"), elem_id="region-example")
            cancel = gr.Button(I18N("cancel"), variant="stop", visible=False, elem_id="region-cancel")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            answer = piece(render("hint", "en", key="empty_region"), elem_id="map", js_on_load=_PLACE)
        with gr.Column(scale=2, min_width=300):
            place = piece(elem_id="place")
    outputs = [answer, box, place, cancel]
    runs = [
        box.upload(given, [box, language], outputs, **LONG, **_QUIET),
        example.click(drawn, [language], outputs, **LONG, **_QUIET),
    ]
    _cancelled(cancel, language, answer, runs)
    answer.place(looked, [language], place, trigger_mode="always_last", **_QUIET)
    return answer


def _cancelled(button: gr.Button, language: gr.Textbox, answer: gr.HTML, runs: list[Any]) -> None:
    def said(spoken: str) -> tuple:
        return render("hint", spoken, key="cancelled"), gr.update(visible=False)

    # said after the run has stopped: together with it, its last progress could come later and stay on the page
    button.click(None, cancels=runs, queue=False, **_QUIET).then(said, [language], [answer, button], queue=False, **_QUIET)


def files_tab(endpoints: Endpoints, language: gr.Textbox) -> gr.HTML:
    """Many files, their table, and the list of what was rejected."""

    def given(files: list[dict] | None, spoken: str) -> Iterator[tuple]:
        yield _progress(0, 0, spoken), gr.skip(), gr.update(visible=False), gr.update(visible=True)
        with endpoints.take(files or []) as paths:
            for step in patch_answer.files_answered(endpoints.predictor, paths, spoken):
                if isinstance(step, tuple):
                    yield _progress(*step, spoken), gr.skip(), gr.skip(), gr.skip()
                    continue
                table = gr.update(value=patch_answer.files_rows(step, spoken), visible=step["count"] > 0)
                yield patch_answer.files_shown(step, spoken), None, table, gr.update(visible=False)

    box = gr.File(label=I18N("box_files"), file_count="multiple", elem_id="files", elem_classes="upload", height=150)
    cancel = gr.Button(I18N("cancel"), variant="stop", visible=False, elem_id="files-cancel")
    answer = piece(render("hint", "en", key="empty_files"), elem_id="files-answer")
    table = gr.Dataframe(
        label=I18N("answers"),
        visible=False,
        interactive=False,
        datatype=["str", "number", "str", "str"],  # so that numbers sort as numbers
        column_widths=["380px", "170px", "90px", "420px"],
        max_height=420,
        wrap=True,
        elem_id="files-table",
    )
    run = box.upload(given, [box, language], [answer, box, table, cancel], **LONG, **_QUIET)
    _cancelled(cancel, language, answer, [run])
    return answer


def case_tab(endpoints: Endpoints, language: gr.Textbox, tab: gr.Tab) -> gr.HTML:
    """A case of the archive; its list is made when the tab is opened for the first time."""
    cases, predictor = endpoints.cases, endpoints.predictor

    def listed() -> tuple[Any, Any]:
        found = [row["case"] for row in cases.listed()["cases"]]
        return gr.update(choices=[(str(case), case) for case in found], value=found[0]), gr.update(interactive=True)

    def given(case: int | None, spoken: str) -> Iterator[str]:
        number = int(case or 0)
        if not len(cases.rows(number)):
            yield render("problem", spoken, problem=text("no_case", spoken, case=case))
            return
        for step in cases.answered(predictor, number):
            if isinstance(step, tuple):
                yield _progress(step[0], step[1], spoken)
            else:
                yield slide_answer.case_shown(cases, slide_answer.case_facts(cases, predictor, step, spoken), step, spoken)

    with gr.Row(equal_height=True):
        choice = gr.Dropdown(label=I18N("case"), elem_id="case", scale=3)
        show = gr.Button(I18N("show"), interactive=False, elem_id="case-show", scale=1)
    answer = piece(render("hint", "en", key="empty_case"), elem_id="case-answer")
    tab.select(listed, None, [choice, show], show_progress="minimal", api_visibility="private")
    show.click(given, [choice, language], answer, **LONG, **_QUIET)
    return answer
