"""What every study of training shares: the data, its folds, the weights, a folder that keeps what is done, and where a result comes from.

Used by ``studies.recipes``, ``studies.ablations`` and ``studies.paper_recipe``.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bhi_utils.core import provenance
from bhi_utils.core.paths import cache_dir
from bhi_utils.core.provenance import command, git_commit
from bhi_utils.core.run import Run
from bhi_utils.data import archive
from bhi_utils.model import bundles, seen
from bhi_utils.training import cross_validation
from bhi_utils.training.cross_validation import Arm, Fold

if TYPE_CHECKING:
    from bhi_utils.training.train_networks import Trained


def chosen(pack: archive.Pack, rows: np.ndarray, what: str) -> archive.Pack:
    """Returns the data set with these rows only; ``what`` is said of them in its own fingerprint."""
    manifest = pack.manifest.iloc[rows].reset_index(drop=True)
    identity = hashlib.sha256(f"{pack.info['fingerprint']} {what}".encode()).hexdigest()
    about = {"patches": len(rows), "positive": int(manifest["label"].sum()), "fingerprint": identity}
    return replace(pack, patches=np.asarray(pack.patches[rows]), manifest=manifest, info=pack.info | about)


def sampled(pack: archive.Pack, per_case: int, *, seed: int) -> archive.Pack:
    """Returns the data set with at most ``per_case`` patches of each case, drawn at random, in their order."""
    order = pd.Series(np.random.default_rng(seed).permutation(len(pack.manifest)))
    rows = np.flatnonzero(order.groupby(pack.manifest["case"].to_numpy()).rank() <= per_case)
    return chosen(pack, rows, f"{per_case} {seed}")


def facts(notebook: str, pack: archive.Pack, parameters: Mapping, **given: Any) -> dict:
    """Says where a result comes from: ``command, commit, data, parameters``; ``given`` are the notebook's parameters."""
    data = {name: pack.info[name] for name in ("kind", "synthetic", "patches", "cases", "positive", "fingerprint")}
    return {"command": command(notebook, **given), "commit": git_commit(), "data": data, "parameters": parameters}


class Study:
    """Fits arms on the folds of a data set. Their answers are kept, so that a study that was stopped goes on.

    An answer is kept under all that it depends on: settings, seed, folds, data, weights, libraries, and the code that fits it.

    Args:
        run: the study's folder.
        source: a data source, see `archive.find_source`.
        weights: EfficientNetB0's pretrained weights, ``imagenet`` or a file.
        number: number of folds.
        seed: seed of folds and models.
        recall: what thresholds must reach on validation cases.
        per_case: how many patches of each case the study is about, drawn at random; 0 takes all.

    Attributes:
        pack: the data set.
        folds: its folds, in order.

    Raises:
        InputError: the source, its cases or the weights do not allow it.
    """

    def __init__(self, run: Run, source: str, *, weights: str, number: int, seed: int, recall: float = 0.93, per_case: int = 0) -> None:
        self._run, self._source, self._weights, self._seed, self._recall = run, source, weights, seed, recall
        self._began = time.perf_counter()
        # what answers depend on beside data and settings; which file ``imagenet`` means depends on Keras' version
        path, versions = Path(weights), {name: version for name, version in provenance.versions().items() if name != "papermill"}
        content = bundles.sha256(path) if path.is_file() else weights
        self._basis = [content, versions, provenance.code_hash("studies.study_base")]
        self.pack = archive.open_source(source)
        seen.guard(self.pack, weights)
        if per_case:
            self.pack = sampled(self.pack, per_case, seed=seed)
        self.folds = cross_validation.deal(self.pack, run.artifacts / "checkpoints", folds=number, seed=seed)

    def answer(self, name: str, values: Mapping, arm: Arm, *, on: list[Fold] | None = None) -> dict[str, pd.DataFrame]:
        """Returns what the models of an arm answer for every test patch: one table for each way of answering, such as ``", 8 views"``.

        Args:
            name: what is fitted and on what, in words that tell it from everything else with the same values.
            values: all settings of the arm.
            arm: what to fit.
            on: the folds, where they are not the study's own.
        """
        about = [name, dict(values), self._seed, len(self.folds), self.pack.info["fingerprint"], *self._basis]
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        return cross_validation.out_of_fold(on or self.folds, arm, recall=self._recall, keep=self._run.artifacts / "folds" / key)

    def facts(self, notebook: str, **given: Any) -> dict:
        """Says where a result comes from, see `facts`, and the ``seconds`` since the study began; ``given`` are further parameters."""
        own = {"DATA": Path(self._source).name, "WEIGHTS": Path(self._weights).name, "FOLDS": len(self.folds), "SEED": self._seed}
        parameters = {"folds": len(self.folds), "seed": self._seed, "recall": self._recall, "weights": own["WEIGHTS"]}
        result = facts(notebook, self.pack, parameters, **own, **given)
        return result | {"seconds": round(time.perf_counter() - self._began, 1)}


#: What a recipe may also say, for the ablations: how the networks' parts are fed and frozen.
USUAL: dict = {"INPUT_RANGE": 255, "TRAIN_BATCHNORM": False}
#: Side in pixels that the probe's patches are resized to: what a frozen network does best at, of those that were tried.
PROBE_SIZE = 200


