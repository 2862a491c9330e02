"""The judge of databases that move, come and go: the truth is their server's."""

from dataclasses import replace

import pytest

from tests.faults.demands import outages
from tests.faults.history import demand
from tests.faults.moving import resolved
from tests.faults.observed import Change, Connections, Effect, Fault, History
from tests.faults.test_history import DB, PORT, START, at, fault, names, tell

AWAY = 6543  # another server's port
NOWHERE = None
START_OF_IT = Change(DB, START, START, PORT)


def moved(history: History, *changes: tuple[float, int | None]) -> History:
    """Note when the database moved where."""
    later = [Change(DB, at(when), at(when), port) for when, port in changes]
    history.changes = [START_OF_IT, *later]
    history.faults = resolved(history)
    return history


def of_server(
    port: int, began: float, ended: float | None, effect: Effect = Effect.ABSENT
) -> Fault:
    return replace(fault(effect, began, ended), databases=frozenset(), port=port)


def meets(seconds: float, began: float, ended: float, *servers: Fault) -> History:
    """Make a run in which the database was met dead, and what was done to its servers."""
    history = tell(seconds, fault(Effect.ABSENT, began, ended))
    history.faults, history.connections = list(servers), []
    return history


def test_a_dead_server_is_left_for_a_living_one() -> None:
    history = moved(meets(120, 20, 42, of_server(PORT, 20, 200)), (40, AWAY))
    assert demand(history) == 0
    assert [one.until for one in outages(history)] == [at(40)]


def test_a_dead_server_is_not_the_truth_of_who_left_it() -> None:
    history = moved(meets(120, 30, 60, of_server(PORT, 30, 60)), (20, AWAY))
    assert names(history) == {"no_false_unavailable", "rules"}


def test_who_moves_to_a_dead_server_must_be_called_in_time() -> None:
    dead = of_server(AWAY, 0, 200)
    assert demand(moved(meets(120, 20, 60, dead), (20, AWAY), (60, PORT))) == 0
    missed = moved(meets(120, 17, 18, dead), (20, AWAY), (60, PORT))
    assert names(missed) == {"rules"}


@pytest.mark.parametrize("effect", [Effect.ABSENT, Effect.SILENT])
def test_while_not_all_know_of_the_move_either_server_may_be_met(effect: Effect) -> None:
    history = moved(meets(120, 18, 18.1, of_server(PORT, 10, 200, effect)), (15, AWAY))
    felt = [(one.effect, one.began, one.ended) for one in history.faults if DB in one.databases]
    assert felt == [(effect, at(10), at(15)), (Effect.EITHER, at(15), at(25))]


def retired(began: float, ended: float) -> History:
    """Tell of a run in which the database was retired for some time."""
    history = tell(120)
    history.sights[DB] = [one for one in history.sights[DB] if not at(began) < one.at < at(ended)]
    gone = replace(history.sights[DB][0], at=at(began + 2), fields={})
    history.sights[DB] = sorted([*history.sights[DB], gone], key=lambda one: one.at)
    return moved(history, (began, NOWHERE), (ended, PORT))


def test_what_nobody_is_to_watch_may_be_forgotten() -> None:
    assert demand(retired(30, 60)) == 0


def test_what_nobody_is_to_watch_is_written_by_nobody() -> None:
    assert names(moved(meets(120, 5, 6), (30, NOWHERE), (60, PORT))) == {"withdrawn"}
    assert names(moved(meets(120, 5, 6), (30, NOWHERE))) == {"withdrawn"}


def test_nobody_is_connected_where_no_database_lives() -> None:
    history = moved(tell(120), (30, AWAY))
    assert names(history) == {"strays"}  # that of second 90
    history.connections = [Connections(at(34), "w1", PORT, 1), Connections(at(60), "w2", AWAY, 1)]
    assert demand(history) == 0
