"""EfficientNetB0's frozen part computed once: its output for each patch and view on disk as float16, and the last blocks trained on it.

Used by ``training.train_networks`` and the studies. While only the last blocks learn, the blocks before them give the same output in every
epoch. The cache folder's name is a hash of all that its content depends on, and a patch is computed when it is first asked for. So the
folds of a cross-validation share one cache, and a killed run goes on where it stopped.

Several processes may fill one cache at once, without locks. The two files of a view, its outputs and the marks of those that are computed,
are made in a private folder that is renamed into place; a process that comes second uses the first one's. After that nothing is replaced:
each process writes its own rows, and marks them once they are on disk.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils.core import atomic_files, paths, provenance
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, shown
from bhi_utils.data.archive import Pack
from bhi_utils.data.splits import indices
from bhi_utils.model import networks
from bhi_utils.model.augment import dihedral
from bhi_utils.model.networks import answers, fold
from bhi_utils.training import cross_validation, smote
from bhi_utils.training.fit_phases import FitSettings
from bhi_utils.training.samples import Batches, Samples
from bhi_utils.training.smote import SmotePlan

#: Part of every key: raise it when the files change their form, so that older ones are left alone.
FORMAT = "bhi-features 2"
#: Patches a call of the frozen part: on two cores, 16 to 64 are about equally quick.
BATCH = 32
#: Patches after which what is done is noted on disk.
_NOTE_EVERY = 2048


def front(model: keras.Model, cut: str) -> keras.Model:
    """Returns the part of ``model`` from patches to the output of the layer named ``cut``, for answers only; see ``networks.fold``."""
    folded = fold(model)
    return keras.Model(folded.input, folded.get_layer(cut).output, name=cut)


class FeatureCache:
    """Outputs of a frozen part for the samples of one source.

    Args:
        front: from `front`; takes patches in 0–255.
        fetch: takes sample numbers, gives patches (k, 50, 50, 3) in 0–255.
        count: number of samples in the source.
        identity: hash of the samples' pixels and order.
        cache: folder that keeps the files.

    Attributes:
        shape: of all outputs under one view.
        folder: where they lie.
        filling: seconds that this object has spent on computing outputs.
    """

    def __init__(self, front: keras.Model, fetch: Callable[[np.ndarray], np.ndarray], count: int, *, identity: str, cache: Path) -> None:
        self._front, self._fetch = front, fetch
        self.shape = (count, *front.output_shape[1:])
        self.folder = cache / "features" / _key(front, identity, self.shape)
        self.filling = 0.0

    def missing(self, rows: np.ndarray, views: int) -> int:
        """How many outputs `ensure` would compute."""
        return sum(len(part) for part in self._todo(np.unique(rows), views))

    def ensure(self, rows: np.ndarray, views: int = 1, *, title: str = "Features") -> None:
        """Compute what is not on disk yet, after saying how much that is.

        Args:
            rows: sample numbers.
            views: the first ``views`` of the eight dihedral views, the patch as it is being the first.
            title: what the line and the progress bar say.

        Raises:
            InputError: too little disk space, an output that float16 cannot hold, or a cache that was damaged or taken away meanwhile.
        """
        rows = np.unique(rows)
        todo = self._todo(rows, views)
        total, every, size = sum(map(len, todo)), views * len(rows), 2 * int(np.prod(self.shape[1:]))
        known = "all" if not total else "none" if total == every else f"{every - total:,} of them"
        print(
            f"{title}: {counted(views, 'view')} of {counted(len(rows), 'patch')}, cut at {self._front.name}, "
            f"{size * every / 1e6:,.0f} MB on disk, {known} known"
        )
        if total:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                atomic_files.check_space(self.folder, size * total + 200_000_000, advice="free some, or lower VIEWS or IMAGE_SIZE")
                with tqdm(total=total, desc=title, unit="patch", file=sys.stderr, mininterval=1) as bar:
                    for view, part in enumerate(todo):
                        if len(part):
                            self._fill(view, part, bar)
            except OSError as error:
                where, why = shown(self.folder), error.strerror or error
                raise InputError(f"Cannot write {where}: {why}; free some disk space or check the folder.") from error
        if self.missing(rows, views):
            raise InputError(f"{shown(self.folder)} was changed by another process while it was filled: run this again.")

    def read(self, view: int) -> np.ndarray:
        """The outputs under one view: float16 memory map (count, …), read-only; only rows that were ensured mean anything."""
        return np.load(self._outputs(view), mmap_mode="r")

    def gather(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Outputs of samples ``rows``, each under its own view: float32 array (k, …)."""
        result = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for view in np.unique(views):
            result[views == view] = self.read(view)[rows[views == view]]
        return result

    def _todo(self, rows: np.ndarray, views: int) -> list[np.ndarray]:
        """Returns for each view which of ``rows`` are not on disk."""
        return [rows if done is None else rows[~done[rows]] for done in map(self._marks, range(views))]

    def _fill(self, view: int, rows: np.ndarray, bar: tqdm) -> None:
        """Compute the outputs of ``rows`` under a view, and write them; the view's two files are made where they are missing or damaged."""
        folder = self._outputs(view).parent
        if folder.exists() and self._marks(view) is None:
            atomic_files.set_aside(folder)
        if not folder.exists():
            atomic_files.sweep(self.folder)
            with atomic_files.building(folder) as temporary:
                np.lib.format.open_memmap(temporary / "outputs.npy", mode="w+", dtype=np.float16, shape=self.shape).flush()
                np.save(temporary / "done.npy", np.zeros(self.shape[0], dtype=bool))
                atomic_files.commit(temporary, folder)
        with open(folder / "outputs.npy", "r+b") as target, open(folder / "done.npy", "r+b") as notes:
            for start in range(0, len(rows), _NOTE_EVERY):
                began, block = time.perf_counter(), rows[start : start + _NOTE_EVERY]
                for first in range(0, len(block), BATCH):
                    part = block[first : first + BATCH]
                    output = np.asarray(answers(self._front, dihedral(self._fetch(part), view).astype(np.float32), whole=BATCH))
                    if not np.abs(output).max() <= np.finfo(np.float16).max:
                        raise InputError("The frozen part's output does not fit float16: set VIEWS to 0, which trains without the cache.")
                    _put(target, part, output.astype(np.float16))
                    bar.update(len(part))
                # marked after the outputs are on disk: what a killed run leaves behind is whole as far as it says
                target.flush()
                os.fsync(target.fileno())
                _put(notes, block, np.ones(len(block), dtype=bool))
                notes.flush()
                seconds, known = time.perf_counter() - began, self._spent()
                self.filling += seconds
                with suppress(InputError):  # an estimate's basis, which another process may hold open on Windows
                    spent = {"outputs": known["outputs"] + len(block), "seconds": known["seconds"] + seconds}
                    atomic_files.write_json(self.folder / "spent.json", spent)

    def cost(self, outputs: int) -> float:
        """Estimates the seconds that so many outputs take to compute, from what those on disk took; NaN where none was computed yet."""
        known = self._spent()
        return outputs * known["seconds"] / known["outputs"] if known["outputs"] else float("nan")

    def _spent(self) -> dict[str, float]:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / "spent.json").read_text(encoding="utf-8"))
        return {"outputs": 0, "seconds": 0.0}

    def _marks(self, view: int) -> np.ndarray | None:
        """Returns the bool array (count,) of the samples on disk; None when one of a view's two files is missing or damaged."""
        try:
            done, whole = np.load(self._outputs(view).with_name("done.npy")), self.read(view).shape == self.shape
        except (OSError, ValueError, EOFError):
            return None
        return done if whole and done.shape == self.shape[:1] and done.dtype == bool else None

    def _outputs(self, view: int) -> Path:
        return self.folder / f"view_{view}" / "outputs.npy"


