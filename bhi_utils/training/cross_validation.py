"""Cross-validation by case: every patch is answered by models that were trained without its case.

Used by the studies, for the packaged model's card, and by ``training.frozen_features`` for its probe. Each fold tests on one part of the
cases, chooses epoch, threshold and calibration on another, and trains on the rest, see ``data.splits``. An arm is a function that fits one
model on one fold. All arms see the same folds, so their answers can be compared case by case.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError
from bhi_utils.core.titles import Metrics
from bhi_utils.data import splits
from bhi_utils.data.archive import Pack
from bhi_utils.evaluation import metrics, thresholds
from bhi_utils.evaluation.calibration import Calibration, NoSkill, fit_calibration
from bhi_utils.training import checkpoint

#: Metrics that depend on the order of the answers or on their value, and those that depend on a threshold.
SCORES = ("auc", "auprc", "loss", "brier", "ece", "calibration_slope", "calibration_intercept")
DECISIONS = ("recall", "precision", "specificity", "binary_accuracy", "balanced_accuracy", "f1", "f1_macro", "f1_weighted")
#: Ranges of each colour's histogram in `colour_histograms`.
BINS = 16


@dataclass(frozen=True)
class Fold:
    """One fold of a data set.

    Attributes:
        pack: the data set.
        table: the split, ``case, split, fold``.
        number: which fold is the test part.
        folder: the fold's own, for checkpoints.
        learned: int array, the training rows to learn from; all by default, see `thinned`.
    """

    pack: Pack
    table: pd.DataFrame
    number: int
    folder: Path
    learned: np.ndarray | None = None

    def rows(self, part: str) -> np.ndarray:
        """Returns the row numbers of a part's patches in the pack."""
        if part == "train" and self.learned is not None:
            return self.learned
        return splits.indices(self.pack.manifest, self.table, part)

    def labels(self, part: str) -> np.ndarray:
        """Returns the labels of a part's patches."""
        return self.pack.manifest["label"].to_numpy()[self.rows(part)]

    def cases(self, part: str) -> np.ndarray:
        """Returns the ids of a part's cases, each once."""
        return np.unique(self.pack.manifest["case"].to_numpy()[self.rows(part)])


#: Fits one model. By the name of each way of answering, returns the logits of validation and test rows as ``val`` and ``test``, and
#: perhaps the seconds of the fit as ``seconds``.
Arm = Callable[[Fold], Mapping[str, Mapping[str, np.ndarray]]]


def deal(pack: Pack, folder: Path, *, folds: int, seed: int) -> list[Fold]:
    """Returns the folds of a data set, in order."""
    found = []
    for number in range(folds):
        table = splits.make(pack.manifest, scheme="kfold", seed=seed, folds=folds, fold=number)
        splits.assert_disjoint(table)
        found.append(Fold(pack, table, number, folder / f"fold_{number}"))
    return found


def thinned(fold: Fold, *, seed: int, patches: float = 1.0, cases: float = 1.0, count: int | None = None) -> Fold:
    """Returns the fold with fewer training patches, drawn at random; validation and test stay as they are.

    Args:
        fold: from `deal`.
        seed: seed of the draw; with equal seeds, a smaller share lies within a larger one.
        patches: share of each training case's patches to keep, at least one patch.
        cases: share of the training cases to keep, at least one case.
        count: how many of the remaining patches to keep; all by default.

    Raises:
        InputError: there are fewer than ``count``.
    """
    random, rows = np.random.default_rng([seed, fold.number]), fold.rows("train")
    frame = pd.DataFrame({"row": rows, "case": fold.pack.manifest["case"].to_numpy()[rows], "order": random.permutation(len(rows))})
    kept = random.permutation(fold.cases("train"))
    kept = kept[: max(1, round(cases * len(kept)))]
    frame = frame[frame["case"].isin(kept)].sort_values("order")
    place, size = frame.groupby("case").cumcount(), frame.groupby("case")["row"].transform("size")
    frame = frame[place < np.maximum(1, np.round(patches * size))]
    if count is not None and count > len(frame):
        raise InputError(
            f"{counted(count, 'training patch')} must be there and fold {fold.number} has {len(frame):,}: give a larger source."
        )
    return replace(fold, learned=np.sort(frame["row"].to_numpy()[:count]))


def answers(fold: Fold, logits: Mapping[str, np.ndarray], *, recall: float) -> pd.DataFrame:
    """Returns the answers for a fold's test rows, with the threshold and calibration that its validation rows give.

    A network that ranks its validation rows no better than chance cannot be calibrated. Each calibrated probability is then the share of
    IDC+ among the validation rows.

    Args:
        fold: the fold.
        logits: float arrays for ``val`` and ``test``, in the order of `Fold.rows`; ``seconds`` is optional.
        recall: the threshold is the highest that reaches it on the validation rows.

    Returns:
        columns ``row, case, fold, label, logit, probability, probability_calibrated, margin, seconds``. ``margin`` is the logit minus the
        threshold's, so a patch is called IDC+ at ``margin >= 0`` in every fold; ``seconds`` is what the fold's fit took, or NaN.
    """
    valid, test = (np.asarray(logits[part], dtype=np.float64) for part in ("val", "test"))
    try:
        calibration = fit_calibration(fold.labels("val"), valid)
    except NoSkill:
        calibration = Calibration(0.0, float(logit(fold.labels("val").mean())))
    threshold = thresholds.choose(fold.labels("val"), expit(valid), rule={"rule": "recall", "value": recall})
    rows = fold.rows("test")
    frame = pd.DataFrame({"row": rows, "case": fold.pack.manifest["case"].to_numpy()[rows], "fold": fold.number})
    return frame.assign(
        label=fold.labels("test"),
        logit=test,
        probability=expit(test),
        probability_calibrated=calibration.apply(test),
        margin=test - logit(threshold),
        seconds=float(logits.get("seconds", np.nan)),
    )


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the frame with the calibrated probabilities and their logits as ``probability`` and ``logit``.

    Pooled metrics compare these, since logits of different folds come from different networks; calibration gives them one scale.
    """
    probability = frame["probability_calibrated"].clip(1e-9, 1 - 1e-9)
    return frame.assign(probability=probability, logit=logit(probability))


def decided(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the frame with ``margin`` as logit: at the threshold 0.5, each fold's own threshold decides."""
    return frame.assign(logit=frame["margin"], probability=expit(frame["margin"]))


