"""A run's folder: its artefacts, figures and notebooks, and which notebook writes which artefact.

Used by the notebooks, the runner and everything that reads or writes an artefact.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bhi_utils.core.atomic_files import read_csv, write_csv, write_json
from bhi_utils.core.paths import InputError, project_root, shown

#: Which notebook writes which artefact: what a missing file's message names.
WRITERS = {
    "dataset.json": "01_dataset_exploration",
    "manifest.csv.gz": "01_dataset_exploration",
    "rejected.csv": "01_dataset_exploration",
    "splits.csv": "02_case_split",
    "splits.json": "02_case_split",
    "smote.json": "03_preprocessing_smote",
    "training.json": "05_training_cnn_vs_efficientnetb0",
    "predictions.csv.gz": "05_training_cnn_vs_efficientnetb0",
    "checkpoints": "05_training_cnn_vs_efficientnetb0",
    "models": "05_training_cnn_vs_efficientnetb0",
    "metrics.json": "06_metric_figures",
}


@dataclass(frozen=True)
class Run:
    """One run's folder. ``root`` holds ``notebooks``, ``artifacts`` and ``figures``."""

    root: Path

    @classmethod
    def open(cls, out: str | Path) -> "Run":
        """The run at ``out``, its folders made. A relative path is taken from the project's root, whatever the kernel's folder."""
        if not str(out).strip():
            raise InputError("OUT is empty: name a folder for the run, such as runs/walk.")
        run = cls(project_root() / Path(out).expanduser())
        try:
            for folder in (run.artifacts, run.models, run.figures, run.notebooks):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot use {shown(run.root)} as a run's folder: {error.strerror}; pass another --out.") from error
        return run

    @property
    def artifacts(self) -> Path:
        """Tables, JSON and models that one notebook leaves for the next."""
        return self.root / "artifacts"

    @property
    def models(self) -> Path:
        """Trained models and their bundles."""
        return self.artifacts / "models"

    @property
    def checkpoints(self) -> Path:
        """States of a training that has not ended."""
        return self.artifacts / "checkpoints"

    @property
    def figures(self) -> Path:
        """Figures as PNG."""
        return self.root / "figures"

    @property
    def notebooks(self) -> Path:
        """The executed notebooks of a batch."""
        return self.root / "notebooks"

    def require(self, name: str) -> Path:
        """The artefact's path.

        Raises:
            InputError: it is missing; the message names the notebook that makes it.
        """
        path = self.artifacts / name
        if not path.exists():
            writer = WRITERS.get(name.split("/")[0], "an earlier notebook")
            raise InputError(f"{shown(path)} is missing: run notebook {writer} first, with the same OUT.")
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write an artefact as JSON."""
        return write_json(self.artifacts / name, value)

    def write_csv(self, name: str, frame: pd.DataFrame) -> Path:
        """Write an artefact as CSV, compressed when the name ends in ``.gz``."""
        return write_csv(self.artifacts / name, frame)

    def read_json(self, name: str) -> Any:
        """Read an artefact that is JSON; a missing one is an InputError, see ``require``."""
        return json.loads(self.require(name).read_text(encoding="utf-8"))

    def read_csv(self, name: str) -> pd.DataFrame:
        """Read an artefact that is a table; a missing one is an InputError, see ``require``."""
        return read_csv(self.require(name))


RECORD = "run.json"
