"""How large is the leak? The same small models under splits that share cases between training and test, and under those that do not.

Used by ``notebooks/studies/leakage.ipynb`` only. This is the one place that trains on a split by image, and on a split by case after
SMOTE over all cases; its results carry the name of what they leak and never become a model.
"""

import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.special import logit
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from bhi_utils.core import titles
from bhi_utils.core.run import Run
from bhi_utils.data import archive, slide_grid, splits
from bhi_utils.data.archive import Pack
from bhi_utils.evaluation import metrics
from bhi_utils.studies import study_base
from bhi_utils.training import smote
from bhi_utils.training.cross_validation import logistic_regression

_ARMS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
#: What is compared: how patches get to folds, and where SMOTE stands. ``leaks`` says what test and training share.
ARMS: dict[str, dict[str, str]] = _ARMS["arms"]
#: Pairs whose difference is reported, first minus second.
PAIRS = tuple(map(tuple, _ARMS["pairs"]))
METRICS = ("auc", "auprc", "brier")
HEADS = ("logistic regression", "one hidden layer")
RESULTS = "leakage.json"


def study(run: Run, source: str, *, weights: str, image_size: int, folds: int, seed: int, resamples: int) -> dict:
    """Computes everything and writes ``leakage.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        source: a data source, see `archive.find_source`.
        weights: EfficientNetB0's weights; never ``none``, since a random base has no features.
        image_size: side in pixels that patches are resized to.
        folds: number of folds.
        seed: seed of folds, SMOTE and models.
        resamples: how often the cases are drawn for intervals.

    Returns:
        what `measure` gives, with ``data``, ``command``, ``commit`` and ``parameters``.

    Raises:
        InputError: the source, its cases or the weights do not allow it.
    """
    pack = archive.open_source(source)
    features = study_base.frozen_features(pack, weights=weights, image_size=image_size, seed=seed)
    material = prepare(pack, features, folds=folds, seed=seed)
    given = {"DATA": Path(source).name, "WEIGHTS": Path(weights).name, "IMAGE_SIZE": image_size, "FOLDS": folds, "SEED": seed}
    parameters = {"image_size": image_size, "folds": folds, "seed": seed}
    result = study_base.facts("leakage", pack, parameters, **given, RESAMPLES=resamples)
    result |= measure(material, seed=seed, resamples=resamples)
    run.write_json(RESULTS, result)
    return result


@dataclass(frozen=True)
class Material:
    """What every arm shares.

    Attributes:
        manifest: the real patches, one row each.
        real: float32 array (n, d), their features.
        folds: fold of each real patch under ``case``, ``runs`` and ``image``.
        plan: SMOTE over all real patches.
        synthetic: float32 array (k, d), features of the plan's patches.
        inside: for each fold that tests, plan and features of SMOTE over the other folds' cases; its rows are rows of the pack.
    """

    manifest: pd.DataFrame
    real: np.ndarray
    folds: dict[str, np.ndarray]
    plan: smote.SmotePlan
    synthetic: np.ndarray
    inside: list[tuple[smote.SmotePlan, np.ndarray]]


def head(name: str, seed: int) -> Pipeline:
    """Returns a small model on frozen features. Its recipe is fixed: nothing is chosen on data that might leak."""
    if name == "logistic regression":
        return logistic_regression()
    # 15 epochs do not converge, and are not meant to: the recipe is the same for every arm
    network = MLPClassifier(hidden_layer_sizes=(64,), alpha=1e-3, batch_size=128, learning_rate_init=5e-4, max_iter=15, random_state=seed)
    return make_pipeline(StandardScaler(), network)


