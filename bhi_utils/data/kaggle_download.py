"""Fetches the real archive from Kaggle with kagglehub and keeps it as the one zip that it is.

Used by ``bhi download`` and by the data source ``kaggle``. kagglehub's own ``dataset_download`` unpacks 555,048 files and deletes the zip;
here its client's parts are used instead, which resume, check the MD5 that the server names and show a progress bar. Where Kaggle and Colab
mount the data set, their folder is used and nothing is fetched.
"""

import importlib.metadata
import logging
import os
import zipfile
from functools import partial
from pathlib import Path

from bhi_utils.core.atomic_files import check_space
from bhi_utils.core.paths import InputError, shown
from bhi_utils.data.packing import PATCH_BYTES
from bhi_utils.data.published import ARCHIVE_URL, KAGGLE_HANDLE, TEXTS, archive_totals

#: Seconds to wait for a connection, and for the next bytes.
TIMEOUT = (10, 30)
_ZIP = f"{KAGGLE_HANDLE.rsplit('/', 1)[1]}.zip"
_MANUAL = f"Or do it by hand: download the zip from {ARCHIVE_URL} in a browser and pass its path as the data."
_DAMAGED = f"The download was damaged on its way and has been deleted: try again. {_MANUAL}"


def kept(folder: Path) -> Path | None:
    """The zip that an earlier download left in ``folder``, or None."""
    path = Path(folder) / _ZIP
    return path if os.path.isfile(path) else None  # False as well for a folder that may not be looked into


def fetch(folder: Path) -> Path:
    """The archive: a mounted folder on Kaggle and Colab, else ``<folder>/breast-histopathology-images.zip``, downloaded if it is not there.

    An interrupted download leaves a ``.part`` file, and the next call goes on where it ended.

    Raises:
        InputError: no network, no access, no space, another kagglehub than the one tried, or what came is damaged; the message names the
            way by hand.
    """
    if found := kept(folder):
        return found
    import requests

    target = Path(folder) / _ZIP
    part = target.with_suffix(".zip.part")
    try:
        import kagglehub
        from kagglesdk.kaggle_env import is_in_kaggle_notebook

        if is_in_kaggle_notebook() or kagglehub.env.is_in_colab_notebook():
            return Path(kagglehub.dataset_download(KAGGLE_HANDLE))
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            before = _size(part)
            try:
                _download(part)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if _size(part) == before:  # otherwise the line dropped half-way: go on at once
                    raise
    except (ImportError, AttributeError) as error:
        what = f"kagglehub {importlib.metadata.version('kagglehub')} is not the one that was tried ({error})"
        raise InputError(f"{what}: pip install -c constraints.txt kagglehub. {_MANUAL}") from error
    except requests.HTTPError as error:
        status = error.response.status_code
        error.response.close()
        refusal = TEXTS["kaggle"].get(str(status), f"Kaggle answers with an error ({status}): try again later")
        raise InputError(f"{refusal}. {_MANUAL}") from error
    except requests.RequestException as error:
        come = "; what has come is kept" if _size(part) else ""
        raise InputError(f"Kaggle cannot be reached ({_cause(error)}): check the network{come}. {_MANUAL}") from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"Cannot download to {shown(part)}: {reason}; free some disk space or pass another --out.") from error
    if not zipfile.is_zipfile(part):
        part.unlink()
        raise InputError(f"What Kaggle sent is no zip, and has been deleted: try again. {_MANUAL}")
    os.replace(part, target)
    return target


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cause(error: BaseException) -> str:
    """The first words of the innermost reason, such as ``Connection refused``; the whole would be a page."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:80]


def _download(part: Path) -> None:
    """Fetch the archive into ``part``, or what is missing of it. The one place that uses kagglehub's parts below its front door."""
    import requests
    from kagglehub.clients import build_kaggle_client, download_file
    from kagglehub.exceptions import DataCorruptionError
    from kagglehub.handle import parse_dataset_handle
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    logging.getLogger("kagglehub").setLevel(logging.WARNING)
    handle = parse_dataset_handle(KAGGLE_HANDLE)
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = handle.owner, handle.dataset
    try:
        opened = build_kaggle_client()
    except ValueError as error:  # kagglehub's word for a kaggle.json that is none
        raise InputError(f"Kaggle's credentials cannot be used ({error}): correct or delete them. {_MANUAL}") from error
    with opened as client:
        session = client.http_client()._session
        session.send = partial(session.send, timeout=TIMEOUT)  # it would wait for ever
        with client.datasets.dataset_api_client.download_dataset(request) as response:
            total = int(response.headers.get("Content-Length", 0))
            if _size(part) > total or response.headers.get("Accept-Ranges") != "bytes":
                part.unlink(missing_ok=True)
            # the pack that comes of it is counted too: nobody wants to learn of it after the download
            check_space(part.parent, total - _size(part) + archive_totals()["patches"] * PATCH_BYTES)
            try:
                download_file(response, str(part), handle)
            except DataCorruptionError as error:
                raise InputError(_DAMAGED) from error
    if _size(part) < total:
        raise requests.ConnectionError("the connection ended early")
    if total and _size(part) > total:
        part.unlink()
        raise InputError(_DAMAGED)
