"""Rows and lines drawn on a terminal, with columns and colours. Only cli.py imports this.

rich is loaded here, so this is imported where a table is wanted.
"""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.shapes import LastObservationShape, RegisteredShape, TransitionShape
from monitor.terminal import rows
from monitor.terminal.rows import STALE
from monitor.terminal.values import GLYPHS

STYLES = {"available": "green", "uncertain": "yellow", "unavailable": "bold red", "new": "dim"}
TROUBLE = "magenta"  # every other state
PIPE_WIDTH = 240  # columns where there is no terminal to ask
HEADING_WIDTH = len("unreachable_from")
_STYLE_OF_GLYPH = {glyph: STYLES.get(state, TROUBLE) for state, glyph in GLYPHS.items()}
_NEVER_FOLDED = {"NAME", "STATE", "AT", "FROM", "TO"}


def observations(
    answers: Iterable[LastObservationShape], now: float, *, wide: bool = False
) -> None:
    """Draw what `get` found."""
    columns: Sequence[str] = rows.WIDE_COLUMNS if wide else rows.COLUMNS
    row = rows.wide_row if wide else rows.observation_row
    _draw(columns, (row(answer, now) for answer in answers))


def databases(registered: Iterable[RegisteredShape]) -> None:
    """Draw registered databases."""
    _draw(rows.DATABASE_COLUMNS, map(rows.database_row, registered))


def transitions(found: Iterable[TransitionShape]) -> None:
    """Draw transitions."""
    _draw(rows.TRANSITION_COLUMNS, map(rows.transition_row, found))


def info(answer: LastObservationShape, now: float) -> None:
    """Print what is true of one database now."""
    name, state, since = rows.info_head(answer, now)
    console = _console()
    head = Text(f"{name}  ", style="bold")
    head += _cell(state)
    head += Text(f" {since}")
    console.print(head, soft_wrap=True)
    for heading, text in rows.info_lines(answer):
        line = Text(f"  {heading:<{HEADING_WIDTH}} ", style="dim")
        line += Text(text)
        console.print(line, soft_wrap=True)


def _draw(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in _NEVER_FOLDED, overflow="fold")
    for line in lines:
        table.add_row(*map(_cell, line))
    _console().print(table)


def _cell(text: str) -> Text:
    """Return the text in its colour; colours repeat what words and glyphs say."""
    if STALE in text:
        return Text(text, style="reverse")
    style = _STYLE_OF_GLYPH.get(text[:1], "")
    return Text(text, style=style)


def _console() -> Console:
    """Return a console that neither guesses at words nor folds lines for a pipe."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(highlight=False, width=width)
