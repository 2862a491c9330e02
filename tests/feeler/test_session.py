"""The kept session and fresh logins: what each proves alone, and what the two prove together."""

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from monitor.core.cause import Cause
from monitor.core.database import Address, parse_address
from monitor.core.observation import Observation, Reading, ReadingStatus
from monitor.feeler.keeping import SHORT_LIVES
from monitor.feeler.login import LoginLimiter
from monitor.feeler.login_queue import SPACING, Urgency
from monitor.feeler.session import Session
from tests.feeler import hostile
from tests.feeler.conftest import CountResources, MakeSession, feel, feel_and_note
from tests.feeler.hostile import Hostile, Talk
from tests.fixtures import StartPostgres, StartProxy
from tests.servers import PostgresServer
from tests.system.targets import end_our_sessions, fill_slots
from tests.waiting import eventually

DEADLINE, GRACE = 1.0, 0.1  # seconds


@pytest.fixture
def server(start_postgres: StartPostgres) -> PostgresServer:
    return start_postgres()


def superuser(server: PostgresServer) -> Address:
    return parse_address(server.superuser_url())


def ours(server: PostgresServer) -> list[int]:
    """The backends of our sessions there."""
    rows = server.execute(
        "select pid from pg_stat_activity where application_name = 'feeler/tester-000001'"
    )
    return [pid for (pid,) in rows]


