"""A saved bundle: the whole model with its threshold and calibration. Patches go in, probabilities and evidence maps come out.

Written by notebook 05, read by notebooks 06 and 07, the app and the command. The model file is loaded only when its SHA-256 is the
one that the bundle names, and only in Keras' safe mode, which refuses code in a model file.
"""

import threading
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.special import expit

from bhi_utils.core import atomic_files, hardware
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.model import bundles
from bhi_utils.model.networks import answers, fold
from bhi_utils.model.seen import Seen

#: Patches that one call of the network takes: with oneDNN's kernels larger batches are no faster, and smaller ones up to a quarter slower.
BATCH = 64


def save_bundle(
    model: keras.Model, folder: Path, *, threshold: float, calibration: Calibration, card: bundles.Card, seen: Seen | None = None
) -> Path:
    """Write ``<name>.keras``, ``<name>.bundle.json`` and, with ``seen``, ``<name>.seen.npy``, each whole or not at all; the bundle last.

    Args:
        model: takes raw patches (n, 50, 50, 3) in 0–255, gives logits; its name becomes the files' name.
        folder: where the two files go.
        threshold: a patch is called IDC+ at sigmoid(logit) ≥ threshold.
        calibration: what turns a logit into a calibrated probability.
        card: what else is worth keeping.
        seen: what the model was trained and tuned on, so that it is never judged on it.

    Returns:
        The bundle's path.
    """
    path = Path(folder) / f"{model.name}.keras"
    with atomic_files.write_atomic(path) as temporary:
        # a fresh model around the same layers carries no optimizer state
        keras.Model(model.input, model.output, name=model.name).save(temporary)
    bundle: bundles.Bundle = {
        "name": model.name,
        "model": path.name,
        "sha256": bundles.sha256(path),
        "threshold": float(threshold),
        "calibration": calibration.to_json(),
        **card,
    }
    if seen is not None:
        bundle["seen"] = seen.write(path.parent, model.name)
    return atomic_files.write_json(path.with_name(f"{model.name}.bundle.json"), bundle)


class Predictor:
    """Answers for patches. Safe to call from several threads: the network runs for one at a time.

    Attributes:
        network: gives logits, and the feature map that evidence maps are made of. Its BatchNorm is folded, see ``networks.fold``.
        bundle: the bundle's content.
        seen: what the model was trained and tuned on.
        threshold, threshold_calibrated: on ``probability`` and on ``probability_calibrated``.
    """

    def __init__(self, model: keras.Model, bundle: bundles.Bundle, seen: Seen | None = None) -> None:
        model = fold(model)  # the same answers, but for rounding, in three quarters of the time
        logit = model.get_layer("logit")
        self.bundle = bundle
        self.seen = seen or Seen()
        self.threshold = float(bundle["threshold"])
        self.calibration = Calibration.from_json(bundle["calibration"])
        self.threshold_calibrated = self.calibration.move(self.threshold)
        self.network = keras.Model(model.input, [logit.output, model.get_layer("pool").input])
        if keras.config.backend() == "tensorflow" and not hardware.gpus():
            # XLA compiles anew, for seconds, each time that the number of patches changes, and is no faster on a CPU
            self.network.jit_compile = False
        self._kernel, self._bias = (np.asarray(value) for value in logit.get_weights())
        self._lock = threading.Lock()

    @classmethod
    def load(cls, bundle: Path) -> "Predictor":
        """Open a ``.bundle.json`` and the model beside it.

        Raises:
            InputError: a file is missing or unreadable, or the model is not the one that the bundle was written for.
        """
        content, model = bundles.read(bundle)
        seen = Seen.read(content, model.parent)
        return cls(keras.saving.load_model(model, compile=False, safe_mode=True), content, seen)

    def predict(self, patches: np.ndarray) -> pd.DataFrame:
        """Classify patches.

        Args:
            patches: uint8 or float array (n, 50, 50, 3) in 0–255.

        Returns:
            Columns ``logit``, ``probability`` (its sigmoid), ``probability_calibrated``, ``predicted_label`` (1: IDC+), ``threshold`` (on
            ``probability``) and ``threshold_calibrated`` (on ``probability_calibrated``), one row a patch. Either threshold gives the
            label: where rounding, or a level piece of the calibration, would bring a calibrated probability to the wrong side, it stays
            one step of floating point short.
        """
        return self.predict_with_evidence(patches)[0]

    def raw(self, threshold: float) -> float:
        """The threshold on ``probability`` that belongs to ``threshold`` on ``probability_calibrated``."""
        return self.threshold if threshold == self.threshold_calibrated else self.calibration.back(threshold)

    def predict_with_evidence(self, patches: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Classify patches and say where the answers come from, in one forward pass.

        Returns:
            the frame of `predict`, and the evidence maps: float32 array (n, h, w) in logit units, whose mean over (h, w) is the logit.

        Raises:
            InputError: the patches have another shape.
        """
        if patches.ndim != 4 or patches.shape[1:] != (50, 50, 3) or not len(patches):
            raise InputError(f"Patches of shape {patches.shape} cannot be classified: give an array of shape (n, 50, 50, 3) with n ≥ 1.")
        logits, maps = [], []
        for start in range(0, len(patches), BATCH):
            with self._lock:
                batch = np.asarray(patches[start : start + BATCH], dtype=np.float32)
                # the next power of two: few lengths, and never twice the work
                logit, features = answers(self.network, batch, whole=1 << (len(batch) - 1).bit_length())
            logits.append(logit[:, 0])
            maps.append(features @ self._kernel[:, 0] + self._bias[0])
        logit = np.concatenate(logits).astype(np.float64)
        probability = expit(logit)
        positive, at = probability >= self.threshold, self.threshold_calibrated
        calibrated = self.calibration.apply(logit)
        frame = pd.DataFrame(
            {
                "logit": logit,
                "probability": probability,
                "probability_calibrated": np.where(positive, np.maximum(calibrated, at), np.minimum(calibrated, np.nextafter(at, 0))),
                "predicted_label": positive.astype(int),
                "threshold": self.threshold,
                "threshold_calibrated": at,
            }
        )
        return frame, np.concatenate(maps).astype(np.float32)


def explain(run: Run, pack: archive.Pack, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """The patches of ``rows``, the better model's evidence maps, and its answers with the true labels.

    Returns:
        uint8 array (n, 50, 50, 3), float array (n, h, w), and a frame with ``label`` and the columns of ``Predictor.predict``.

    Raises:
        InputError: a row is of a patch that the data set lacks.
    """
    patches = pack.patches[archive.rows_of(pack.manifest, rows)]
    answers, maps = Predictor.load(bundles.find_bundle(run)).predict_with_evidence(patches)
    return patches, maps, answers.assign(label=rows["label"].to_numpy())
