"""Answers for pipes: one JSON document, one JSON a line, or tab-separated.

Only cli.py imports this.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from monitor.shapes import LastObservationShape, RegisteredShape, TransitionShape
from monitor.terminal import rows
from monitor.terminal.client import Client, Refused

POLL = 2.0  # seconds between looks of `transitions --follow`
Answer = TypeVar("Answer")


def observations(
    answers: Sequence[LastObservationShape], missing: Sequence[str], form: str
) -> None:
    """Print what `get` found."""
    if form == "json":
        _write_document({"data": answers, "missing": missing})
    else:
        _print(answers, form, rows.PLAIN_COLUMNS, rows.plain_row)


def databases(registered: Sequence[RegisteredShape], form: str) -> None:
    """Print registered databases."""
    _print(registered, form, rows.DATABASE_COLUMNS, rows.database_row)


def transitions(found: Sequence[TransitionShape], form: str) -> None:
    """Print transitions."""
    _print(found, form, rows.TRANSITION_COLUMNS, rows.plain_transition_row)


def follow(client: Client, name: str, known: set[str], form: str) -> None:
    """Print transitions as they become durable, one a line, until interrupted."""
    try:
        while True:
            time.sleep(POLL)
            try:
                news = client.news(name, known)
            except Refused as error:
                sys.stderr.write(f"feeler: {error}\n")
                continue
            for one in reversed(news):
                _write_followed(one, form)
                known.add(one["identity"])
    except KeyboardInterrupt:
        return


def _write_followed(one: TransitionShape, form: str) -> None:
    if "json" in form:
        _write_json_line(one)
    elif form == "table":
        _write("\t".join(rows.transition_row(one)))
    else:
        _write("\t".join(rows.plain_transition_row(one)))


def _print(
    answers: Sequence[Answer],
    form: str,
    columns: Sequence[str],
    cells: Callable[[Answer], Sequence[str]],
) -> None:
    if form == "json":
        _write_document({"data": answers})
    elif form == "ndjson":
        for answer in answers:
            _write_json_line(answer)
    else:
        _write("\t".join(columns))
        for answer in answers:
            _write("\t".join(cells(answer)))


def _write_document(document: object) -> None:
    _write(json.dumps(document, indent=2, ensure_ascii=False))


def _write_json_line(answer: object) -> None:
    _write(json.dumps(answer, separators=(",", ":"), ensure_ascii=False))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
