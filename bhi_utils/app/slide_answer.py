"""Slides: the answers for a region, and for a case of an archive put together from its patches, as JSON and as HTML.

Used by the interface only; ``predict.regions`` does the work.
"""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils import plots
from bhi_utils.app import patch_answer
from bhi_utils.app.page_html import data_url, render
from bhi_utils.core.messages import number, text, translated
from bhi_utils.data import slide_grid
from bhi_utils.data.archive import Pack, per_case
from bhi_utils.data.decode import PATCH
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict import regions
from bhi_utils.predict.regions import Region, Tiles

#: Distance in pixels of the map between the lines that mark an error.
HATCH = 5


# ---- a region


def read(path: Path) -> Tiles | str:
    """A file cut into patches, or why it cannot be."""
    pixels = regions.read(path)
    return regions.cut(pixels.array, pixels.notes) if pixels.array is not None else pixels.problem


def synthetic(*, patches: int = 150, seed: int = 11) -> Tiles | str:
    """A drawn slide, for those who have none at hand."""
    return regions.cut(synthetic_cohort.draw_slide(2, patches=patches, seed=seed).image)


def answered(predictor: Predictor, tiles: Tiles) -> Iterator[tuple[int, int] | Region]:
    """How many of how many patches are done; the region at last."""
    found: list[tuple[pd.DataFrame, np.ndarray]] = []
    yield 0, len(tiles.patches)
    for step in regions.answers(predictor, tiles.patches):
        found.append(step)
        yield sum(len(table) for table, _ in found), len(tiles.patches)
    yield regions.assembled(tiles, found)


def size(region: Region) -> int:
    """Bytes that a region takes in memory."""
    return region.tiles.patches.nbytes + region.tiles.picture.nbytes + region.maps.nbytes


def region_facts(region: Region, language: str) -> dict[str, Any]:
    """What the API says of a region at the threshold in force.

    Returns:
        ``problem, doubts, notes, size, patches, background, above, share``, ``threshold`` (on ``probability``) and
        ``threshold_calibrated``.
    """
    tiles = region.tiles
    return {
        "problem": "",
        "doubts": [translated(tiles.doubt, language)] if tiles.doubt else [],
        "notes": [translated(note, language) for note in tiles.notes],
        "size": list(tiles.size),
        "patches": len(region.table),
        "background": tiles.background,
        "above": region.above,
        "share": region.share,
        **region.thresholds,
    }


def place(predictor: Predictor, region: Region | None, x: float, y: float, language: str) -> dict[str, Any]:
    """The patch at a place, in the region's pixels, judged by the threshold in force, with what the network said: no new pass."""
    if region is None or (row := region.at(x, y)) is None:
        return {"problem": text("no_region" if region is None else "no_tissue_here", language), "doubts": [], "notes": []}
    found, evidence = region.table.iloc[row], region.maps[row]
    details = {"problem": "", "doubts": [], "notes": [], "x": int(found["x"]), "y": int(found["y"]), "in_scope": bool(found["in_scope"])}
    said = {**found.to_dict(), "logit": float(evidence.mean())}
    return {**details, **patch_answer.described(predictor, region.tiles.patches[row], said, evidence)}


def region_shown(predictor: Predictor, region: Region, language: str) -> str:
    """The map over the region's picture, with its sliders and downloads, as HTML."""
    facts = region_facts(region, language)
    return render(
        "region",
        language,
        **facts,
        strange=int((~region.table["in_scope"]).sum()),
        picture=data_url(region.tiles.picture, kind="JPEG"),
        # where the slider stands; what is in force until it moves is the threshold itself, which the script takes from the numbers
        slider=min(max(round(facts["threshold_calibrated"], 2), 0.01), 0.99),
        data=json.dumps(_data(predictor, region, language), separators=(",", ":"), ensure_ascii=False),
    )


