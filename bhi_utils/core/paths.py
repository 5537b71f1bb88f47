"""Where things are: the package, the project's root and the cache; how a path is shown; and the error that a user's mistake raises.

Used by every other module.
"""

import os
from pathlib import Path

#: The package's own folder, which holds its data files as well.
PACKAGE = Path(__file__).resolve().parent.parent


class InputError(ValueError):
    """What the user gave is wrong. The message is one sentence that says what and what to do; the command exits with 2."""


def project_root() -> Path:
    """The folder that holds ``notebooks``: the checkout of an editable install, else the current folder."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def cache_dir() -> Path:
    """Where downloads and packed arrays are kept between runs: ``data/`` in the project, or ``BHI_CACHE``."""
    return Path(os.environ.get("BHI_CACHE") or project_root() / "data")


def shown(path: Path) -> str:
    """``path`` as texts and artefacts show it: relative to the project, with forward slashes, where it lies inside."""
    try:
        return Path(path).resolve().relative_to(project_root().resolve()).as_posix()
    except ValueError:
        return Path(path).as_posix()


def exists(path: Path) -> bool:
    """Whether ``path`` is there.

    Raises:
        InputError: it cannot be told, for want of permission or because no file can have such a name.
    """
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"Cannot look for {shown(path)[:200]}: {error.strerror or error}; check the path and its permissions.") from error


def plain(text: str) -> str:
    """``text`` with unprintable characters escaped, so that every name fits on one line of a UTF-8 table."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def brief(text: str) -> str:
    """``text`` for a sentence: like `plain`, and a very long one without its middle."""
    text = plain(text)
    return text if len(text) <= 200 else f"{text[:80]} … {text[-100:]}"
