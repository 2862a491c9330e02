"""What every command shares: names and URLs as they are given, errors as one line and an exit code.

Loaded with every command, so it imports core and typer alone. Only cli.py imports this.
"""

import os
import sys
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from monitor.core.database import parse_address
from monitor.core.errors import FeelerError, InvalidInput, NotFound

FAILED, USAGE, CONDITION_FALSE, STALE_OR_UNKNOWN = 1, 2, 3, 4  # exit codes

Format = Literal["table", "json", "ndjson", "tsv"]
GetFormat = Literal["table", "wide", "json", "ndjson", "tsv"]
Role = Literal["web", "supervisor", "worker"]


class Commands(TyperGroup):
    """Turns expected errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except FeelerError as error:
            say(f"feeler: {error}")
            raise typer.Exit(_exit_code(error)) from None
        except BrokenPipeError:  # `feeler get | head`
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            raise typer.Exit(FAILED) from None


def _exit_code(error: FeelerError) -> int:
    if isinstance(error, NotFound) or getattr(error, "missing", False):
        return STALE_OR_UNKNOWN
    return USAGE if isinstance(error, InvalidInput) else FAILED


def say(text: str) -> None:
    """Tell people something that is not data."""
    typer.echo(text, err=True)


def check_not_empty(given: str | list[str] | None) -> str | list[str] | None:
    """Refuse an empty name: a variable that is not set must not mean the whole fleet."""
    names = [given] if isinstance(given, str) else given
    for name in names or ():
        if not name.strip():
            raise InvalidInput("name", "is empty", "is a variable not set?")
    return given


def given_url(given: str) -> str:
    """Return the URL that was given, or fetch it from where no process list shows it."""
    if given == "-":
        if sys.stdin.isatty():
            return str(typer.prompt("URL", hide_input=True, err=True))
        return sys.stdin.readline().strip()
    if given.startswith("env:"):
        name = given.removeprefix("env:")
        value = os.environ.get(name, "").strip()
        if not value:
            raise InvalidInput("url", "the variable it names is not set here")
        return value
    if parse_address(given).password:
        seen = "a password on the command line is seen by every user of this machine"
        say(f"warning: {seen}; use - or env:NAME")
    return given


def form_of(output: Format | None) -> Format:
    """Return the output form: as asked, else a table for people and TSV for a pipe."""
    if output:
        return output
    return "table" if sys.stdout.isatty() else "tsv"


Output = Annotated[
    Format | None, typer.Option("-o", "--output", help="Default: table on a terminal, else tsv.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", callback=check_not_empty)]
