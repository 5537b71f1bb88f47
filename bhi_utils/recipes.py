"""The recipes that the profiles hold, fitted on every fold: what each reaches on cases that it has not seen.

Used by ``notebooks/studies/recipes.ipynb`` and by the other studies of training. A recipe is what a profile's YAML says and nothing else:
``cpu`` is the recipe called *fast*, ``paper`` the published one.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bhi_utils import archive, folds, metrics, parameters, seen, splits
from bhi_utils.folds import Arm, Fold
from bhi_utils.paths import InputError, Run, cache_dir
from bhi_utils.records import git_commit

if TYPE_CHECKING:
    from bhi_utils.training import Trained

#: Recipe to the profile that holds it.
PROFILES = {"fast": "cpu", "paper": "paper"}
#: How tables name the models.
NAMES = {
    "fast": "EfficientNetB0, recipe fast",
    "fast, 8 views": "EfficientNetB0, recipe fast, mean of eight views",
    "probe": "logistic regression on frozen features",
    "cnn": "custom CNN",
    "colour": "logistic regression on colour histograms",
}
#: Pairs whose difference is reported, first minus second.
PAIRS = (("fast", "probe"), ("fast, 8 views", "fast"), ("fast", "cnn"), ("cnn", "colour"))
RESULTS = "recipes.json"


def settings(recipe: str) -> dict[str, Any]:
    """The values of a recipe's profile that concern training."""
    values = parameters.read_profile(PROFILES[recipe])
    return {name: value for name, value in values.items() if name not in ("DATA", "WEIGHTS")}


def recorded() -> dict[str, Any]:
    """The result that the repository keeps, of the real sample; its form is that of `study`."""
    return json.loads((resources.files("bhi_utils") / "results" / RESULTS).read_text(encoding="utf-8"))


def fine_tuned(values: Mapping[str, Any], *, weights: str, seed: int, answer_views: int = 8) -> Arm:
    """An arm that trains EfficientNetB0 from the cache; it also answers with the frozen probe.

    Args:
        values: a recipe, see `settings`.
        weights: as for ``models.efficientnetb0``, pretrained.
        seed: seed of everything random.
        answer_views: besides the patch as it is, answer with the mean of so many views; 1 leaves that out.
    """

    def fit(fold: Fold) -> dict[str, dict[str, np.ndarray]]:
        from bhi_utils import training

        trained = _train(fold, values, weights=weights, seed=seed)
        ways = {"": 1} if answer_views == 1 else {"": 1, f", {answer_views} views": answer_views}
        found = {way: {part: trained.cut.logits(fold.rows(part), views=views) for part in ("val", "test")} for way, views in ways.items()}
        return found | {"probe": training.frozen_probe(trained, {"train": fold.labels("train")})}

    return fit


def custom_cnn(values: Mapping[str, Any], *, seed: int) -> Arm:
    """An arm that trains the custom CNN from scratch."""

    def fit(fold: Fold) -> dict[str, dict[str, np.ndarray]]:
        from bhi_utils import samples, training

        train = samples.training_samples(fold.pack, fold.table, mode=values["BALANCE"], seed=seed)
        recipe = training.Recipe(epochs=values["EPOCHS"], batch_size=values["BATCH_SIZE"], seed=seed, folder=fold.folder)
        trained = training.train_cnn(fold.pack, fold.table, train, recipe, image_size=values["CNN_IMAGE_SIZE"])
        return {
            "": {
                part: trained.model.predict(fold.pack.patches[fold.rows(part)], batch_size=64, verbose=0)[:, 0] for part in ("val", "test")
            }
        }

    return fit


