"""Options that several commands share, and what is done with them before anything is computed. Used by every command.

Nothing heavy is imported at the top of a command's file: ``bhi --help`` reads them all.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bhi_utils.core.paths import InputError, project_root, shown

#: Options that take one value or more; and what joins the name and the value of ``-p``, a character that no command line can hold.
MANY, PAIR = ("--only", "--sizes"), "\0"
NOTICE = "Research use only: not a medical device."
SOURCES = "phantom, kaggle, or a folder or zip of patches"


def one_value_each(argv: Sequence[str]) -> list[str]:
    """Returns a command line in typer's form: ``--only 05 --only 06`` for ``--only 05 06``, and one word for the two after ``-p``."""
    words, many = deque(argv), ""
    said: list[str] = []
    while words:
        word = words.popleft()
        if word.startswith("-"):
            many = word if word in MANY else ""
        elif many and said[-1] != many:
            said.append(many)
        said.append(word)
        if word == "-p" and len(words) > 1:
            said.append(PAIR.join((words.popleft(), words.popleft())))
    return said


def folder(out: Path | None) -> Path | None:
    """Checks that a folder can be written; returns it as an absolute path."""
    from bhi_utils.core.atomic_files import writable

    return out and writable(out, folder=True)


def file(out: Path) -> Path:
    """Checks that a file can be written; returns it as an absolute path."""
    from bhi_utils.core.atomic_files import writable

    return writable(out, folder=False)


def out_folder(help: str, *, default: str = "") -> Any:
    """Returns the option ``--out DIR``, a folder that can be written; ``default`` is one of the project's folders."""
    more: dict[str, Any] = {"metavar": "DIR", "callback": folder}
    if default:
        help += f" ({default} of the project)"
        more |= {"default_factory": lambda: project_root() / default, "show_default": False}
    return Option(help=help, **more)


def _backend(model: Path | None) -> Path | None:
    """Checks Keras' backend, which every command that takes a model needs, before anything imports Keras."""
    from bhi_utils.core.hardware import require_backend

    require_backend()
    return model


_MODEL = "a .bundle.json, or a run's folder for its better model; by default the packaged model"
Model = Annotated[Path | None, Option(metavar="BUNDLE", help=_MODEL, callback=_backend)]
Source = Annotated[str, Argument(metavar="SOURCE", help=SOURCES)]


def bundle(model: Path | None) -> Path:
    """Returns the bundle that was asked for, or the packaged one, once it is known to be readable; prints which."""
    from bhi_utils.core.run import Run
    from bhi_utils.model import bundles

    if model is None:
        found, why = bundles.packaged(), " (the packaged model; --model takes another)"
    else:
        found, why = bundles.find_bundle(Run(model)) if model.is_dir() else model, ""
    if not found.is_file():
        raise InputError(f"{shown(found)} does not exist: pass the .bundle.json of a run, or run `make run` first.")
    bundles.read(found)
    print(f"Model: {shown(found)}{why}", flush=True)
    return found
