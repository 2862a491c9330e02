"""Who may own databases: decided on presences alone, without a server."""

from typing import Any

import pytest

from monitor.live.connections import Live
from monitor.live.presence import Presence
from tests.factories import here
from workers.supervisor import roster
from workers.supervisor.roster import Roster


@pytest.fixture
def ours() -> Roster:
    nowhere: Any = None
    live: Live = nowhere
    return Roster(live)


def presences(*workers: str, **more: Any) -> dict[str, Presence]:
    return {worker: here(worker, **more) for worker in workers}


def test_who_leaves_gets_nothing(ours: Roster) -> None:
    present = presences("stays") | presences("leaves", leaving=True)
    assert ours.candidates(present, (), ()).keys() == {"stays"}


def test_who_can_watch_nothing_gets_nothing_unless_nobody_can(ours: Roster) -> None:
    blind = presences("blind", able=False)
    assert ours.candidates(blind | presences("able"), (), ()).keys() == {"able"}
    assert ours.candidates(blind, (), ()).keys() == {"blind"}


def test_the_barred_get_nothing_unless_there_is_nobody_else(ours: Roster) -> None:
    present = presences("barred", "other")
    assert ours.candidates(present, (), {"barred"}).keys() == {"other"}
    assert ours.candidates(present, (), {"barred", "other"}).keys() == {"barred", "other"}


def test_absent_owners_that_are_spared_keep_what_they_have(ours: Roster) -> None:
    found = ours.candidates(presences("here"), {"absent"}, ())
    assert found.keys() == {"here", "absent"}


def test_an_absence_proves_nothing_until_redis_was_steady(
    ours: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(roster.time, "monotonic", lambda: now[0])
    ours.interrupted()
    assert ours.is_shaken
    now[0] += roster.ABSENCE_GRACE
    assert not ours.is_shaken
