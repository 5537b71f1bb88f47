"""A region: how the page shows its map, and what its API answers. Used by the interface only; ``predict.regions`` does the work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bhi_utils.app import page_html, patch_answer
from bhi_utils.core.messages import number, text, translated
from bhi_utils.core.titles import CLASSES
from bhi_utils.data.decode import PATCH
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model.predictor import Predictor
from bhi_utils.predict import regions
from bhi_utils.predict.regions import Region, Tiles


def read(path: Path) -> Tiles | str:
    """A file cut into patches, or why it cannot be."""
    pixels = regions.read(path)
    return pixels.problem if pixels.array is None else regions.cut(pixels.array, pixels.notes)


def synthetic(*, patches: int = 150, seed: int = 11) -> Tiles:
    """A drawn slide, for those who have none at hand."""
    image = synthetic_cohort.draw_slide(2, patches=patches, seed=seed).image
    tiles = regions.cut(image)
    assert isinstance(tiles, Tiles)  # a drawn slide has tissue
    return tiles


def answered(predictor: Predictor, tiles: Tiles) -> Iterator[int | Region]:
    """How many patches are done, after each step; the region at last."""
    found, done = [], 0
    for step in regions.answers(predictor, tiles.patches):
        found.append(step)
        done += len(step[0])
        yield done
    yield regions.assembled(tiles, found)


def size(region: Region) -> int:
    """Bytes that a region takes in memory."""
    return region.tiles.patches.nbytes + region.tiles.picture.nbytes + region.maps.nbytes


def facts(region: Region, language: str) -> dict[str, Any]:
    """What the API says of a region at the threshold in force.

    Returns:
        ``problem, doubts, notes, size, patches, background, above, share``, ``threshold`` (on ``probability``) and
        ``threshold_calibrated``.
    """
    doubt = region.tiles.doubt
    return {
        "problem": "",
        "doubts": [translated(doubt, language)] if doubt else [],
        "notes": [translated(note, language) for note in region.tiles.notes],
        "size": list(region.tiles.size),
        "patches": len(region.table),
        "background": region.tiles.background,
        "above": region.above,
        "share": region.share,
        **region.thresholds,
    }


def table(region: Region) -> dict[str, list]:
    """The region's table at the threshold in force as columns, ready for ``pandas.DataFrame``."""
    return {name: column.tolist() for name, column in region.table.items()}


def place(predictor: Predictor, region: Region | None, x: float, y: float, language: str) -> dict[str, Any]:
    """The patch at a place, in the region's pixels, judged by the threshold in force, with what the network said: no new pass."""
    row = None if region is None else region.at(x, y)
    if row is None:
        return {"problem": text("no_region" if region is None else "no_tissue_here", language), "doubts": [], "notes": []}
    found = region.table.iloc[row]
    details = {"problem": "", "doubts": [], "notes": [], "x": int(found["x"]), "y": int(found["y"]), "in_scope": bool(found["in_scope"])}
    evidence = region.maps[row]
    said = {**found.to_dict(), "logit": float(evidence.mean())}
    return {**details, **patch_answer.described(predictor, region.tiles.patches[row], said, evidence)}


def place_shown(bundle: dict[str, Any], details: dict[str, Any], language: str) -> str:
    """The patch at a place, as the page shows it."""
    title = f"<h3>{text('place_title', language, x=details['x'], y=details['y'])}</h3>" if "x" in details else ""
    return title + patch_answer.shown(bundle, details, language)


def shown(predictor: Predictor, region: Region, language: str) -> str:
    """The map over the region's picture, with its sliders and downloads; the page's script draws it from the numbers."""
    said = facts(region, language)
    notes = [text("skipped", language, count=number(region.tiles.background, language)), *said["notes"]]
    strange = int((~region.table["in_scope"]).sum())
    if strange:
        notes.append(text("strange", language, count=number(strange, language)))
    picture = page_html.data_url(region.tiles.picture, kind="JPEG")
    label, hint, image = text("map_label", language), text("map_hint", language), text("region_image", language)
    # where the slider stands; what is in force until it moves is the threshold itself, which the script takes from the numbers
    value = min(max(round(said["threshold_calibrated"], 2), 0.01), 0.99)
    buttons = "".join(
        f'<button type="button" class="{kind}">{text(key, language)}</button>'
        for kind, key in (("png", "download_map"), ("csv", "download_table"))
    )
    shape = f"{region.tiles.size[0] / region.tiles.size[1]:.4f}"
    slider = f'<input type="range" min="0.01" max="0.99" step="0.01" value="{value}">'
    return f"""{page_html.doubt(said["doubts"], language)}
<figure class="over map answer" {page_html.fresh()} data-map="{page_html.attribute(_data(predictor, region, language))}">
<p class="share" aria-live="polite"></p>
<label class="threshold"><span>{text("threshold_slider", language)}</span>{slider}<output></output></label>
{page_html.opacity(language)}
<p class="hint">{hint}</p>
<div class="stack" style="max-width:calc(75vh * {shape})" tabindex="0" role="application" aria-label="{label}">
<img src="{picture}" alt="{image}"><canvas></canvas><span class="cursor"></span></div>
<p class="said" aria-live="polite"></p>{_scale(language)}
<div class="buttons">{buttons}</div>{page_html.bullets(notes)}</figure>"""


def _scale(language: str) -> str:
    middle = text("threshold_slider", language).lower()
    return f"""<div class="legend"><div class="ramp"></div>
<div class="ends"><span>0<br>{CLASSES[0]}</span><span>{middle}</span><span>1<br>{CLASSES[1]}</span></div></div>"""


def _data(predictor: Predictor, region: Region, language: str) -> dict[str, Any]:
    """The numbers that the page's script draws from, unrounded: what it counts is what the API counts."""
    (width, height), found = region.tiles.size, region.table
    keys = {"share": "share", "place": "place", "glass": "is_glass", "probability": "is_probability"}
    columns, rows = -(-width // PATCH), -(-height // PATCH)
    shape = {"width": width, "height": height, "columns": columns, "rows": rows, "patch": PATCH}
    named = {"x": found["x"] // PATCH, "y": found["y"] // PATCH, "tissue": found["tissue"].round(3), "in_scope": found["in_scope"]}
    named |= {"p": found["probability_calibrated"], "raw": found["probability"]}
    # each place of the slider on the raw probability's scale, for the table that the page saves
    named["steps"] = [region.raw(predictor, step / 100) for step in range(100)]
    words = {name: text(key, language, **_BRACES | {"all": number(len(found), language)}) for name, key in keys.items()}
    return {**shape, **region.thresholds, **{name: np.asarray(column).tolist() for name, column in named.items()}, "words": words}


#: Values that the page's script fills in.
_BRACES = {name: f"{{{name}}}" for name in ("share", "above", "all", "threshold", "x", "y", "p")}