def study(
    run: Run, source: str, *, weights: str, number: int = 5, seed: int = 0, resamples: int = 2000, recall: float = 0.93, cnn: bool = True
) -> dict[str, Any]:
    """Fit every model on every fold and write ``recipes.json`` into the run's artefacts. A study that was stopped goes on.

    Args:
        run: the study's folder.
        source: a data source, see `archive.find_source`.
        weights: EfficientNetB0's pretrained weights.
        number: number of folds.
        seed: seed of folds and models.
        resamples: how often the cases are drawn for intervals.
        recall: what thresholds must reach on validation cases.
        cnn: whether the custom CNN is trained, which takes the longest.

    Returns:
        ``{"models": {name: metrics}, "differences": {"a − b": metrics}, "curve": …}`` with ``data``, ``command``, ``commit`` and so on.
    """
    if weights == "none":
        raise InputError("WEIGHTS is none, but the recipes start from a trained network: pass imagenet or a weight file.")
    start, pack = time.perf_counter(), archive.pack(archive.find_source(source, cache=cache_dir()), cache_dir())
    seen.guard(pack, weights)
    values = settings("fast")
    dealt = folds.deal(pack, run.artifacts / "checkpoints", folds=number, seed=seed)
    about = {"values": values, "seed": seed, "folds": number, "data": pack.info["fingerprint"], "weights": Path(weights).name}
    keep = run.artifacts / "folds" / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    found = {}
    arms = {"fast": fine_tuned(values, weights=weights, seed=seed), "colour": folds.linear(folds.colour_histograms(pack.patches))}
    if cnn:
        arms["cnn"] = custom_cnn(values, seed=seed)
    for name, arm in arms.items():
        for way, frame in folds.out_of_fold(dealt, arm, recall=recall, keep=keep / name).items():
            found[way if way == "probe" else name + way] = frame
    given = f"-p RECOMPUTE True -p DATA {Path(source).name} -p WEIGHTS {about['weights']}"
    result = {
        "command": f"papermill notebooks/studies/recipes.ipynb OUT.ipynb {given}",
        "commit": git_commit(),
        "data": {name: pack.info[name] for name in ("kind", "synthetic", "patches", "cases", "positive", "fingerprint")},
        "parameters": about | {"recall": recall},
        "resamples": resamples,
        "models": {name: folds.pooled(frame, resamples=resamples, seed=seed) for name, frame in found.items()},
        "differences": {
            f"{first} − {second}": folds.paired(found[first], found[second], resamples=resamples, seed=seed)
            for first, second in PAIRS
            if first in found and second in found
        },
        "curve": {name: _curve(found[name]) for name in ("fast", "fast, 8 views", "probe")},
        "seconds": round(time.perf_counter() - start, 1),
    }
    run.write_json(RESULTS, result)
    run.write_csv("out_of_fold.csv.gz", pd.concat([frame.assign(model=name) for name, frame in found.items()], ignore_index=True))
    return result


def release(run: Run, source: str, *, weights: str, recall: float = 0.93, seed: int = 0, folder: Path | None = None) -> list[Path]:
    """Train the packaged model with recipe fast and write its files; `study` must have run in the same folder.

    It learns from four fifths of the cases; the last fifth chooses the epoch. Threshold and calibration come from the out-of-fold
    answers of the same recipe, since no case is left that the network has not seen.

    Args:
        run: the study's folder.
        source: the data source of the study.
        weights: the pretrained weights of the study.
        recall: what the threshold reaches on the out-of-fold answers.
        seed: seed of everything random.
        folder: where the files go; the package's own by default.
    """
    from bhi_utils import release as packaged

    result, start = run.read_json(RESULTS), time.perf_counter()
    pack = archive.pack(archive.find_source(source, cache=cache_dir()), cache_dir())
    if pack.info["fingerprint"] != result["data"]["fingerprint"]:
        raise InputError("The study in this folder was made from other data: run it again with this DATA, or name its own.")
    answered = run.read_csv("out_of_fold.csv.gz").query("model == 'fast'")
    values, table = settings("fast"), splits.make(pack.manifest, scheme="kfold", seed=seed)
    table["split"] = table["split"].replace("test", "train")
    trained = _train(Fold(pack, table, 0, run.artifacts / "checkpoints"), values, weights=weights, seed=seed)
    return packaged.save(
        trained.model,
        pack,
        threshold=metrics.threshold_for_recall(answered["label"], answered["probability"], recall=recall),
        calibration=metrics.fit_calibration(answered["label"], answered["logit"]),
        threshold_rule=f"highest threshold with recall >= {recall} on the out-of-fold answers",
        out_of_fold={name: result["models"]["fast"][name] for name in metrics.NAMES if name in result["models"]["fast"]},
        initialisation="ImageNet",
        training={**values, "folds": result["parameters"]["folds"], "seed": seed, "minutes": round((time.perf_counter() - start) / 60, 1)},
        folder=folder,
        validation_cases=tuple(int(case) for case in table.loc[table["split"] == "val", "case"]),
    )


