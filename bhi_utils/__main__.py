"""The ``bhi`` command, also ``python -m bhi_utils``: its subcommands, its messages and its exit codes."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from bhi_utils import __version__
from bhi_utils.cli import app, bench, data, options, predict, reports, run
from bhi_utils.core.paths import InputError

#: The subcommands in the order of ``bhi --help``.
COMMANDS = (
    *(run.run, data.index, data.download, data.phantom, bench.bench, run.notebooks),
    *(predict.predict, predict.map, predict.export, reports.evaluate, reports.card, app.app),
)
_HELP = {"help_option_names": ["-h", "--help"]}
bhi = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, context_settings=_HELP)
for _command in COMMANDS:
    bhi.command()(_command)


@bhi.callback(invoke_without_command=True)
def _begin(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Breast histopathology notebooks: run them, or use what they made."""
    if version:
        print(f"bhi_utils {__version__}")
        raise typer.Exit
    if not context.invoked_subcommand:
        raise InputError("A command is missing: see `bhi --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Returns:
        0 fine, 2 the user's input is wrong (one sentence on stderr), 130 interrupted, 1 anything else.
    """
    for stream in (sys.stdout, sys.stderr):
        # a Windows console or a pipe may not know "−" or "…"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    words = options.one_value_each(sys.argv[1:] if argv is None else argv)
    try:
        code = typer.main.get_command(bhi).main(words, prog_name="bhi", standalone_mode=False) or 0
    except InputError as error:
        print(f"bhi: {error}", file=sys.stderr)
        return 2
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        said = error.format_message().replace("Value error, ", "").rstrip(".")
        print(f"bhi: {said}: see `{context.command_path if context else 'bhi'} --help`.", file=sys.stderr)
        return 2
    if code == 130:
        print("bhi: interrupted", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
