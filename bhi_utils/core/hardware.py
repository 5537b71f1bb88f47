"""Which library computes for Keras and on what device, settled before that library is loaded.

Used by the commands and the runner, so that a wrong KERAS_BACKEND is one sentence, by training, which places batches and patches, and by
the banner of every notebook.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError

#: The backends that train; Keras' others, numpy and openvino, only predict. Each is also the name of its library.
BACKENDS = ("tensorflow", "jax", "torch")


def backend_name() -> str:
    """Returns the backend in force, or the one that Keras will choose: ``KERAS_BACKEND``, else its ``keras.json``, else TensorFlow."""
    if "keras" in sys.modules:
        return sys.modules["keras"].config.backend()
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    try:
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return str(json.loads((folder / "keras.json").read_text(encoding="utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return BACKENDS[0]


def require_backend() -> str:
    """Returns the backend's name.

    Raises:
        InputError: there is no such backend, or its library is not installed.
    """
    chosen = backend_name()
    if chosen not in BACKENDS:
        raise InputError(f"KERAS_BACKEND {chosen!r} does not exist here: choose one of {', '.join(BACKENDS)}.")
    if importlib.util.find_spec(chosen) is None:
        others = ", ".join(other for other in BACKENDS if other != chosen)
        raise InputError(
            f"KERAS_BACKEND is {chosen}, which is not installed: run `pip install {chosen}`, or set KERAS_BACKEND to one of {others}."
        )
    return chosen


class Card(NamedTuple):
    """An NVIDIA card: memory in bytes, compute capability such as 9.0, and name."""

    memory: float
    generation: float
    name: str = "the GPU"


def _cards() -> list[Card]:
    """Returns this machine's NVIDIA cards, used or not; none without ``nvidia-smi``."""
    ask = ["nvidia-smi", "--query-gpu=memory.total,compute_cap,name", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout
        found = [line.split(",", 2) for line in said.splitlines()]
        return [Card(float(memory) * 2**20, float(generation), name.strip()) for memory, generation, name in found]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def card() -> Card | None:
    """Returns this machine's NVIDIA card with the least memory, used or not; None without one."""
    return min(_cards(), default=None)


def card_in_use() -> Card | None:
    """Returns the card on which the backend will compute. Another process asks the backend, so that this one stays light."""
    found = card()
    if found is None:
        return None
    code = "from bhi_utils.core import hardware; print(hardware.gpus())"
    try:
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # the notebook's banner says why
    return found if said.split()[-1:] not in ([], ["0"]) else None


def gpus() -> int:
    """Returns how many GPUs the backend in force can use. No other place in the package asks a backend instead of Keras."""
    backend = backend_name()
    if backend == "tensorflow":
        import tensorflow

        return len(tensorflow.config.list_physical_devices("GPU"))
    if backend == "torch":
        import torch

        return torch.cuda.device_count()
    import jax

    return sum(device.platform == "gpu" for device in jax.devices())


def device_line() -> str:
    """Returns the device that Keras computes on, or why a GPU that is present is unused. Loads Keras."""
    import keras

    backend, gpu = keras.backend.backend(), _gpu_name()
    on = f"Keras {keras.__version__} on {backend} {version(backend)}".rstrip()
    if gpus():
        return f"GPU, {gpu or 'model unknown'} ({on})"
    unused = f"{gpu} is present but unused: {_why_unused(backend, gpu)}" if gpu else "no GPU found"
    return f"CPU, {counted(os.cpu_count() or 1, 'core')} ({on}); {unused}"


def _gpu_name() -> str:
    """Returns the name of this machine's first GPU, whether or not anything can use it; empty without one."""
    if cards := _cards():
        return cards[0].name
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "NVIDIA GPU"
    return "Apple GPU" if sys.platform == "darwin" and platform.machine() == "arm64" else ""


def _why_unused(backend: str, gpu: str) -> str:
    """Returns one clause on why the GPU called ``gpu`` does no work."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it"
    if gpu == "Apple GPU":
        return f"{backend} has no build for it here"
    if sys.platform == "win32" and backend == "tensorflow":
        return "TensorFlow has no CUDA build for Windows, use WSL2"
    installed = {dist.name.lower() for dist in importlib.metadata.distributions() if dist.name}
    if not any(name.startswith("nvidia-cudnn") for name in installed):
        return "the CUDA libraries are not installed, run `pip install -e .[gpu]`"
    return f"{backend} cannot open it, compare `nvidia-smi` with the CUDA version of the installed libraries"


def version(package: str) -> str:
    """Returns the installed version of ``package``, empty when it is not installed under that name."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


#: Bytes that training EfficientNetB0 keeps for one image of 224 × 224.
ACTIVATIONS = 110e6
#: Bytes of a patch's pixels, and on a card those of a network with its optimizer and the libraries' workspaces.
PIXELS, FIXED_CARD = 50 * 50 * 3, 1.5e9
#: The first generation of NVIDIA cards that computes in bfloat16, and the samples a step from which that pays: the paper's 8 stay float32.
BFLOAT16, LARGE_BATCH = 8.0, 32


def mixes(generation: float, batch_size: int) -> bool:
    """Returns whether a card of that compute capability trains in bfloat16 beside float32."""
    return generation >= BFLOAT16 and batch_size >= LARGE_BATCH


def gpu_memory(patches: int, *, batch_size: int, image_size: int, mixed: bool) -> float:
    """Returns the bytes that training EfficientNetB0 takes on a card that holds the patches as well."""
    step = batch_size * ACTIVATIONS * (image_size / 224) ** 2 / (2 if mixed else 1)
    # twice the patches: while they are copied, or laid out anew by a compiler, two copies exist
    return 2 * patches * PIXELS + step + FIXED_CARD