def _data(predictor: Predictor, region: Region, language: str) -> dict[str, Any]:
    """The numbers that the page's script draws from, unrounded: what it counts is what the API counts."""
    (width, height), found = region.tiles.size, region.table
    named = found[["tissue", "in_scope"]].round({"tissue": 3}).assign(x=found["x"] // PATCH, y=found["y"] // PATCH)
    named = named.assign(p=found["probability_calibrated"], raw=found["probability"])
    # the page's script fills in the values, which stay in braces here
    values = {name: f"{{{name}}}" for name in ("share", "above", "threshold", "x", "y", "p")} | {"all": number(len(found), language)}
    keys = {"share": "share", "place": "place", "glass": "is_glass", "probability": "is_probability"}
    return {
        **{"width": width, "height": height, "columns": -(-width // PATCH), "rows": -(-height // PATCH), "patch": PATCH},
        **region.thresholds,
        **named.to_dict("list"),
        # each place of the slider on the raw probability's scale, for the table that the page saves
        "steps": [region.raw(predictor, step / 100) for step in range(100)],
        "words": {name: text(key, language, **values) for name, key in keys.items()},
    }


# ---- a case


class Cases:
    """A pack that is opened when somebody asks for it first: packing an archive takes a while, and most windows never do."""

    def __init__(self, opened: Callable[[], Pack]) -> None:
        self._opened, self._lock = opened, threading.Lock()
        self._pack: Pack | None = None

    @property
    def pack(self) -> Pack:
        with self._lock:
            if self._pack is None:
                self._pack = self._opened()
            return self._pack

    def listed(self) -> dict[str, Any]:
        """The cases of the archive that the server was started with."""
        info, table = self.pack.info, per_case(self.pack.manifest)[["case", "patches", "positive"]].astype(int)
        return {"source": info["kind"], "synthetic": bool(info["synthetic"]), "cases": table.to_dict("records")}

    def rows(self, case: int) -> np.ndarray:
        """Rows of the manifest that belong to a case; none for one that is not there."""
        return np.flatnonzero(self.pack.manifest["case"].to_numpy() == case)

    def seen(self, predictor: Predictor, case: int) -> bool:
        """Whether the model, or the one that it started from, was trained or tuned on a case: by its id, or by a patch's pixels."""
        known = predictor.seen
        return (case, bool(self.pack.info["synthetic"])) in known.cases or bool(known.pixels(self.pack.patches[self.rows(case)]).any())

    def answered(self, predictor: Predictor, case: int) -> Iterator[tuple[int, int] | pd.DataFrame]:
        """How many of how many patches of a case are done; at last its rows of the manifest beside `Predictor.predict`."""
        rows, found = self.rows(case), []
        for step, _ in regions.answers(predictor, self.pack.patches[rows]):
            found.append(step)
            yield sum(map(len, found)), len(rows)
        yield pd.concat([self.pack.manifest.iloc[rows].reset_index(drop=True), pd.concat(found, ignore_index=True)], axis=1)


def case_facts(cases: Cases, predictor: Predictor, table: pd.DataFrame, language: str) -> dict[str, Any]:
    """What the API says of a case: counts, and its patches as columns."""
    truth, said, case = table["label"] == 1, table["predicted_label"] == 1, int(table["case"].iloc[0])
    return {
        "problem": "",
        "case": case,
        "patches": len(table),
        "positive": int(truth.sum()),
        "found": int((truth & said).sum()),
        "false": int((said & ~truth).sum()),
        "notes": [text("in_training", language)] if cases.seen(predictor, case) else [],
        "threshold": float(predictor.threshold),
        "threshold_calibrated": float(predictor.threshold_calibrated),
        "table": table[["x", "y", "label", "probability", "probability_calibrated", "predicted_label"]].to_dict("list"),
    }


def case_shown(cases: Cases, found: dict[str, Any], table: pd.DataFrame, language: str) -> str:
    """Tissue, truth, probability and error side by side, as HTML."""
    pictures = _panels(np.asarray(cases.pack.patches[cases.rows(found["case"])]), table, found["threshold_calibrated"])
    urls = {name: data_url(picture) for name, picture in pictures.items()}
    return render("case", language, found=found, synthetic=cases.pack.info["synthetic"], pictures=urls)


def _panels(patches: np.ndarray, table: pd.DataFrame, threshold: float) -> dict[str, np.ndarray]:
    """Pictures of one size, uint8 arrays (h, w, 3): ``slide, truth, probability, error``.

    Args:
        patches: uint8 array (n, 50, 50, 3), all of one case.
        table: their rows: ``x, y, label, width, height, probability_calibrated, predicted_label``.
        threshold: calibrated probability from which a patch is called IDC+.
    """
    canvas, (left, right, bottom, top) = slide_grid.assemble(patches, table)
    slide = np.where(canvas[..., 3:] == 0, 255, canvas[..., :3]).astype(np.uint8)
    step = -(-max(slide.shape[:2]) // (regions.PICTURE // 2))
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
