"""Trains both networks, and writes what a training leaves behind: models, bundles and predictions.

Used by notebook 05 and the studies. EfficientNetB0 with pretrained weights learns in two phases: first the classifier on a frozen base,
then the last blocks, BatchNorm in inference mode throughout. On patches, phase 2 opens one block after another, as published. With
``views``, the frozen part's output comes from a cache, and phase 2 opens all of its blocks at once. From scratch, one phase trains
everything.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.special import expit
from tqdm import tqdm

from bhi_utils.core.run import Run
from bhi_utils.data import splits
from bhi_utils.data.archive import Pack
from bhi_utils.evaluation import metrics, thresholds
from bhi_utils.evaluation.calibration import fit_calibration
from bhi_utils.evaluation.results import TrainedModel, Training
from bhi_utils.model import networks, predictor, seen
from bhi_utils.model.bundles import Card
from bhi_utils.training import checkpoint, device_patches, fit_phases
from bhi_utils.training.frozen_features import CachedBase
from bhi_utils.training.samples import Batches, Samples, fingerprint, guard
from bhi_utils.training.smote import check_balance

#: Adam's rate for new layers: the paper's.
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        model: with the weights that were best on validation cases.
        initialisation: ``imagenet``, ``scratch`` or the weight file's name, as tables say it.
        history: a row an epoch: ``phase, epoch, loss, auc, val_loss, val_auc``.
        seconds: wall-clock time of training, caching included.
        cut: where a cache was used, the two parts that were trained, which share the network's layers.
    """

    model: keras.Model
    initialisation: str
    history: pd.DataFrame
    seconds: float
    cut: CachedBase | None = None


@fit_phases.explained_memory()
def train_cnn(pack: Pack, table: pd.DataFrame, samples: Samples, recipe: fit_phases.FitSettings, *, image_size: int) -> Trained:
    """Train the custom CNN from scratch, in one phase; the arguments are those of `train_efficientnetb0`."""
    guard(pack, table, samples)
    return _from_scratch(networks.cnn(image_size=image_size, seed=recipe.seed), pack, table, samples, recipe)


@fit_phases.explained_memory()
def train_efficientnetb0(
    pack: Pack,
    table: pd.DataFrame,
    samples: Samples,
    recipe: fit_phases.FitSettings,
    *,
    image_size: int,
    weights: str,
    blocks: int,
    rate: float,
    views: int,
    input_range: float = 255.0,
    batchnorm: bool = False,
) -> Trained:
    """Train EfficientNetB0.

    Args:
        pack: the data set.
        table: the split.
        samples: the training samples.
        recipe: epochs, batch size, seed.
        image_size: side in pixels that patches are resized to.
        weights: ``imagenet``, ``packaged``, ``none`` or a file.
        blocks: how many of the last blocks phase 2 fine-tunes: on patches one more at a time, from the cache all at once.
        rate: Adam's rate in phase 2.
        views: 0 trains on patches; 1 to 8 caches the frozen part's output for as many dihedral views of each patch.
        input_range: see ``model.networks.efficientnetb0``.
        batchnorm: see ``model.networks.unfreeze``.

    Raises:
        InputError: the weights cannot be had, do not go with the balance, or have seen cases of the split; or memory ran out.
        ValueError: a case is in two parts, or the samples were drawn for another split.
    """
    guard(pack, table, samples)
    check_balance(samples.mode, weights=weights, views=views)
    seen.guard(pack, weights, cases=set(table.loc[table["split"] != "unused", "case"]))
    model = networks.efficientnetb0(image_size=image_size, weights=weights, seed=recipe.seed, input_range=input_range)
    if weights == "none":
        return _from_scratch(model, pack, table, samples, recipe)
    phases = fit_phases.Phases(model, recipe, basis=[fingerprint(pack, table, samples), views])
    cut = CachedBase(model, blocks, pack, table, samples, recipe, views) if views else None
    with ExitStack() as opened:
        if cut:
            stages = [(0, cut.head, *cut.batches(pooled=True)), (blocks, cut.tail, *cut.batches())][: 1 + min(blocks, 1)]
        else:
            fed = opened.enter_context(_patches(model, pack, table, samples, recipe))
            stages = [(depth, *fed) for depth in range(blocks + 1)]
        for (depth, part, train, valid), share in zip(stages, _shares(recipe.epochs, len(stages) - 1), strict=True):
            networks.unfreeze(model, depth, batchnorm=batchnorm and depth > 0)
            name = "frozen base" if not depth else f"last {depth} block(s)"
            if share:
                phases.fit(name, part, train, valid, epochs=share, rate=rate if depth else LEARNING_RATE)
    return Trained(model, "imagenet" if weights == "imagenet" else Path(weights).name, pd.DataFrame(phases.rows), phases.seconds, cut)


