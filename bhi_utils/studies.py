"""What every study of training shares: the data, its folds, the weights, a folder that keeps what is done, and where a result comes from.

Used by ``recipes``, ``ablations`` and ``paper_recipe``.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bhi_utils import archive, bundles, folds, records, seen
from bhi_utils.folds import Fold
from bhi_utils.paths import Run, cache_dir
from bhi_utils.records import command, git_commit


def sampled(pack: archive.Pack, per_case: int, *, seed: int) -> archive.Pack:
    """The data set with at most ``per_case`` patches of each case, drawn at random, in their order; its fingerprint is its own."""
    order = pd.Series(np.random.default_rng(seed).permutation(len(pack.manifest)))
    rows = np.flatnonzero(order.groupby(pack.manifest["case"].to_numpy()).rank() <= per_case)
    manifest = pack.manifest.iloc[rows].reset_index(drop=True)
    identity = hashlib.sha256(f"{pack.info['fingerprint']} {per_case} {seed}".encode()).hexdigest()
    about = {"patches": len(rows), "positive": int(manifest["label"].sum()), "fingerprint": identity}
    return replace(pack, patches=np.asarray(pack.patches[rows]), manifest=manifest, info=pack.info | about)


def _basis(weights: str) -> list[Any]:
    """What answers depend on beside data and settings: the weights' content, the libraries, and the modules that fit arms.

    ``imagenet`` stands for itself: which file it means depends on Keras' version, which is among the libraries'.
    """
    path = Path(weights)
    versions = {name: version for name, version in records.versions().items() if name != "papermill"}
    return [bundles.sha256(path) if path.is_file() else weights, versions, records.code_hash("studies", "arms")]


class Study:
    """Answers out of fold, arm by arm. What was answered is kept, so that a study that was stopped goes on.

    It is kept under all that it depends on: settings, seed, folds, data, weights, libraries, and the sources of what fits it.

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

    def __init__(self, run: Run, source: str, *, weights: str, number: int, seed: int, recall: float, per_case: int = 0) -> None:
        self._run, self._source, self._weights, self._seed, self._recall = run, source, weights, seed, recall
        self._began, self._basis = time.perf_counter(), _basis(weights)
        self.pack = archive.pack(archive.find_source(source, cache=cache_dir()), cache_dir())
        seen.guard(self.pack, weights)
        if per_case:
            self.pack = sampled(self.pack, per_case, seed=seed)
        self.folds = folds.deal(self.pack, run.artifacts / "checkpoints", folds=number, seed=seed)

    def answer(self, name: str, values: Mapping[str, Any], arm: folds.Arm, *, on: list[Fold] | None = None) -> dict[str, pd.DataFrame]:
        """The arm's answers, by its names for its ways of answering.

        Args:
            name: what is fitted and on what, in words that tell it from everything else with the same values.
            values: all settings of the arm.
            arm: what to fit.
            on: the folds, where they are not the study's own.
        """
        about = [name, dict(values), self._seed, len(self.folds), self.pack.info["fingerprint"], *self._basis]
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        return folds.out_of_fold(on or self.folds, arm, recall=self._recall, keep=self._run.artifacts / "folds" / key)

    def facts(self, notebook: str, **given: Any) -> dict[str, Any]:
        """Where a result comes from: ``command, commit, data, parameters, seconds``; ``given`` are further parameters of the notebook."""
        own = {"DATA": Path(self._source).name, "WEIGHTS": Path(self._weights).name, "FOLDS": len(self.folds), "SEED": self._seed}
        names = ("kind", "synthetic", "patches", "cases", "positive", "fingerprint")
        return {
            "command": command(notebook, **own, **given),
            "commit": git_commit(),
            "data": {name: self.pack.info[name] for name in names},
            "parameters": {
                "folds": len(self.folds),
                "seed": self._seed,
                "recall": self._recall,
                "weights": Path(self._weights).name,
            },
            "seconds": round(time.perf_counter() - self._began, 1),
        }
