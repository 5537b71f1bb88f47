"""``bhi index``: what is in a data source."""

from pathlib import Path
from typing import Annotated

from bhi_utils.cli.options import Source, out_folder
from bhi_utils.core.paths import cache_dir, shown


def index(source: Source, out: Annotated[Path, out_folder("the folder for index.json and the lists", default="runs/index")]) -> None:
    """What is in a data source, and what is wrong with it."""
    from bhi_utils.core.atomic_files import write_csv, write_json
    from bhi_utils.data import archive, inspection

    pack = archive.pack(archive.find_source(source, cache=cache_dir()), cache_dir())
    found = inspection.inspect(pack)
    write_json(out / "index.json", found.facts)
    write_csv(out / "measures.csv.gz", found.measures)
    write_csv(out / "manifest.csv.gz", pack.manifest)
    write_csv(out / "rejected.csv", pack.rejected)
    print(f"{pack.info['source']} ({pack.info['kind']}{', SYNTHETIC' if pack.info['synthetic'] else ''})")
    print(found.text())
    print(f"Wrote index.json, measures.csv.gz, manifest.csv.gz and rejected.csv to {shown(out)}.")
