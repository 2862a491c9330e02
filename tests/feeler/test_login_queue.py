"""Whose turn it is to prove a login: one at a time per server and role, five a second, the
undecided first.
"""

import asyncio
from dataclasses import replace
from time import monotonic

import pytest

from monitor.core.database import Address
from monitor.feeler import login_queue
from monitor.feeler.login_queue import LoginQueue, LoginQueues, Urgency
from tests.waiting import eventually

ADDRESS = Address("db.example", 5432, "orders", "feeler")
UNDECIDED, DUE, REPEATED = Urgency


@pytest.fixture
def queue() -> LoginQueue:
    return LoginQueues().of(ADDRESS)


class Party:
    """Somebody who asks again as soon as it is woken."""

    def __init__(self, name: str, queue: LoginQueue, urgency: Urgency, served: list[str]) -> None:
        self.name, self._queue, self._urgency, self._served = name, queue, urgency, served

    def ask(self) -> bool:
        return self._queue.enter(self, self._urgency, self._woken)

    def _woken(self) -> None:
        assert self.ask()
        self._served.append(self.name)
        asyncio.get_running_loop().call_soon(self._queue.leave, self)


async def test_one_at_a_time_and_the_undecided_first(queue: LoginQueue) -> None:
    served: list[str] = []
    first = Party("first", queue, DUE, served)
    assert first.ask()
    later = [("repeated", REPEATED), ("due", DUE), ("undecided", UNDECIDED), ("due too", DUE)]
    assert not any(Party(name, queue, urgency, served).ask() for name, urgency in later)
    began = monotonic()
    queue.leave(first)
    await eventually(lambda: len(served) == 4, within=5)
    assert served == ["undecided", "due", "due too", "repeated"]
    assert monotonic() - began >= 3 * login_queue.SPACING


async def test_a_turn_nobody_takes_goes_to_the_next(
    queue: LoginQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_queue, "RESERVED", 0.05)
    served: list[str] = []
    first, sleepy, awake = object(), object(), Party("awake", queue, REPEATED, served)
    assert queue.enter(first, DUE, lambda: None)
    assert not queue.enter(sleepy, DUE, lambda: None)
    assert not awake.ask()
    queue.leave(first)
    await eventually(lambda: served == ["awake"], within=5)


async def test_whoever_leaves_waits_no_longer(queue: LoginQueue) -> None:
    served: list[str] = []
    first, gone, stays = (
        object(),
        Party("gone", queue, UNDECIDED, served),
        Party("stays", queue, DUE, served),
    )
    assert queue.enter(first, DUE, lambda: None)
    assert not gone.ask()
    assert not stays.ask()
    queue.leave(gone)
    queue.leave(first)
    await eventually(lambda: served == ["stays"], within=5)


async def test_roles_wait_apart_and_share_the_pace_of_their_server() -> None:
    queues = LoginQueues()
    one, other, elsewhere = (
        queues.of(replace(ADDRESS, **change)) for change in ({}, {"user": "u"}, {"port": 1})
    )
    assert queues.of(replace(ADDRESS, dbname="ledger")) is one
    assert one.enter(1, DUE, lambda: None)
    assert elsewhere.enter(1, DUE, lambda: None)
    woken = asyncio.Event()
    assert not other.enter(1, DUE, woken.set), "too soon for this server"
    async with asyncio.timeout(5):
        await woken.wait()
    assert other.enter(1, DUE, woken.set)


async def test_each_worker_takes_its_share_of_the_pace_and_what_decides_waits_for_nobody() -> None:
    queue = LoginQueues(workers=lambda: 5).of(ADDRESS)
    served: list[str] = []
    assert queue.enter(1, DUE, lambda: None)
    queue.leave(1)
    began = monotonic()
    assert not Party("routine", queue, DUE, served).ask()
    assert not Party("undecided", queue, UNDECIDED, served).ask()
    await eventually(lambda: served == ["undecided"], within=5)
    assert monotonic() - began < 3 * login_queue.SPACING
    await eventually(lambda: served == ["undecided", "routine"], within=5)
    assert monotonic() - began >= 4.9 * login_queue.SPACING
