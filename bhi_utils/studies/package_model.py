"""How a trained network becomes the packaged model: four files in ``bhi_utils/trained``, and the card, which quotes nothing but the bundle.

Used by whoever trains the model that comes with the package, and by the test that holds the card to the bundle. Evaluate the recipe out of
fold, train it with some cases kept for early stopping only, let these `decide`, then `save`. `recalibrate` repeats the last two steps.
"""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jinja2
import keras
import numpy as np
from scipy.special import expit
from tqdm import tqdm

from bhi_utils.core import atomic_files
from bhi_utils.core.messages import counted, text
from bhi_utils.core.paths import InputError
from bhi_utils.core.titles import METRICS, Metrics, cell
from bhi_utils.data import archive
from bhi_utils.data.archive import Pack
from bhi_utils.evaluation import metrics, thresholds
from bhi_utils.evaluation.calibration import Calibration, describe, fit_calibration
from bhi_utils.model import bundles, predictor, seen
from bhi_utils.model.networks import answers
from bhi_utils.training import cross_validation

#: The model file may have so many bytes.
LARGEST = 18_000_000
CARD = "MODEL_CARD.md"


def save(
    model: keras.Model,
    pack: Pack,
    *,
    threshold: float,
    calibration: Calibration,
    threshold_rule: thresholds.Rule,
    out_of_fold: Metrics,
    early_stopping: Metrics | None = None,
    initialisation: str,
    training: dict[str, Any],
    folder: Path | None = None,
    rows: np.ndarray | None = None,
    validation_cases: tuple[int, ...] = (),
) -> list[Path]:
    """Writes the packaged model, its bundle, the digests of what it has seen, and its card.

    Args:
        model: an ``efficientnetb0`` trained on ``rows`` of the pack.
        pack: the data set.
        threshold: a patch is called IDC+ at sigmoid(logit) ≥ threshold.
        calibration: what turns a logit into a calibrated probability.
        threshold_rule: how the threshold was chosen, from `thresholds.kept`.
        out_of_fold: metrics, as ``metrics.evaluate`` gives them, of models that had not seen the case.
        early_stopping: the same of this model at this threshold, on ``validation_cases``.
        initialisation: where the network's training began, such as ``imagenet``.
        training: what the card tells of the training, name to plain value: recipe, image size, epochs, folds, resamples, seed, minutes.
        folder: where the files go; the package's own by default.
        rows: rows of the pack that the network was trained or tuned on; all by default.
        validation_cases: those that served for early stopping only; `decide` takes threshold and calibration from them.

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
    about: bundles.Card = {
        "data": {**data, "patches": len(rows), "cases": len(cases), "positive": int(labels.sum())},
        "initialisation": initialisation,
        "threshold_rule": threshold_rule,
        "training": training,
        "metrics": {"out_of_fold": out_of_fold} | ({"early_stopping": early_stopping} if early_stopping else {}),
        "train_cases": sorted(cases - set(validation_cases)),
        "validation_cases": sorted(validation_cases),
    }
    bundle = predictor.save_bundle(model, folder, threshold=threshold, calibration=calibration, card=about, seen=seen.of_rows(pack, rows))
    content, file = bundles.read(bundle)
    files = [file, bundle, folder / content["seen"]["file"]]
    if (size := file.stat().st_size) > LARGEST:
        for path in files:
            path.unlink()
        raise ValueError(f"The model file has {size:,} bytes, more than the {LARGEST:,} that the package may hold.")
    return [*files, atomic_files.write_text(folder / CARD, card(content))]


def decide(model: keras.Model, pack: Pack, cases: Collection[int], *, recall: float, resamples: int, seed: int) -> dict:
    """Chooses a network's threshold and calibration from its own answers on cases that it was not fitted on, and measures them there.

    Args:
        model: takes raw patches, gives logits.
        pack: the data set.
        cases: those that served for early stopping only.
        recall: what the threshold reaches on them.
        resamples: how often they are drawn for intervals.
        seed: seed of the draws.

    Returns:
        what `save` takes under these names: ``threshold``, ``calibration``, ``threshold_rule`` and ``early_stopping``. The last has only
        metrics that calibration does not change: slope and intercept of a fit on the same cases say nothing.
    """
    rows = np.flatnonzero(pack.manifest["case"].isin(cases))
    chunks = [rows[start : start + 64] for start in range(0, len(rows), 64)]
    bar = tqdm(chunks, desc=f"{model.name} on early-stopping cases", unit="batch", file=sys.stderr, mininterval=1)
    logits = np.concatenate([answers(model, pack.patches[chunk].astype(np.float32), whole=64)[:, 0] for chunk in bar]).astype(np.float64)
    frame = pack.manifest.iloc[rows][["case", "label"]].assign(logit=logits, probability=expit(logits))
    rule = thresholds.kept({"rule": "recall", "value": recall}, "early_stopping")
    threshold = thresholds.choose(frame["label"], frame["probability"], rule=rule)
    measured = metrics.evaluate(frame, threshold=threshold, resamples=resamples, seed=seed)
    return {
        "threshold": threshold,
        "calibration": fit_calibration(frame["label"], frame["logit"]),
        "threshold_rule": rule,
        "early_stopping": {name: measured[name] for name in metrics.NAMES if name in ("auc", "auprc", *cross_validation.DECISIONS)},
    }


def recalibrate(
    source: str, *, recall: float = 0.93, resamples: int = metrics.RESAMPLES, seed: int = 0, bundle: Path | None = None
) -> list[Path]:
    """Sets threshold and calibration of the packaged model anew, see `decide`, and writes its bundle and card; the network stays.

    Args:
        source: the data that it was trained on, see `archive.find_source`.
        recall: what the threshold reaches on the early-stopping cases.
        resamples: how often these are drawn for intervals.
        seed: seed of the draws.
        bundle: another packaged model's ``.bundle.json``.

    Returns:
        the paths written: bundle, card.

    Raises:
        InputError: the source is not what the model was trained on.
    """
    path = bundles.packaged() if bundle is None else Path(bundle)
    content, file = bundles.read(path)
    pack = archive.open_source(source)
    if pack.info["fingerprint"] != content["data"]["fingerprint"]:
        raise InputError(f"{path.name} was made from other data (fingerprint {content['data']['fingerprint'][:12]}): give those.")
    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    found = decide(model, pack, content["validation_cases"], recall=recall, resamples=resamples, seed=seed)
    content |= {"threshold": found["threshold"], "threshold_rule": found["threshold_rule"], "calibration": found["calibration"].to_json()}
    content["metrics"]["early_stopping"] = found["early_stopping"]
    return [atomic_files.write_json(path, content), atomic_files.write_text(path.parent / CARD, card(content))]


def card(bundle: bundles.Bundle) -> str:
    """Returns the model card of a packaged bundle as Markdown, from ``model_card.j2``; every number in it is the bundle's."""
    heads = {"out_of_fold": "out of fold, at the folds' thresholds", "early_stopping": "early-stopping cases, at this threshold"}
    page = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    page.filters |= {"cell": cell, "counted": counted, "text": text, "rule": thresholds.sentence, "described": describe}
    template = page.from_string(Path(__file__).with_name("model_card.j2").read_text(encoding="utf-8"))
    served = bundles.served(bundle)
    own = isinstance(bundle["threshold_rule"], Mapping) and bundle["threshold_rule"]["where"] == "early_stopping"
    parts = {part: head for part, head in heads.items() if bundle["metrics"].get(part)}
    return template.render(bundle, parts=parts, served=served, titles=METRICS, own=own)
