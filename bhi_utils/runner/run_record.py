"""The record of a run, ``run.json``: what ran with which parameters, versions and data, how long it took and how it ended.

Used by ``runner.pipeline``. The file is rewritten, whole, whenever a notebook starts or ends, so it tells the truth after a crash as well.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhi_utils import __version__
from bhi_utils.core.atomic_files import write_json
from bhi_utils.core.paths import InputError
from bhi_utils.core.provenance import code_hash, git_commit, notebook_hash, versions
from bhi_utils.core.run import RECORD, Run


@dataclass(frozen=True)
class Step:
    """One notebook of a run: its file, the values that it is given, and the values of all its parameters, defaults included."""

    path: Path
    given: dict[str, Any]
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem


class Record:
    """The state behind ``run.json``.

    Attributes:
        run: the run that it belongs to.
        order: names of all the notebooks, in order.
        content: the JSON object.
    """

    def __init__(self, run: Run, notebooks: Sequence[Path], *, profile: str, values: Mapping[str, Any]) -> None:
        """Take over what earlier commands wrote about the run's notebooks; nothing is written yet."""
        self.run, self.order = run, tuple(path.stem for path in notebooks)
        try:
            earlier = json.loads((run.root / RECORD).read_text(encoding="utf-8"))
            notes, peak = dict(earlier["notebooks"]), earlier["peak_memory_mb"]
        except (OSError, ValueError, KeyError, TypeError):
            notes, peak = {}, None
        self.content: dict[str, Any] = {
            "profile": profile,
            "parameters": dict(values),
            "bhi_utils": __version__,
            "code": code_hash(),
            "git": git_commit(),
            "versions": versions(),
            "data": None,
            # that of the notebooks which a resumed run skips counts as well
            "peak_memory_mb": peak,
            "notebooks": notes,
        }

    def finished(self, steps: Sequence[Step]) -> set[str]:
        """Names of the notebooks, from the first on, that need not run again.

        A notebook is finished when it ended well with the same parameters, text, imported modules and earlier notebooks, and all files that
        it wrote are there.
        """
        done: set[str] = set()
        for step in steps:
            entry = self.content["notebooks"].get(step.name, {})
            same = entry.get("status") == "ok" and entry["key"] == self._key(step)
            if not same or not all((self.run.root / name).is_file() for name in entry["wrote"]):
                break
            done.add(step.name)
        return done

    def begin(self, names: Sequence[str]) -> None:
        """Mark the notebooks that this command is going to run as pending, and write the record."""
        if set(names) >= set(self.order):
            self.content["peak_memory_mb"] = None
        for name in names:
            self.content["notebooks"][name] = {"status": "pending", "seconds": None}
        self._write()

    @contextmanager
    def step(self, step: Step) -> Iterator[dict[str, Any]]:
        """Record one notebook, as running while the block runs, then as ok or failed; gives its entry."""
        key, before, started = self._key(step), self._files(), time.perf_counter()
        entry: dict[str, Any] = {"status": "running", "seconds": None, "parameters": step.given}
        self.content["notebooks"][step.name] = entry
        self._write()
        try:
            yield entry
        except BaseException as error:
            said = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error).partition("\n")[0]
            entry.update(status="failed", error=said or type(error).__name__)
            raise
        else:
            wrote = sorted(name for name, stamp in self._files().items() if before.get(name) != stamp)
            entry.update(status="ok", key=key, wrote=wrote)
        finally:
            entry["seconds"] = round(time.perf_counter() - started, 1)
            self._write()

    def wrote(self, file: str, names: Sequence[str]) -> bool:
        """Whether one of the notebooks ``names`` left ``file``, a path below the run's folder."""
        return any(file in self.content["notebooks"].get(name, {}).get("wrote", ()) for name in names)

    def _key(self, step: Step) -> str:
        """One hash of all that a notebook's outcome depends on, the keys of the notebooks before it included."""
        before = self.order[: self.order.index(step.name)]
        earlier = [self.content["notebooks"].get(name, {}).get("key") for name in before]
        # a file that is replaced in place is another input
        paths = {name: Path(value) for name, value in step.given.items() if isinstance(value, str) and Path(value).is_absolute()}
        files = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in paths.items() if path.is_file()}
        basis = [step.name, notebook_hash(step.path), step.given, files, self.content["versions"], earlier]
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
        self.content["peak_memory_mb"] = max(self.content["peak_memory_mb"] or 0, _peak_memory()) or None
        found = self.content["notebooks"]
        self.content["notebooks"] = {name: found[name] for name in (*self.order, *found) if name in found}
        write_json(self.run.root / RECORD, self.content)


def _peak_memory() -> int:
    """The largest memory, in MB, that a finished kernel of this process took; 0 on Windows, which does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # bytes on macOS, kilobytes elsewhere
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))
