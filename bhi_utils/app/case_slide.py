"""A case of a packed archive: its slide put together, with truth, probability and error side by side. Used by the interface only."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils import plots
from bhi_utils.app import page_html
from bhi_utils.core.messages import number, text, threshold_said
from bhi_utils.data import slide_grid
from bhi_utils.data.archive import Pack, per_case
from bhi_utils.data.decode import PATCH
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict.regions import PICTURE, answers

#: Distance in pixels of the map between the lines that mark an error.
HATCH = 5


class Cases:
    """A pack that is opened when somebody asks for it first: packing an archive takes a while, and most windows never do."""

    def __init__(self, opened: Callable[[], Pack]) -> None:
        self._opened, self._pack, self._lock = opened, None, threading.Lock()

    @property
    def pack(self) -> Pack:
        with self._lock:
            if self._pack is None:
                self._pack = self._opened()
            return self._pack

    def listed(self) -> dict[str, Any]:
        """The API's list: ``source, synthetic`` and, for each case, ``case, patches, positive``."""
        info, table = self.pack.info, per_case(self.pack.manifest)
        cases = [{name: int(row[name]) for name in ("case", "patches", "positive")} for row in table.to_dict("records")]
        return {"source": info["kind"], "synthetic": bool(info["synthetic"]), "cases": cases}

    def rows(self, case: int) -> np.ndarray:
        """Rows of the manifest that belong to a case; none for one that is not there."""
        return np.flatnonzero(self.pack.manifest["case"].to_numpy() == case)

    def seen(self, predictor: Predictor, case: int) -> bool:
        """Whether the model, or the one that it started from, was trained or tuned on a case: by its id, or by a patch's pixels."""
        known = predictor.seen
        return (case, bool(self.pack.info["synthetic"])) in known.cases or bool(known.pixels(self.pack.patches[self.rows(case)]).any())

    def answered(self, predictor: Predictor, case: int) -> Iterator[int | pd.DataFrame]:
        """How many patches of a case are done; at last its rows of the manifest beside `Predictor.predict`."""
        rows, found, done = self.rows(case), [], 0
        for step, _ in answers(predictor, self.pack.patches[rows]):
            found.append(step)
            done += len(step)
            yield done
        yield pd.concat([self.pack.manifest.iloc[rows].reset_index(drop=True), pd.concat(found, ignore_index=True)], axis=1)


def facts(cases: Cases, predictor: Predictor, table: pd.DataFrame, language: str) -> dict[str, Any]:
    """What the API says of a case: counts, and its patches as columns."""
    truth, said = table["label"] == 1, table["predicted_label"] == 1
    case = int(table["case"].iloc[0])
    counts = {"patches": len(table), "positive": truth.sum(), "found": (truth & said).sum(), "false": (said & ~truth).sum()}
    columns = ("x", "y", "label", "probability", "probability_calibrated", "predicted_label")
    return {
        "problem": "",
        "case": case,
        **{name: int(value) for name, value in counts.items()},
        "notes": [text("in_training", language)] if cases.seen(predictor, case) else [],
        "threshold": float(predictor.threshold),
        "threshold_calibrated": float(predictor.threshold_calibrated),
        "table": {name: table[name].tolist() for name in columns},
    }


def shown(cases: Cases, found: dict[str, Any], table: pd.DataFrame, language: str) -> str:
    """Tissue, truth, probability and error side by side."""
    pictures = panels(np.asarray(cases.pack.patches[cases.rows(found["case"])]), table, found["threshold_calibrated"])
    counts = {name: number(found[name], language) for name in ("patches", "positive", "found", "false")}
    said = text("case_facts", language, case=found["case"], **counts)
    notes = [*([text("synthetic", language)] if cases.pack.info["synthetic"] else []), *found["notes"]]
    figures = ""
    for name, picture in pictures.items():
        title = text(
            f"panel_{name}", language, **({"t": threshold_said(found["threshold_calibrated"], language)} if name == "probability" else {})
        )
        figures += f'<figure><img src="{page_html.data_url(picture)}" alt="{title}"><figcaption>{title}</figcaption></figure>'
    return f'<div class="answer"><p><strong>{said}</strong></p>{page_html.bullets(notes)}<div class="panels">{figures}</div></div>'


def panels(patches: np.ndarray, table: pd.DataFrame, threshold: float) -> dict[str, np.ndarray]:
    """Pictures of one size, uint8 arrays (h, w, 3): ``slide, truth, probability, error``.

    Args:
        patches: uint8 array (n, 50, 50, 3), all of one case.
        table: their rows: ``x, y, label, width, height, probability_calibrated, predicted_label``.
        threshold: calibrated probability from which a patch is called IDC+.
    """
    canvas, (left, right, bottom, top) = slide_grid.assemble(patches, table)
    blank = canvas[..., 3:] == 0
    slide = np.where(blank, 255, canvas[..., :3]).astype(np.uint8)
    step = -(-max(slide.shape[:2]) // (PICTURE // 2))
    picture, size = slide[::step, ::step], (right - left, bottom - top)
    places = pd.DataFrame({"x": table["x"] - left, "y": table["y"] - top})
    truth, said = table["label"].to_numpy(), table["predicted_label"].to_numpy()
    values = {
        "truth": 2.0 * truth - 1,
        "probability": plots.scaled(table["probability_calibrated"].to_numpy(), threshold),
        "error": np.where(truth == said, np.nan, np.sign(said - truth).astype(float)),
    }
    drawn = {name: plots.coloured(picture, size, places, value) for name, value in values.items()}
    drawn["error"] = _hatched(drawn["error"], size, places, values["error"])
    return {"slide": picture, **drawn}


def _hatched(picture: np.ndarray, size: tuple[int, int], places: pd.DataFrame, errors: np.ndarray) -> np.ndarray:
    """Lines across the errors, falling for false alarms and rising for what was missed: no meaning hangs on colour alone."""
    height, width = picture.shape[:2]
    kind = np.zeros((-(-size[1] // PATCH), -(-size[0] // PATCH)), np.int8)
    kind[places["y"].to_numpy() // PATCH, places["x"].to_numpy() // PATCH] = np.nan_to_num(errors)
    down, across = np.arange(height), np.arange(width)
    cells = kind[np.ix_(down * size[1] // height // PATCH, across * size[0] // width // PATCH)]
    falling, rising = (down[:, None] - across) % HATCH == 0, (down[:, None] + across) % HATCH == 0
    lines = ((cells > 0) & falling) | ((cells < 0) & rising)
    return np.where(lines[..., None], 0, picture).astype(np.uint8)
