"""The record of a run, ``run.json``: what ran with which parameters, versions and data, how long it took and how it ended.

Used by ``runner.pipeline``. The file is rewritten, whole, whenever a notebook starts or ends, so it tells the truth after a crash as well.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bhi_utils import __version__
from bhi_utils.core.atomic_files import write_json
from bhi_utils.core.paths import InputError
from bhi_utils.core.provenance import code_hash, git_commit, notebook_hash, versions
from bhi_utils.core.run import RECORD, Run

STATUSES = ("pending", "running", "ok", "failed")


@dataclass
class Note:
    """What the caller tells about the notebook that is running."""

    seconds: float = 0.0


@dataclass
class Record:
    """The state behind ``run.json``.

    Attributes:
        run: the run that it belongs to.
        order: names of all the notebooks, in order.
        content: the JSON object.
    """

    run: Run
    order: tuple[str, ...]
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, run: Run, notebooks: Sequence[Path], *, profile: str, values: Mapping[str, Any]) -> "Record":
        """The record of ``run``, with what earlier commands wrote about its notebooks; nothing is written yet."""
        try:
            content = json.loads((run.root / RECORD).read_text(encoding="utf-8"))
            earlier = {name: entry for name, entry in content["notebooks"].items() if entry["status"] in STATUSES}
            peak = int(content["peak_memory_mb"] or 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            earlier, peak = {}, 0
        content = {
            "profile": profile,
            "parameters": dict(values),
            "bhi_utils": __version__,
            "code": code_hash(),
            "git": git_commit(),
            "versions": versions(),
            "data": None,
            # that of the notebooks which a resumed run skips counts as well
            "peak_memory_mb": peak or None,
            "notebooks": earlier,
        }
        return cls(run, tuple(path.stem for path in notebooks), content)

    def finished(self, steps: Sequence[tuple[Path, Mapping[str, Any]]]) -> set[str]:
        """Names of the notebooks, from the first on, that need not run again.

        One is finished when it ended well with the same parameters, text, imported modules and earlier notebooks, and all that it wrote is
        there.
        """
        done: set[str] = set()
        for path, given in steps:
            entry = self.content["notebooks"].get(path.stem, {})
            same = entry.get("status") == "ok" and entry.get("key") == self._key(path, given)
            if not same or not all((self.run.root / name).is_file() for name in entry.get("wrote", ())):
                break
            done.add(path.stem)
        return done

    def begin(self, names: Sequence[str]) -> None:
        """Mark the notebooks that this command is going to run as pending, and write the record."""
        if set(names) >= set(self.order):
            self.content["peak_memory_mb"] = None
        for name in names:
            self.content["notebooks"][name] = {"status": "pending", "seconds": None}
        self._write()

    @contextmanager
    def step(self, path: Path, given: Mapping[str, Any]) -> Iterator[Note]:
        """Record one notebook: running while the block runs, then ok or failed."""
        key, before, note = self._key(path, given), self._files(), Note()
        entry = {"status": "running", "seconds": None, "parameters": dict(given)}
        self.content["notebooks"][path.stem] = entry
        self._write()
        try:
            yield note
        except BaseException as error:
            entry["status"], entry["error"] = "failed", _sentence(error)
            raise
        else:
            entry["status"], entry["key"] = "ok", key
            entry["wrote"] = sorted(name for name, stamp in self._files().items() if before.get(name) != stamp)
        finally:
            entry["seconds"] = round(note.seconds, 1)
            self._write()

    def wrote(self, file: str, names: Sequence[str]) -> bool:
        """Whether one of the notebooks ``names`` left ``file``, a path below the run's folder."""
        return any(file in self.content["notebooks"].get(name, {}).get("wrote", ()) for name in names)

    def _key(self, path: Path, given: Mapping[str, Any]) -> str:
        """All that a notebook's outcome depends on, as one hash; the earlier notebooks' keys are part of it."""
        position = self.order.index(path.stem)
        earlier = [self.content["notebooks"].get(name, {}).get("key") for name in self.order[:position]]
        basis = [path.stem, notebook_hash(path), dict(given), _stamps(given), self.content["versions"], earlier]
        return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of everything below artifacts, figures and notebooks."""
        folders = (self.run.artifacts, self.run.figures, self.run.notebooks)
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(self.run.root).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    def _write(self) -> None:
        try:
            data = self.run.read_json("dataset.json")
            self.content["data"] = {name: data[name] for name in ("kind", "synthetic", "fingerprint", "cases", "patches")}
        except (InputError, ValueError, KeyError, TypeError):
            self.content["data"] = None
        self.content["peak_memory_mb"] = max(self.content["peak_memory_mb"] or 0, peak_memory() or 0) or None
        found = self.content["notebooks"]
        self.content["notebooks"] = {name: found[name] for name in (*self.order, *found) if name in found}
        write_json(self.run.root / RECORD, self.content)


def peak_memory() -> int | None:
    """The largest memory, in MB, that a finished kernel of this process took; None on Windows, which does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # bytes on macOS, kilobytes elsewhere
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def _stamps(given: Mapping[str, Any]) -> dict[str, list[int]]:
    """Size and time of the files that parameters name: a file replaced in place is another input."""
    paths = {name: Path(value) for name, value in given.items() if isinstance(value, str) and Path(value).is_absolute()}
    return {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in paths.items() if path.is_file()}


def _sentence(error: BaseException) -> str:
    """The first line of the error's message, or its kind."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return (str(error).splitlines() or [type(error).__name__])[0]
