"""A trained model's files as they lie on disk: found, read and checked, without Keras; and where the packaged model is.

Used by ``model.predictor``, ``model.networks``, ``model.seen`` and the command. A bundle is ``<name>.bundle.json`` beside the model whose
SHA-256 it names.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from bhi_utils.core.paths import PACKAGE, InputError, shown
from bhi_utils.core.run import Run
from bhi_utils.core.titles import Metrics
from bhi_utils.evaluation.calibration import KeptCalibration
from bhi_utils.evaluation.thresholds import Rule

#: The model that comes with the package; ``studies.package_model`` writes it.
PACKAGED = PACKAGE / "trained" / "efficientnetb0.bundle.json"
#: The value of WEIGHTS that starts from it, and what tables call such a start.
START = "packaged"
_KEYS = ("name", "model", "sha256", "threshold", "calibration")


class SeenCases(TypedDict):
    """A bundle's entry ``seen``: the file of digests beside it, that file's hash and length, and the ids of cases, see ``model.seen``."""

    file: str
    sha256: str
    patches: int
    real_cases: list[int]
    synthetic_cases: list[int]


class Card(TypedDict, total=False):
    """What a bundle records of a model's training and quality; ``data``, ``parameters`` and ``training`` are JSON of any form.

    Bundles of earlier versions lack some of it, or hold the rule in words.
    """

    data: dict[str, Any]
    parameters: dict[str, Any]
    initialisation: str
    threshold_rule: Rule | str
    training: dict[str, Any]
    metrics: dict[str, Metrics]
    train_cases: list[int]
    validation_cases: list[int]


class Bundle(Card):
    """The content of a ``.bundle.json``: the model's name, file and hash, the threshold on the logit's sigmoid, and the calibration."""

    name: str
    model: str
    sha256: str
    threshold: float
    calibration: KeptCalibration
    seen: NotRequired[SeenCases]


def packaged() -> Path:
    """The packaged model's bundle.

    Raises:
        InputError: this copy of the package has none.
    """
    if not PACKAGED.is_file():
        raise InputError(
            f"This copy of the package holds no trained model ({shown(PACKAGED)} is missing): restore it from git, or pass --model with a "
            "run's .bundle.json, or --weights imagenet, none or a file."
        )
    return PACKAGED


def option(bundle: Path) -> str:
    """What a command needs besides, so that it takes this bundle: nothing for the packaged one."""
    return "" if Path(bundle) == PACKAGED else f" --model {Path(bundle).name}"


def read(bundle: Path) -> tuple[Bundle, Path]:
    """Open a ``.bundle.json``: its content, and the path of the model beside it.

    Raises:
        InputError: a file is missing or unreadable, or the model is not the one that the bundle was written for.
    """
    path = Path(bundle)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = path.parent / Path(content["model"]).name
        digest = sha256(model)
        missing = [key for key in _KEYS if key not in content]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{shown(path)} is not a readable bundle with its model beside it: give the .bundle.json of a run.") from error
    if missing:
        raise InputError(f"{shown(path)} is not a readable bundle, it has no {missing[0]}: give the .bundle.json of a run.")
    if digest != content["sha256"] or model.suffix != ".keras":
        raise InputError(f"{shown(model)} is not the file that {path.name} was written for (its hash differs): run notebook 05 again.")
    return content, model


def served(bundle: Bundle) -> dict[str, int]:
    """What a bundle's cases served for, under the names that every page uses: purpose to number of cases; what it does not know is absent.

    ``fitted_on`` are those that the weights were fitted on, ``early_stopping_on`` those that chose the epoch, and ``known_to_the_start``
    those that the weights had seen before they were trained here.
    """
    lists = {"fitted_on": bundle.get("train_cases"), "early_stopping_on": bundle.get("validation_cases")}
    found = {purpose: len(cases) for purpose, cases in lists.items() if cases is not None}
    known = bundle.get("seen")
    before = len(known["real_cases"]) + len(known["synthetic_cases"]) - sum(found.values()) if known else 0
    return found | ({"known_to_the_start": before} if found and before > 0 else {})


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_bundle(run: Run) -> Path:
    """The bundle of the model that was better on validation cases, as ``training.json`` names it.

    Raises:
        InputError: notebook 05 has not run.
    """
    return run.require(f"models/{run.read_json('training.json')['better']}.bundle.json")
