"""How a trained network becomes the packaged model: four files in ``bhi_utils/trained``, and the card, which quotes nothing but the bundle.

Used by whoever trains the model that comes with the package, and by the test that holds the card to the bundle. Evaluate it out of
fold, train it on all cases, then `save` it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bhi_utils import bundles, paths, predictor, seen
from bhi_utils.archive import Pack
from bhi_utils.metrics import TITLES, Calibration, cell
from bhi_utils.words import counted

#: The model file may have so many bytes.
LARGEST = 18_000_000
CARD = "MODEL_CARD.md"


def save(
    model: keras.Model,
    pack: Pack,
    *,
    threshold: float,
    calibration: Calibration,
    threshold_rule: str,
    out_of_fold: Mapping[str, Mapping[str, float | None]],
    initialisation: str,
    training: Mapping[str, Any],
    folder: Path | None = None,
    rows: np.ndarray | None = None,
    validation_cases: tuple[int, ...] = (),
) -> list[Path]:
    """Write the packaged model, its bundle, the digests of what it has seen, and its card.

    Args:
        model: an ``efficientnetb0`` trained on ``rows`` of the pack.
        pack: the data set.
        threshold: a patch is called IDC+ at sigmoid(logit) ≥ threshold.
        calibration: what turns a logit into a calibrated probability.
        threshold_rule: how the threshold was chosen, in words that follow "the".
        out_of_fold: metric to ``{"value", "low", "high"}``, as ``metrics.evaluate`` gives them, of models that had not seen the case.
        initialisation: where the network's training began, such as ``imagenet``.
        training: what the card tells of the training, name to plain value: recipe, image size, epochs, folds, resamples, seed, minutes.
        folder: where the files go; the package's own by default.
        rows: rows of the pack that the network was trained or tuned on; all by default.
        validation_cases: those that only chose the weights, threshold or calibration.

    Returns:
        the paths written: model, bundle, digests, card.

    Raises:
        ValueError: the model file is too large for the package; nothing is left of it.
    """
    folder = bundles.PACKAGED.parent if folder is None else Path(folder)
    rows = np.arange(len(pack.manifest)) if rows is None else np.asarray(rows)
    labels = pack.manifest["label"].to_numpy()[rows]
    cases = {int(case) for case in np.unique(pack.manifest["case"].to_numpy()[rows])}
    data = {name: pack.info[name] for name in ("kind", "synthetic", "fingerprint")}
    about = {
        "data": {**data, "patches": len(rows), "cases": len(cases), "positive": int(labels.sum())},
        "initialisation": initialisation,
        "threshold_rule": threshold_rule,
        "training": dict(training),
        "metrics": {"out_of_fold": {name: dict(values) for name, values in out_of_fold.items()}},
        "train_cases": sorted(cases - set(validation_cases)),
        "validation_cases": sorted(validation_cases),
    }
    known = seen.of_rows(pack, rows)
    bundle = predictor.save_bundle(model, folder, threshold=threshold, calibration=calibration, card=about, seen=known)
    content, file = bundles.read(bundle)
    files = [file, bundle, folder / content["seen"]["file"]]
    if file.stat().st_size > LARGEST:
        size = file.stat().st_size
        for path in files:
            path.unlink()
        raise ValueError(f"The model file has {size:,} bytes, more than the {LARGEST:,} that the package may hold.")
    return [*files, paths.write_text(folder / CARD, card(content))]


def card(bundle: Mapping[str, Any]) -> str:
    """The model card of a packaged bundle as Markdown; every number in it is the bundle's."""
    data, (method, numbers) = bundle["data"], Calibration.from_json(bundle["calibration"]).describe().split(": ")
    kind = "synthetic phantom" if data["synthetic"] else "real"
    found = bundle["metrics"]["out_of_fold"]
    rows = [f"| {title} | {cell(found[name])} |" for name, title in TITLES.items() if name in found]
    facts = [f"- {name.replace('_', ' ')}: {value}" for name, value in bundle["training"].items()]
    return f"""# Model card: {bundle["name"]}

**Research use only, not a medical device.** The model that `bhi predict`, `bhi app` and `bhi evaluate` use unless `--model` names another,
and from whose base `--weights packaged` starts. This page is written by `bhi_utils.release` from `{bundle["name"]}.bundle.json`.

## What it does

It takes one H&E patch of 50×50 pixels at the scale of the Breast Histopathology Images archive, with values in 0–255, and gives the
probability that it shows invasive ductal carcinoma (IDC+).

## What it was trained on

{counted(data["patches"], f"{kind} patch")} of {counted(data["cases"], "case")}, {data["positive"]:,} of them IDC+ (data fingerprint
`{data["fingerprint"][:12]}`). Training began from {bundle["initialisation"]} weights.

{chr(10).join(facts)}

## How well it does

Out of fold: each case was predicted by a network trained without it. The packaged network has seen all of these cases, so it cannot be
measured on them. In brackets: 95 % intervals over resampled cases.

| metric | out of fold |
| --- | --- |
{chr(10).join(rows)}

Threshold on the probability: {bundle["threshold"]:.4f}, the {bundle["threshold_rule"]}. Calibration ({method}):
{numbers}. AUC, average precision, loss, Brier score and calibration error
are of calibrated probabilities, each fold's from its own validation cases; so is the threshold behind recall and its companions.

## Limits

- One archive: slides of other laboratories, scanners and stains may be answered wrongly without any sign of it.
- Patches are labelled by the region that they lie in, so labels at a tumour's border are noisy.
- Whether two case ids of the archive share a patient is not known.
- What the model was trained on is left out wherever it is evaluated or trained further, by case id and by pixels
  (`{bundle["seen"]["file"]}` holds {bundle["seen"]["patches"]:,} truncated hashes); single answers on it are marked *seen in training*.
"""
