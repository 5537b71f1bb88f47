"""Runs the notebooks in order with papermill: strict parameters, progress, a record of the run, a summary of its metrics.

Used by the commands ``bhi run`` and ``bhi notebooks``.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from bhi_utils import plots
from bhi_utils.core import atomic_files, hardware
from bhi_utils.core.atomic_files import writable, write_atomic, write_text
from bhi_utils.core.messages import counted
from bhi_utils.core.paths import InputError, cache_dir, project_root, shown
from bhi_utils.core.run import WRITERS, Run
from bhi_utils.data import archive, kaggle_download, patch_listing, published
from bhi_utils.model import bundles
from bhi_utils.reports.run_report import summary
from bhi_utils.runner import clean_outputs, parameters, preflight
from bhi_utils.runner.kernel import execute
from bhi_utils.runner.run_record import Record, Step
from bhi_utils.training import checkpoint


def find_notebooks(folder: Path | None = None) -> list[Path]:
    """The numbered notebooks of the walk, in order.

    Raises:
        InputError: there is none.
    """
    folder = project_root() / "notebooks" if folder is None else folder
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise InputError(f"There are no notebooks in {shown(folder)}: run the command in a checkout of the project.")
    return found


def find_studies(folder: Path | None = None) -> list[Path]:
    """The notebooks of ``notebooks/studies``, by name; each answers one question of its own, and there may be none."""
    folder = project_root() / "notebooks" if folder is None else folder
    return sorted((folder / "studies").glob("*.ipynb"))


def select(notebooks: Sequence[Path], only: Iterable[str] = ()) -> list[Path]:
    """The notebooks that ``only`` names by number (``05`` or ``5``) or by name; all of them when it is empty.

    Raises:
        InputError: it names one that does not exist.
    """
    wanted: set[Path] = set()
    for text in only:
        matches = {path for path in notebooks if Path(text).stem in (path.stem, path.name[:2], path.name[:2].lstrip("0"))}
        if not matches:
            raise InputError(f"There is no notebook {text}: choose among {' '.join(path.name[:2] for path in notebooks)}.")
        wanted |= matches
    return [path for path in notebooks if not wanted or path in wanted]


def plan(selected: Sequence[Path], values: Mapping[str, Any], *, profile: Mapping[str, Any] | None = None) -> list[Step]:
    """Check all values against all selected notebooks, and give each notebook its own.

    Args:
        selected: the notebooks to run.
        values: what the user set, texts included; every name must be a parameter of a selected notebook.
        profile: a profile's values, which ``values`` replace; those for other notebooks are left out.

    Raises:
        InputError: an unknown name, a value of another type, or one that a notebook cannot run with.
    """
    declarations = {path.stem: parameters.declared(path) for path in selected}
    known = set().union(*declarations.values())
    given = parameters.assign({name: value for name, value in (profile or {}).items() if name in known} | dict(values), declarations)
    steps = []
    for path in selected:
        defaults = {name: default for name, (_, default) in declarations[path.stem].items()}
        steps.append(Step(path, given[path.stem], defaults | given[path.stem]))
        parameters.check(path.stem, steps[-1].values)
    parameters.check_together({step.name: step.values for step in steps})
    return steps


def run(
    values: Mapping[str, Any],
    *,
    profile: str = "",
    out: str = "",
    only: Iterable[str] = (),
    resume: bool = False,
    dry_run: bool = False,
    folder: Path | None = None,
) -> Run | None:
    """Run the notebooks.

    Args:
        values: parameter values, texts as the command line gives them.
        profile: a profile's name; none by default.
        out: the run's folder, taken from the current one; ``runs/<profile>`` of the project by default.
        only: numbers or names of the notebooks to run; all by default.
        resume: skip what an earlier run into the same folder has finished with the same parameters, notebooks and package, and go on
            with a training that was killed.
        dry_run: say what would be done, and do nothing.
        folder: where the notebooks are.

    Returns:
        the run, or None for a dry one.

    Raises:
        InputError: a value, the data or a missing artefact; the message is one sentence.
        NotebookFailed: a notebook stopped for another reason.
    """
    notebooks = find_notebooks(folder)
    if "OUT" in values:
        raise InputError("OUT is set by --out: pass --out DIR instead of -p OUT DIR.")
    values = parameters.absolute(values, base=Path.cwd())
    root = (Path(out).expanduser() if out else project_root() / "runs" / (profile or "walk")).resolve()
    own = parameters.read_profile(profile) if profile else {}
    steps = plan(select(notebooks, only), {**values, "OUT": shown(root)}, profile=own)
    for place in (root, cache_dir()):
        writable(place, folder=True)
    _announce(steps, root, profile)
    if dry_run:
        return None
    opened = Run.open(root)
    record = Record(opened, notebooks, profile=profile, values=values)
    _execute(opened, record, steps, resume=resume)
    fresh = record.wrote("artifacts/metrics.json", [step.name for step in steps])
    print(summary(opened, fresh=fresh), end="")
    if fresh:
        from bhi_utils.reports import run_report  # with matplotlib, which a dry run does without

        print(f"Report: {shown(run_report.write(opened))}")
    return opened


def publish(*, folder: Path | None = None) -> None:
    """Run every notebook and study with its defaults; once all have ended well, replace each by its clean copy and keep the figures.

    The figures go to ``figures`` beside ``notebooks``, with 256 colours each, which git is glad of.
    """
    notebooks = find_notebooks(folder)
    kept = notebooks[0].parent.parent / "figures"
    for place in (kept, *{path.parent for path in (*notebooks, *find_studies(folder))}):
        writable(place, folder=True)
    texts, figures = {}, []
    for group in (notebooks, find_studies(folder)):
        steps = plan(group, {})
        if not steps:
            continue
        opened = Run.open(steps[0].values["OUT"])
        _execute(opened, Record(opened, group, profile="", values={}), steps)
        for path in group:
            texts[path] = clean_outputs.to_text(clean_outputs.clean(nbformat.read(opened.notebooks / path.name, 4)))
        figures += sorted(opened.figures.glob("*.png"))
    for path, text in texts.items():
        write_text(path, text)
    for path in figures:
        with write_atomic(kept / path.name) as temporary:
            plots.write_palette(Image.open(path), temporary)
    print(f"Wrote {counted(len(texts), 'clean notebook')} to {shown(notebooks[0].parent)}, their figures to {shown(kept)}.")


def _announce(steps: Sequence[Step], root: Path, profile: str) -> None:
    """Print the plan and what it will cost; stop when the disk is too small or the data is not there."""
    print(f"Run {shown(root)}" + (f", profile {profile}" if profile else ""))
    for step in steps:
        own = ", ".join(f"{name}={value!r}" for name, value in step.given.items() if name != "OUT")
        print(f"  {step.name}" + (f": {own}" if own else ""))
    hardware.require_backend()
    if any(step.values.get("WEIGHTS") == bundles.START for step in steps):
        bundles.packaged()  # a copy of the package without one is told before anything runs
    values = {step.name: step.values for step in steps}
    card = hardware.card_in_use() if any("EPOCHS" in given for given in values.values()) else None
    cost = preflight.estimate(_patches(steps, root), values, card=card, compiles=hardware.backend_name() == "jax")
    print(cost.sentence(), flush=True)
    preflight.check_disk(cost.disk, root, cache_dir())


def _patches(steps: Sequence[Step], root: Path) -> int:
    """How many patches the run works on: from the source when notebook 01 reads it, else from the run's own record of it."""
    for step in steps:
        if "DATA" in step.values:
            source = step.values["DATA"]
            if source == "phantom":
                return int(step.values.get("PHANTOM_CASES", 48)) * int(step.values.get("PHANTOM_PATCHES", 60))
            if source == "kaggle" and not kaggle_download.kept(cache_dir() / "kaggle"):
                print("Data: the archive is not here yet, so notebook 01 will download it first (3.3 GB).")
                return published.archive_totals()["patches"]
            return len(patch_listing.index(archive.find_source(source, cache=cache_dir())).members)
    try:
        return int(Run(root).read_json("dataset.json")["patches"])
    except (InputError, ValueError, KeyError, TypeError):
        return 0  # the notebook itself says which artefact is missing


def _execute(opened: Run, record: Record, steps: Sequence[Step], *, resume: bool = False) -> None:
    """Run the steps, keeping the record after each; with ``resume``, those that are not finished."""
    done = record.finished(steps) if resume else set()
    if not resume and WRITERS["checkpoints"] in {step.name for step in steps}:
        checkpoint.clear(opened.checkpoints)  # with which the notebook would go on
    record.begin([step.name for step in steps if step.name not in done])
    for number, step in enumerate(steps, start=1):
        label = f"[{number}/{len(steps)}] {step.name} …"
        if step.name in done:
            print(f"{label}  finished earlier, skipped", flush=True)
            continue
        if not sys.stderr.isatty():
            print(label, flush=True)
        try:
            with record.step(step) as entry:
                execute(step.path, opened.notebooks / step.path.name, step.given, label=label)
        finally:
            for name in ("packs", "phantom"):  # a killed kernel leaves what it was building
                atomic_files.sweep(cache_dir() / name)
        print(f"{label}  {entry['seconds']:.0f} s", flush=True)
