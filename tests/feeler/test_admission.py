"""Many databases of one address: what is found out once is known to all; nobody's wait is
evidence.
"""

import asyncio
import socket
import time
from collections import Counter
from dataclasses import replace

import pytest

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.observation import Observation
from monitor.feeler.login import LoginLimiter
from monitor.feeler.session import Session
from tests.feeler import hostile
from tests.feeler.conftest import MakeSession, feel
from tests.feeler.hostile import Hostile, Talk
from tests.servers import PostgresServer
from tests.waiting import eventually

NOWHERE = hostile.address(1)


def refuse(code: str, after: float = 0.0) -> Hostile:
    def behave(talk: Talk) -> None:
        talk.start_up()
        time.sleep(after)
        talk.refuse("FATAL", code)

    return Hostile(behave)


async def feel_all(sessions: list[Session]) -> list[Observation]:
    return await asyncio.gather(*(feel(session) for session in sessions))


async def test_a_hundred_databases_of_a_mute_server_all_get_their_evidence(
    make_session: MakeSession, mute: int
) -> None:
    logins = LoginLimiter()
    address = replace(NOWHERE, port=mute)
    sessions = [make_session(address, logins=logins, deadline=0.4) for _ in range(100)]
    for _ in range(2):
        observed = await feel_all(sessions)
        assert Counter(seen.cause for seen in observed) == {Cause.HUNG: 100}
        assert max(seen.waited for seen in observed) > 0.4  # the cadence stretches, and says so


async def test_one_connect_that_times_out_speaks_for_all_who_wait(
    make_session: MakeSession, dropping: int
) -> None:
    logins = LoginLimiter(per_address=1, slot_seconds=10)
    sessions = [
        make_session(replace(NOWHERE, port=dropping), logins=logins, deadline=0.4)
        for _ in range(30)
    ]
    before: set[float] = set()
    for _ in range(3):
        observed = await feel_all(sessions)
        assert {seen.cause for seen in observed} == {Cause.CONNECT_TIMEOUT}
        (sent,) = {seen.sent_at for seen in observed}
        assert sent not in before, "a round of its own each time"
        before.add(sent)


async def test_a_refusal_is_shared_within_its_deadline_and_told_to_nobody_twice(
    make_session: MakeSession,
) -> None:
    logins = LoginLimiter()
    one, two = (make_session(NOWHERE, logins=logins, deadline=1.0) for _ in range(2))
    first = await feel(one)
    assert first.cause is Cause.PORT_CLOSED
    await asyncio.sleep(0.2)
    second = await feel(two)
    assert (second.cause, second.sent_at) == (Cause.PORT_CLOSED, first.sent_at)
    assert second.at == pytest.approx(first.at, abs=0.1)
    assert second.fresh_login
    again = await feel(two)
    assert again.sent_at > first.at
    await asyncio.sleep(1.1)
    late = await feel(one)
    assert late.sent_at > again.at + 1.0


async def test_our_own_refusal_is_no_news_to_ourselves(make_session: MakeSession) -> None:
    """The fleet's clock knows milliseconds; a refusal takes less than one."""
    session = make_session(NOWHERE, clock=lambda: round(time.time(), 2))
    for _ in range(5):
        first = await feel(session)
        await asyncio.sleep(0.02)
        second = await feel(session)
        assert second.sent_at > first.sent_at, "looked again"


async def test_a_server_that_starts_is_asked_once_for_all(make_session: MakeSession) -> None:
    logins = LoginLimiter(per_address=2, slot_seconds=10)
    with refuse("57P03", after=0.2) as server:
        sessions = [make_session(server.address(), logins=logins) for _ in range(20)]
        observed = await feel_all(sessions)
        assert {seen.cause for seen in observed} == {Cause.STARTING}
        assert server.accepted == 2


@pytest.mark.parametrize("code", ["28P01", "3D000", "53300", "XX000"])
async def test_what_is_said_to_one_database_is_not_told_of_another(
    make_session: MakeSession, code: str
) -> None:
    logins = LoginLimiter(per_address=1)
    with refuse(code) as server:
        sessions = [make_session(server.address(), logins=logins) for _ in range(5)]
        observed = await feel_all(sessions)
        assert {EVIDENCE[seen.cause] for seen in observed} == {Evidence.ALIVE}
        assert server.accepted == 5


async def test_a_server_that_is_back_is_not_talked_down_by_what_was(
    postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    """The same port: refused first, then a server."""
    logins = LoginLimiter()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    one, two = (make_session(replace(NOWHERE, port=port), logins=logins) for _ in range(2))
    assert (await feel(one)).cause is Cause.PORT_CLOSED
    with Hostile(hostile.logged_in(hostile.honest), port):
        assert (await feel(one)).cause is Cause.OK
        assert (await feel(two)).cause is Cause.OK


async def test_a_host_that_takes_connections_again_is_not_talked_down(
    make_session: MakeSession,
) -> None:
    """The first one through hangs: still nobody may say that the port is closed."""
    logins = LoginLimiter()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sessions = [
        make_session(replace(NOWHERE, port=port), logins=logins, deadline=1.0) for _ in range(3)
    ]
    assert (await feel(sessions[0])).cause is Cause.PORT_CLOSED
    with socket.create_server(("127.0.0.1", port)):
        hanging = asyncio.create_task(feel(sessions[0]))
        await asyncio.sleep(0.1)
        assert {seen.cause for seen in await feel_all(sessions[1:])} == {Cause.HUNG}
        assert (await hanging).cause is Cause.HUNG


async def test_another_address_of_the_same_port_is_another_matter(
    make_session: MakeSession,
) -> None:
    logins = LoginLimiter()
    with Hostile(hostile.logged_in(hostile.honest)) as server:
        elsewhere = make_session(server.address(host="127.0.0.2"), logins=logins)
        assert (await feel(elsewhere)).cause is Cause.PORT_CLOSED
        assert (await feel(make_session(server.address(), logins=logins))).cause is Cause.OK


async def test_a_session_that_is_closed_waits_for_its_turn_no_longer(
    make_session: MakeSession, mute: int
) -> None:
    logins = LoginLimiter(per_address=1, slot_seconds=30)
    address = replace(NOWHERE, port=mute)
    first, second = (make_session(address, logins=logins, deadline=5.0) for _ in range(2))
    feels = [asyncio.create_task(feel(session)) for session in (first, second)]
    await asyncio.sleep(0.1)
    await second.close()
    await eventually(feels[1].done, within=1)
    assert EVIDENCE[feels[1].result().cause] is Evidence.OUR_FAULT
    feels[0].cancel()


async def test_a_login_beside_a_kept_session_waits_for_no_turn(make_session: MakeSession) -> None:
    """The kept session has answered; its beat must not come late."""
    logins = LoginLimiter(per_address=1, slot_seconds=30)
    with Hostile(hostile.logged_in(hostile.honest)) as server:
        kept = make_session(server.address(), logins=logins, deadline=0.4)
        assert (await feel(kept)).cause is Cause.OK
        turn = await logins.endpoints.at(("127.0.0.1", server.port)).admit(0.0)
        seen = await feel(kept, fresh=True)
        assert (seen.cause, seen.fresh_login, seen.waited) == (Cause.OK, False, 0.0)
        assert seen.at - seen.sent_at < 0.8
        assert turn
