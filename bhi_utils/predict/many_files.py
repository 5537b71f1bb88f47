"""Answers for many files at once: images, folders of images and zips go in, a table comes out. Used by ``bhi predict`` and the interface.

Every file is checked by ``data.input_checks``: one that cannot be a patch is listed with the reason, the others are answered. Files that
systems hide, whose name begins with a dot or that lie in a folder ``__MACOSX``, are skipped. Names within a zip are never used as paths,
and only a batch of patches is in memory at a time.
"""

import io
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bhi_utils.core.atomic_files import write_csv
from bhi_utils.core.messages import counted, say
from bhi_utils.core.paths import InputError, brief, exists, plain, shown
from bhi_utils.core.titles import CLASSES
from bhi_utils.data import input_checks, patch_listing
from bhi_utils.model.predictor import Predictor

#: The class is there twice: as 0 or 1 (``predicted_label``) and as text (``label``).
COLUMNS = ("file", "probability", "probability_calibrated", "predicted_label", "label", "threshold", "threshold_calibrated")
#: Longest member of a zip, unpacked, in bytes; a longer one is refused unread.
LONGEST = 16 << 20
_BATCH = 256


@dataclass
class Outcome:
    """The result for many files.

    Attributes:
        answers: `COLUMNS`, one row an image that could be used; ``file`` is its path; of a zip's member, the zip's path and its name.
        rejected: ``file, reason`` of the others.
        notes: sentence on what was done to an image, or why its answer is doubtful, to the number of such images.
        seen: number of images with exactly the pixels of a patch that the model was trained on.
    """

    answers: pd.DataFrame
    rejected: pd.DataFrame
    notes: Counter[str]
    seen: int


def predict(predictor: Predictor, given: Sequence[str | Path], *, progress: bool = True) -> Outcome:
    """Answers for every image among ``given``: image files, folders (with what lies below them) and zips.

    Raises:
        InputError: one of ``given`` is not there or cannot be read, or no image is among them that can be used.
    """
    inside = {Path(one): list(places(Path(one))) for one in given}
    found = [place for one in inside.values() for place in one]
    if not found:
        first = brief(shown(Path(given[0]))) + (f" and {len(given) - 1} more" if len(given) > 1 else "")
        raise InputError(f"There is no image in {first}: pass images, folders or zips ({', '.join(input_checks.FORMATS)}).")
    rejected: list[tuple[str, str]] = [(plain(one.as_posix()), say("nothing_inside")) for one, held in inside.items() if not held]
    answers, notes, known = [], Counter[str](), 0

    def usable() -> Iterator[tuple[str, np.ndarray]]:
        for name, seen in tqdm(checked(found), total=len(found), desc="Predicting", unit="file", file=sys.stderr, disable=not progress):
            if seen.array is None:
                rejected.append((name, str(seen.problem)))
            else:
                notes.update((*seen.doubts, *seen.notes))
                yield name, seen.array

    images = usable()
    while batch := list(islice(images, _BATCH)):
        names, patches = zip(*batch, strict=True)
        known += int(predictor.seen.pixels(np.stack(patches)).sum())
        answers.append(answered(predictor, names, patches))
    if not answers:
        name, reason = rejected[0]
        raise InputError(f"Of {counted(len(rejected), 'file')} none can be used, such as {brief(name)}. {reason}")
    return Outcome(pd.concat(answers, ignore_index=True), pd.DataFrame(rejected, columns=["file", "reason"]), notes, known)


def write(outcome: Outcome, path: Path) -> Path | None:
    """Writes the answers to ``path``, and the rejected files to ``<name>.rejected.csv`` beside it.

    Returns:
        the path of the list of rejected files; None when none was rejected, and an older list is then removed.
    """
    beside = Path(path).with_name(f"{Path(path).stem}.rejected.csv")
    write_csv(path, outcome.answers)
    if len(outcome.rejected):
        return write_csv(beside, outcome.rejected)
    beside.unlink(missing_ok=True)
    return None


def answered(predictor: Predictor, names: Sequence[str], patches: Sequence[np.ndarray]) -> pd.DataFrame:
    """Returns `COLUMNS` for patches, uint8 arrays (50, 50, 3), and their names."""
    table = predictor.predict(np.stack(patches))
    return table.assign(file=list(names), label=[CLASSES[label] for label in table["predicted_label"]])[list(COLUMNS)]


def places(given: Path, *, most: int = patch_listing.MOST) -> Iterator[tuple[Path, str | None]]:
    """Yields the files in ``given``: a file's path and None, or a zip's path and the member's name; folders in the order of their names.

    Raises:
        InputError: it is not there, or cannot be read; or it is a zip of more than ``most`` members, see `zips.opened`.
    """
    if not exists(given):
        raise InputError(f"{shown(given)} does not exist: pass images, folders or zips.")
    try:
        if given.is_dir():
            for path in sorted(given.rglob("*")):
                if path.is_file() and not _hidden(path.relative_to(given).parts):
                    yield path, None
        elif zipfile.is_zipfile(given):
            with patch_listing.opened_zip(given, most=most) as archive:
                for name in archive.namelist():
                    if not name.endswith("/") and not _hidden(name.split("/")):
                        yield given, name
        else:
            yield given, None
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"Cannot read {shown(given)}: {why}; check the file and its permissions.") from error


def _hidden(parts: Iterable[str]) -> bool:
    return any(part == "__MACOSX" or part.startswith(".") and part not in (".", "..") for part in parts)


def _path(path: Path, member: str | None) -> str:
    return path.as_posix() if member is None else f"{path.as_posix()}/{member}"


def checked(
    found: Iterable[tuple[Path, str | None]], *, name: Callable[[Path, str | None], str] = _path
) -> Iterator[tuple[str, input_checks.Pixels]]:
    """Yields each image's ``name`` for the table and its check; a zip is opened once for all of its members."""
    for path, group in groupby(found, key=itemgetter(0)):
        members = [member for _, member in group]
        if members[0] is None:
            yield from ((plain(name(path, None)), input_checks.check_file(path)) for _ in members)
            continue
        with patch_listing.opened_zip(path) as archive:
            for member in filter(None, members):
                yield plain(name(path, member)), _member(archive, member)


def _member(archive: zipfile.ZipFile, name: str) -> input_checks.Pixels:
    """Checks a zip's member; at most `LONGEST` bytes are unpacked, whatever size the zip claims."""
    try:
        if archive.getinfo(name).file_size > LONGEST:
            return input_checks.Pixels(None, say("too_long"))
        with archive.open(name) as stream:
            data = stream.read(LONGEST + 1)
    except Exception:  # a damaged or encrypted member raises whatever its bytes lead to
        return input_checks.Pixels(None, say("unreadable"))
    if len(data) > LONGEST:
        return input_checks.Pixels(None, say("too_long"))
    return input_checks.check_file(io.BytesIO(data))