def _from_scratch(model: keras.Model, pack: Pack, table: pd.DataFrame, samples: Samples, recipe: fit_phases.FitSettings) -> Trained:
    """Train all of a network in one phase, with more patience: its validation AUC swings while the rate is still high."""
    phases = fit_phases.Phases(model, recipe, basis=fingerprint(pack, table, samples))
    patience = max(fit_phases.PATIENCE, recipe.epochs // 2)
    with _patches(model, pack, table, samples, recipe) as fed:
        phases.fit("from scratch", *fed, epochs=recipe.epochs, rate=LEARNING_RATE, patience=patience)
    return Trained(model, "scratch", pd.DataFrame(phases.rows), phases.seconds)


def _shares(epochs: int, stages: int) -> list[int]:
    """Returns the epochs of phase 1 and of each stage of phase 2: a third, then one for each stage on the way, the rest for the deepest."""
    if not stages:
        return [epochs]
    frozen = max(1, epochs // 3)
    deepest = max(epochs - frozen - (stages - 1), min(1, epochs - frozen))
    left = epochs - frozen - deepest
    # too few epochs for every stage: the shallow ones are passed over first
    return [frozen, *(int(stage > stages - 1 - left) for stage in range(1, stages)), deepest]


@fit_phases.explained_memory()
def finish(run: Run, pack: Pack, table: pd.DataFrame, trained: list[Trained], *, rule: str, card: Card) -> Training:
    """Predict, choose threshold and calibration on validation cases, and write models, bundles and predictions.

    Args:
        run: where the artefacts go.
        pack: the data set.
        table: the split.
        trained: the trained networks. One with cached features also gives a logistic regression on the frozen base's pooled features:
            what transfer gives before any fine-tuning.
        rule: how the threshold is chosen on validation cases, see ``evaluation.thresholds.parse``.
        card: what every bundle records besides: ``data``, ``parameters``.

    Returns:
        the content of ``training.json``.
    """
    frames: list[pd.DataFrame] = []
    entries: dict[str, TrainedModel] = {}
    used = {part: sorted(int(case) for case in table.loc[table["split"] == part, "case"]) for part in ("train", "val")}
    # validation cases too, since they choose the threshold
    ours = seen.of_rows(pack, np.flatnonzero(np.isin(splits.parts(pack.manifest, table), ("train", "val"))))
    sides: list[tuple[str, str, dict[str, np.ndarray], Trained | None]] = []
    sides += [(one.model.name, one.initialisation, _logits(one.model, pack, table), one) for one in trained]
    sides += [("logistic_regression", f"{one.initialisation}, frozen", one.cut.probe_logits(), None) for one in trained if one.cut]
    for name, start, logits, network in sides:
        frame = _score(pack, table, name, logits)
        valid = frame[frame["split"] == "val"]
        calibration = fit_calibration(valid["label"], valid["logit"])
        threshold = thresholds.choose(valid["label"], valid["probability"], rule=rule)
        validation = metrics.evaluate(valid, threshold=threshold, resamples=0)
        frames.append(frame.assign(probability_calibrated=calibration.apply(frame["logit"])))
        auc, kept = validation["auc"]["value"], calibration.to_json()
        entries[name] = {"validation_auc": auc, "initialisation": start, "threshold": threshold, "calibration": kept}
        if network is None:
            continue
        history = network.history.to_dict("records")
        entries[name] |= {"epochs": len(history), "seconds": round(network.seconds, 1), "history": history}
        about: Card = {**card, "initialisation": start, "threshold_rule": thresholds.kept(rule), "metrics": {"val": validation}}
        about |= {"train_cases": used["train"], "validation_cases": used["val"]}
        known = ours | seen.before(start)
        predictor.save_bundle(network.model, run.models, threshold=threshold, calibration=calibration, card=about, seen=known)
    run.write_csv("predictions.csv.gz", pd.concat(frames, ignore_index=True))
    better = max((one.model.name for one in trained), key=lambda name: entries[name]["validation_auc"] or 0.0)
    training: Training = {"better": better, "data": pack.info["fingerprint"], "threshold_rule": thresholds.kept(rule), "models": entries}
    run.write_json("training.json", training)
    checkpoint.clear(run.checkpoints)
    return training


def _logits(model: keras.Model, pack: Pack, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns the whole model's logits on raw patches, as its users will call it, whatever it was trained from."""
    result = {}
    for part in ("val", "test"):
        rows = splits.indices(pack.manifest, table, part)
        chunks = [rows[start : start + 64] for start in range(0, len(rows), 64)]
        bar = tqdm(chunks, desc=f"{model.name} on {part} cases", unit="batch", file=sys.stderr, mininterval=1)
        result[part] = np.concatenate([networks.answers(model, pack.patches[chunk].astype(np.float32), whole=64)[:, 0] for chunk in bar])
    return result


def _score(pack: Pack, table: pd.DataFrame, name: str, logits: dict[str, np.ndarray]) -> pd.DataFrame:
    """Returns validation and test patches with a network's logits and their sigmoid."""
    fold, frames = table.set_index("case")["fold"], []
    for part, logit in logits.items():
        rows = pack.manifest.iloc[splits.indices(pack.manifest, table, part)]
        given = {"model": name, "split": part, "fold": rows["case"].map(fold), **rows[["case", "x", "y", "label"]]}
        frames.append(pd.DataFrame(given).assign(logit=logit.astype(np.float64), probability=expit(logit.astype(np.float64))))
    return pd.concat(frames, ignore_index=True)


@contextmanager
def _patches(
    model: keras.Model, pack: Pack, table: pd.DataFrame, samples: Samples, recipe: fit_phases.FitSettings
) -> Iterator[tuple[keras.Model, Batches, Batches]]:
    """Gives what to fit within the block, and batches of training and validation patches; see ``device_patches`` for where these live."""
    rows = splits.indices(pack.manifest, table, "val")
    side = model.get_layer("resize").height
    place = device_patches.choose(len(samples.real) + len(rows), batch_size=recipe.batch_size, image_size=side)
    if place.why:
        print(f"{model.name}: patches {'resident' if place.resident else 'in host batches'}, {place.policy}; {place.why}")
    with device_patches.precision(model, place.policy):
        part, draw, check = device_patches.feeds(model, samples, rows, resident=place.resident)
        labels, size = pack.manifest["label"].to_numpy()[rows], recipe.batch_size
        train = Batches(lambda index, _: draw(index), samples.labels, batch_size=size, weights=samples.weights, seed=recipe.seed)
        yield part, train, Batches(lambda index, _: check(index), labels, batch_size=max(64, size))