def prepare(pack: Pack, features: study_base.Features, *, folds: int, seed: int) -> Material:
    """Deals the folds, plans SMOTE, and computes the features of every patch that an arm needs, each once.

    Raises:
        InputError: too few cases, or runs of case ids, for the folds.
    """
    manifest, labels = pack.manifest, pack.manifest["label"].to_numpy()
    numbers = {"image": splits.image_folds(len(manifest), seed=seed, folds=folds)}
    for arm, scheme in (("case", "grouped"), ("runs", "runs")):
        table = splits.make(manifest, scheme=scheme, seed=seed, folds=folds)
        splits.assert_disjoint(table)
        numbers[arm] = manifest["case"].map(table.set_index("case")["fold"]).to_numpy()

    def planned(rows: np.ndarray, title: str) -> tuple[smote.SmotePlan, np.ndarray]:
        plan = smote.smote_plan(pack.patches, labels, rows=rows, seed=seed)
        what = b"smote" + plan.base.tobytes() + plan.neighbour.tobytes() + plan.step.tobytes()
        return plan, features(lambda index: smote.draw(pack.patches, plan, index), len(plan), what, title)

    real = features(lambda index: pack.patches[index].astype(np.float32), len(manifest), b"real", "Features of the patches")
    plan, synthetic = planned(np.arange(len(manifest)), "Features of SMOTE before the split")
    inside = [planned(np.flatnonzero(numbers["case"] != fold), f"Features of SMOTE without fold {fold}") for fold in range(folds)]
    return Material(manifest, real, numbers, plan, synthetic, inside)


