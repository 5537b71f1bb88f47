"""What the model is asked, by the page's tabs and by programs, and the named endpoints, which answer programs as JSON without a page.

Used by ``app.tabs`` and ``app.server``. Each endpoint takes what the page takes and a ``language``, en or es, for its sentences;
``problem`` is empty when there is an answer.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import gradio as gr

from bhi_utils.app import model_card, patch_answer, request_checks, slide_answer
from bhi_utils.app.slide_answer import Cases
from bhi_utils.app.upload_store import Kept
from bhi_utils.core.messages import LANGUAGES, text, translated
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict.regions import Region, Tiles

#: How Gradio runs a patch and a long run: two of these at a time, though the network runs for one, and single patches are let in between.
#: preprocess=False: Gradio would copy the files once more, and give names instead of what it knows of them.
PATCH: dict[str, Any] = {"concurrency_id": "patch", "concurrency_limit": 1, "preprocess": False}
LONG: dict[str, Any] = {"concurrency_id": "long", "concurrency_limit": 2, "preprocess": False}


class Endpoints:
    """Answers for one model, one archive and the regions that windows have open."""

    def __init__(self, predictor: Predictor, cases: Cases, kept: Kept, take: Callable) -> None:
        self.predictor, self.cases, self.kept, self.take = predictor, cases, kept, take

    def predict(self, file: dict | None, language: str = "en") -> dict[str, Any]:
        """Class, calibrated probability, threshold and evidence map of one 50×50 patch."""
        patch, details = self.patch(file, language)
        return details if patch is None else {**details, **patch_answer.answer(self.predictor, patch)}

    def views(self, file: dict | None, language: str = "en") -> dict[str, Any]:
        """Calibrated probabilities of one patch turned and mirrored in all eight ways."""
        patch, details = self.patch(file, language)
        return details if patch is None else {**details, **patch_answer.views(self.predictor, patch)}

    def patch(self, file: dict | None, language: str) -> tuple[Any, dict[str, Any]]:
        """The patch in an upload, which is deleted, and what is said of it."""
        with self.take([file] if file else []) as paths:
            return patch_answer.check(paths[0], language) if paths else (None, _problem(text("gone", language)))

    def region(self, request: gr.Request, file: dict | None, language: str = "en") -> dict[str, Any]:
        """Probability of every patch with tissue of a region; /threshold and /place go on from there."""
        found = _last(self.mapped(request, self.tiles(file, language), language))
        return _mapped(found, language) if isinstance(found, Region) else _problem(found)

    def tiles(self, file: dict | None, language: str) -> Tiles | str:
        """An upload cut into patches, or why it cannot be; it is deleted."""
        with self.take([file] if file else []) as paths:
            return slide_answer.read(paths[0]) if paths else text("gone", language)

    def mapped(self, request: gr.Request, tiles: Tiles | str, language: str) -> Iterator[tuple[int, int] | Region | str]:
        """How many of how many patches of a region are done; at last the region, which is kept for its session, or why there is none."""
        if not (session := window(request)):
            yield text("no_session", language)
        elif isinstance(tiles, str):
            yield translated(tiles, language)
        else:
            for step in slide_answer.answered(self.predictor, tiles):
                if isinstance(step, Region):
                    self.kept.put(session, step, slide_answer.size(step))
                yield step

    def threshold(self, request: gr.Request, threshold: float, language: str = "en") -> dict[str, Any]:
        """Puts another threshold on the calibrated probability in force for this session's region, /place included."""
        session = window(request)
        region, cut = self.kept.get(session), _finite(threshold)
        if region is None or cut is None or not 0 <= cut <= 1:
            return _problem(text("no_session" if not session else "no_region" if region is None else "not_probability", language))
        region = region.at_threshold(self.predictor, cut)
        self.kept.put(session, region, slide_answer.size(region))
        return _mapped(region, language)

    def place(self, request: gr.Request, x: float, y: float, language: str = "en") -> dict[str, Any]:
        """The patch at a place of this session's region, in pixels, with its answer and evidence; the network does not run."""
        right, down, session = _finite(x), _finite(y), window(request)
        if right is None or down is None or not session:
            return _problem(text("not_place" if session else "no_session", language))
        return slide_answer.place(self.predictor, self.kept.get(session), right, down, language)

    def files(self, files: Sequence[dict] | None, language: str = "en") -> dict[str, Any]:
        """Answers for up to 1,000 patches, as images or zips, and the rejected ones with their reasons."""
        with self.take(files or []) as paths:
            return _last(patch_answer.files_answered(self.predictor, paths, language))

    def case(self, case: float, language: str = "en") -> dict[str, Any]:
        """Labels and probabilities of all patches of one case."""
        number = _finite(case)
        if number is None or not number.is_integer():
            return _problem(text("not_case", language))
        if not len(self.cases.rows(int(number))):
            return _problem(text("no_case", language, case=int(number)))
        return slide_answer.case_facts(self.cases, self.predictor, _last(self.cases.answered(self.predictor, int(number))), language)

    def card(self, language: str = "en") -> dict[str, Any]:
        """The model's card: data, threshold, calibration, metrics with intervals, limits."""
        return model_card.facts(self.predictor, language)


