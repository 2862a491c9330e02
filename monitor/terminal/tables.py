"""What the CLI draws on a terminal: rendering's words, with columns and colours. Only cli.py
imports this.
"""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.shapes import LastObservationShape, RegisteredShape, TransitionShape
from monitor.terminal import rendering
from monitor.terminal.rendering import GLYPHS, STALE

STYLES = {"available": "green", "uncertain": "yellow", "unavailable": "bold red", "new": "dim"}
TROUBLE = "magenta"  # every other state
PIPE_WIDTH = 240  # columns where there is no terminal to ask
_STYLE_OF_GLYPH = {glyph: STYLES.get(state, TROUBLE) for state, glyph in GLYPHS.items()}
_WHOLE = {"NAME", "STATE", "AT", "FROM", "TO"}  # columns never folded


def observations(
    answers: Iterable[LastObservationShape], now: float, *, wide: bool = False
) -> None:
    """Draw what `get` found."""
    if wide:
        _draw(rendering.WIDE_COLUMNS, (rendering.wide_row(one, now) for one in answers))
    else:
        _draw(rendering.COLUMNS, (rendering.observation_row(one, now) for one in answers))


def databases(rows: Iterable[RegisteredShape]) -> None:
    """Draw registered databases."""
    _draw(rendering.DATABASE_COLUMNS, map(rendering.database_row, rows))


def transitions(rows: Iterable[TransitionShape]) -> None:
    """Draw transitions."""
    _draw(rendering.TRANSITION_COLUMNS, map(rendering.transition_row, rows))


def info(answer: LastObservationShape, now: float) -> None:
    """Print what is true of one database now."""
    name, state, since = rendering.info_head(answer, now)
    console = _console()
    console.print(
        Text(f"{name}  ", style="bold") + _cell(state) + Text(f" {since}"), soft_wrap=True
    )
    for head, text in rendering.info_lines(answer):
        console.print(Text(f"  {head:<11} ", style="dim") + Text(text), soft_wrap=True)


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in _WHOLE, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _console().print(table)


def _cell(text: str) -> Text:
    """Return the text in its colour; colours repeat what words and glyphs say."""
    return Text(text, style="reverse" if STALE in text else _STYLE_OF_GLYPH.get(text[:1], ""))


def _console() -> Console:
    """Return a console that neither guesses at words nor folds lines for a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