def keepalives(server: PostgresServer) -> list[float]:
    """Return the seconds until the server asks each client whether it is still there, where nothing
    else is due.
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [
        line for line in lines if int(line[1].split(":")[1], 16) == server.port and line[3] == "01"
    ]
    timers = [line[5].split(":") for line in established]
    return [int(ticks, 16) / os.sysconf("SC_CLK_TCK") for kind, ticks in timers if kind == "02"]


def family(seen: Observation, name: str) -> Reading:
    return next(reading for reading in seen.readings if reading.family == name)


T = TypeVar("T")


async def timed(feeling: Awaitable[T]) -> T:
    """Feel, which must end in time."""
    began = time.monotonic()
    seen = await feeling
    assert time.monotonic() - began < DEADLINE + GRACE
    return seen


async def test_one_connection_is_kept_and_a_fresh_login_takes_its_place(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server))
    first = await feel(session)
    assert first.cause is Cause.OK
    assert first.fresh_login
    kept = ours(server)
    assert len(kept) == 1
    again = await feel(session)
    assert again.cause is Cause.OK
    assert not again.fresh_login
    assert again.steps.keys() == {"query"}
    assert ours(server) == kept
    fresh = await feel(session, fresh=True)
    assert fresh.cause is Cause.OK
    assert fresh.fresh_login
    await eventually(lambda: len(ours(server)) == 1 and ours(server) != kept)
    await session.close()
    await eventually(lambda: ours(server) == [])


async def test_a_server_soon_misses_a_host_of_ours_that_died(
    server: PostgresServer, make_session: MakeSession
) -> None:
    """Else its slots stay taken for two hours, and whoever takes the databases over finds no
    room.
    """
    session = make_session(superuser(server))
    await feel(session)
    await eventually(lambda: any(seconds <= 10.5 for seconds in keepalives(server)), within=5)


async def test_times_are_of_the_clock_given(
    server: PostgresServer, make_session: MakeSession
) -> None:
    times = iter(range(100, 200))
    session = make_session(superuser(server), clock=lambda: float(next(times)))
    seen = await feel(session, slow=True)
    assert 100 <= seen.sent_at < seen.readings[0].observed_at < seen.at
    assert family(seen, "size").observed_at > seen.at  # the slow tier comes after the evidence


async def test_a_feel_that_a_login_made_late_says_that_slow_gauges_are_missing(
    server: PostgresServer, start_proxy: StartProxy, make_session: MakeSession
) -> None:
    proxy = start_proxy(server.port)
    session = make_session(parse_address(proxy.url(server.superuser_url())))
    proxy.delay = 0.1  # each way
    late, notes = await feel_and_note(session, slow=True)
    assert (late.cause, notes.slow_complete) == (Cause.OK, False)
    proxy.delay = 0.0
    _, notes = await feel_and_note(session, slow=True)
    assert notes.slow_complete


async def test_a_session_an_administrator_ended_is_no_evidence(
    server: PostgresServer, make_session: MakeSession
) -> None:
    lost: list[float] = []
    session = make_session(superuser(server), wake=lambda: lost.append(time.monotonic()))
    await feel(session)
    ended = time.monotonic()
    assert end_our_sessions(server) == 1
    await eventually(lambda: lost)
    assert lost[0] - ended < 0.2  # of which a connect and a query of the test are part
    seen = await feel(session)
    assert seen.cause is Cause.OK
    assert seen.fresh_login


async def test_a_session_ended_under_a_feel_is_no_evidence_either(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server))
    await feel(session)
    (backend,) = ours(server)
    os.kill(backend, signal.SIGSTOP)
    feeling = asyncio.create_task(feel(session))
    await asyncio.sleep(0.05)
    os.kill(backend, signal.SIGTERM)
    os.kill(backend, signal.SIGCONT)
    seen = await feeling
    assert seen.cause is Cause.OK
    assert seen.fresh_login


async def test_the_end_of_a_server_is_felt_at_once(
    server: PostgresServer, make_session: MakeSession
) -> None:
    lost: list[float] = []
    session = make_session(superuser(server), wake=lambda: lost.append(time.monotonic()))
    await feel(session)
    loop = asyncio.get_running_loop()
    killing = loop.run_in_executor(None, server.kill_all)
    await eventually(lambda: lost, every=0.001)
    await killing
    assert time.monotonic() - lost[0] < 5
    assert (await feel(session)).cause is Cause.PORT_CLOSED
    assert (await feel(session, fresh=True, slow=True)).cause is Cause.PORT_CLOSED
    assert len(lost) == 1
    server.start()
    seen = await feel(session)
    assert seen.cause is Cause.OK
    assert seen.fresh_login


async def test_fin_is_told_within_a_tenth_of_a_second(
    server: PostgresServer, start_proxy: StartProxy, make_session: MakeSession
) -> None:
    proxy = start_proxy(server.port)
    for reset in (False, True):
        lost = asyncio.Event()
        session = make_session(parse_address(proxy.url(server.superuser_url())), wake=lost.set)
        await feel(session)
        began = time.monotonic()
        proxy.sever(reset=reset)
        await lost.wait()
        assert time.monotonic() - began < 0.1


async def test_a_frozen_server_is_a_timeout_then_hung_then_well_again(
    server: PostgresServer, make_session: MakeSession, count_resources: CountResources
) -> None:
    session = make_session(superuser(server), deadline=DEADLINE)
    await feel(session, slow=True)
    before = count_resources()
    server.freeze()
    assert (await timed(feel(session))).cause is Cause.QUERY_TIMEOUT
    assert (await timed(feel(session, slow=True))).cause is Cause.HUNG
    assert (await timed(feel(session, fresh=True))).cause is Cause.HUNG
    server.thaw()
    assert (await timed(feel(session))).cause is Cause.OK
    await eventually(lambda: count_resources() <= before)


async def test_both_signals_frozen_end_in_one_deadline(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server), deadline=DEADLINE)
    await feel(session)
    server.freeze()
    assert (await timed(feel(session, fresh=True))).cause is Cause.HUNG
    server.thaw()


async def test_a_cut_network_is_silent_and_ends_in_time(
    server: PostgresServer, start_proxy: StartProxy, make_session: MakeSession
) -> None:
    proxy = start_proxy(server.port)
    session = make_session(parse_address(proxy.url(server.superuser_url())), deadline=DEADLINE)
    await feel(session)
    proxy.deaf_to("feeler/*")
    assert (await timed(feel(session))).cause is Cause.QUERY_TIMEOUT
    assert (await timed(feel(session))).cause is Cause.HUNG
    proxy.hear("feeler/*")
    assert (await timed(feel(session))).cause is Cause.OK


async def test_logins_that_hang_beside_a_session_that_answers(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server), deadline=DEADLINE)
    await feel(session)
    os.kill(server.pid, signal.SIGSTOP)  # the postmaster alone: who is in stays in, nobody comes in
    try:
        seen = await timed(feel(session, fresh=True))
        assert seen.cause is Cause.LOGIN_FAILING
        assert seen.fresh_login
        assert family(seen, "database").values["role"] == "primary"
        plain = await timed(feel(session))
        assert plain.cause is Cause.OK
        assert not plain.fresh_login
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_a_full_server_is_refusing_though_the_kept_session_answers(
    start_postgres: StartPostgres, make_session: MakeSession
) -> None:
    server = start_postgres(max_connections="10")
    server.execute("create role visitor login password 'visitor'")
    session = make_session(parse_address(server.url("postgres", "visitor", "visitor")))
    _, notes = await feel_and_note(session)
    assert not notes.slots_full
    hogs = fill_slots(server, user="visitor", password="visitor")
    try:
        kept, notes = await feel_and_note(session)
        assert kept.cause is Cause.OK
        assert notes.slots_full
        seen = await feel(session, fresh=True)
        assert seen.cause is Cause.REFUSING
        assert family(seen, "connections").values["connections"] == 7
    finally:
        for hog in hogs:
            hog.close()
    await eventually(lambda: entered(session))


async def entered(session: Session) -> Observation | None:
    """Prove a login; return what was seen where it worked."""
    seen = await feel(session, fresh=True)
    return seen if seen.cause is Cause.OK and seen.fresh_login else None


async def test_a_rotated_password_is_locked_out_though_the_kept_session_answers(
    server: PostgresServer, make_session: MakeSession
) -> None:
    server.execute("create role visitor login password 'visitor'")
    session = make_session(parse_address(server.url("postgres", "visitor", "visitor")))
    await feel(session)
    server.execute("alter role visitor password 'rotated'")
    assert (await feel(session)).cause is Cause.OK
    assert (await feel(session, fresh=True)).cause is Cause.WRONG_PASSWORD
    assert (await feel(session)).cause is Cause.OK


async def test_a_locked_catalog_costs_one_family_a_tenth_of_a_second(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server), deadline=DEADLINE)
    await feel(session)
    with psycopg.connect(server.superuser_url()) as locker:
        locker.execute("lock table pg_catalog.pg_database in access exclusive mode")
        for _ in range(2):
            seen = await timed(feel(session))
            assert seen.cause is Cause.OK
            assert seen.steps["query"] < 400
            assert family(seen, "connections").status is ReadingStatus.OK
            assert family(seen, "activity").status is ReadingStatus.OK
            assert family(seen, "database").status is ReadingStatus.TIMED_OUT
            assert family(seen, "database").code == "55P03"
        locker.rollback()
    assert family(await feel(session), "database").status is ReadingStatus.OK


async def test_a_lock_on_a_table_hinders_no_gauge(
    server: PostgresServer, make_session: MakeSession
) -> None:
    server.execute("create table t as select generate_series(1, 100) as x")
    session = make_session(superuser(server), deadline=DEADLINE)
    with psycopg.connect(server.superuser_url()) as locker:
        locker.execute("lock table t in access exclusive mode")
        seen = await timed(feel(session, slow=True))
        assert {reading.status for reading in seen.readings} == {ReadingStatus.OK}


async def test_closing_under_a_feel_ends_it_at_once(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server), deadline=30.0)
    await feel(session)
    server.freeze()
    feeling = asyncio.create_task(feel(session))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await session.close()
    assert (await feeling).cause is Cause.SEVERED
    assert time.monotonic() - began < 0.5
    server.thaw()
    assert (await feel(session)).cause is Cause.SEVERED
    await eventually(lambda: ours(server) == [])


async def test_lost_sessions_leave_nothing(
    server: PostgresServer,
    start_proxy: StartProxy,
    make_session: MakeSession,
    count_resources: CountResources,
) -> None:
    proxy = start_proxy(server.port)
    session = make_session(parse_address(proxy.url(server.superuser_url())))
    await feel(session)
    before = count_resources()
    for turn in range(60):
        proxy.sever(reset=turn % 2 == 0)
        seen = await feel(session, fresh=turn % 3 == 0)
        assert seen.cause is Cause.OK
    await eventually(
        lambda: count_resources() <= (before[0] + 4, 0)
    )  # the proxy's ends close a moment later


async def test_a_target_that_is_cut_off_does_not_delay_another(
    server: PostgresServer, start_postgres: StartPostgres, make_session: MakeSession
) -> None:
    dead = start_postgres()
    dead.freeze()
    silent = [make_session(superuser(dead), deadline=DEADLINE) for _ in range(20)]
    good = make_session(superuser(server), deadline=DEADLINE)
    await feel(good)
    feels = [asyncio.create_task(feel(session)) for session in silent]
    for _ in range(20):
        seen = await feel(good)
        assert seen.cause is Cause.OK
        assert seen.steps["query"] < 250
    assert {seen.cause for seen in await asyncio.gather(*feels)} <= {
        Cause.HUNG,
        Cause.CONNECT_TIMEOUT,
    }


async def test_logins_of_a_role_are_proved_one_at_a_time(
    server: PostgresServer, start_proxy: StartProxy, make_session: MakeSession
) -> None:
    proxy, logins = start_proxy(server.port), LoginLimiter()
    address = parse_address(proxy.url(server.superuser_url()))
    turns: list[str] = []
    one, other = (
        make_session(address, logins=logins, wake=lambda name=name: turns.append(name))
        for name in "ab"
    )
    for session in (one, other):
        assert (await feel(session)).cause is Cause.OK
    os.kill(server.pid, signal.SIGSTOP)  # the postmaster alone
    try:
        slow = asyncio.create_task(feel(one, fresh=True))
        await asyncio.sleep(2 * SPACING)  # the pace alone would let the next one go
        routine, notes = await timed(feel_and_note(other, fresh=True))
        assert (routine.cause, routine.fresh_login) == (Cause.OK, False)
        assert notes.login_waiting
        pressing = feel_and_note(other, fresh=True, urgency=Urgency.UNDECIDED)
        pressed, notes = await timed(pressing)
        assert (pressed.cause, pressed.fresh_login) == (Cause.LOGIN_NOT_PROVED, False)
        assert notes.login_waiting
        assert not slow.done()
        assert (await slow).cause is Cause.LOGIN_FAILING
    finally:
        server.thaw()
    await eventually(lambda: turns == ["b"], within=5)
    assert (await feel(other, fresh=True)).fresh_login


async def test_logins_that_hang_twice_are_told_to_all_who_keep_a_session_there(
    server: PostgresServer, make_session: MakeSession
) -> None:
    server.execute("create role guest superuser login password 'guest'")
    logins, woken, address = LoginLimiter(), list[int](), superuser(server)
    addresses = [address, address, replace(address, user="guest", password="guest")]
    one, two, guest = (
        make_session(address, logins=logins, deadline=DEADLINE, wake=partial(woken.append, number))
        for number, address in enumerate(addresses)
    )
    make_session(
        address, logins=logins, wake=lambda: woken.append(-1)
    )  # it keeps no session that could speak
    for session in (one, two, guest):
        assert (await feel(session)).cause is Cause.OK
    with server.postmaster_frozen():
        assert (await timed(feel(one, fresh=True))).cause is Cause.LOGIN_FAILING
        assert not woken, "one may be a packet that got lost"
        assert (await feel(two)).cause is Cause.OK
        assert (await timed(feel(one, fresh=True))).cause is Cause.LOGIN_FAILING
        assert woken == [1, 2]
        for session in (two, guest):
            began = time.monotonic()
            seen = await feel(session)
            assert (seen.cause, seen.fresh_login) == (Cause.LOGIN_FAILING, True)
            assert time.monotonic() - began < DEADLINE / 2
            assert (await feel(session)).cause is Cause.OK, "nobody is told twice"
    assert not (await feel(guest)).fresh_login, "nobody got in yet"
    assert await seconds_of_login(one)
    for session in (two, guest):
        for told in (True, False):
            seen, notes = await feel_and_note(session)
            assert (seen.cause, seen.fresh_login) == (Cause.OK, told), "who was told, is so once"
            assert not notes.login_seconds
    await asyncio.sleep(2 * SPACING)
    assert await seconds_of_login(two), "who was told of no failure proves its own login"


async def seconds_of_login(session: Session) -> float:
    _, notes = await feel_and_note(session, fresh=True)
    return notes.login_seconds


async def test_what_a_role_is_told_is_told_to_nobody_else(
    server: PostgresServer, make_session: MakeSession
) -> None:
    server.execute("create role guest superuser login password 'guest'")
    logins, address = LoginLimiter(), superuser(server)
    well = make_session(address, logins=logins)
    locked = make_session(replace(address, user="guest", password="guest"), logins=logins)
    for session in (well, locked):
        await feel(session)
    server.execute("alter role guest nologin")
    for _ in range(3):
        assert (
            await feel(locked, fresh=True, urgency=Urgency.UNDECIDED)
        ).cause is Cause.NOT_ADMITTED
        assert (await feel(well)).cause is Cause.OK
        await asyncio.sleep(SPACING)


async def test_where_no_login_may_be_tried_the_kept_session_proves_life(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server))
    await feel(session)
    seen = await feel(session, fresh=True, held=Cause.WRONG_PASSWORD)
    assert (seen.cause, seen.fresh_login) == (Cause.WRONG_PASSWORD, False)
    assert family(seen, "connections").status is ReadingStatus.OK


async def test_without_a_kept_session_a_liveness_check_does_and_leaves_no_trace(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session, before = make_session(superuser(server), deadline=DEADLINE), server.log.read_text()
    seen = await timed(feel(session, fresh=True, held=Cause.WRONG_PASSWORD))
    assert (seen.cause, seen.fresh_login, seen.readings) == (Cause.WRONG_PASSWORD, False, ())
    server.freeze()
    try:
        assert (
            await timed(feel(session, fresh=True, held=Cause.WRONG_PASSWORD))
        ).cause is Cause.HUNG
    finally:
        server.thaw()
    await asyncio.sleep(0.2)  # it would have been written by then
    assert server.log.read_text() == before
    server.kill_all()
    assert (await feel(session, fresh=True, held=Cause.WRONG_PASSWORD)).cause is Cause.PORT_CLOSED


async def test_a_pooler_that_knows_no_gss_answers_the_second_question(
    make_session: MakeSession,
) -> None:
    with Hostile(hostile.without_gss) as pooler:
        session = make_session(pooler.address(), deadline=DEADLINE)
        assert (await feel(session, fresh=True)).cause is Cause.WRONG_PASSWORD
        pooler.accepted = 0
        seen = await timed(feel(session, fresh=True, held=Cause.WRONG_PASSWORD))
        assert (seen.cause, pooler.accepted) == (Cause.WRONG_PASSWORD, 2)


@pytest.mark.parametrize("reset", [False, True])
async def test_whoever_closes_on_every_question_is_absent(
    make_session: MakeSession, reset: bool
) -> None:
    def close(talk: Talk) -> None:
        if reset:
            talk.reader.read(1)  # a reset that comes before the question is one of the connect
            talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            talk.reader.close()
            talk.sock.close()

    with Hostile(close) as server:
        session = make_session(server.address(), deadline=DEADLINE)
        seen = await timed(feel(session, fresh=True, held=Cause.WRONG_PASSWORD))
        assert (seen.cause, server.accepted) == (Cause.RESET, 2)


async def test_a_login_far_away_has_a_deadline_of_its_own(
    server: PostgresServer, start_proxy: StartProxy, make_session: MakeSession
) -> None:
    proxy = start_proxy(server.port)
    proxy.delay = 0.2  # both ways: 0.4 s away
    far = make_session(parse_address(proxy.url(server.superuser_url())), deadline=1.0)
    assert (await feel(far)).cause in (Cause.HUNG, Cause.LOGIN_FAILING)
    seen, notes = await feel_and_note(far, login_deadline=5.0)
    assert seen.cause is Cause.OK
    assert 1.0 < notes.login_seconds < 4.0
    proxy.drip = 0.5
    assert (await timed(feel(far))).cause is Cause.QUERY_TIMEOUT
    began = time.monotonic()
    assert (await feel(far, login_deadline=2.0)).cause is Cause.HUNG
    assert time.monotonic() - began < 2.0 + 2 * GRACE


@pytest.fixture
def narrow(server: PostgresServer) -> Address:
    """A role that may have no session beside its kept one."""
    server.execute("create role narrow login password 'narrow' connection limit 1")
    return parse_address(server.url("postgres", "narrow", "narrow"))


async def test_where_the_role_is_full_the_kept_session_gives_way(
    server: PostgresServer, narrow: Address, make_session: MakeSession
) -> None:
    session = make_session(narrow)
    await feel(session)
    for _ in range(2):
        before = ours(server)
        seen = await eventually(lambda: entered(session))
        assert seen.cause is Cause.OK
        assert len(ours(server)) == 1
        assert ours(server) != before
    assert server.log.read_text().count("too many connections for role") == 1, (
        "from then on it gives way first"
    )


async def test_where_the_server_is_full_too_the_kept_session_is_kept(
    start_postgres: StartPostgres, make_session: MakeSession
) -> None:
    server = start_postgres(max_connections="8")
    server.execute("create role visitor login password 'visitor'")
    server.execute("create role narrow login password 'narrow' connection limit 1")
    session = make_session(parse_address(server.url("postgres", "narrow", "narrow")))
    await feel(session)
    hogs = fill_slots(server, user="visitor", password="visitor")
    try:
        before = ours(server)
        seen = await feel(session, fresh=True)
        assert (seen.cause, seen.fresh_login) == (Cause.LOGIN_NOT_PROVED, False)
        assert ours(server) == before
    finally:
        for hog in hogs:
            hog.close()
    assert (await eventually(lambda: entered(session))).cause is Cause.OK


async def test_a_server_that_asks_who_we_are_and_then_hangs_is_not_silent(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(superuser(server), deadline=DEADLINE)
    with psycopg.connect(server.url()) as blocker:
        blocker.execute("lock table pg_catalog.pg_class in access exclusive mode")
        seen = await timed(feel(session))
        assert seen.cause is Cause.LOGIN_FAILING
    assert (await eventually(lambda: entered(session))).cause is Cause.OK


async def test_a_server_that_ends_idle_sessions_is_met_by_beats_without_one(
    server: PostgresServer, make_session: MakeSession
) -> None:
    server.execute("create role visitor login password 'visitor'")
    session = make_session(parse_address(server.url("postgres", "visitor", "visitor")))
    for _ in range(SHORT_LIVES):
        assert (await feel(session)).fresh_login
        assert len(ours(server)) == 1
        end_our_sessions(server)  # as the server does by itself where idle_session_timeout says so
        await eventually(lambda: not ours(server))
        await asyncio.sleep(0.1)
    for _ in range(3):
        seen = await feel(session, slow=True)
        assert (seen.cause, seen.fresh_login) == (Cause.OK, True)
        await eventually(lambda: not ours(server))
