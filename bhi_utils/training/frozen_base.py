"""EfficientNetB0 cut in front of its last blocks, fed with the cached output of what lies before. Used by training and by the studies."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pandas as pd

from bhi_utils.core import paths
from bhi_utils.data.archive import Pack
from bhi_utils.data.splits import indices
from bhi_utils.model import networks
from bhi_utils.model.backend import answers
from bhi_utils.training import smote
from bhi_utils.training.feature_cache import FeatureCache, front
from bhi_utils.training.fit_phases import FitSettings
from bhi_utils.training.samples import Batches, Samples, guard
from bhi_utils.training.smote import SmotePlan

#: Takes sample numbers and a view for each, gives the network's input: what `Features.gather` does.
Gather = Callable[[np.ndarray, np.ndarray], np.ndarray]


class CachedBase:
    """The two parts of a network that train from the cache, and their batches.

    The cache holds real patches, so every fold and every balance shares it; only the synthetic patches of pixel SMOTE, which are
    images of their own, are run through the frozen part once more for each split.

    Args:
        model: from ``models.efficientnetb0`` with pretrained weights.
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
        cost: seconds that filling it takes from nothing, for this split alone.
    """

    def __init__(
        self, model: keras.Model, blocks: int, pack: Pack, table: pd.DataFrame, samples: Samples, recipe: FitSettings, views: int
    ) -> None:
        guard(pack, table, samples)
        networks.unfreeze(model, 0)
        name = networks.cut_name(max(blocks, 1))
        place, pool = model.get_layer(name).output, model.get_layer("pool").output
        self.tail, self.head = keras.Model(place, model.output), keras.Model(pool, model.output)
        self._samples, self._recipe, self._views = samples, recipe, views
        self._every_label = pack.manifest["label"].to_numpy()
        self._rows = {part: indices(pack.manifest, table, part) for part in ("val", "test")}
        frozen, rest, identity, cache = front(model, name), keras.Model(place, pool), pack.info["fingerprint"], paths.cache_dir()
        self._real = FeatureCache(frozen, lambda rows: pack.patches[rows], len(pack.patches), identity=identity, cache=cache)
        self._real.ensure(samples.real, views, title="Features of training cases")
        evaluated = np.concatenate([*self._rows.values()])
        self._real.ensure(evaluated, title="Features of validation and test cases")
        self.filling, self.cost = self._real.filling, self._real.cost(views * len(samples.real) + len(evaluated))
        self._pooled = _Pooled(self._real, rest)
        self._pooled.ensure(np.concatenate([samples.real, evaluated]))
        self._made, self._made_pooled, self._labels, self._weights = None, None, samples.labels, samples.weights
        if samples.mode == "feature_smote":
            self._plan_on_features(samples.real)
        elif samples.plan is not None:
            self._run_synthetic(frozen, rest, pack, samples.plan)

    def probe(self) -> dict[str, np.ndarray]:
        """Pooled features of real patches, unaugmented: float32 arrays (n, d) of the parts ``train``, ``val`` and ``test``."""
        rows = {"train": self._samples.real, **self._rows}
        return {part: self._pooled.gather(each, np.zeros(len(each), dtype=int)) for part, each in rows.items()}

    def batches(self) -> tuple[Batches, Batches]:
        """Training batches of cached features, a random view of each sample in each epoch, and validation batches."""
        return self._both(self._real.gather, self._made, views=self._views)

    def pooled_batches(self) -> tuple[Batches, Batches]:
        """The same of patches as they are, run on through the frozen blocks and pooled: enough for a classifier to start from."""
        return self._both(self._pooled.gather, self._made_pooled, views=1)

    def logits(self, rows: np.ndarray, *, views: int = 1) -> np.ndarray:
        """Answers of the tail, with its weights as they are now.

        Args:
            rows: rows of the pack; what the cache lacks of them is computed first.
            views: 1 answers for the patch as it is, 8 gives the mean logit of its dihedral views.

        Returns:
            float64 array, a logit a row.
        """
        self._real.ensure(rows, views, title="Features to answer from")
        total = np.zeros(len(rows))
        for view in range(views):
            for start in range(0, len(rows), 256):
                part = rows[start : start + 256]
                total[start : start + 256] += answers(self.tail, self._real.gather(part, np.full(len(part), view)), whole=256)[:, 0]
        return total / views

    def _plan_on_features(self, real: np.ndarray) -> None:
        plan = smote.feature_plan(self.probe()["train"], self._every_label[real], seed=self._recipe.seed)
        plan = replace(plan, base=real[plan.base], neighbour=real[plan.neighbour])
        self._made, self._made_pooled = _between(self._real.gather, plan), _between(self._pooled.gather, plan)
        self._add(plan)

    def _run_synthetic(self, frozen: keras.Model, rest: keras.Model, pack: Pack, plan: SmotePlan) -> None:
        digest = hashlib.sha256(pack.info["fingerprint"].encode() + plan.base.tobytes() + plan.neighbour.tobytes() + plan.step.tobytes())

        def drawn(rows: np.ndarray) -> np.ndarray:
            return smote.draw(pack.patches, plan, rows)

        made = FeatureCache(frozen, drawn, len(plan), identity=digest.hexdigest(), cache=paths.cache_dir())
        every = np.arange(len(plan))
        made.ensure(every, self._views, title="Features of SMOTE's patches")
        self.filling, self.cost = self.filling + made.filling, self.cost + made.cost(self._views * len(every))
        pooled = _Pooled(made, rest)
        pooled.ensure(every)
        self._made, self._made_pooled = made.gather, pooled.gather

    def _add(self, plan: SmotePlan) -> None:
        """Count the plan's samples after the real ones."""
        self._labels = np.concatenate([self._labels, np.full(len(plan), plan.label, dtype=self._labels.dtype)])
        self._weights = np.ones(len(self._labels), dtype=np.float32)

    def _both(self, real: Gather, made: Gather | None, *, views: int) -> tuple[Batches, Batches]:
        rows, valid, recipe = self._samples.rows, self._rows["val"], self._recipe

        def fetch(index: np.ndarray, seed: list[int]) -> np.ndarray:
            view = np.random.default_rng(seed).integers(0, views, len(index))
            is_real = index < len(rows)
            batch = real(rows[index[is_real]], view[is_real])
            if is_real.all():
                return batch
            whole = np.empty((len(index), *batch.shape[1:]), dtype=np.float32)
            whole[is_real], whole[~is_real] = batch, made(index[~is_real] - len(rows), view[~is_real])
            return whole

        def as_it_is(index: np.ndarray, _: list[int]) -> np.ndarray:
            return real(valid[index], np.zeros(len(index), dtype=int))

        return (
            Batches(fetch, self._labels, batch_size=recipe.batch_size, weights=self._weights, seed=recipe.seed),
            Batches(as_it_is, self._every_label[valid], batch_size=256),
        )


class _Pooled:
    """Cached features of patches as they are, run on through the blocks that stay frozen, and pooled; small enough for memory."""

    def __init__(self, features: FeatureCache, rest: keras.Model) -> None:
        self._features, self._rest = features, rest
        self._values = np.zeros((features.shape[0], rest.output_shape[-1]), dtype=np.float32)

    def ensure(self, rows: np.ndarray) -> None:
        rows, source = np.unique(rows), self._features.read(0)
        for start in range(0, len(rows), 256):
            part = rows[start : start + 256]
            self._values[part] = answers(self._rest, source[part].astype(np.float32), whole=256)

    def gather(self, rows: np.ndarray, _: np.ndarray) -> np.ndarray:
        return self._values[rows]


def _between(gather: Gather, plan: SmotePlan) -> Gather:
    """Synthetic samples of ``plan``, both parents under the same view."""

    def draw(rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        return smote.blend(gather(plan.base[rows], views), gather(plan.neighbour[rows], views), plan.step[rows])

    return draw
