"""Where things are: the package, the project's root and the cache; how a path is shown; the error for a user's mistake. Used everywhere."""

import os
from pathlib import Path

#: The package's own folder, which holds its data files as well.
PACKAGE = Path(__file__).resolve().parent.parent


class InputError(ValueError):
    """The user's input is wrong. The message is one sentence that says what is wrong and what to do; the command exits with 2."""


def project_root() -> Path:
    """Returns the folder that holds ``notebooks``: the checkout of an editable install, else the current folder."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def cache_dir() -> Path:
    """Returns the folder that keeps downloads and packed arrays between runs: ``BHI_CACHE``, else ``data/`` in the project."""
    return Path(os.environ.get("BHI_CACHE") or project_root() / "data")


def shown(path: Path) -> str:
    """Returns ``path`` as texts and artefacts show it: with forward slashes, and relative to the project where it lies inside."""
    try:
        return Path(path).resolve().relative_to(project_root().resolve()).as_posix()
    except ValueError:
        return Path(path).as_posix()


def exists(path: Path) -> bool:
    """Returns whether ``path`` is there.

    Raises:
        InputError: it cannot be told, for want of permission or because no file can have such a name.
    """
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"Cannot look for {shown(path)[:200]}: {error.strerror or error}; check the path and its permissions.") from error


def plain(text: str) -> str:
    r"""Returns ``text`` with unprintable characters escaped, so that it fits on one line of a table.

    >>> plain("a\nb")
    'a\\nb'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def brief(text: str) -> str:
    """Returns ``text`` for a sentence: like `plain`, and without its middle when it is longer than 200 characters."""
    text = plain(text)
    return text if len(text) <= 200 else f"{text[:80]} … {text[-100:]}"
