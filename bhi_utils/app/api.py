"""The named endpoints: what programs ask for, as JSON, without a page. Used by ``app.server`` only.

Each takes what the page takes and a ``language``, en or es, for its sentences; ``problem`` is empty when there is an answer.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from bhi_utils.app import case_slide, files_answer, model_card, patch_answer, region_answer, request_checks
from bhi_utils.app.case_slide import Cases
from bhi_utils.app.upload_store import Kept
from bhi_utils.core.messages import LANGUAGES, text, translated
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict.regions import Region

#: Long runs at a time; the network itself runs for one, and single patches are let in between.
LONG = 2


class Endpoints:
    """What is answered, for one model, one archive and the regions that windows have open."""

    def __init__(self, predictor: Predictor, cases: Cases, kept: Kept, take: Callable) -> None:
        self.predictor, self.cases, self.kept, self.take = predictor, cases, kept, take

    def predict(self, file: dict | None, language: str = "en") -> dict[str, Any]:
        """Class, calibrated probability, threshold and evidence map of one 50×50 patch."""
        patch, details = self.patch(file, language)
        return details if patch is None else {**details, **patch_answer.answer(self.predictor, patch, language)}

    def views(self, file: dict | None, language: str = "en") -> dict[str, Any]:
        """Calibrated probabilities of one patch turned and mirrored in all eight ways."""
        patch, details = self.patch(file, language)
        return details if patch is None else {**details, **patch_answer.views(self.predictor, patch)}

    def patch(self, file: dict | None, language: str) -> tuple[Any, dict[str, Any]]:
        """The patch in an upload, which is deleted, and what is said of it."""
        with self.take([file] if file else []) as paths:
            if not paths:
                return None, _problem(text("gone", language))
            return patch_answer.check(paths[0], language)

    def region(self, request: gr.Request, file: dict | None, language: str = "en") -> dict[str, Any]:
        """Probability of every patch with tissue of a region; /threshold and /place go on from there."""
        session = window(request)
        with self.take([file] if file else []) as paths:
            tiles = text("no_session", language) if not session else region_answer.read(paths[0]) if paths else text("gone", language)
        if isinstance(tiles, str):
            return _problem(translated(tiles, language))
        *_, region = region_answer.answered(self.predictor, tiles)
        self.kept.put(session, region, region_answer.size(region))
        return _mapped(region, language)

    def threshold(self, request: gr.Request, threshold: float, language: str = "en") -> dict[str, Any]:
        """Puts another threshold on the calibrated probability in force for this session's region, /place included."""
        region = self.kept.get(session) if (session := window(request)) else None
        threshold = _finite(threshold)
        if region is None or threshold is None or not 0 <= threshold <= 1:
            return _problem(text("no_session" if not session else "no_region" if region is None else "not_probability", language))
        region = region.at_threshold(self.predictor, threshold)
        self.kept.put(session, region, region_answer.size(region))
        return _mapped(region, language)

    def place(self, request: gr.Request, x: float, y: float, language: str = "en") -> dict[str, Any]:
        """The patch at a place of this session's region, in pixels, with its answer and evidence; the network does not run."""
        if not (session := window(request)):
            return _problem(text("no_session", language))
        x, y = _finite(x), _finite(y)
        if x is None or y is None:
            return _problem(text("not_place", language))
        return region_answer.place(self.predictor, self.kept.get(session), x, y, language)

    def files(self, files: Sequence[dict] | None, language: str = "en") -> dict[str, Any]:
        """Answers for up to 1,000 patches, as images or zips, and the rejected ones with their reasons."""
        with self.take(files or []) as paths:
            *_, found = files_answer.answered(self.predictor, paths, language)
        return found

    def cases_list(self) -> dict[str, Any]:
        """The cases of the archive that the server was started with."""
        return self.cases.listed()

    def case(self, case: float, language: str = "en") -> dict[str, Any]:
        """Labels and probabilities of all patches of one case."""
        case = _finite(case)
        if case is None or not case.is_integer():
            return _problem(text("not_case", language))
        if not len(self.cases.rows(int(case))):
            return _problem(text("no_case", language, case=int(case)))
        *_, table = self.cases.answered(self.predictor, int(case))
        return case_slide.facts(self.cases, self.predictor, table, language)

    def card(self, language: str = "en") -> dict[str, Any]:
        """The model's card: data, threshold, calibration, metrics with intervals, limits."""
        return model_card.facts(self.predictor, language)


def _finite(value: Any) -> float | None:
    """A number as a program has sent it, None for anything else."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
    except OverflowError:  # JSON has integers of any length
        return None


def _mapped(region: Region, language: str) -> dict[str, Any]:
    return {**region_answer.facts(region, language), "table": region_answer.table(region)}


def window(request: gr.Request) -> str:
    """The session that a request has named itself; empty without one, where Gradio gives all programs the same or one of its own."""
    return request.request.scope.get(request_checks.SESSION, "")


def _problem(sentence: str) -> dict[str, Any]:
    return {"problem": sentence, "doubts": [], "notes": []}


def explain(page: gr.Blocks) -> None:
    """Have inputs that Gradio cannot read refused in a sentence: else a program gets ``{"error": null}``, and the log a traceback.

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
            names = [name for name in inspect.signature(function.fn).parameters if name != "request"]
            upload = text("as_uploaded", language) if any(isinstance(block, gr.File) for block in function.inputs) else ""
            said = text("not_fitting", language, name=function.api_name or "", inputs=", ".join(names), upload=upload)
            raise gr.Error(said, print_exception=False) from error

    page.preprocess_data = preprocess_data


def offer(endpoints: Endpoints, page: gr.Blocks) -> None:
    """Add the endpoints to the page that is being built; nothing of them is seen."""
    explain(page)
    with gr.Row(visible=False):
        file, files, out, ask = gr.File(), gr.File(file_count="multiple"), gr.JSON(), gr.Button()
        language, number, x, y, case = gr.Textbox("en"), gr.Number(0.5), gr.Number(0), gr.Number(0), gr.Number()
    one = {"concurrency_id": "patch", "concurrency_limit": 1}
    long = {"concurrency_id": "long", "concurrency_limit": LONG}
    for function, name, inputs, limits in (
        (endpoints.predict, "predict", [file, language], one),
        (endpoints.views, "views", [file, language], one),
        (endpoints.region, "region", [file, language], long),
        (endpoints.threshold, "threshold", [number, language], {}),
        (endpoints.place, "place", [x, y, language], {}),
        (endpoints.files, "files", [files, language], long),
        (endpoints.cases_list, "cases", [], long),
        (endpoints.case, "case", [case, language], long),
        (endpoints.card, "card", [language], {}),
    ):
        # preprocess=False: Gradio would copy the files once more, and give names instead of what it knows of them
        ask.click(function, inputs, out, api_name=name, preprocess=False, show_progress="hidden", **limits)
