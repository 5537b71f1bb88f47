"""EfficientNetB0 cut in front of its last blocks, which train from the cached output of the blocks before.

Used by ``training.train_networks``.
"""

import hashlib
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd

from bhi_utils.core import paths
from bhi_utils.data.archive import Pack
from bhi_utils.data.splits import indices
from bhi_utils.model import networks
from bhi_utils.model.backend import answers
from bhi_utils.training import cross_validation, smote
from bhi_utils.training.feature_cache import FeatureCache, front
from bhi_utils.training.fit_phases import FitSettings
from bhi_utils.training.samples import Batches, Samples
from bhi_utils.training.smote import SmotePlan

#: Takes sample numbers and a view for each, gives the network's input, as `FeatureCache.gather` does.
Gather = Callable[[np.ndarray, np.ndarray], np.ndarray]


class CachedBase:
    """The two parts of a network that train from the cache, and their batches.

    The cache holds the features of real patches, so all folds and balances share it. Only the synthetic patches of ``smote`` are images of
    their own, and are run through the frozen part for each split.

    Args:
        model: from ``model.networks.efficientnetb0`` with pretrained weights.
        blocks: the last blocks that will be fine-tuned, 1 to 6, or 0 to train the classifier alone.
        pack: the data set.
        table: the split.
        samples: the training samples.
        recipe: batch size and seed.
        views: dihedral views of each training patch, 1 to 8.

    Attributes:
        tail: from the cut to the logit.
        head: from pooled features to the logit.
        filling: seconds that filling the cache took.
        cost: seconds that filling it from nothing would take, for this split alone.
    """

    def __init__(
        self, model: keras.Model, blocks: int, pack: Pack, table: pd.DataFrame, samples: Samples, recipe: FitSettings, views: int
    ) -> None:
        networks.unfreeze(model, 0)
        name = networks.cut_name(model, max(blocks, 1))
        place, pool = model.get_layer(name).output, model.get_layer("pool").output
        self.tail, self.head = keras.Model(place, model.output), keras.Model(pool, model.output)
        self._samples, self._recipe, self._views = samples, recipe, views
        self._every_label = pack.manifest["label"].to_numpy()
        self._rows = {part: indices(pack.manifest, table, part) for part in ("val", "test")}
        frozen, rest, cache = front(model, name), keras.Model(place, pool), paths.cache_dir()
        self._real = FeatureCache(
            frozen, lambda rows: pack.patches[rows], len(pack.patches), identity=pack.info["fingerprint"], cache=cache
        )
        self._real.ensure(samples.real, views, title="Features of training cases")
        evaluated = np.concatenate([*self._rows.values()])
        self._real.ensure(evaluated, title="Features of validation and test cases")
        self.filling, self.cost = self._real.filling, self._real.cost(views * len(samples.real) + len(evaluated))
        self._pooled = _Pooled(self._real, rest, np.concatenate([samples.real, evaluated]))
        self._made: tuple[Gather, Gather] | None = None
        self._labels, self._weights = samples.labels, samples.weights
        if samples.mode == "feature_smote":
            self._plan_on_features(samples.real)
        elif samples.plan is not None:
            self._run_synthetic(frozen, rest, pack, samples.plan)

    def probe_logits(self) -> dict[str, np.ndarray]:
        """Returns the logits of a logistic regression on pooled features of patches as they are: float arrays for ``val`` and ``test``."""
        real, values = self._samples.real, self._pooled.values
        probe = cross_validation.logistic_regression().fit(values[real], self._every_label[real])
        return {part: probe.decision_function(values[rows]) for part, rows in self._rows.items()}

    def batches(self) -> tuple[Batches, Batches]:
        """Returns training batches of cached features, a random view of each sample in each epoch, and validation batches."""
        return self._both(self._real.gather, self._made and self._made[0], views=self._views)

    def pooled_batches(self) -> tuple[Batches, Batches]:
        """Returns the same of pooled features of patches as they are: what the classifier alone starts from."""
        return self._both(self._pooled.gather, self._made and self._made[1], views=1)

    def logits(self, rows: np.ndarray, *, views: int = 1) -> np.ndarray:
        """Computes logits with the tail's weights as they are now.

        Args:
            rows: rows of the pack; what the cache lacks of them is computed first.
            views: 1 answers for the patch as it is, 8 gives the mean logit of its dihedral views.

        Returns:
            float64 array (n,), one logit a row.
        """
        self._real.ensure(rows, views, title="Features to answer from")
        total = np.zeros(len(rows))
        for view in range(views):
            for start in range(0, len(rows), 256):
                part = rows[start : start + 256]
                total[start : start + 256] += answers(self.tail, self._real.gather(part, np.full(len(part), view)), whole=256)[:, 0]
        return total / views

    def _plan_on_features(self, real: np.ndarray) -> None:
        """Add synthetic samples between patches whose pooled features are near each other, counted after the real ones."""
        plan = smote.smote_plan(self._pooled.values, self._every_label, seed=self._recipe.seed, rows=real)
        self._made = _between(self._real.gather, plan), _between(self._pooled.gather, plan)
        self._labels = np.concatenate([self._labels, np.full(len(plan), plan.label, dtype=self._labels.dtype)])
        self._weights = np.ones(len(self._labels), dtype=np.float32)

    def _run_synthetic(self, frozen: keras.Model, rest: keras.Model, pack: Pack, plan: SmotePlan) -> None:
        """Cache the features of the plan's synthetic patches, too."""
        digest = hashlib.sha256(pack.info["fingerprint"].encode() + plan.base.tobytes() + plan.neighbour.tobytes() + plan.step.tobytes())
        made = FeatureCache(
            frozen, lambda rows: smote.draw(pack.patches, plan, rows), len(plan), identity=digest.hexdigest(), cache=paths.cache_dir()
        )
        every = np.arange(len(plan))
        made.ensure(every, self._views, title="Features of SMOTE's patches")
        self.filling, self.cost = self.filling + made.filling, self.cost + made.cost(self._views * len(every))
        self._made = made.gather, _Pooled(made, rest, every).gather

    def _both(self, real: Gather, made: Gather | None, *, views: int) -> tuple[Batches, Batches]:
        rows, valid, recipe = self._samples.rows, self._rows["val"], self._recipe

        def fetch(index: np.ndarray, seed: list[int]) -> np.ndarray:
            view = np.random.default_rng(seed).integers(0, views, len(index))
            is_real = index < len(rows)
            batch = real(rows[index[is_real]], view[is_real])
            if made is None or is_real.all():
                return batch
            whole = np.empty((len(index), *batch.shape[1:]), dtype=np.float32)
            whole[is_real], whole[~is_real] = batch, made(index[~is_real] - len(rows), view[~is_real])
            return whole

        train = Batches(fetch, self._labels, batch_size=recipe.batch_size, weights=self._weights, seed=recipe.seed)
        as_they_are = np.zeros(256, dtype=int)
        return train, Batches(lambda index, _: real(valid[index], as_they_are[: len(index)]), self._every_label[valid], batch_size=256)


class _Pooled:
    """Cached features of patches as they are, run through the remaining blocks as pretrained, and pooled; they fit into memory."""

    def __init__(self, features: FeatureCache, rest: keras.Model, rows: np.ndarray) -> None:
        self.values = np.zeros((features.shape[0], rest.output_shape[-1]), dtype=np.float32)
        rows, source = np.unique(rows), features.read(0)
        for start in range(0, len(rows), 256):
            part = rows[start : start + 256]
            self.values[part] = answers(rest, source[part].astype(np.float32), whole=256)

    def gather(self, rows: np.ndarray, _: np.ndarray) -> np.ndarray:
        return self.values[rows]


def _between(gather: Gather, plan: SmotePlan) -> Gather:
    """Returns what gathers the synthetic samples of ``plan``, both parents under the same view."""
    return lambda rows, views: smote.blend(gather(plan.base[rows], views), gather(plan.neighbour[rows], views), plan.step[rows])
