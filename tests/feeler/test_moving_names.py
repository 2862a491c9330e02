"""A host name that leads elsewhere: the kept session follows it, and no negative about where it led
counts.
"""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic

import pytest

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.database import Address
from monitor.feeler import names
from monitor.feeler.login import LoginLimiter
from monitor.feeler.names import Names
from tests.feeler import hostile
from tests.feeler.conftest import MakeSession, feel
from tests.feeler.hostile import Hostile
from tests.waiting import eventually

OLD, NEW = "127.0.0.1", "127.0.0.2"
WELL = hostile.logged_in(hostile.honest)


class Zone:
    """What a name server would say, and a clock that can be put forward."""

    def __init__(self) -> None:
        self.later = 0.0
        self.answer: Callable[[], tuple[str, ...]] = lambda: (OLD,)

    def __call__(self, host: str) -> tuple[str, ...]:
        return self.answer()

    def lead_to(self, *addresses: str) -> None:
        self.answer = lambda: addresses

    def fail(self) -> None:
        def answer() -> tuple[str, ...]:
            raise socket.gaierror(socket.EAI_AGAIN, "away")

        self.answer = answer

    def limiter(self) -> LoginLimiter:
        logins = LoginLimiter()
        logins.names = Names(self, lambda: monotonic() + self.later)
        return logins


@pytest.fixture
def zone() -> Zone:
    return Zone()


@pytest.fixture
def old() -> Iterator[Hostile]:
    with Hostile(WELL, host=OLD) as server:
        yield server


def named(port: int) -> Address:
    return replace(hostile.address(port), host="db.test")


async def test_a_kept_session_follows_its_name(
    zone: Zone, old: Hostile, make_session: MakeSession
) -> None:
    woken = asyncio.Event()
    session = make_session(named(old.port), logins=zone.limiter(), wake=woken.set)
    with Hostile(WELL, old.port, NEW) as new:
        assert (await feel(session)).cause is Cause.OK
        zone.lead_to(NEW)
        zone.later += names.REFRESH_AFTER
        assert (await feel(session)).cause is Cause.OK
        await asyncio.wait_for(woken.wait(), 5)
        seen = await feel(session)
        assert (seen.cause, seen.fresh_login, seen.tried) == (Cause.OK, True, (NEW,))
        again = await feel(session)
        assert (again.fresh_login, again.tried) == (False, (NEW,))
        assert (old.accepted, new.accepted) == (1, 1)


async def test_a_kept_session_stays_while_the_answer_has_its_address(
    zone: Zone, old: Hostile, make_session: MakeSession
) -> None:
    session = make_session(named(old.port), logins=zone.limiter())
    assert (await feel(session)).cause is Cause.OK
    zone.lead_to("127.0.0.9", "127.0.0.8", "127.0.0.7", "127.0.0.6", OLD)
    for _ in range(3):
        zone.later += names.REFRESH_AFTER
        assert (await feel(session)).tried == (OLD,)
        await asyncio.sleep(0.1)
    assert old.accepted == 1


async def test_a_negative_about_an_address_the_name_has_left_proves_nothing(
    zone: Zone, dropping: int, make_session: MakeSession
) -> None:
    session = make_session(named(dropping), logins=zone.limiter(), deadline=1.3)
    with Hostile(WELL, dropping, NEW):
        feeling = asyncio.create_task(feel(session))
        await asyncio.sleep(0.2)
        zone.lead_to(NEW)
        seen = await feeling
        assert seen.cause is Cause.NAME_MOVED
        assert EVIDENCE[seen.cause] is Evidence.OUR_FAULT
        assert (await feel(session)).cause is Cause.OK


async def test_a_name_that_leads_elsewhere_with_every_answer_excuses_each_address_once(
    zone: Zone, make_session: MakeSession
) -> None:
    turns = itertools.cycle([(OLD,), (NEW,)])
    zone.answer = lambda: next(turns)
    logins = zone.limiter()
    logins.names = Names(zone, itertools.count(0, 10).__next__)
    session = make_session(named(1), logins=logins)
    causes = [(await feel(session)).cause for _ in range(5)]
    assert causes.count(Cause.NAME_MOVED) <= 2
    assert causes[-1] is Cause.PORT_CLOSED


async def test_the_last_known_address_serves_and_says_so(
    zone: Zone, old: Hostile, make_session: MakeSession
) -> None:
    session = make_session(named(old.port), logins=zone.limiter())
    assert not (await feel(session)).dns_stale
    zone.fail()
    zone.later += 60
    seen = await feel(session, fresh=True)
    assert (seen.cause, seen.fresh_login, seen.dns_stale) == (Cause.OK, True, True)
    assert "dns_stale" in seen.detail


async def test_a_last_known_address_that_is_dead_proves_no_more_than_the_name_does(
    zone: Zone, old: Hostile, make_session: MakeSession
) -> None:
    session = make_session(named(old.port), logins=zone.limiter())
    assert (await feel(session)).cause is Cause.OK
    zone.fail()
    zone.later += 60
    old.stop()
    seen = await eventually_negative(session)
    assert seen == (Cause.DNS, True)


async def test_a_login_whose_name_is_gone_is_told_beside_the_kept_session(
    zone: Zone, old: Hostile, make_session: MakeSession
) -> None:
    session = make_session(named(old.port), logins=zone.limiter())
    assert (await feel(session)).cause is Cause.OK
    zone.fail()
    zone.later += names.STALE_FOR + 1
    seen = await feel(session, fresh=True)
    assert (seen.cause, seen.fresh_login) == (Cause.LOGIN_FAILING, True)
    assert old.accepted == 1


async def eventually_negative(session: object) -> tuple[Cause, bool]:
    async def negative() -> tuple[Cause, bool] | None:
        seen = await feel(session)  # type: ignore[arg-type]
        return None if seen.cause is Cause.OK else (seen.cause, f"{OLD} (dns_stale)" in seen.detail)

    return await eventually(negative)


async def test_evidence_names_the_address_tried(make_session: MakeSession) -> None:
    seen = await feel(make_session(hostile.address(1)))
    assert seen.detail.startswith("127.0.0.1: ")
