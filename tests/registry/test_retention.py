"""How long transitions are kept: old ones go, versions stay, and what comes again stays gone."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import text

from monitor.core.event import Transition
from monitor.core.status import State
from monitor.registry import retention
from monitor.registry.retention import prune
from monitor.registry.store import Store
from monitor.registry.transitions import Written, last_status, read_transitions, write_transitions
from tests.registry.making import line

DAY = 86_400.0
DAYS = 30


def flapping(
    count: int, *, database: str = "db1", first: float = 100, step: float = 1
) -> list[Transition]:
    """Make transitions to unavailable and available in turn, the first half a day less than so many
    days ago.
    """
    now = time.time()
    rows = line(*(f"1.1.{n}" for n in range(1, count + 1)), database=database)
    states = (State.UNAVAILABLE, State.AVAILABLE)
    return [
        replace(one, at=round(now - (first - 0.5 - i * step) * DAY, 3), target=states[i % 2])
        for i, one in enumerate(rows)
    ]


def write(store: Store, rows: Sequence[Transition], days: int = 0) -> Written:
    """Write them as if each had been written when it happened."""
    written = write_transitions(store, rows, days)
    with store.begin() as connection:
        connection.execute(text("UPDATE transitions SET recorded_at = at"))
    return written


def prune_all(store: Store, days: int = DAYS, now: float | None = None) -> int:
    rows, after = 0, ""
    while True:
        pruned = prune(store, days, time.time() if now is None else now, after)
        rows, after = rows + pruned.rows, pruned.after
        if not (pruned.rows or after):
            return rows


def kept(store: Store, database: str = "db1") -> list[tuple[str, int | None]]:
    """Return identities and versions, oldest first."""
    return [
        (str(row.transition.identity), row.version)
        for row in read_transitions(store, database, limit=1000)
    ][::-1]


def numbered(names: Sequence[int]) -> list[tuple[str, int | None]]:
    return [(f"1.1.{n}", n) for n in names]


def test_old_ones_go_and_versions_stay(store: Store) -> None:
    history = flapping(100)
    write(store, history, DAYS)
    assert prune_all(store) == 70
    assert kept(store) == numbered(range(71, 101))
    assert prune_all(store) == 0
    write(store, flapping(102)[100:], DAYS)
    assert kept(store) == numbered(range(71, 103)), "numbers go on"


@pytest.mark.parametrize("count", [50, 51])
def test_the_newest_stays_and_all_since_it_was_available_last(store: Store, count: int) -> None:
    write(store, flapping(count, first=1000))
    status = last_status(store, ["db1"])
    prune_all(store)
    assert kept(store) == numbered([50, 51][: count - 49])
    assert last_status(store, ["db1"]) == status


def test_who_was_never_available_keeps_all(store: Store) -> None:
    rows = [replace(one, target=State.LOCKED_OUT) for one in flapping(20, first=1000)]
    write(store, rows)
    assert prune_all(store) == 0


def test_every_database_has_its_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "NAMES", 3)
    monkeypatch.setattr(retention, "MOST", 4)
    names = [f"db{n}" for n in range(8)]
    for name in names:
        write(store, flapping(40, database=name, first=40))
    assert prune(store, DAYS, time.time()).rows == 3 * 4, "a few at a time"
    prune_all(store)
    assert all(kept(store, name) == numbered(range(11, 41)) for name in names)


def test_what_is_told_again_stays_gone_and_is_durable(store: Store) -> None:
    history = flapping(100)
    write(store, history)
    prune_all(store)
    before = kept(store)
    written = write(store, history[::-1], DAYS)
    assert len(written.durable) == 100, "its worker keeps it no longer"
    assert (kept(store), written.conflicts) == (before, 0)


def test_an_old_one_of_which_nothing_newer_is_known_is_written(store: Store) -> None:
    """Postgres was away for a year, or is new."""
    history = flapping(5, first=400)
    write(store, history, DAYS)
    assert kept(store) == numbered(range(1, 6))


def test_a_late_arrival_and_a_fork_number_on_from_what_is_left(store: Store) -> None:
    history = flapping(100)
    write(store, [*history[:90], *history[91:]])
    prune_all(store)
    assert kept(store)[-1] == ("1.1.100", 99)
    write(store, [history[90]], DAYS)
    assert kept(store) == numbered(range(71, 101))
    late = replace(history[60], at=time.time())
    write(store, [late], DAYS)
    assert kept(store) == [("1.1.61", None), *numbered(range(71, 101))], (
        "below what is left it has no number"
    )


def test_no_single_clock_deletes(store: Store) -> None:
    write(store, flapping(20, first=20))
    assert prune_all(store, now=time.time() + 1000 * DAY) == 0, "Redis's clock went ahead"
    assert prune_all(store, now=time.time() - 1000 * DAY) == 0


def test_nor_does_a_clock_that_was_wrong(store: Store) -> None:
    """Redis's clock was years behind, and is right again."""
    write_transitions(store, flapping(20, first=1000))
    assert prune_all(store) == 0, "written a moment ago"


def test_a_row_dated_later_than_those_after_it_ends_what_goes(store: Store) -> None:
    history = flapping(100)
    history[9] = replace(history[9], at=time.time())
    write(store, history)
    prune_all(store)
    assert kept(store) == numbered(range(10, 101)), "no hole in the chain"