def _put(stream: BinaryIO, rows: np.ndarray, values: np.ndarray) -> None:
    """Write rows of an ``.npy`` file in place, no byte beside them; a map would write whole pages, on a network disk others' rows too."""
    stream.seek(0)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    begin, size = stream.tell(), values[0].nbytes
    for row, value in zip(rows.tolist(), values, strict=True):
        stream.seek(begin + row * size)
        stream.write(value.tobytes())


def _key(front: keras.Model, identity: str, shape: Sequence[int]) -> str:
    # what weights do not show: the input's size and its range
    scales = [str(layer.get_config()["scale"]) for layer in front.layers if isinstance(layer, keras.layers.Rescaling)]
    software = {name: version for name, version in provenance.versions().items() if name in ("backend", "keras", keras.config.backend())}
    facts = [FORMAT, software, identity, front.name, list(shape), front.get_layer("resize").get_config()["height"], scales]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for weight in front.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:24]


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
        frozen, rest, patches, cache = front(model, name), keras.Model(place, pool), pack.patches, paths.cache_dir()
        self._real = FeatureCache(frozen, lambda rows: patches[rows], len(patches), identity=pack.info["fingerprint"], cache=cache)
        self._real.ensure(samples.real, views, title="Features of training cases")
        evaluated = np.concatenate([*self._rows.values()])
        self._real.ensure(evaluated, title="Features of validation and test cases")
        self.filling, self.cost = self._real.filling, self._real.cost(views * len(samples.real) + len(evaluated))
        self._pooled = _pooled(self._real, rest, np.concatenate([samples.real, evaluated]))
        self._made: tuple[Gather, Gather] | None = None
        self._labels, self._weights = samples.labels, samples.weights
        if samples.mode == "feature_smote":
            self._plan_on_features(samples.real)
        elif samples.plan is not None:
            self._run_synthetic(frozen, rest, pack, samples.plan)

    def probe_logits(self) -> dict[str, np.ndarray]:
        """Returns the logits of a logistic regression on pooled features of patches as they are: float arrays for ``val`` and ``test``."""
        real, values = self._samples.real, self._pooled
        probe = cross_validation.logistic_regression().fit(values[real], self._every_label[real])
        return {part: probe.decision_function(values[rows]) for part, rows in self._rows.items()}

    def batches(self, *, pooled: bool = False) -> tuple[Batches, Batches]:
        """Returns training batches of cached features, a random view of each sample in each epoch, and validation batches.

        With ``pooled``, they hold pooled features of patches as they are: what the classifier alone starts from.
        """
        real, views = (_lookup(self._pooled), 1) if pooled else (self._real.gather, self._views)
        made = self._made and self._made[pooled]
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

    def logits(self, rows: np.ndarray, *, views: int = 1) -> np.ndarray:
        """Computes logits with the tail's weights as they are now.

        Args:
            rows: rows of the pack; what the cache lacks of them is computed first.
            views: 1 answers for the patch as it is, 8 gives the mean logit of its dihedral views.

        Returns:
            float64 array (n,), one logit a row.
        """
        self._real.ensure(rows, views, title="Features to answer from")
        by_view = [_through(self.tail, self._real.read(view), rows)[:, 0] for view in range(views)]
        return np.stack(by_view).mean(axis=0, dtype=np.float64)

    def _plan_on_features(self, real: np.ndarray) -> None:
        """Add synthetic samples between patches whose pooled features are near each other, counted after the real ones."""
        plan = smote.smote_plan(self._pooled, self._every_label, seed=self._recipe.seed, rows=real)
        self._made = _between(self._real.gather, plan), _between(_lookup(self._pooled), plan)
        self._labels = np.concatenate([self._labels, np.full(len(plan), plan.label, dtype=self._labels.dtype)])
        self._weights = np.ones(len(self._labels), dtype=np.float32)

    def _run_synthetic(self, frozen: keras.Model, rest: keras.Model, pack: Pack, plan: SmotePlan) -> None:
        """Cache the features of the plan's synthetic patches, too."""
        digest = hashlib.sha256(pack.info["fingerprint"].encode() + plan.base.tobytes() + plan.neighbour.tobytes() + plan.step.tobytes())
        draw = partial(smote.draw, pack.patches, plan)
        made = FeatureCache(frozen, draw, len(plan), identity=digest.hexdigest(), cache=paths.cache_dir())
        every = np.arange(len(plan))
        made.ensure(every, self._views, title="Features of SMOTE's patches")
        self.filling, self.cost = self.filling + made.filling, self.cost + made.cost(self._views * len(every))
        self._made = made.gather, _lookup(_pooled(made, rest, every))


def _through(part: keras.Model, features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns the outputs of ``part`` for ``rows`` of cached ``features``."""
    blocks = np.split(rows, range(256, len(rows), 256))
    return np.concatenate([answers(part, features[block].astype(np.float32), whole=256) for block in blocks])


def _pooled(features: FeatureCache, rest: keras.Model, rows: np.ndarray) -> np.ndarray:
    """Returns the cached features of ``rows``, as they are, run through the remaining blocks as pretrained, and pooled.

    A float32 array (count, channels) that fits into memory; other rows are zero.
    """
    rows, values = np.unique(rows), np.zeros((features.shape[0], rest.output_shape[-1]), dtype=np.float32)
    values[rows] = _through(rest, features.read(0), rows)
    return values


def _lookup(values: np.ndarray) -> Gather:
    """Returns what gathers rows of ``values``, whatever the view."""
    return lambda rows, _: values[rows]


def _between(gather: Gather, plan: SmotePlan) -> Gather:
    """Returns what gathers the synthetic samples of ``plan``, both parents under the same view."""
    return lambda rows, views: smote.blend(gather(plan.base[rows], views), gather(plan.neighbour[rows], views), plan.step[rows])
