"""Names are resolved off the loop, once for all who ask, and remembered for when the resolver is
away.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Iterator

import pytest

from monitor.core.cause import Cause
from monitor.feeler import names
from monitor.feeler.causes import Failed
from monitor.feeler.names import Addresses, Names
from tests.waiting import eventually


class Resolver:
    """A resolver under command: `answer` for every name, after `gate` opens."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: list[str] | OSError = ["192.0.2.1", "192.0.2.1", "2001:db8::1"]
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, host: str) -> tuple[str, ...]:
        self.asked += 1
        self.gate.wait(10)
        if isinstance(self.answer, OSError):
            raise self.answer
        return tuple(self.answer)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.gate.set()


def until(seconds: float = 1.0) -> float:
    return time.monotonic() + seconds


async def cause(asked: Awaitable[Addresses]) -> Cause:
    with pytest.raises(Failed) as failed:
        await asked
    return failed.value.cause


async def test_addresses_need_no_resolver(resolver: Resolver) -> None:
    known = Names(resolver)
    assert await known.resolve("192.0.2.9", until()) == Addresses(("192.0.2.9",))
    assert await known.resolve("2001:db8::9", until()) == Addresses(("2001:db8::9",))
    assert resolver.asked == 0


async def test_a_name_is_asked_for_once_a_second_at_most(resolver: Resolver) -> None:
    clock = Clock()
    known = Names(resolver, clock)
    for _ in range(3):
        assert (await known.resolve("db", until())).hosts[0] == "192.0.2.1"
    assert resolver.asked == 1
    clock.now += names.LOOKUP_TTL
    resolver.answer = ["192.0.2.2"]
    assert await known.resolve("db", until()) == Addresses(("192.0.2.2",))


async def test_an_old_answer_serves_while_the_resolver_fails_and_not_for_ever(
    resolver: Resolver,
) -> None:
    clock = Clock()
    known = Names(resolver, clock)
    await known.resolve("db", until())
    resolver.answer = socket.gaierror(socket.EAI_AGAIN, "away")
    clock.now += names.STALE_FOR
    assert (await known.resolve("db", until())).hosts[0] == "192.0.2.1"
    clock.now += 1
    assert await cause(known.resolve("db", until())) is Cause.DNS


async def test_what_was_known_is_marked_and_a_failed_look_up_is_not_tried_again_at_once(
    resolver: Resolver,
) -> None:
    clock = Clock()
    known = Names(resolver, clock)
    await known.resolve("db", until())
    resolver.answer = socket.gaierror(socket.EAI_NONAME, "gone")
    clock.now += 2
    for _ in range(3):
        assert (await known.resolve("db", until())).stale
        assert await cause(known.resolve("unknown", until())) is Cause.DNS
    assert resolver.asked == 3
    clock.now += names.LOOKUP_TTL
    resolver.answer = ["192.0.2.7"]
    assert await known.resolve("db", until()) == Addresses(("192.0.2.7",))


async def test_a_name_is_looked_up_again_while_nobody_logs_in(resolver: Resolver) -> None:
    clock = Clock()
    known = Names(resolver, clock)
    assert known.refresh("db") is None, "nobody ever asked"
    await known.resolve("db", until())
    assert known.refresh("db") is None
    clock.now += names.REFRESH_AFTER
    resolver.answer = ["192.0.2.2"]
    look_up = known.refresh("db")
    assert look_up
    assert known.refresh("db") is None, "one at a time"
    await look_up
    assert known.leads_to("db", "192.0.2.2")
    assert not known.leads_to("db", "192.0.2.1")
    assert known.refresh("db") is None
    assert known.leads_to("192.0.2.9", "192.0.2.9")


async def test_a_slow_resolver_costs_half_the_time_when_an_old_answer_is_there(
    resolver: Resolver,
) -> None:
    clock = Clock()
    known = Names(resolver, clock)
    await known.resolve("db", until())
    clock.now += names.REFRESH_AFTER + 1
    resolver.gate.clear()
    began = time.monotonic()
    assert (await known.resolve("db", until(0.4))).hosts[0] == "192.0.2.1"
    assert 0.15 < time.monotonic() - began < 0.35


async def test_a_slow_resolver_holds_nobody_up_and_is_asked_once(resolver: Resolver) -> None:
    known = Names(resolver)
    resolver.gate.clear()
    asked = [asyncio.create_task(known.resolve("db", until(0.2))) for _ in range(5)]
    assert {await cause(each) for each in asked} == {Cause.DNS}
    assert resolver.asked == 1
    resolver.gate.set()
    await eventually(lambda: is_known(known, "db"))


async def is_known(known: Names, host: str) -> bool:
    return bool((await known.resolve(host, until())).hosts)


async def test_waiting_for_a_thread_of_ours_is_our_fault(resolver: Resolver) -> None:
    known = Names(resolver)
    resolver.gate.clear()
    asked = [asyncio.create_task(known.resolve(f"db{number}", until(0.3))) for number in range(20)]
    causes = [await cause(each) for each in asked]
    assert causes.count(Cause.DNS) == 16
    assert causes.count(Cause.LATE_LOOP) == 4


async def test_localhost_is_what_this_machine_says() -> None:
    assert "127.0.0.1" in (await Names().resolve("localhost", until(5))).hosts