def fine_tuned(values: Mapping, *, weights: str, seed: int, answer_views: int = 8) -> Arm:
    """Returns an arm that trains EfficientNetB0.

    Args:
        values: settings, see `recipes.settings`, and perhaps something of `USUAL`.
        weights: as for ``networks.efficientnetb0``, pretrained.
        seed: seed of everything random.
        answer_views: besides the patch as it is, answer with the mean of so many views, where there is a cache; 1 leaves that out.
    """

    def fit(fold: Fold) -> dict[str, dict[str, np.ndarray]]:
        trained = train(fold, values, weights=weights, seed=seed)
        if (cut := trained.cut) is None:
            return _answered(trained, fold, answer_views=1)
        # what the cache held already is counted as if it had been computed for this fit
        seconds = trained.seconds - cut.filling + cut.cost
        return _by_way(answer_views, seconds, lambda part, views: cut.logits(fold.rows(part), views=views))

    return fit


#: Returns features, float32 array (n, d), of patches that are fetched by their numbers: how to fetch them, how many there are, bytes that
#: tell them from others of the same data set, and the title of the progress bar.
Features = Callable[[Callable[[np.ndarray], np.ndarray], int, bytes, str], np.ndarray]


def frozen_features(pack: archive.Pack, *, weights: str, image_size: int, seed: int) -> Features:
    """Returns what computes, and keeps in the cache, the pooled output of EfficientNetB0 as it was pretrained.

    Raises:
        InputError: the weights cannot be had, or have seen these cases.
    """
    from bhi_utils.model import networks
    from bhi_utils.training import frozen_features

    seen.guard(pack, weights)
    front = frozen_features.front(networks.efficientnetb0(image_size=image_size, weights=weights, seed=seed), "pool")

    def features(fetch: Callable[[np.ndarray], np.ndarray], count: int, what: bytes, title: str) -> np.ndarray:
        identity = hashlib.sha256(pack.info["fingerprint"].encode() + what).hexdigest()
        found = frozen_features.FeatureCache(front, fetch, count, identity=identity, cache=cache_dir())
        found.ensure(np.arange(count), title=title)
        return found.read(0).astype(np.float32)

    return features


def custom_cnn(values: Mapping, *, seed: int, answer_views: int = 8) -> Arm:
    """Returns an arm that trains the custom CNN from scratch; its arguments are those of `fine_tuned`.

    ``CNN_EPOCHS`` may be left out of the settings where both networks train equally long, for ``EPOCHS``.
    """
    epochs = values.get("CNN_EPOCHS", values["EPOCHS"])

    def fit(fold: Fold) -> dict[str, dict[str, np.ndarray]]:
        from bhi_utils.training import fit_phases, samples, train_networks

        train = samples.training_samples(fold.pack, fold.table, mode=values["BALANCE"], seed=seed, rows=fold.rows("train"))
        recipe = fit_phases.FitSettings(epochs=epochs, batch_size=values["BATCH_SIZE"], seed=seed, folder=fold.folder)
        trained = train_networks.train_cnn(fold.pack, fold.table, train, recipe, image_size=values["CNN_IMAGE_SIZE"])
        return _answered(trained, fold, answer_views=answer_views)

    return fit


def _answered(trained: "Trained", fold: Fold, *, answer_views: int) -> dict[str, dict[str, np.ndarray]]:
    """Returns what a network answers for the patches themselves and for their views, and the seconds of its training; see `_by_way`."""
    from bhi_utils.model import augment

    logits = {}
    for part in ("val", "test"):
        patches = fold.pack.patches[fold.rows(part)]
        turned = (augment.dihedral(patches, view) for view in range(answer_views))
        logits[part] = np.stack([trained.model.predict(view, batch_size=64, verbose=0)[:, 0] for view in turned], dtype=np.float64)
    return _by_way(answer_views, trained.seconds, lambda part, views: logits[part][:views].mean(axis=0))


def _by_way(answer_views: int, seconds: float, logits: Callable[[str, int], np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Returns logits of both parts, and the seconds, by way of answering: ``""`` for one view, and ``", 8 views"`` for that many."""
    ways = {"": 1} | ({f", {answer_views} views": answer_views} if answer_views > 1 else {})
    return {way: {"val": logits("val", views), "test": logits("test", views), "seconds": np.array(seconds)} for way, views in ways.items()}


def train(fold: Fold, values: Mapping, *, weights: str, seed: int) -> "Trained":
    """Trains EfficientNetB0 on a fold as ``values`` say; samples and features count as part of it."""
    from bhi_utils.training import fit_phases, samples, train_networks

    values = USUAL | dict(values)
    train = samples.training_samples(fold.pack, fold.table, mode=values["BALANCE"], seed=seed, rows=fold.rows("train"))
    settings = fit_phases.FitSettings(epochs=values["EPOCHS"], batch_size=values["BATCH_SIZE"], seed=seed, folder=fold.folder)
    names = {"image_size": "IMAGE_SIZE", "views": "VIEWS", "blocks": "FINE_TUNE_BLOCKS"}
    names |= {"rate": "FINE_TUNE_RATE", "batchnorm": "TRAIN_BATCHNORM"}
    options = {option: values[name] for option, name in names.items()} | {"input_range": float(values["INPUT_RANGE"])}
    return train_networks.train_efficientnetb0(fold.pack, fold.table, train, settings, weights=weights, **options)
