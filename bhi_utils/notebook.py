"""What every notebook opens and closes with: the banner, the data's origin, figures with a source note, the result table.

Used by the notebooks only. It does not import Keras: the banner names the device only when the notebook has loaded Keras.
"""

import io
import platform
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import Image as ShownImage
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from bhi_utils import __version__, plots
from bhi_utils.core.atomic_files import write_atomic
from bhi_utils.core.hardware import device_line, version
from bhi_utils.core.run import Run
from bhi_utils.core.titles import origin
from bhi_utils.runner import parameters

#: Resolution of the saved file and of the copy inside the notebook, in dots an inch.
FILE_DPI, SHOWN_DPI = 150, 84
#: A figure whose palette PNG is larger than this (bytes) is full of tissue: it is shown as a JPEG instead, a third of the size.
SHOWN_LIMIT = 60_000
#: Libraries whose versions matter to a reader, in the order in which the banner names them; the last two where they are loaded.
LIBRARIES = {"": ("numpy", "pandas", "scikit-learn"), "imblearn": ("imbalanced-learn",), "gradio": ("gradio",)}


def banner(number: str, variables: Mapping[str, Any], *, device: bool | None = None, data: str = "") -> Run:
    """Check the notebook's parameters, print what it runs with, and open its run's folder.

    Args:
        number: the notebook's number, such as ``"05"``.
        variables: the notebook's ``globals()``; its upper-case names with plain values are the parameters, ``OUT`` among them.
        device: whether to name the device that computes; by default, when the notebook has loaded Keras.
        data: where the data came from, in the words of a study; a notebook of the walk reads it from its run.

    Returns:
        the run at ``OUT``.

    Raises:
        InputError: see ``runner.parameters.check``; or an earlier notebook has not run.
    """
    parameters.check(number, variables)
    given = parameters_of(variables)
    run = Run.open(given.get("OUT", ""))
    device = "keras" in sys.modules if device is None else device
    named = [package for module, packages in LIBRARIES.items() if not module or module in sys.modules for package in packages]
    loaded = (f" · {package} {version(package)}" for package in named)
    print(f"Notebook {number} · bhi_utils {__version__} · Python {platform.python_version()}{''.join(loaded)}")
    print("Device: " + (device_line() if device else "not used in this notebook"))
    print("Data: " + (data or f"{given.get('DATA', '')} (indexed below)" if data or number == "01" else source_note(run, long=True)))
    print("Parameters: " + ", ".join(f"{name}={value!r}" for name, value in given.items()))
    return run


def parameters_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """A notebook's parameters: the upper-case names that hold a plain int, float, str, bool or list.

    >>> parameters_of({"SEED": 7, "OUT": "runs/walk", "frame": None, "_HIDDEN": 1})
    {'SEED': 7, 'OUT': 'runs/walk'}
    """
    plain = (int, float, str, bool, list)
    return {name: value for name, value in variables.items() if name.isupper() and name[0].isalpha() and type(value) in plain}


def source_note(run: Run, *, long: bool = False) -> str:
    """Where the run's data came from, as figures and tables say it: ``SYNTHETIC phantom, 48 cases, 2,880 patches``.

    Args:
        run: the run; notebook 01 has written its ``dataset.json``.
        long: add the first digits of the data's fingerprint.

    Raises:
        InputError: the artefact is missing.
    """
    data = run.read_json("dataset.json")
    return origin(data) + (f", fingerprint {data['fingerprint'][:12]}" if long else "")


def study_note(facts: Mapping[str, Any]) -> str:
    """The data of a study in the form of `source_note`, from its recorded result's ``data``.

    >>> study_note({"synthetic": False, "kind": "zip", "cases": 230, "patches": 13244})
    'zip, 230 cases, 13,244 patches'
    """
    return origin({**facts, "kind": "phantom"} if facts["synthetic"] else facts)


def save_figure(run: Run, figure: Figure, name: str, *, data: str = "", shown: bool = True) -> None:
    """Save ``figure`` as ``<run>/figures/<name>.png`` and ``.pdf`` with the data's origin at its foot, and show it once in the notebook.

    Args:
        run: the run.
        figure: a figure that has not been shown; ``plots`` returns such figures.
        name: file name without suffix, ``<notebook number>_<content>``.
        data: where the data came from, in the words of a study; a notebook of the walk reads it from its run.
        shown: whether the notebook shows it; the report does in any case.
    """
    plots.signed(figure, data or source_note(run))
    with write_atomic(run.figures / f"{name}.png") as temporary:
        temporary.write_bytes(plots.png(figure, dpi=FILE_DPI))
    with write_atomic(run.figures / f"{name}.pdf") as temporary:  # vectors, for print
        figure.savefig(temporary, bbox_inches="tight", pad_inches=0.12, dpi=FILE_DPI, metadata={"CreationDate": None, "Producer": None})
    if not shown:
        return
    small, kind = _compact(plots.png(figure, dpi=SHOWN_DPI))
    display(ShownImage(data=small, format=kind, alt=name.replace("_", " ")))


def result(frame: pd.DataFrame, *, decimals: int = 3) -> None:
    """Show the notebook's result table, its numbers rounded so that it reads, and compares, alike everywhere."""
    numbers = frame.select_dtypes("float").columns
    # adding zero turns the -0.0 of a rounded small number into 0.0
    display(frame.assign(**{str(name): frame[name].round(decimals) + 0.0 for name in numbers}))


def _compact(png: bytes) -> tuple[bytes, str]:
    """The copy kept inside the notebook, and its format: a palette PNG, or a JPEG where that stays too large."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    buffer = io.BytesIO()
    plots.write_palette(image, buffer)
    if buffer.tell() <= SHOWN_LIMIT:
        return buffer.getvalue(), "png"
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80, optimize=True)
    return buffer.getvalue(), "jpeg"
