"""Databases that move, or come and go: a server's fault is a database's own as long as it lives
there. Pure.

evidence.py and lab.py make each database's faults with it; history.py judges with it.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tests.faults.demands import DOWN, STANDARD, Bounds, Violation, end, ours, put_off, reaches
from tests.faults.observed import Effect, Fault, History


class Stay(NamedTuple):
    """A stretch of a database at one port, or nowhere; `settled` once all know it."""

    port: int | None
    since: float
    settled: float
    until: float  # the next change begins
    left: float  # all know that


def stays(history: History, database: str, bounds: Bounds = STANDARD) -> list[Stay]:
    """Return where a database was told to live, by time; nothing where that never changed."""
    changes = [one for one in history.changes if one.database == database]
    known = [put_off(history, one.ended, bounds.taken_up, bounds) for one in changes]
    begun = [one.began for one in changes]
    ends = zip([*begun[1:], math.inf], [*known[1:], math.inf], strict=True)
    found = [
        Stay(one.port, one.began, settled, *over)
        for one, settled, over in zip(changes, known, ends, strict=True)
    ]
    return [found[0]._replace(settled=found[0].since), *found[1:]] if found else []


def movers(history: History) -> list[str]:
    """Return the databases whose place changed."""
    return sorted({one.database for one in history.changes})


def resolved(history: History, bounds: Bounds = STANDARD) -> list[Fault]:
    """Return the faults, those of servers as the databases felt them that lived there."""
    moving = frozenset(movers(history))
    fixed = [
        replace(one, databases=one.databases - moving) if one.port else one
        for one in history.faults
    ]
    felt = [one for database in moving for one in _felt(history, database, bounds)]
    return sorted([*fixed, *felt], key=lambda fault: fault.began)


def _felt(history: History, database: str, bounds: Bounds) -> Iterator[Fault]:
    for stay in stays(history, database, bounds):
        if stay.port is None:
            alone = Fault("nobody is to watch it", Effect.UNWATCHED, stay.since)
            yield _during(alone, database, stay.since, stay.left)
        for fault in history.faults:
            if stay.port and fault.port == stay.port:
                yield from _clipped(fault, database, stay)


def _clipped(fault: Fault, database: str, stay: Stay) -> Iterator[Fault]:
    """Cut a server's fault to a stay; while not all know of it, both are true."""
    parts = [
        (stay.since, stay.settled, False),
        (stay.settled, stay.until, True),
        (stay.until, stay.left, False),
    ]
    if stay.settled >= stay.until:
        parts = [(stay.since, stay.left, False)]
    for since, until, sure in parts:
        began, ended = max(fault.began, since), min(end(fault), until)
        if began < ended:
            effect = Effect.EITHER if fault.effect in DOWN and not sure else fault.effect
            yield _during(replace(fault, effect=effect), database, began, ended)


def _during(fault: Fault, database: str, began: float, ended: float) -> Fault:
    over = None if math.isinf(ended) else ended
    return replace(fault, began=began, ended=over, databases=frozenset([database]), port=0)


# --- judging --------------------------------------------------------------------------------------


def withdrawn(history: History, bounds: Bounds = STANDARD) -> Iterator[Violation]:
    """Demand that nobody writes about a database not watched, and that Redis forgets it."""
    for database in movers(history):
        for stay in stays(history, database, bounds):
            if stay.port is None:
                texts = [*_written(history, database, stay)]
                texts += _kept(history, database, stay, bounds)
                yield from (Violation("withdrawn", database, text) for text in texts)


def _written(history: History, database: str, stay: Stay) -> Iterator[str]:
    for sight in history.sights.get(database, []):
        at = float(sight.fields.get("observed_at", 0))
        if stay.settled < at < stay.until:
            yield (
                f"observed at {at:.3f} by {sight.fields.get('seen_by')}, after it was retired at "
                f"{stay.since:.3f}"
            )
    for row in history.rows.get(database, []):
        if stay.settled < row.transition.at < stay.until:
            yield (
                f"{row.transition.identity} at {row.transition.at:.3f}, after it was retired at "
                f"{stay.since:.3f}"
            )


def _kept(history: History, database: str, stay: Stay, bounds: Bounds) -> Iterator[str]:
    """Name a hash that stays; what a restore brings back is there until it is withdrawn."""
    seen = itertools.pairwise([*history.sights.get(database, []), None])
    for sight, later in seen:
        since, until = (
            max(sight.at, stay.settled),
            min(later.at if later else history.ended, stay.until),
        )
        excused = any(
            reaches(one, since, until, after=bounds.allowance) for one in ours(history, bounds)
        )
        if sight.fields and since < until and not excused:
            yield f"still in Redis at {since:.3f}, after it was retired at {stay.since:.3f}"


def strays(history: History, bounds: Bounds = STANDARD) -> Iterator[Violation]:
    """Demand that no worker is connected where none of its databases lives any more."""
    lived = {database: stays(history, database, bounds) for database in movers(history)}
    places = [stay for its in lived.values() for stay in its if stay.port]
    ports = {stay.port for stay in places} - {
        port for database, port in history.ports.items() if database not in lived
    }
    for one in history.connections:
        lives = any(stay.port == one.port and stay.since <= one.at <= stay.left for stay in places)
        if one.port in ports and not lives:
            text = f"connected to port {one.port} at {one.at:.3f}, where no database lives any more"
            yield Violation("strays", one.worker, text)


def ports_of(history: History, database: str) -> set[int]:
    """Return every port a database lived at."""
    told = {one.port for one in history.changes if one.database == database and one.port}
    return told | {history.ports[database]}
