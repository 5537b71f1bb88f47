"""What test_backends runs in a process of its own, since a process has one Keras backend: ``python backend_child.py JOB FOLDER``."""

import json
import os
import pickle
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

SIZE = 32


class Refusing:
    """Finds TensorFlow wherever it is looked for, and fails when it is imported; a library may look whether it is there."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] in ("tensorflow", "tf_keras") else None

    def create_module(self, spec):
        raise ImportError(f"{spec.name} was imported under KERAS_BACKEND={os.environ['KERAS_BACKEND']}")

    def exec_module(self, module):
        raise AssertionError


def train_cnn(folder: Path) -> dict:
    """Train a small custom CNN, and leave a bundle with what it answers."""
    from functools import partial

    from bhi_utils.model import networks
    from bhi_utils.training import train_networks

    networks.cnn = partial(networks.cnn, filters=(4, 8))
    return trained(folder, lambda *given: train_networks.train_cnn(*given, image_size=SIZE))


def train_efficientnetb0(folder: Path) -> dict:
    """Train EfficientNetB0 from the cache, and leave a bundle with what it answers."""
    from bhi_utils.training import train_networks

    options = {"image_size": SIZE, "weights": str(folder / "start.weights.h5"), "blocks": 1, "rate": 1e-3, "views": 2}
    return trained(folder, lambda *given: train_networks.train_efficientnetb0(*given, **options))


def trained(folder: Path, train) -> dict:
    from bhi_utils.core import provenance
    from bhi_utils.core.hardware import device_line
    from bhi_utils.data import archive, splits
    from bhi_utils.data.phantom import synthetic_cohort
    from bhi_utils.evaluation import calibration
    from bhi_utils.model import predictor
    from bhi_utils.training import fit_phases, samples

    source = synthetic_cohort.write(folder / "small.zip", cases=8, patches_per_case=12, seed=1, nested=False)
    pack = archive.pack(source, folder, progress=False)
    table = splits.make(pack.manifest, seed=0)
    drawn = samples.training_samples(pack, table, mode="class_weight", seed=0)
    # one batch an epoch: JAX compiles a step for each length of batch that it meets
    one = train(pack, table, drawn, fit_phases.FitSettings(epochs=2, batch_size=128, seed=0, folder=folder / "states"))
    bundle = predictor.save_bundle(one.model, folder, threshold=0.5, calibration=calibration.Calibration(1.0, 0.0), card={})
    predictor.Predictor.load(bundle).predict(pack.patches[:16]).to_csv(folder / "answers.csv")
    return {"device": device_line(), "versions": provenance.versions(), "history": one.history.to_dict("records")}


def answer(folder: Path) -> dict:
    """Answer for the patches of ``patches.npy`` with each bundle of the folder, and repeat given augmentations."""
    import keras
    import numpy as np

    from bhi_utils.model import augment
    from bhi_utils.model.predictor import Predictor

    patches, found = np.load(folder / "patches.npy"), {}
    for bundle in sorted(folder.glob("*.bundle.json")):
        answers, maps = Predictor.load(bundle).predict_with_evidence(patches)
        found[bundle.name] = {"logit": answers["logit"].to_numpy(), "probability": answers["probability"].to_numpy(), "maps": maps}
    floats = patches.astype(np.float32)
    for size in (SIZE, 64, 200):
        found[f"resize to {size}"] = keras.ops.convert_to_numpy(keras.layers.Resizing(size, size, interpolation="bilinear")(floats))
    for name, (layer, drawn) in augmented(floats, folder / "drawn.pickle").items():
        # a tensor, as in a network's graph, and one of its own: on PyTorch, the brightness layer changes its input in place
        given = keras.ops.convert_to_tensor(floats.copy())
        found[name] = keras.ops.convert_to_numpy(layer.transform_images(given, drawn, training=True))
    found["not in training"] = keras.ops.convert_to_numpy(augment.augmenter(0)(floats, training=False))
    with open(folder / f"answers_{keras.config.backend()}.pickle", "wb") as file:
        pickle.dump(found, file)
    return {}


def augmented(patches, path: Path) -> dict:
    """Each augmentation's layer with what the first backend to come here has drawn for it."""
    import keras

    from bhi_utils.model import augment

    layers = augment.transforms(0)
    if not path.exists():
        drawn = {}
        for name, layer in layers.items():
            made = layer.get_random_transformation(patches, training=True)
            drawn[name] = keras.tree.map_structure(lambda x: keras.ops.convert_to_numpy(x) if keras.ops.is_tensor(x) else x, made)
        path.write_bytes(pickle.dumps(drawn))
    drawn = pickle.loads(path.read_bytes())
    return {name: (layer, drawn[name]) for name, layer in layers.items()}


if __name__ == "__main__":
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        sys.meta_path.insert(0, Refusing())
    job, place = sys.argv[1:]
    print("\n" + json.dumps({**globals()[job](Path(place)), "tensorflow": "tensorflow" in sys.modules}))
