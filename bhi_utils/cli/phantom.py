"""``bhi phantom``: a synthetic cohort."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bhi_utils.core.paths import InputError, shown


def phantom(
    out: Annotated[Path, Argument(metavar="OUT", help="a new folder, or a file ending in .zip")],
    cases: Annotated[int | None, Option(help="number of cases (48)")] = None,
    patches: Annotated[int | None, Option(help="mean number of patches a case (60)")] = None,
    like_archive: Annotated[
        bool, Option("--like-archive", help="the archive's 279 cases with their true counts, 277,524 patches, twice")
    ] = False,
    seed: Annotated[int, Option(help="seed of everything random")] = 0,
) -> None:
    """Write a synthetic cohort in the archive's layout."""
    from bhi_utils.data.phantom import synthetic_archive, synthetic_cohort

    sizes = {name: value for name, value in (("cases", cases), ("patches_per_case", patches)) if value is not None}
    if like_archive:
        if sizes:
            raise InputError("--like-archive has the archive's cases and counts: leave out --cases and --patches.")
        made = synthetic_archive.write(out, seed=seed)
        print(f"Wrote synthetic patches, as many as the archive has in each case, and their nested copy to {shown(made)}.")
    else:
        made = synthetic_cohort.write(out, seed=seed, **sizes)
        print(f"Wrote a synthetic cohort to {shown(made)}.")
