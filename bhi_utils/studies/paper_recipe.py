"""The published recipe against recipe fast: the same patches of one fold for the same number of epochs.

Used by ``notebooks/studies/recipes.ipynb``. The fold and the patches are fixed before anything is trained, by number and seed.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bhi_utils.core import provenance, titles, worker_processes
from bhi_utils.core.run import Run
from bhi_utils.studies import recipes, study_base
from bhi_utils.studies.study_base import Study
from bhi_utils.training import cross_validation

#: The fold that tests; training patches that are drawn from its training cases; the paper's epochs.
FOLD, PATCHES, EPOCHS = 0, 4000, 15
#: Last blocks that phase 2 of the published recipe fine-tunes, which the paper leaves open; as in notebook 05.
BLOCKS, RATE = 2, 2e-4
RESULTS = "paper_recipe.json"


def recorded() -> dict[str, Any]:
    """The result that the repository keeps, of the real sample; its form is that of `study`."""
    return provenance.result(RESULTS)


def settings(recipe: str) -> dict[str, Any]:
    """A recipe's values as they are trained here: its profile's, for `EPOCHS` epochs."""
    return {"FINE_TUNE_BLOCKS": BLOCKS, "FINE_TUNE_RATE": RATE, "VIEWS": 0} | recipes.settings(recipe) | {"EPOCHS": EPOCHS}


def study(
    run: Run, source: str, *, weights: str, number: int = 5, seed: int = 0, resamples: int = 2000, recall: float = 0.93
) -> dict[str, Any]:
    """Fit both recipes and write ``paper_recipe.json`` into the run's artefacts.

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
    values = {name: settings(name) for name in ("fast", "paper")}
    frames = {
        name: made.answer(f"{name}, {PATCHES} patches of fold {FOLD}", each, study_base.fine_tuned(each, weights=weights, seed=seed), on=on)
        for name, each in values.items()
    }
    draws = {"resamples": resamples, "seed": seed}
    result = made.facts("recipes", RESAMPLES=resamples, TARGET_RECALL=recall)
    result |= {"fold": FOLD, "patches": PATCHES, "epochs": EPOCHS, "values": values, "resamples": resamples}
    result["cores"] = worker_processes.cores()
    result["models"] = {name: cross_validation.pooled(frame[""], **draws) for name, frame in frames.items()}
    result["minutes"] = {name: round(float(frame[""]["seconds"].iloc[0]) / 60, 1) for name, frame in frames.items()}
    result["difference"] = cross_validation.paired(frames["fast"][""], frames["paper"][""], **draws)
    run.write_json(RESULTS, result)
    return result


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row a recipe with intervals and minutes, then their difference."""
    names = ("auc", "recall", "precision")
    rows = {f"recipe {name}": {metric: titles.cell(result["models"][name][metric]) for metric in names} for name in ("paper", "fast")}
    rows["fast − paper"] = {metric: titles.cell(result["difference"][metric], sign=True) for metric in names}
    minutes = result["minutes"]
    spent = [f"{minutes['paper']:.1f}", f"{minutes['fast']:.1f}", f"{minutes['fast'] / minutes['paper']:.2f} of it"]
    return pd.DataFrame(rows).T.rename(columns={"auc": "AUC"}).assign(minutes=spent)