def _last(steps: Iterable[Any]) -> Any:
    """What a run gives at last, after its steps."""
    *_, found = steps
    return found


def _finite(value: Any) -> float | None:
    """A number as a program has sent it, None for anything else."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
    except OverflowError:  # JSON has integers of any length
        return None


def _mapped(region: Region, language: str) -> dict[str, Any]:
    return {**slide_answer.region_facts(region, language), "table": region.table.to_dict("list")}


def window(request: gr.Request) -> str:
    """The session that a request has named itself; empty without one, where Gradio gives all programs the same or one of its own."""
    return request.request.scope.get(request_checks.SESSION, "") if request.request else ""


def _problem(sentence: str) -> dict[str, Any]:
    return {"problem": sentence, "doubts": [], "notes": []}


def explain(page: gr.Blocks) -> None:
    """Has inputs that Gradio cannot read refused in a sentence: else a program gets ``{"error": null}``, and the log a traceback.

    One file in place of a list is taken for a list of one, and the other way round.
    """
    read = page.preprocess_data

    async def preprocess_data(function: Any, inputs: list[Any], *given: Any, **named: Any) -> list[Any]:
        fitted = list(inputs)
        for place, (block, value) in enumerate(zip(function.inputs, inputs, strict=False)):
            many = getattr(block, "file_count", None)
            if many == "multiple" and isinstance(value, dict):
                fitted[place] = [value]
            elif many == "single" and isinstance(value, list) and len(value) == 1:
                fitted[place] = value[0]
        try:
            return await read(function, fitted, *given, **named)
        except gr.Error:
            raise
        except Exception as error:  # pydantic's, or Gradio's own: whatever a wrong type leads to
            language = next((one for one in reversed(inputs) if isinstance(one, str) and one in LANGUAGES), "en")
            names = ", ".join(name for name in inspect.signature(function.fn).parameters if name != "request")
            upload = text("as_uploaded", language) if any(isinstance(block, gr.File) for block in function.inputs) else ""
            said = text("not_fitting", language, name=function.api_name or "", inputs=names, upload=upload)
            raise gr.Error(said, print_exception=False) from error

    vars(page)["preprocess_data"] = preprocess_data


def offer(endpoints: Endpoints, page: gr.Blocks) -> None:
    """Adds the endpoints to the page that is being built; nothing of them is seen."""
    explain(page)
    with gr.Row(visible=False):
        file, files, out, ask = gr.File(), gr.File(file_count="multiple"), gr.JSON(), gr.Button()
        language, number, x, y, case = gr.Textbox("en"), gr.Number(0.5), gr.Number(0), gr.Number(0), gr.Number()
    short = {"preprocess": False}
    offered: list[tuple[Callable, str, list[Any], dict[str, Any]]] = [
        (endpoints.predict, "predict", [file, language], PATCH),
        (endpoints.views, "views", [file, language], PATCH),
        (endpoints.region, "region", [file, language], LONG),
        (endpoints.threshold, "threshold", [number, language], short),
        (endpoints.place, "place", [x, y, language], short),
        (endpoints.files, "files", [files, language], LONG),
        (endpoints.cases.listed, "cases", [], LONG),
        (endpoints.case, "case", [case, language], LONG),
        (endpoints.card, "card", [language], short),
    ]
    for function, name, inputs, limits in offered:
        ask.click(function, inputs, out, api_name=name, show_progress="hidden", **limits)
