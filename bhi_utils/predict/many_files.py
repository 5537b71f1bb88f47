"""Answers for many files at once: images, folders of them and zips go in, a table comes out. Used by ``bhi predict``.

Every file is checked by ``data.input_checks``, as in the interface: what cannot be a patch is listed with its reason and the rest is
answered. Only what systems hide among files, names that begin with a dot and folders ``__MACOSX``, is passed over. Names within a zip are
never used as paths, and only a few batches of patches are in memory at a time.
"""

import io
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils.core import zips
from bhi_utils.core.atomic_files import write_csv
from bhi_utils.core.messages import counted, say
from bhi_utils.core.paths import InputError, brief, exists, plain, shown
from bhi_utils.core.titles import CLASSES
from bhi_utils.data import image_files, input_checks
from bhi_utils.model.predictor import Predictor

#: The class stands twice: as the number 0 or 1, and as the word that people read.
COLUMNS = ("file", "probability", "probability_calibrated", "predicted_label", "label", "threshold", "threshold_calibrated")
#: A member of a zip that is longer than this (bytes), unpacked, is no image that could be told more of than that it is no patch.
LONGEST = 16 << 20
_BATCH = 256


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        answers: one row an image that could be used, `COLUMNS`; ``file`` is the path, and for a zip's member the zip's path and its name.
        rejected: ``file, reason`` of the others.
        notes: what was done to images, or makes their answers doubtful, and how often.
        seen: how many images have exactly the pixels of a patch that the model was trained on.
    """

    answers: pd.DataFrame
    rejected: pd.DataFrame
    notes: Counter = field(default_factory=Counter)
    seen: int = 0


def predict(predictor: Predictor, given: Sequence[str | Path], *, progress: bool = True) -> Outcome:
    """Answer for every image among ``given``: image files, folders (with what lies below them) and zips.

    Raises:
        InputError: one of ``given`` is not there or cannot be read, or no image is among them that can be used.
    """
    inside = {Path(one): list(places(Path(one))) for one in given}
    found = [place for one in inside.values() for place in one]
    if not found:
        raise InputError(f"There is no image in {_names(given)}: pass images, folders or zips ({', '.join(image_files.FORMATS)}).")
    rejected = [(plain(one.as_posix()), say("nothing_inside")) for one, held in inside.items() if not held]
    answers, notes, waiting, seen_before = [], Counter(), [], 0
    bar = tqdm(checked(found), total=len(found), desc="Predicting", unit="file", file=sys.stderr, disable=not progress)
    for name, seen in bar:
        if seen.patch is None:
            rejected.append((name, seen.problem))
            continue
        notes.update((*seen.doubts, *seen.notes))
        seen_before += int(predictor.seen.pixels(seen.patch[None])[0])
        waiting.append((name, seen.patch))
        if len(waiting) == _BATCH:
            answers.append(answered(predictor, *zip(*waiting, strict=True)))
            waiting = []
    if waiting:
        answers.append(answered(predictor, *zip(*waiting, strict=True)))
    if not answers:
        name, reason = rejected[0]
        raise InputError(f"Of {counted(len(rejected), 'file')} none can be used, such as {brief(name)}. {reason}")
    return Outcome(pd.concat(answers, ignore_index=True), pd.DataFrame(rejected, columns=["file", "reason"]), notes, seen_before)


def write(outcome: Outcome, path: Path) -> Path | None:
    """Write the answers to ``path``, and what was rejected to ``<name>.rejected.csv`` beside it.

    Returns:
        the path of the rejected files' list, None when there is nothing to list; an older list is removed then.
    """
    beside = Path(path).with_name(f"{Path(path).stem}.rejected.csv")
    write_csv(path, outcome.answers)
    if len(outcome.rejected):
        return write_csv(beside, outcome.rejected)
    beside.unlink(missing_ok=True)
    return None


def answered(predictor: Predictor, names: Sequence[str], patches: Sequence[np.ndarray]) -> pd.DataFrame:
    """`COLUMNS` for patches, uint8 arrays (50, 50, 3), and their names."""
    table = predictor.predict(np.stack(patches))
    return table.assign(file=list(names), label=[CLASSES[label] for label in table["predicted_label"]])[list(COLUMNS)]


def places(given: Path, *, most: int = zips.MOST) -> Iterator[tuple[Path, str | None]]:
    """The files in ``given``: a file's path and None, or a zip's path and the member's name; folders in the order of their names.

    Raises:
        InputError: it is not there, or cannot be read; or it is a zip of more than ``most`` members, see `zips.opened`.
    """
    if not exists(given):
        raise InputError(f"{shown(given)} does not exist: pass images, folders or zips.")
    try:
        if given.is_dir():
            for path in sorted(given.rglob("*")):
                hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(given).parts)
                if not hidden and path.is_file():
                    yield path, None
        elif zipfile.is_zipfile(given):
            with zips.opened(given, most=most) as archive:
                for name in archive.namelist():
                    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part not in (".", ".."))
                    if not hidden and not name.endswith("/"):
                        yield given, name
        else:
            yield given, None
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"Cannot read {shown(given)}: {why}; check the file and its permissions.") from error


def _path(path: Path, member: str | None) -> str:
    """How the command names an image: by its path, and a zip's member by the zip's path and its own name."""
    return path.as_posix() if member is None else f"{path.as_posix()}/{member}"


def checked(
    found: Iterable[tuple[Path, str | None]], *, name: Callable[[Path, str | None], str] = _path
) -> Iterator[tuple[str, input_checks.Quality]]:
    """Each image's ``name`` for the table, and what became of it; a zip is opened once for all of its members."""
    opened, archive = None, None
    try:
        for path, member in found:
            if member is None:
                yield plain(name(path, member)), input_checks.check_file(path)
                continue
            if path != opened:
                if archive is not None:
                    archive.close()
                opened, archive = path, zips.opened(path)
            yield plain(name(path, member)), _member(archive, member)
    finally:
        if archive is not None:
            archive.close()


def _member(archive: zipfile.ZipFile, name: str) -> input_checks.Quality:
    """A zip's member as a patch; one that claims more than `LONGEST` bytes is not unpacked, and of none more are, whatever it claims."""
    try:
        if archive.getinfo(name).file_size > LONGEST:
            return input_checks.Quality(None, say("too_long"))
        with archive.open(name) as stream:
            data = stream.read(LONGEST + 1)
    except Exception:  # a damaged or encrypted member raises whatever its bytes lead to
        return input_checks.Quality(None, say("unreadable"))
    if len(data) > LONGEST:
        return input_checks.Quality(None, say("too_long"))
    return input_checks.check_file(io.BytesIO(data))


def _names(given: Sequence[str | Path]) -> str:
    first = shown(Path(given[0]))
    return brief(first) if len(given) == 1 else f"{brief(first)} and {len(given) - 1} more"