def predict(material: Material, arm: str, name: str, *, seed: int) -> pd.DataFrame:
    """Predicts one arm with one head, out of fold: ``case, row, synthetic, label, logit, probability``, one row a tested patch.

    ``row`` is the patch's row in the manifest; a synthetic patch has its base patch's row and case.
    """
    frames = []
    case, labels = (material.manifest[name].to_numpy() for name in ("case", "label"))
    for train, train_labels, test, rows, made in _folds(material, arm, seed=seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are fixed on purpose
            model = head(name, seed).fit(train, train_labels)
        probability = np.clip(model.predict_proba(test)[:, 1], 1e-7, 1 - 1e-7)
        frame = pd.DataFrame({"case": case[rows], "row": rows, "synthetic": made})
        frame["label"] = np.where(made, material.plan.label, labels[rows])
        frames.append(frame.assign(logit=logit(probability), probability=probability))
    return pd.concat(frames, ignore_index=True)


def _folds(material: Material, arm: str, *, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, for each fold: training features and labels; test features, the rows of the test patches, and which of them are synthetic."""
    labels, case = material.manifest["label"].to_numpy(), material.manifest["case"].to_numpy()
    scheme = next(name for name in ("runs", "image", "case") if name in arm)
    fold = material.folds[scheme]
    before, plan = "before" in arm, material.plan
    synthetic_fold = fold[plan.base]
    if before and scheme == "image":  # the mixture is shuffled as if every patch were real
        # another draw than that of the real patches alone; with seed 0 the one of the recorded result
        mixed = splits.image_folds(len(labels) + len(plan), seed=len(plan) + seed, folds=int(fold.max()) + 1)
        fold, synthetic_fold = mixed[: len(labels)], mixed[len(labels) :]
    for number in range(int(fold.max()) + 1):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if scheme != "image" and np.isin(case[test], case[train]).any():
            raise ValueError(f"A case is in training and test of the arm {arm!r}.")
        extra, extra_label = material.synthetic[:0], plan.label
        if before:
            extra = material.synthetic[synthetic_fold != number]
        elif "after" in arm:
            inner, extra = material.inside[number]
            extra_label = inner.label
            if not np.isin(np.r_[inner.base, inner.neighbour], train).all():
                raise ValueError("SMOTE after the split has a parent outside the training part.")
        tested = np.flatnonzero(synthetic_fold == number) if "mixture" in arm else np.empty(0, int)
        yield (
            np.concatenate([material.real[train], extra]),
            np.concatenate([labels[train], np.full(len(extra), extra_label)]),
            np.concatenate([material.real[test], material.synthetic[tested]]),
            np.concatenate([test, plan.base[tested]]),
            np.repeat([False, True], [len(test), len(tested)]),
        )


def measure(material: Material, *, seed: int, resamples: int) -> dict:
    """Measures every arm and head, with intervals by case, and the paired differences of `PAIRS`.

    Returns:
        ``{"arms": …, "models": {head: {arm: {metric: {"value", "low", "high"}}}}, "differences": {head: {"a − b": …}},
        "neighbours": …, "seconds": …}``.
    """
    start = time.perf_counter()
    result: dict = {"arms": ARMS, "resamples": resamples, "models": {}, "differences": {}, "neighbours": neighbours(material)}
    for name in HEADS:
        found = {arm: predict(material, arm, name, seed=seed) for arm in ARMS}
        measured = {arm: metrics.evaluate(frame, threshold=0.5, resamples=resamples, seed=seed) for arm, frame in found.items()}
        result["models"][name] = {arm: {metric: values[metric] for metric in METRICS} for arm, values in measured.items()}
        gaps = {pair: metrics.difference(found[pair[0]], found[pair[1]], resamples=resamples, seed=seed) for pair in PAIRS}
        result["differences"][name] = {" − ".join(pair): {metric: gap[metric] for metric in METRICS} for pair, gap in gaps.items()}
        result["neighbours"][name] = _by_neighbour(material, found)
    result["seconds"] = round(time.perf_counter() - start, 1)
    return result


def _touching(material: Material) -> np.ndarray:
    """Returns which patches share an edge on the slide with a training patch under the split by image: bool array (n,)."""
    near, fold = slide_grid.beside(material.manifest, slide_grid.SIDES), material.folds["image"]
    return ((near >= 0) & (fold[near] != fold[:, None])).any(axis=1)


def neighbours(material: Material) -> dict:
    """Returns how complete the slides are: the share of patches that touch a training patch under the split by image, and full cases."""
    touching = pd.Series(_touching(material), index=material.manifest["case"])
    cases = touching.groupby(level=0).agg(["mean", "size"]).query("mean > 0.8").sort_values("size", ascending=False)
    full = [{"case": int(case), "patches": int(size), "touching": float(mean)} for case, mean, size in cases.itertuples()]
    return {"touching": float(touching.mean()), "full_cases": full}


def _by_neighbour(material: Material, frames: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
    """Returns the AUC under both splits of patches that touch a training patch under the split by image, and of others; no intervals."""
    touching, found = _touching(material), {}
    for group, chosen in (("touching a training patch", touching), ("touching none", ~touching)):
        parts = {name: frames[name][chosen[frames[name]["row"].to_numpy()]] for name in ("image", "case")}
        found[group] = {"patches": int(chosen.sum())} | {
            name: metrics.evaluate(part, threshold=0.5, resamples=0)["auc"]["value"]
            for name, part in parts.items()
            if part["label"].nunique() == 2
        }
    return found


def table(result: Mapping, *, metric: str = "auc") -> pd.DataFrame:
    """One row an arm: how it splits, where SMOTE stands, and for each head ``value (low–high)``.

    >>> from bhi_utils.core import provenance
    >>> table(provenance.result(RESULTS)).loc["image", ["split", "SMOTE"]].tolist()
    ['by image', 'none']
    """
    rows = {}
    for arm, facts in result["arms"].items():
        cells = {name: titles.cell(result["models"][name][arm][metric]) for name in HEADS}
        rows[arm] = {"split": facts["split"], "SMOTE": facts["smote"], **cells}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def differences(result: Mapping, *, metric: str = "auc") -> pd.DataFrame:
    """One row a pair of arms: the paired difference of each head as ``value (low to high)``."""
    gaps = result["differences"]
    rows = {pair: {name: titles.cell(gaps[name][pair][metric], sign=True) for name in HEADS} for pair in gaps[HEADS[0]]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("difference")


def by_neighbour(result: Mapping) -> pd.DataFrame:
    """One row a head and group: AUC under both splits of patches with and without a touching training patch."""
    rows = [{"model": name, "patches that are": group, **facts} for name in HEADS for group, facts in result["neighbours"][name].items()]
    return pd.DataFrame(rows).assign(leak=lambda found: found["image"] - found["case"])
