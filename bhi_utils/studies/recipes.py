"""The recipes that the profiles hold, fitted on every fold: what each reaches on cases that it has not seen.

Used by ``notebooks/studies/recipes.ipynb`` and by the other studies of training. A recipe is what a profile's YAML says and nothing else:
``cpu`` is the recipe called *fast*, ``paper`` the published one; only the custom CNN has settings of its own, `CNN`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils.core import provenance, titles, worker_processes
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.evaluation import failures, metrics
from bhi_utils.runner import parameters
from bhi_utils.studies import study_base
from bhi_utils.studies.study_base import Study
from bhi_utils.training import cross_validation
from bhi_utils.training.cross_validation import Fold

#: Recipe to the profile that holds it.
PROFILES = {"fast": "cpu", "paper": "paper"}
#: How tables name the models.
NAMES = {
    "fast": "EfficientNetB0, recipe fast",
    "fast, 8 views": "EfficientNetB0, recipe fast, mean of eight views",
    "probe": "logistic regression on frozen features",
    "cnn": "custom CNN",
    "cnn, 8 views": "custom CNN, mean of eight views",
    "colour": "logistic regression on colour histograms",
}
#: Pairs whose difference is reported, first minus second.
PAIRS = (("fast", "probe"), ("fast, 8 views", "fast"), ("fast", "cnn"), ("cnn", "colour"), ("cnn, 8 views", "colour"))
#: What `study` fits.
MODELS = ("fast", "probe", "colour", "cnn")
#: What the custom CNN is given in place of the recipe's: from scratch it needs more epochs than a fine-tuned network, and at 48 px sixteen
#: cost what nine do at 64. On the first fold's validation cases they reach AUC 0.917, nine at 64 px 0.915 and nine at 50 px 0.905.
CNN = {"CNN_IMAGE_SIZE": 48, "CNN_EPOCHS": 16}
#: The recorded results: the custom CNN was fitted apart from the others, on the same folds with the same seed.
RESULTS, CNN_RESULTS = "recipes.json", "custom_cnn.json"


def settings(recipe: str) -> dict:
    """Returns the values of a recipe's profile that concern training.

    >>> settings("paper")["BALANCE"], settings("paper")["IMAGE_SIZE"]
    ('smote', 200)
    """
    values = parameters.read_profile(PROFILES[recipe])
    return {name: value for name, value in values.items() if name not in ("DATA", "WEIGHTS")}


def recorded() -> dict:
    """Returns the result that the repository keeps, of the real sample, in the form of `study`.

    The custom CNN comes from a file of its own, whose settings are the recipe's; the other file's differ in the CNN's alone.
    """
    whole, apart = provenance.result(RESULTS), provenance.result(CNN_RESULTS)
    joint = {name: whole[name] | apart[name] for name in ("models", "differences")}
    return {"suspects": apart["suspects"]} | whole | joint | {"parameters": apart["parameters"]}


def study(
    run: Run,
    source: str,
    *,
    weights: str,
    number: int = 5,
    seed: int = 0,
    resamples: int = 2000,
    recall: float = 0.93,
    names: Sequence[str] = MODELS,
    results: str = RESULTS,
) -> dict:
    """Fits models on every fold and writes the result into the run's artefacts. A study that was stopped goes on.

    Args:
        run: the study's folder.
        source: a data source, see `archive.find_source`.
        weights: EfficientNetB0's pretrained weights.
        number: number of folds.
        seed: seed of folds and models.
        resamples: how often the cases are drawn for intervals.
        recall: what thresholds must reach on validation cases.
        names: which of `MODELS` are fitted.
        results: the file's name.

    Returns:
        ``{"models": {name: metrics}, "differences": {"a − b": metrics}, "curve": …, "suspects": …}`` with ``data``, ``command``,
        ``commit`` and so on. ``out_of_fold.csv.gz`` holds all answers, ``suspects.csv`` the labels that the first model doubts.
    """
    made, values = Study(run, source, weights=weights, number=number, seed=seed, recall=recall), settings("fast")
    found = {name + way: frame for name in names for way, frame in _answered(made, name, values, weights=weights, seed=seed).items()}
    result = made.facts("recipes", RESAMPLES=resamples, TARGET_RECALL=recall)
    if tuple(names) != MODELS:  # the notebook fits all of them
        options = {"weights": Path(weights).name, "number": number, "seed": seed, "resamples": resamples, "recall": float(recall)}
        result["command"] = command(Path(source).name, **options, names=tuple(names), results=results)
    result["parameters"]["values"] = values | (CNN if "cnn" in names else {})
    draws = {"resamples": resamples, "seed": seed}
    pooled = {name: cross_validation.pooled(frame, **draws) | cross_validation.by_fold(frame) for name, frame in found.items()}
    result |= {"resamples": resamples, "models": pooled}
    pairs = {f"{first} − {second}": (found[first], found[second]) for first, second in PAIRS if {first, second} <= set(found)}
    result["differences"] = {name: cross_validation.paired(*frames, **draws) for name, frames in pairs.items()}
    result["curve"] = {name: _curve(found[name]) for name in ("fast", "fast, 8 views", "probe") if name in found}
    first = next(iter(found))
    places = made.pack.manifest.loc[found[first]["row"], ["x", "y"]].reset_index(drop=True)
    listed = failures.suspects(failures.groups(pd.concat([found[first], places], axis=1), made.pack))
    result["suspects"] = failures.counted(listed, of=len(found[first])) | {"model": first}
    run.write_json(results, result)
    run.write_csv("suspects.csv", listed)
    run.write_csv("out_of_fold.csv.gz", pd.concat([frame.assign(model=name) for name, frame in found.items()], ignore_index=True))
    return result


def command(source: str, **options: Any) -> str:
    """Returns the line that calls `study` with these options."""
    given = ", ".join([repr(source), *(f"{name}={value!r}" for name, value in options.items())])
    imports = "from bhi_utils.core.run import Run; from bhi_utils.studies import recipes"
    return f"python -c \"{imports}; recipes.study(Run.open('runs/studies'), {given})\""


def _answered(made: Study, name: str, values: Mapping, *, weights: str, seed: int) -> dict[str, pd.DataFrame]:
    """Fits one of `MODELS` and returns its answers, one table for each way of answering; see `Study.answer`."""
    if name == "fast":
        return made.answer(name, values, study_base.fine_tuned(values, weights=weights, seed=seed))
    if name == "probe":
        patches, size = made.pack.patches, study_base.PROBE_SIZE
        features = study_base.frozen_features(made.pack, weights=weights, image_size=size, seed=seed)
        found = features(lambda rows: patches[rows], len(patches), b"real", "Features of the probe")
        return made.answer(name, {"IMAGE_SIZE": size}, cross_validation.linear(found))
    if name == "colour":
        return made.answer(name, {}, cross_validation.linear(cross_validation.colour_histograms(made.pack.patches)))
    own = {**values, **CNN}
    return made.answer(name, own, study_base.custom_cnn(own, seed=seed))


def release(run: Run, source: str, *, weights: str, recall: float = 0.93, seed: int = 0, folder: Path | None = None) -> list[Path]:
    """Trains the packaged model with recipe fast and writes its files; `study` must have run in the same folder.

    The network learns from four fifths of the cases. The last fifth chooses the epoch, the threshold and the calibration; those of the
    study belong to the networks of its folds.

    Args:
        run: the study's folder.
        source: the data source of the study.
        weights: the pretrained weights of the study.
        recall: what the threshold reaches on the cases that served for early stopping.
        seed: seed of everything random.
        folder: where the files go; the package's own by default.
    """
    from bhi_utils.studies import package_model

    result, start = run.read_json(RESULTS), time.perf_counter()
    pack = archive.open_source(source)
    if pack.info["fingerprint"] != result["data"]["fingerprint"]:
        raise InputError("The study in this folder was made from other data: run it again with this DATA, or name its own.")
    values, table = settings("fast"), splits.make(pack.manifest, scheme="kfold", seed=seed)
    table["split"] = table["split"].replace("test", "train")
    trained = study_base.train(Fold(pack, table, 0, run.artifacts / "checkpoints"), values, weights=weights, seed=seed)
    kept = [int(case) for case in table.loc[table["split"] == "val", "case"]]
    decided = package_model.decide(trained.model, pack, kept, recall=recall, resamples=result["resamples"], seed=seed)
    found, minutes = result["models"]["fast"], round((time.perf_counter() - start) / 60, 1)
    training = {name: value for name, value in values.items() if not name.startswith("CNN_")}
    return package_model.save(
        trained.model,
        pack,
        **decided,
        out_of_fold={name: found[name] for name in metrics.NAMES if name in found},
        initialisation="ImageNet",
        training={**training, "folds": result["parameters"]["folds"], "seed": seed, "minutes": minutes},
        folder=folder,
        validation_cases=tuple(kept),
    )


def _curve(frame: pd.DataFrame) -> list[dict[str, float]]:
    """Returns the best precision at recalls from 0.5 to 0.99, out of fold, on calibrated probabilities."""
    curve = metrics.curve_at(frame["label"].to_numpy(), frame["probability_calibrated"].to_numpy())
    steps = np.r_[np.arange(0.5, 0.9, 0.05), np.arange(0.9, 0.995, 0.01)]
    best = [float(curve.loc[curve["recall"] >= step, "precision"].max()) for step in steps]
    return [{"recall": round(float(step), 2), "precision": value} for step, value in zip(steps, best, strict=True)]


def table(result: Mapping) -> pd.DataFrame:
    """One row a model, with intervals.

    >>> table(recorded()).columns.tolist()
    ['pooled AUC', 'recall', 'precision', 'mean of folds']
    """
    rows = {}
    for name, found in result["models"].items():
        rows[NAMES[name]] = {metric: titles.cell(found[metric]) for metric in ("auc", "recall", "precision")}
        rows[NAMES[name]]["mean of folds"] = f"{found['mean_fold_auc']:.3f}"
    return pd.DataFrame(rows).T.rename(columns={"auc": "pooled AUC"})


def differences(result: Mapping) -> pd.DataFrame:
    """One row a pair: the difference in AUC with its interval, paired by case.

    >>> differences(recorded()).index[0]
    'EfficientNetB0, recipe fast − logistic regression on frozen features'
    """
    pairs = {pair.partition(" − ")[::2]: titles.cell(found["auc"], sign=True) for pair, found in result["differences"].items()}
    return pd.DataFrame({"AUC": {f"{NAMES[first]} − {NAMES[second]}": text for (first, second), text in pairs.items()}})


#: What the study was to show: pooled AUC and mean of folds of recipe fast, its gain over the probe, precision at the chosen threshold,
#: and the gain of a network from scratch over colour alone.
GOALS = {"pooled AUC": 0.935, "mean AUC of the folds": 0.94, "gain over the probe": 0.025, "precision": 0.6, "CNN over colour": 0.03}


def goals(result: Mapping) -> pd.DataFrame:
    """One row a goal: what was wanted, what one view and eight views reach, and whether either reaches it."""
    rows = {}
    for column, way in (("one view", ""), ("eight views", ", 8 views")):
        found = result["models"]["fast" + way]
        gain = found["auc"]["value"] - result["models"]["probe"]["auc"]["value"]
        network = result["differences"].get(f"cnn{way} − colour", {"auc": {"value": np.nan}})["auc"]["value"]
        values = (found["auc"]["value"], found["mean_fold_auc"], gain, found["precision"]["value"], network)
        rows[column] = dict(zip(GOALS, values, strict=True))
    table = pd.DataFrame({"wanted": GOALS} | rows)
    best = table[["one view", "eight views"]].max(axis=1)
    return table.assign(reached=["yes" if found >= wanted else "no" for found, wanted in zip(best, table["wanted"], strict=True)])


#: The fold that tests; training patches that are drawn from its training cases; the paper's epochs.
FOLD, PATCHES, EPOCHS = 0, 4000, 15
#: Last blocks that phase 2 of the published recipe fine-tunes, which the paper leaves open; as in notebook 05.
BLOCKS, RATE = 2, 2e-4
PAPER_RESULTS = "paper_recipe.json"


def paper_settings(recipe: str) -> dict:
    """Returns the values that `paper_study` trains a recipe with: those of its profile, for `EPOCHS` epochs."""
    return {"FINE_TUNE_BLOCKS": BLOCKS, "FINE_TUNE_RATE": RATE, "VIEWS": 0} | settings(recipe) | {"EPOCHS": EPOCHS}


def paper_study(
    run: Run, source: str, *, weights: str, number: int = 5, seed: int = 0, resamples: int = 2000, recall: float = 0.93
) -> dict:
    """Fits both recipes and writes ``paper_recipe.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        source: a data source, see `archive.find_source`.
        weights: EfficientNetB0's pretrained weights.
        number: number of folds that the cases are dealt into.
        seed: seed of folds, patches and models.
        resamples: how often the cases are drawn for intervals.
        recall: what the thresholds must reach on the fold's validation cases.

    Returns:
        ``{"models": {"paper": metrics, "fast": metrics}, "minutes": {…}, "cores", "difference": metrics, "fold", "patches", "epochs",
        …}``; the difference is fast minus paper.
    """
    made = Study(run, source, weights=weights, number=number, seed=seed, recall=recall)
    on = [cross_validation.thinned(made.folds[FOLD], seed=seed, count=PATCHES)]
    values = {name: paper_settings(name) for name in ("fast", "paper")}
    frames = {
        name: made.answer(f"{name}, {PATCHES} patches of fold {FOLD}", each, study_base.fine_tuned(each, weights=weights, seed=seed), on=on)
        for name, each in values.items()
    }
    draws = {"resamples": resamples, "seed": seed}
    result = made.facts("recipes", RESAMPLES=resamples, TARGET_RECALL=recall)
    result |= {"fold": FOLD, "patches": PATCHES, "epochs": EPOCHS, "values": values, "resamples": resamples}
    result["cores"] = worker_processes.cores()
    result["models"] = {
        name: cross_validation.pooled(frame[""], **draws) | cross_validation.by_fold(frame[""]) for name, frame in frames.items()
    }
    result["minutes"] = {name: round(float(frame[""]["seconds"].iloc[0]) / 60, 1) for name, frame in frames.items()}
    result["difference"] = cross_validation.paired(frames["fast"][""], frames["paper"][""], **draws)
    run.write_json(PAPER_RESULTS, result)
    return result


def paper_table(result: Mapping) -> pd.DataFrame:
    """One row a recipe with intervals and minutes, then their difference."""
    names = ("auc", "recall", "precision")
    rows = {f"recipe {name}": {metric: titles.cell(result["models"][name][metric]) for metric in names} for name in ("paper", "fast")}
    rows["fast − paper"] = {metric: titles.cell(result["difference"][metric], sign=True) for metric in names}
    minutes = result["minutes"]
    spent = [f"{minutes['paper']:.1f}", f"{minutes['fast']:.1f}", f"{minutes['fast'] / minutes['paper']:.2f} of it"]
    return pd.DataFrame(rows).T.rename(columns={"auc": "AUC"}).assign(minutes=spent)
