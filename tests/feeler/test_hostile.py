"""A hostile server costs one severed connection: the feel ends in time, the loop goes on, nothing
is left behind.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from monitor.core.cause import Cause
from monitor.core.database import Address, parse_address
from monitor.core.observation import Observation, ReadingStatus
from monitor.feeler.login import LoginLimiter
from tests.feeler import hostile
from tests.feeler.conftest import CountResources, MakeSession, feel
from tests.feeler.hostile import Hostile
from tests.servers import PostgresServer
from tests.waiting import eventually

DEADLINE = 1.0
GRACE = 0.1  # seconds after the deadline a feel may end
STALL = 0.25  # seconds the loop may stand still
GROWTH = 8 * 1024  # kilobytes of memory


class Loop:
    """How long the event loop stood still at most."""

    worst = 0.0


@asynccontextmanager
async def watched() -> AsyncIterator[Loop]:
    loop = Loop()

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            loop.worst, last = max(loop.worst, now - last - 0.005), now

    ticker = asyncio.create_task(tick())
    try:
        yield loop
    finally:
        ticker.cancel()


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with hostile.all_at_once() as ports:
        yield ports


async def feel_once(make_session: MakeSession, address: Address) -> Observation:
    """Feel once; hold what must hold of every hostile server."""
    session = make_session(address, deadline=DEADLINE)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with watched() as loop:
        began = time.monotonic()
        seen = await feel(session)
        took = time.monotonic() - began
    assert loop.worst < STALL
    assert took < DEADLINE + GRACE + loop.worst
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < GROWTH
    assert len(seen.detail) <= 512
    assert seen.detail.isprintable()
    await session.close()
    return seen


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("silent", Cause.HUNG),
        ("drip", Cause.HUNG),
        ("ask_again_and_again", Cause.HUNG),
        ("chatter_before_login", Cause.BYTE_BUDGET),
        ("huge_notice_before_login", Cause.BYTE_BUDGET),
        ("send_settings_before_login", Cause.BYTE_BUDGET),
        ("no_postgres", Cause.RESET),
        ("never_answer", Cause.QUERY_TIMEOUT),
        ("flood_of_rows", Cause.BYTE_BUDGET),
        ("one_huge_row", Cause.BYTE_BUDGET),
        ("flood_of_notices", Cause.BYTE_BUDGET),
        ("flood_of_notifications", Cause.BYTE_BUDGET),
        ("send_settings", Cause.BYTE_BUDGET),
        ("big_error", Cause.BYTE_BUDGET),
        ("copy_out", Cause.SERVER_ERROR),
        ("hang_up", Cause.RESET),
    ],
)
async def test_every_feel_ends_in_time_and_leaves_nothing(
    make_session: MakeSession,
    count_resources: CountResources,
    ports: dict[str, int],
    name: str,
    cause: Cause,
) -> None:
    before = count_resources()
    seen = await feel_once(make_session, hostile.address(ports[name], allow_cleartext=True))
    assert seen.cause is cause
    assert seen.readings == ()
    await eventually(lambda: count_resources() <= before)


async def test_a_server_that_asks_without_pause_is_hung_or_proves_nothing(
    make_session: MakeSession,
) -> None:
    with Hostile(hostile.ask_without_pause) as server:
        address = replace(server.address(), allow_cleartext=True)
        seen = await feel_once(make_session, address)
    assert seen.cause in (Cause.HUNG, Cause.SEVERED, Cause.LATE_LOOP)


async def test_a_reset_right_behind_the_data_is_never_missed(
    make_session: MakeSession, ports: dict[str, int]
) -> None:
    """libuv tells of both at once and never again."""
    for _ in range(100):
        session = make_session(hostile.address(ports["hang_up"]), deadline=DEADLINE)
        assert (await feel(session)).cause is Cause.RESET


async def test_data_at_rest_is_taken_in_with_measure(make_session: MakeSession) -> None:
    def unasked(talk: hostile.Talk, sql: str) -> None:
        hostile.honest(talk, sql)
        if "server_version_num" in sql:
            talk.send(b"Z", b"I")
            time.sleep(0.1)
            hostile.one_huge_row(talk, sql)

    lost = asyncio.Event()
    with Hostile(hostile.logged_in(unasked)) as server:
        session = make_session(server.address(), wake=lost.set)
        assert (await feel(session)).cause is Cause.OK
        async with asyncio.timeout(2):
            await lost.wait()


async def test_an_endless_proof_burns_one_thread_and_stalls_nobody(
    make_session: MakeSession, count_resources: CountResources
) -> None:
    before = count_resources()
    with Hostile(hostile.scram(10_000_000)) as server:
        session = make_session(server.address(), deadline=DEADLINE)
        async with watched() as loop:
            began = time.monotonic()
            first = await feel(session)
            assert time.monotonic() - began < DEADLINE + GRACE
            again = [await feel(session, fresh=True) for _ in range(20)]
            assert time.monotonic() - began < DEADLINE + GRACE
        assert loop.worst < STALL
        assert {seen.cause for seen in (first, *again)} == {
            Cause.SEVERED
        }  # our own severing says nothing
        assert server.accepted == 1  # no second login while the first one's proof is being computed
        assert count_resources()[1] == 1
    await eventually(lambda: count_resources() <= before, within=60)


async def test_a_costly_proof_in_time_is_a_login(make_session: MakeSession) -> None:
    with Hostile(hostile.scram(100_000)) as server:
        seen = await feel(make_session(server.address()))
    assert seen.cause is Cause.RESET  # this server hangs up once it has the proof


async def test_a_server_that_lies_about_types_is_up_and_its_gauges_are_errors(
    make_session: MakeSession,
) -> None:
    with Hostile(hostile.after_set_up(hostile.lie)) as server:
        seen = await feel_once(make_session, server.address())
    assert seen.cause is Cause.OK
    by_family = {reading.family: reading for reading in seen.readings}
    assert by_family["database"].status is ReadingStatus.ERROR
    assert by_family["connections"].status is ReadingStatus.ERROR
    assert not any(reading.values for reading in seen.readings)


async def test_one_statement_that_fails_leaves_the_other_gauges_alone(
    make_session: MakeSession,
) -> None:
    def fails(talk: hostile.Talk, sql: str) -> None:
        if "pg_stat_get_activity" in sql:
            raise hostile.Refusal("42501")
        hostile.honest(talk, sql)

    with Hostile(hostile.logged_in(fails)) as server:
        session = make_session(server.address())
        for _ in range(3):
            seen = await feel(session, slow=True)
            by_family = {reading.family: reading for reading in seen.readings}
            assert seen.cause is Cause.OK
            assert by_family["connections"].status is ReadingStatus.DENIED
            assert by_family["connections"].code == "42501"
            assert by_family["database"].values["xid_age"] == 7
            assert by_family["size"].values == {"db_size": 1}
        assert server.accepted == 1


@pytest.mark.parametrize("code", ["57014", "53100", "XX002"])
async def test_an_error_on_everything_is_the_servers_own_word(
    make_session: MakeSession, code: str
) -> None:
    def fails(talk: hostile.Talk, sql: str) -> None:
        raise hostile.Refusal(code)

    with Hostile(hostile.after_set_up(fails)) as server:
        seen = await feel_once(make_session, server.address())
    assert seen.cause is Cause.SERVER_ERROR
    assert {reading.code for reading in seen.readings} == {code}


async def test_a_server_that_ends_every_session_gets_no_storm_of_logins(
    make_session: MakeSession,
) -> None:
    def leave(talk: hostile.Talk) -> None:
        talk.start_up()
        talk.welcome()
        served = 0

        def answer(talk: hostile.Talk, sql: str) -> None:
            nonlocal served
            hostile.honest(talk, sql)
            served += "server_version_num" in sql
            if served:
                talk.send(b"Z", b"I")
                raise OSError

        talk.serve(answer)

    lost: list[float] = []
    with Hostile(leave) as server:
        session = make_session(server.address(), wake=lambda: lost.append(time.monotonic()))
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            seen = await feel(session)
            assert seen.cause in (Cause.OK, Cause.RESET, Cause.SERVER_ERROR)
            await asyncio.sleep(0.02)
    assert len(lost) <= 2


async def test_endless_proofs_keep_nobody_else_from_logging_in(
    make_session: MakeSession, count_resources: CountResources, postgres_server: PostgresServer
) -> None:
    before = count_resources()
    postgres_server.execute("CREATE ROLE prover LOGIN PASSWORD 'word'")
    address = parse_address(postgres_server.url(user="prover", password="word"))
    logins = LoginLimiter()
    with Hostile(hostile.scram(400_000)) as server:
        sessions = [
            make_session(server.address(), logins=logins, deadline=DEADLINE) for _ in range(40)
        ]
        burning = [asyncio.create_task(feel(session)) for session in sessions]
        await eventually(lambda: server.accepted == 40)
        for _ in range(
            3
        ):  # while the proofs are waited for, and when their logins have been severed
            honest = make_session(address, logins=logins, deadline=DEADLINE)
            assert (await feel(honest, fresh=True)).cause is Cause.OK
            await honest.close()
            await asyncio.sleep(DEADLINE / 2)
        assert {(await seen).cause for seen in burning} <= {
            Cause.SEVERED,
            Cause.RESET,
        }  # RESET: proved in time
    await eventually(lambda: count_resources() <= before, within=60)
    postgres_server.execute("DROP ROLE prover")
