"""EfficientNetB0 cut in front of its last blocks, fed with the cached output of what lies before. Used by training."""

import hashlib

import keras
import numpy as np
import pandas as pd

from bhi_utils import features, models, paths
from bhi_utils.archive import Pack
from bhi_utils.phases import Recipe
from bhi_utils.samples import Batches, Samples, guard
from bhi_utils.splits import indices


class Cut:
    """EfficientNetB0 cut in front of its last blocks, with the cached output of what lies before."""

    def __init__(
        self, model: keras.Model, blocks: int, pack: Pack, table: pd.DataFrame, samples: Samples, recipe: Recipe, views: int
    ) -> None:
        guard(pack, table, samples)
        models.unfreeze(model, 0)
        place = model.get_layer(models.cut_name(max(blocks, 1))).output
        pool = model.get_layer("pool").output
        self.samples, self.recipe, self.views = samples, recipe, views
        self.tail, self.head = keras.Model(place, model.output), keras.Model(pool, model.output)
        front = keras.Model(model.input, place, name=models.cut_name(max(blocks, 1)))
        rest = keras.Model(place, pool)
        self.labels = pack.manifest["label"].to_numpy()
        self.rows = {part: indices(pack.manifest, table, part) for part in ("val", "test")}
        fingerprint = pack.info["fingerprint"]
        cache = paths.cache_dir()
        identity = hashlib.sha256(fingerprint.encode() + samples.rows.tobytes())
        if samples.plan is not None:
            identity.update(samples.plan.base.tobytes() + samples.plan.neighbour.tobytes() + samples.plan.step.tobytes())
        shared = {"seed": recipe.seed, "cache": cache}
        self.train = features.cached(
            front, samples.fetch, len(samples), identity=identity.hexdigest(), views=views, title="Training features", **shared
        )
        self.evaluated, self.pooled = {}, {}
        for part, rows in self.rows.items():
            self.evaluated[part] = features.cached(
                front,
                lambda index, rows=rows: pack.patches[rows[index]],
                len(rows),
                identity=hashlib.sha256(fingerprint.encode() + rows.tobytes()).hexdigest(),
                views=1,
                title={"val": "Validation features", "test": "Test features"}[part],
                **shared,
            )[0]
            self.pooled[part] = _pool(rest, self.evaluated[part])
        self.pooled["train"] = np.stack([_pool(rest, view) for view in self.train])

    def probe(self) -> dict[str, np.ndarray]:
        """Pooled features of real patches, unaugmented."""
        return {**self.pooled, "train": self.pooled["train"][0][: len(self.samples.real)]}

    def batches(self) -> tuple[Batches, Batches]:
        """Batches of cached features, a random view of each sample in each epoch."""
        return self._both(self.train, self.evaluated["val"])

    def pooled_batches(self) -> tuple[Batches, Batches]:
        """The same, run on through the frozen blocks and pooled."""
        return self._both(self.pooled["train"], self.pooled["val"])

    def _both(self, train: np.ndarray, valid: np.ndarray) -> tuple[Batches, Batches]:
        def fetch(index: np.ndarray, seed: list[int]) -> np.ndarray:
            return train[np.random.default_rng(seed).integers(0, self.views, len(index)), index].astype(np.float32)

        samples, recipe = self.samples, self.recipe
        return (
            Batches(fetch, samples.labels, batch_size=recipe.batch_size, weights=samples.weights, seed=recipe.seed),
            Batches(lambda index, _: valid[index].astype(np.float32), self.labels[self.rows["val"]], batch_size=64),
        )


def _pool(rest: keras.Model, cached: np.ndarray) -> np.ndarray:
    chunks = [rest.predict_on_batch(cached[start : start + 256].astype(np.float32)) for start in range(0, len(cached), 256)]
    return np.concatenate(chunks).astype(np.float16)
