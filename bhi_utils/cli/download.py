"""``bhi download``: the real archive."""

from pathlib import Path
from typing import Annotated

from bhi_utils.cli.options import out_folder
from bhi_utils.core.paths import cache_dir, shown


def download(
    out: Annotated[Path | None, out_folder("the folder for the zip (data/kaggle, where --data kaggle looks)")] = None,
) -> None:
    """Fetch the real archive from Kaggle as one zip."""
    from bhi_utils.data import kaggle_download

    found = kaggle_download.fetch(out or cache_dir() / "kaggle")
    print(f"The archive is {shown(found)}; use it with --data {shown(found) if out else 'kaggle'}.")