def _train(fold: Fold, values: Mapping[str, Any], *, weights: str, seed: int) -> "Trained":
    from bhi_utils import samples, training

    train = samples.training_samples(fold.pack, fold.table, mode=values["BALANCE"], seed=seed)
    return training.train_efficientnetb0(
        fold.pack,
        fold.table,
        train,
        training.Recipe(epochs=values["EPOCHS"], batch_size=values["BATCH_SIZE"], seed=seed, folder=fold.folder),
        image_size=values["IMAGE_SIZE"],
        weights=weights,
        blocks=values["FINE_TUNE_BLOCKS"],
        rate=values["FINE_TUNE_RATE"],
        views=values["VIEWS"],
    )


def _curve(frame: pd.DataFrame) -> list[dict[str, float]]:
    """Precision at recalls from 0.5 to 0.99, out of fold, on calibrated probabilities: what any threshold could give."""
    curve = metrics.curve_at(frame["label"].to_numpy(), frame["probability_calibrated"].to_numpy())
    steps = np.r_[np.arange(0.5, 0.9, 0.05), np.arange(0.9, 0.995, 0.01)]
    best = [float(curve.loc[curve["recall"] >= step, "precision"].max()) for step in steps]
    return [{"recall": round(float(step), 2), "precision": value} for step, value in zip(steps, best, strict=True)]


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row a model, with intervals."""
    rows = {}
    for name, found in result["models"].items():
        cells = {metric: "{value:.3f} ({low:.3f}–{high:.3f})".format(**found[metric]) for metric in ("auc", "recall", "precision")}
        rows[NAMES[name]] = cells | {"mean of folds": f"{found['mean_fold_auc']:.3f}"}
    return pd.DataFrame(rows).T.rename(columns={"auc": "pooled AUC"})


def differences(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row a pair: the difference in AUC with its interval, paired by case."""
    rows = {}
    for pair, found in result["differences"].items():
        first, second = pair.split(" − ")
        rows[f"{NAMES[first]} − {NAMES[second]}"] = "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**found["auc"])
    return pd.DataFrame({"AUC": rows})


#: What the study was to show: pooled AUC and mean of folds of recipe fast, its gain over the probe, precision at the chosen threshold.
GOALS = {"pooled AUC": 0.935, "mean AUC of the folds": 0.94, "gain over the probe": 0.025, "precision": 0.60}


def goals(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row a goal of recipe fast: what was wanted, reached from the patch as it is and with eight views, and whether either does."""
    rows = {}
    for way in ("fast", "fast, 8 views"):
        found = result["models"][way]
        gain = found["auc"]["value"] - result["models"]["probe"]["auc"]["value"]
        values = (found["auc"]["value"], found["mean_fold_auc"], gain, found["precision"]["value"])
        rows["one view" if way == "fast" else "eight views"] = dict(zip(GOALS, values, strict=True))
    table = pd.DataFrame({"wanted": GOALS} | rows)
    best = table[["one view", "eight views"]].max(axis=1)
    return table.assign(reached=["yes" if found >= wanted else "no" for found, wanted in zip(best, table["wanted"], strict=True)])
