"""Whose turn it is to prove a login: one at a time per server and role, five a second, the
undecided first.
"""

import asyncio
from dataclasses import replace
from time import monotonic

import pytest

from monitor.core.cause import Cause
from monitor.core.database import Address
from monitor.feeler import proofs
from monitor.feeler.causes import Failed
from monitor.feeler.proofs import Door, Doors, Told, Urgency
from tests.waiting import eventually

ADDRESS = Address("db.example", 5432, "orders", "feeler")
HERE, THERE = "192.0.2.1", "192.0.2.2"
UNDECIDED, DUE, REPEATED = Urgency


@pytest.fixture
def door() -> Door:
    return Doors().of(ADDRESS)


class Party:
    """Somebody who asks again as soon as it is woken."""

    def __init__(self, name: str, door: Door, urgency: Urgency, served: list[str]) -> None:
        self.name, self._door, self._urgency, self._served = name, door, urgency, served

    def ask(self) -> bool:
        return self._door.take(self, self._urgency, self._woken)

    def _woken(self) -> None:
        assert self.ask()
        self._served.append(self.name)
        asyncio.get_running_loop().call_soon(self._door.give_back, self)


async def test_one_at_a_time_and_the_undecided_first(door: Door) -> None:
    served: list[str] = []
    first = Party("first", door, DUE, served)
    assert first.ask()
    later = [("repeated", REPEATED), ("due", DUE), ("undecided", UNDECIDED), ("due too", DUE)]
    assert not any(Party(name, door, urgency, served).ask() for name, urgency in later)
    began = monotonic()
    door.give_back(first)
    await eventually(lambda: len(served) == 4, within=5)
    assert served == ["undecided", "due", "due too", "repeated"]
    assert monotonic() - began >= 3 * proofs.SPACING


async def test_a_turn_nobody_takes_goes_to_the_next(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "RESERVED", 0.05)
    served: list[str] = []
    first, sleepy, awake = object(), object(), Party("awake", door, REPEATED, served)
    assert door.take(first, DUE, lambda: None)
    assert not door.take(sleepy, DUE, lambda: None)
    assert not awake.ask()
    door.give_back(first)
    await eventually(lambda: served == ["awake"], within=5)


async def test_whoever_leaves_waits_no_longer(door: Door) -> None:
    served: list[str] = []
    first, gone, stays = (
        object(),
        Party("gone", door, UNDECIDED, served),
        Party("stays", door, DUE, served),
    )
    assert door.take(first, DUE, lambda: None)
    assert not gone.ask()
    assert not stays.ask()
    door.give_back(gone)
    door.give_back(first)
    await eventually(lambda: served == ["stays"], within=5)


async def test_roles_wait_apart_and_share_the_pace_of_their_server() -> None:
    doors = Doors()
    one, other, elsewhere = (
        doors.of(replace(ADDRESS, **change)) for change in ({}, {"user": "u"}, {"port": 1})
    )
    assert doors.of(replace(ADDRESS, dbname="ledger")) is one
    assert one.take(1, DUE, lambda: None)
    assert elsewhere.take(1, DUE, lambda: None)
    woken = asyncio.Event()
    assert not other.take(1, DUE, woken.set), "too soon for this server"
    async with asyncio.timeout(5):
        await woken.wait()
    assert other.take(1, DUE, woken.set)


async def test_each_worker_takes_its_share_of_the_pace_and_what_decides_waits_for_nobody() -> None:
    door = Doors(workers=lambda: 5).of(ADDRESS)
    served: list[str] = []
    assert door.take(1, DUE, lambda: None)
    door.give_back(1)
    began = monotonic()
    assert not Party("routine", door, DUE, served).ask()
    assert not Party("undecided", door, UNDECIDED, served).ask()
    await eventually(lambda: served == ["undecided"], within=5)
    assert monotonic() - began < 3 * proofs.SPACING
    await eventually(lambda: served == ["undecided", "routine"], within=5)
    assert monotonic() - began >= 4.9 * proofs.SPACING


def test_what_one_address_says_of_logins_is_said_of_that_one_alone() -> None:
    server, refused = Doors().of(ADDRESS).server, Failed(Cause.PORT_CLOSED)
    server.failed(None, Told(refused, HERE, monotonic()))
    server.failed(None, Told(refused, THERE, monotonic()))
    assert server.told(THERE, 0.0) is None, "the first one there"
    server.failed(None, Told(refused, THERE, monotonic()))
    server.entered(HERE)
    assert server.told(THERE, 0.0) is refused
    assert not server.entered_since(0.0, THERE)
    assert server.entered_since(0.0, HERE)
    server.entered(THERE)
    assert server.told(THERE, 0.0) is None
    assert server.entered_since(0.0, THERE)