def pooled(frame: pd.DataFrame, *, resamples: int, seed: int = 0) -> Metrics:
    """Computes metrics over all folds' answers, with intervals by case."""
    ranks = metrics.evaluate(scored(frame), threshold=0.5, resamples=resamples, seed=seed)
    calls = metrics.evaluate(decided(frame), threshold=0.5, resamples=resamples, seed=seed)
    return {name: ranks[name] for name in SCORES} | {name: calls[name] for name in DECISIONS}


def by_fold(frame: pd.DataFrame) -> dict[str, list[float] | float]:
    """Returns the AUC of each fold, ``fold_auc``, and their mean, ``mean_fold_auc``."""
    found = [float(metrics.resampled(part, 0.5, 0, 0)[1]["auc"][0]) for _, part in frame.groupby("fold")]
    return {"fold_auc": found, "mean_fold_auc": float(np.mean(found))}


def paired(first: pd.DataFrame, second: pd.DataFrame, *, resamples: int, seed: int = 0) -> Metrics:
    """Computes the metrics of ``first`` minus those of ``second``, with intervals from the same draws of cases for both."""
    ranks = metrics.difference(scored(first), scored(second), resamples=resamples, seed=seed)
    calls = metrics.difference(decided(first), decided(second), resamples=resamples, seed=seed)
    return {name: ranks[name] for name in SCORES} | {name: calls[name] for name in DECISIONS}


def colour_histograms(patches: np.ndarray) -> np.ndarray:
    """Computes each patch's histograms of red, green and blue.

    Args:
        patches: uint8 array (n, h, w, 3).

    Returns:
        float32 array (n, 3 · `BINS`); each colour's part adds up to 1.

    Example:
        >>> colour_histograms(np.full((1, 2, 2, 3), (0, 16, 255), np.uint8)).nonzero()[1].tolist()
        [0, 17, 47]
    """
    found = np.empty((len(patches), 3, BINS), dtype=np.float32)
    for start in range(0, len(patches), 512):
        part = patches[start : start + 512] // (256 // BINS)
        for value in range(BINS):
            found[start : start + 512, :, value] = (part == value).mean(axis=(1, 2))
    return found.reshape(len(patches), -1)


def logistic_regression() -> Pipeline:
    """Returns the classifier of every probe, strongly regularised: there are more features than cases."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=2000))


def linear(features: np.ndarray) -> Arm:
    """Returns an arm that fits a logistic regression on fixed features, float array (n, d), one row a patch of the pack."""

    def fit(fold: Fold) -> dict[str, dict[str, np.ndarray]]:
        model = logistic_regression().fit(features[fold.rows("train")], fold.labels("train"))
        return {"": {part: model.decision_function(features[fold.rows(part)]) for part in ("val", "test")}}

    return fit


def out_of_fold(folds: list[Fold], arm: Arm, *, recall: float, keep: Path | None = None) -> dict[str, pd.DataFrame]:
    """Fit an arm on every fold.

    Args:
        folds: from `deal`.
        arm: what to fit.
        recall: for the thresholds, see `answers`.
        keep: a folder that keeps each fold's logits, so that a stopped study goes on; None keeps nothing.

    Returns:
        the answers of all folds, see `answers`, by the name of each of the arm's ways of answering.

    Raises:
        InputError: there is no fold.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for fold in folds:
        for name, logits in _kept(fold, arm, keep).items():
            found.setdefault(name, []).append(answers(fold, logits, recall=recall))
    if not found:
        raise InputError("There is no fold to fit: give at least 3.")
    return {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}


def _kept(fold: Fold, arm: Arm, keep: Path | None) -> Mapping[str, Mapping[str, np.ndarray]]:
    """Returns what the arm gives for a fold, read from ``keep`` where it is kept there."""
    if keep is None:
        return arm(fold)
    path = keep / f"fold_{fold.number}{checkpoint.SUFFIX}"
    if kept := checkpoint.load(path, fits=""):
        facts, arrays = kept
        return {name: dict(zip(facts["parts"][name], values, strict=True)) for name, values in arrays.items()}
    found = arm(fold)
    parts = {name: list(logits) for name, logits in found.items()}
    checkpoint.save(path, "", {"parts": parts}, {name: list(logits.values()) for name, logits in found.items()})
    checkpoint.clear(fold.folder)
    return found
