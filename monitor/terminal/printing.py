"""What the CLI prints for pipes: one JSON document, one JSON a line, or tab-separated. Only cli.py
imports this.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from monitor.shapes import LastObservationShape, RegisteredShape, TransitionShape
from monitor.terminal import rendering
from monitor.terminal.client import Client, Refused

POLL = 2.0  # seconds between looks of `transitions --follow`
Row = TypeVar("Row")


def observations(
    answers: Sequence[LastObservationShape], missing: Sequence[str], form: str
) -> None:
    """Print what `get` found."""
    if form == "json":
        _write(json.dumps({"data": answers, "missing": missing}, indent=2, ensure_ascii=False))
    else:
        _print(answers, form, rendering.PLAIN_COLUMNS, rendering.plain_row)


def databases(rows: Sequence[RegisteredShape], form: str) -> None:
    """Print registered databases."""
    _print(rows, form, rendering.DATABASE_COLUMNS, rendering.database_row)


def transitions(rows: Sequence[TransitionShape], form: str) -> None:
    """Print transitions."""
    _print(rows, form, rendering.TRANSITION_COLUMNS, rendering.transition_row)


def follow(client: Client, name: str, known: set[str], form: str) -> None:
    """Print transitions as they become durable, one a line, until interrupted."""
    try:
        while True:
            time.sleep(POLL)
            try:
                rows = client.news(name, known)[::-1]
            except Refused as error:
                sys.stderr.write(f"feeler: {error}\n")
                continue
            for row in rows:
                _write(
                    _compact(row) if "json" in form else "\t".join(rendering.transition_row(row))
                )
            known |= {row["identity"] for row in rows}
    except KeyboardInterrupt:
        return


def _print(
    rows: Sequence[Row], form: str, columns: Sequence[str], cells: Callable[[Row], Sequence[str]]
) -> None:
    if form == "json":
        _write(json.dumps({"data": rows}, indent=2, ensure_ascii=False))
    elif form == "ndjson":
        for row in rows:
            _write(_compact(row))
    else:
        _write("\t".join(columns))
        for row in rows:
            _write("\t".join(cells(row)))


def _compact(row: object) -> str:
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
