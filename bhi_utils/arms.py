"""The models that a fold can be answered by: EfficientNetB0 fine-tuned or frozen, and the custom CNN. Used by the studies of training.

Each function returns a ``folds.Arm``, or what ``folds.linear`` makes one of. Settings are those of notebook 05, by the same names.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bhi_utils import archive
from bhi_utils.folds import Arm, Fold
from bhi_utils.paths import cache_dir

if TYPE_CHECKING:
    from bhi_utils.training import Trained

#: What a recipe may also say, for the ablations: how the networks' parts are fed and frozen.
USUAL = {"INPUT_RANGE": 255, "TRAIN_BATCHNORM": False}
#: Side in pixels that the probe's patches are resized to: what a frozen network does best at, of those that were tried.
PROBE_SIZE = 200


def fine_tuned(values: Mapping[str, Any], *, weights: str, seed: int, answer_views: int = 8) -> Arm:
    """An arm that trains EfficientNetB0.

    Args:
        values: settings, see `recipes.settings`, and perhaps something of `USUAL`.
        weights: as for ``models.efficientnetb0``, pretrained.
        seed: seed of everything random.
        answer_views: besides the patch as it is, answer with the mean of so many views, where there is a cache; 1 leaves that out.
    """

    def fit(fold: Fold) -> dict[str, dict[str, np.ndarray]]:
        trained = train(fold, values, weights=weights, seed=seed)
        cut, parts = trained.cut, ("val", "test")
        if cut is None:
            return _answered(trained, fold, answer_views=1)
        # what the cache held already is counted as if it had been computed for this fit
        seconds = np.array(trained.seconds - cut.filling + cut.cost)
        ways = _ways(answer_views)
        found = {way: {part: cut.logits(fold.rows(part), views=views) for part in parts} for way, views in ways.items()}
        return {way: {**logits, "seconds": seconds} for way, logits in found.items()}

    return fit


def frozen_features(pack: archive.Pack, *, weights: str, seed: int) -> np.ndarray:
    """Pooled output of the network as it was pretrained, of every patch at `PROBE_SIZE`: float32 array (n, 1280)."""
    from bhi_utils import features, models

    front = features.front(models.efficientnetb0(image_size=PROBE_SIZE, weights=weights, seed=seed), "pool")
    identity, every = pack.info["fingerprint"], np.arange(len(pack.patches))
    found = features.Features(front, lambda rows: pack.patches[rows], len(every), identity=identity, cache=cache_dir())
    found.ensure(every, title="Features of the probe")
    return found.read(0).astype(np.float32)


def custom_cnn(values: Mapping[str, Any], *, seed: int, answer_views: int = 8) -> Arm:
    """An arm that trains the custom CNN from scratch; its arguments are those of `fine_tuned`.

    ``CNN_EPOCHS`` may be left out of the settings where both networks train equally long, for ``EPOCHS``.
    """
    epochs = values.get("CNN_EPOCHS", values["EPOCHS"])

    def fit(fold: Fold) -> dict[str, dict[str, np.ndarray]]:
        from bhi_utils import samples, training

        train = samples.training_samples(fold.pack, fold.table, mode=values["BALANCE"], seed=seed, rows=fold.rows("train"))
        recipe = training.Recipe(epochs=epochs, batch_size=values["BATCH_SIZE"], seed=seed, folder=fold.folder)
        trained = training.train_cnn(fold.pack, fold.table, train, recipe, image_size=values["CNN_IMAGE_SIZE"])
        return _answered(trained, fold, answer_views=answer_views)

    return fit


def _ways(answer_views: int) -> dict[str, int]:
    """How an arm calls its ways of answering, and of how many views each takes the mean."""
    return {"": 1} if answer_views == 1 else {"": 1, f", {answer_views} views": answer_views}


def _answered(trained: "Trained", fold: Fold, *, answer_views: int) -> dict[str, dict[str, np.ndarray]]:
    """What a network says to the patches themselves, and to their views, and what it cost."""
    from bhi_utils import augment

    logits = {}
    for part in ("val", "test"):
        patches = fold.pack.patches[fold.rows(part)]
        turned = (augment.dihedral(patches, view) for view in range(answer_views))
        logits[part] = np.stack([trained.model.predict(view, batch_size=64, verbose=0)[:, 0] for view in turned], dtype=np.float64)
    return {
        way: {**{part: found[:views].mean(axis=0) for part, found in logits.items()}, "seconds": np.array(trained.seconds)}
        for way, views in _ways(answer_views).items()
    }


def train(fold: Fold, values: Mapping[str, Any], *, weights: str, seed: int) -> "Trained":
    """EfficientNetB0 trained on a fold as ``values`` say."""
    from bhi_utils import samples, training

    values = USUAL | dict(values)
    train = samples.training_samples(fold.pack, fold.table, mode=values["BALANCE"], seed=seed, rows=fold.rows("train"))
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
        input_range=float(values["INPUT_RANGE"]),
        batchnorm=values["TRAIN_BATCHNORM"],
    )
