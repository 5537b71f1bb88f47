"""``bhi index``, ``bhi phantom`` and ``bhi download``: what is in a data source, a synthetic one, and the real archive."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bhi_utils.cli.options import Source, out_folder
from bhi_utils.core.paths import InputError, cache_dir, shown


def index(source: Source, out: Annotated[Path, out_folder("the folder for index.json and the lists", default="runs/index")]) -> None:
    """What is in a data source, and what is wrong with it."""
    from bhi_utils.core.atomic_files import write_csv, write_json
    from bhi_utils.data import archive, inspection

    pack = archive.open_source(source)
    found = inspection.inspect(pack)
    write_json(out / "index.json", found.facts)
    write_csv(out / "measures.csv.gz", found.measures)
    write_csv(out / "manifest.csv.gz", pack.manifest)
    write_csv(out / "rejected.csv", pack.rejected)
    print(f"{pack.info['source']} ({pack.info['kind']}{', SYNTHETIC' if pack.info['synthetic'] else ''})")
    print(found.text())
    print(f"Wrote index.json, measures.csv.gz, manifest.csv.gz and rejected.csv to {shown(out)}.")


def phantom(
    out: Annotated[Path, Argument(metavar="OUT", help="a new folder, or a file ending in .zip")],
    cases: Annotated[int | None, Option(help="number of cases (48)")] = None,
    patches: Annotated[int | None, Option(help="mean number of patches a case (60)")] = None,
    like_archive: Annotated[bool, Option("--like-archive", help="the archive's 279 cases and true counts, 277,524 patches, twice")] = False,
    seed: Annotated[int, Option(help="seed of everything random")] = 0,
) -> None:
    """Write a synthetic cohort in the archive's layout."""
    from bhi_utils.data.phantom import synthetic_cohort

    sizes: dict[str, Any] = {name: value for name, value in (("cases", cases), ("patches_per_case", patches)) if value is not None}
    if like_archive:
        if sizes:
            raise InputError("--like-archive has the archive's cases and counts: leave out --cases and --patches.")
        made = synthetic_cohort.write_archive(out, seed=seed)
        print(f"Wrote synthetic patches, as many as the archive has in each case, and their nested copy to {shown(made)}.")
    else:
        made = synthetic_cohort.write(out, seed=seed, **sizes)
        print(f"Wrote a synthetic cohort to {shown(made)}.")


def download(
    out: Annotated[Path | None, out_folder("the folder for the zip (data/kaggle, where --data kaggle looks)")] = None,
) -> None:
    """Fetch the real archive from Kaggle as one zip."""
    from bhi_utils.data import kaggle_download

    found = kaggle_download.fetch(out or cache_dir() / "kaggle")
    print(f"The archive is {shown(found)}; use it with --data {shown(found) if out else 'kaggle'}.")
