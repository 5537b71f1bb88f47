"""A synthetic cohort of the archive's own size: its case ids, each case's true counts, and the nested copy.

Used by ``bhi phantom --like-archive`` and ``studies.benchmark_archive``. It rehearses the full job without the download. Nothing in it
comes from real tissue, and it says so like every phantom. A case of many patches lies on its slide as several pieces of tissue, which
bounds the memory that painting takes.
"""

import os
import sys
from collections.abc import Callable, Generator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from tqdm import tqdm

from bhi_utils.core import atomic_files, worker_processes
from bhi_utils.core.paths import InputError, shown
from bhi_utils.data import published
from bhi_utils.data.decode import PATCH
from bhi_utils.data.phantom import painting, synthetic_cohort
from bhi_utils.data.phantom.synthetic_cohort import Slide

#: A piece of tissue has at most so many patches, and a process that paints one takes so many bytes, measured and rounded up.
LARGEST_PIECE, PAINTING_BYTES = 600, 600_000_000
#: Glass between two pieces, in patches, and the room that a piece grows in, see `draw_tissue`.
_GAP, _ROOM = 2, 1.12


def draw_case(case: int, *, negative: int, positive: int, seed: int) -> list[Slide]:
    """The pieces of tissue of one case, from left to right.

    Args:
        case: its id; with the seed it sets everything random.
        negative: its number of patches labelled IDC−.
        positive: its number of patches labelled IDC+.
        seed: the cohort's seed.

    Returns:
        one `Slide` a piece; the pieces share the case's stain and do not overlap on its slide.
    """
    rng, total = np.random.default_rng([seed, case]), negative + positive
    style = painting.draw_style(rng)
    sizes = [len(part) for part in np.array_split(np.arange(total), -(-total // LARGEST_PIECE))]
    pieces, left = [], PATCH * int(rng.integers(0, 10))
    for number, size in enumerate(sizes):
        rest = sum(sizes[number + 1 :])
        # a tumour may fill one piece and spare the next
        inside = int(rng.integers(max(0, positive - rest), min(size, positive) + 1))
        positive -= inside
        tissue = synthetic_cohort.draw_tissue(rng, size, room=_ROOM)
        cut = not rest and case % synthetic_cohort.CUT_EVERY == 0
        painted = synthetic_cohort.paint_piece(rng, tissue, inside, style=style, cut=cut)
        pieces.append(Slide(case, painted[0], (left, PATCH * int(rng.integers(0, 10))), *painted[1:]))
        left += PATCH * (tissue[0].shape[1] + _GAP)
    return pieces


def write(out: Path, *, counts: pd.DataFrame | None = None, seed: int = 0, workers: int = 0, progress: bool = True) -> Path:
    """Write a cohort with the archive's cases and counts, nested copy included, whole or not at all.

    Equal seeds give equal bytes, with any number of workers.

    Args:
        out: a zip when its name ends in ``.zip`` (an existing one is replaced), else a new or empty folder.
        counts: ``case, negative, positive`` of each case; by default the published ones of all 279.
        seed: seed of everything random, 0 or more.
        workers: number of processes, 0 for as many as there are cores and free memory for.
        progress: whether a bar shows on stderr.

    Returns:
        ``out``.

    Raises:
        InputError: ``out`` is taken or cannot be written, or the disk is too small.
    """
    counts = published.case_table() if counts is None else counts
    total, processes = int((counts["negative"] + counts["positive"]).sum()), _processes(workers, len(counts))
    parameters = {"like_archive": True, "cases": len(counts), "seed": seed}
    bar = partial(tqdm, total=total, desc="Painting", unit="patch", file=sys.stderr, disable=not progress)
    with closing(_painted(Path(out).absolute(), counts, seed, processes, bar)) as cases:
        return synthetic_cohort.write_files(out, cases, expected=total, parameters=parameters)


def _processes(asked: int, cases: int) -> int:
    """How many processes paint: as many as asked for, else one a core that finds memory."""
    fit = psutil.virtual_memory().available // PAINTING_BYTES
    return max(1, min(asked or min(worker_processes.cores(), fit), cases, worker_processes.MOST))


def _painted(
    out: Path, counts: pd.DataFrame, seed: int, processes: int, bar: Callable[[], tqdm]
) -> Generator[list[tuple[str, bytes]], None, None]:
    """Each case's files, in the order of ``counts``. Processes hand them over in a folder beside ``out``."""
    with atomic_files.building(out.with_name(f"bhi-{out.name}")) as scratch, bar() as shows:
        calls = [(str(scratch / f"{row.case}"), int(row.case), int(row.negative), int(row.positive), seed) for row in counts.itertuples()]
        try:
            with closing(worker_processes.in_order(_files_to, calls, processes)) as results:
                for (target, *_), lengths in zip(calls, results, strict=True):
                    with open(target, "rb") as stream:
                        yield [(name, stream.read(length)) for name, length in lengths]
                    os.unlink(target)
                    shows.update(len(lengths))
        except (BrokenProcessPool, MemoryError) as error:
            raise InputError(f"A process that paints ended early, perhaps for want of memory; {shown(out)} is not written.") from error


def _files(case: int, negative: int, positive: int, seed: int) -> list[tuple[str, bytes]]:
    """One case's files, sorted by path."""
    return sorted(file for piece in draw_case(case, negative=negative, positive=positive, seed=seed) for file in piece.files())


def _files_to(target: str, case: int, negative: int, positive: int, seed: int) -> list[tuple[str, int]]:
    """Write one case's files one after the other into ``target`` and return their names and lengths.

    Megabytes sent through the pool's pipe could block it when a worker dies.
    """
    files = _files(case, negative, positive, seed)
    Path(target).write_bytes(b"".join(content for _, content in files))
    return [(name, len(content)) for name, content in files]
