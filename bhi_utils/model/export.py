"""A bundle's network as an ONNX file, for programs that have ONNX Runtime and no Keras.

Used by ``bhi export`` and ``bhi bench --of export``. The file answers as the app does, from the same folded network: raw patches in, logits
and evidence maps out. What turns a logit into a calibrated probability and a label travels in its metadata.
"""

import json
import warnings
from pathlib import Path

import keras
import numpy as np
from scipy.special import expit

from bhi_utils.core.atomic_files import write_atomic
from bhi_utils.core.paths import InputError, shown
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model.predictor import Predictor

#: How far a probability of the file may be from the network's: what Keras' backends may differ by, too.
TOLERANCE = 1e-4
#: Operator set of the file: ONNX Runtime 1.13 (2022) and later read it.
OPSET = 17
INPUT, OUTPUTS = "patches", ("logit", "evidence")
NOTICE = "Research use only. Not a medical device."


def check(out: Path) -> None:
    """Make sure that ``out`` can become an ONNX file on the backend in force.

    Raises:
        InputError: it has another ending, or the backend is not TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise InputError(f"ONNX files are written with TensorFlow, and the backend is {keras.config.backend()}: unset KERAS_BACKEND.")
    if Path(out).suffix.lower() != ".onnx":
        raise InputError(f"{shown(Path(out))} cannot be the ONNX file: name a file that ends in .onnx, such as model.onnx.")


def write(predictor: Predictor, out: Path) -> float:
    """Write the network, and compare it with the predictor on synthetic patches before the file is where it should be.

    Args:
        predictor: what answers.
        out: the file; its folder is made.

    Returns:
        The largest difference of a probability, of a patch or of a place in its map. The file's input is ``patches``, float32
        (n, 50, 50, 3) in 0–255; its outputs are ``logit``, float32 (n, 1), and ``evidence``, float32 (n, h, w) whose mean is the logit;
        its metadata are ``name, model_sha256, threshold`` (on the logit's sigmoid), ``calibration`` (JSON, as in the bundle),
        ``threshold_calibrated`` and ``notice``.

    Raises:
        InputError: as for `check`, or the file cannot be written.
        RuntimeError: the file's probabilities differ by more than `TOLERANCE`; nothing is written then.
    """
    import onnx

    check(out)
    signature = [keras.InputSpec(shape=(None, 50, 50, 3), dtype="float32", name=INPUT)]
    with write_atomic(out) as temporary:
        with warnings.catch_warnings():
            # Keras looks for a name in NumPy that newer ones have given up
            warnings.simplefilter("ignore", FutureWarning)
            _answering(predictor).export(temporary, format="onnx", verbose=False, input_signature=signature, opset_version=OPSET)
        model = onnx.load(temporary)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "n"
        facts = {
            "name": predictor.bundle["name"],
            "model_sha256": predictor.bundle["sha256"],
            "threshold": repr(predictor.threshold),
            "calibration": json.dumps(predictor.calibration.to_json()),
            "threshold_calibrated": repr(predictor.threshold_calibrated),
            "notice": NOTICE,
        }
        onnx.helper.set_model_props(model, facts)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, temporary)
        difference = _difference(predictor, temporary)
        if not difference <= TOLERANCE:
            raise RuntimeError(f"The ONNX file's probabilities differ by {difference:.2g} from the network's, more than {TOLERANCE}.")
    return difference


def _answering(predictor: Predictor) -> keras.Model:
    """The network from raw patches to logits and evidence maps, of layers that ONNX has.

    Augmentation does nothing in answers and is left out. Normalization, whose constants tf2onnx would ask for as inputs, is written as
    the scaling that it is.
    """
    network = predictor.network
    names = [layer.name for layer in network.layers]
    augmenting = set(names[1 : names.index("resize")])

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in augmenting:
            return keras.layers.Identity(name=layer.name)
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, _ = layer.get_weights()
            return keras.layers.Rescaling((variance**-0.5).tolist(), (-mean * variance**-0.5).tolist(), name=layer.name)
        return layer

    copy = keras.models.clone_model(network, clone_function=plain)
    logit, features = copy.outputs
    kernel, bias = network.get_layer("logit").get_weights()
    everywhere = keras.layers.Conv2D(1, 1, name="logit_everywhere")
    evidence = keras.layers.Reshape(features.shape[1:3], name="evidence")(everywhere(features))
    everywhere.set_weights([kernel[None, None], bias])
    return keras.Model(copy.inputs, {"logit": logit, "evidence": evidence}, name=network.name)


def _difference(predictor: Predictor, path: Path) -> float:
    """The largest difference of a probability, of a patch or of a place in its map, on synthetic tissue, black and white."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    patches = np.stack([*synthetic_cohort.whole_patches(48), np.zeros((50, 50, 3)), np.full((50, 50, 3), 255)]).astype(np.float32)
    logit, evidence = session.run(list(OUTPUTS), {INPUT: patches})
    frame, maps = predictor.predict_with_evidence(patches)
    pairs = ((logit[:, 0], frame["logit"].to_numpy()), (evidence, maps))
    return max(float(np.abs(expit(found) - expit(wanted)).max()) for found, wanted in pairs)
