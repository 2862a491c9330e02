"""Each way a login can end, from real servers and sockets, has its cause; a server that speaks is
never called down.
"""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from ctypes.util import find_library
from dataclasses import replace

import psycopg
import pytest

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.database import Address, parse_address
from monitor.core.observation import Observation
from monitor.feeler.login import LoginLimiter
from monitor.feeler.session import probe
from tests.feeler.conftest import CountResources, MakeSession, feel
from tests.fixtures import StartPostgres, StartProxy
from tests.servers import PostgresServer
from tests.system.targets import fill_slots, held_in_recovery
from tests.waiting import eventually

NOWHERE = Address("127.0.0.1", 1, "db", "u", "secret-word", sslmode="disable")


@pytest.fixture(scope="module")
def server(postgres_server: PostgresServer) -> PostgresServer:
    """The session's server with a role of every kind."""
    postgres_server.execute("create role visitor login password 'visitor'")
    postgres_server.execute("create role outsider nologin password 'outsider'")
    postgres_server.execute("create role single login password 'single' connection limit 0")
    postgres_server.execute("create database closed allow_connections false")
    postgres_server.execute("create database narrow connection limit 0")
    postgres_server.execute("create database private")
    postgres_server.execute("revoke connect on database private from public")
    return postgres_server


def visitor(
    server: PostgresServer, dbname: str = "postgres", user: str = "visitor", password: str = ""
) -> Address:
    return parse_address(server.url(dbname, user, password or user))


@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({"password": "wrong"}, Cause.WRONG_PASSWORD, "28P01"),
        ({"user": "nobody", "password": "x"}, Cause.WRONG_PASSWORD, "28P01"),
        ({"user": "outsider"}, Cause.NOT_ADMITTED, "28000"),
        ({"dbname": "nowhere"}, Cause.NO_DATABASE, "3D000"),
        ({"dbname": "closed"}, Cause.CLOSED, "55000"),
        ({"dbname": "private"}, Cause.NO_PRIVILEGE, "42501"),
        ({"user": "single"}, Cause.ROLE_FULL, "53300"),
        ({"dbname": "narrow"}, Cause.DATABASE_FULL, "53300"),
    ],
)
async def test_a_refusal_is_told_by_its_code(
    server: PostgresServer, changes: dict[str, str], cause: Cause, words: str
) -> None:
    seen = await probe(visitor(server, **changes))
    assert seen.cause is cause
    assert EVIDENCE[seen.cause] is Evidence.ALIVE
    assert words in seen.detail
    assert seen.steps.keys() == {"dns", "connect", "login"}


async def test_a_password_nobody_gave_us_is_our_fault(server: PostgresServer) -> None:
    assert (await probe(replace(visitor(server), password=""))).cause is Cause.NO_CREDENTIALS


async def test_a_reject_in_pg_hba_is_locked_out(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    rules = server.data / "pg_hba.conf"
    rules.write_text("host all visitor all reject\n" + rules.read_text())
    server.execute("select pg_reload_conf()")
    seen = await eventually(lambda: when(probe(visitor(server)), "pg_hba"))
    assert seen.cause is Cause.NO_ENTRY
    assert "28000" in seen.detail


async def when(feeling: Awaitable[Observation], words: str) -> Observation | None:
    seen = await feeling
    return seen if words in seen.detail else None


async def test_no_slot_left_is_refusing_for_everybody(start_postgres: StartPostgres) -> None:
    server = start_postgres(max_connections="8")
    server.execute("create role visitor login password 'visitor'")
    hogs = fill_slots(server, user="visitor", password="visitor")
    try:
        assert (
            await probe(visitor(server))
        ).cause is Cause.REFUSING  # the reserved slots are not for us
        hogs += fill_slots(server, user=server.user, password=server.password)
        assert (await probe(parse_address(server.superuser_url()))).cause is Cause.REFUSING
    finally:
        for hog in hogs:
            hog.close()


async def test_a_server_that_starts_or_stops_says_so(start_postgres: StartPostgres) -> None:
    server = start_postgres(wal_level="replica")
    address = parse_address(server.superuser_url())
    with held_in_recovery(server):
        seen = await eventually(lambda: when(probe(address), "57P03"))
        assert seen.cause is Cause.STARTING
    with psycopg.connect(server.superuser_url()):
        os.kill(server.pid, signal.SIGTERM)  # waits for that session and lets nobody else in
        assert (await eventually(lambda: when(probe(address), "57P03"))).cause is Cause.STARTING


async def test_a_closed_port_is_refused() -> None:
    seen = await probe(NOWHERE)
    assert seen.cause is Cause.PORT_CLOSED
    assert seen.steps.keys() == {"dns", "connect"}


async def test_a_connection_that_ends_in_the_handshake_is_reset(
    server: PostgresServer, start_proxy: StartProxy
) -> None:
    proxy = start_proxy(server.port)
    proxy.mode = "reset"
    assert (await probe(parse_address(proxy.url(server.superuser_url())))).cause is Cause.RESET


async def test_no_way_there_is_unreachable() -> None:
    assert (await probe(replace(NOWHERE, host="255.255.255.255"))).cause is Cause.UNREACHABLE


async def test_a_name_nobody_knows_is_dns() -> None:
    assert (
        await probe(replace(NOWHERE, host="no-such-host.invalid"), deadline=2)
    ).cause is Cause.DNS


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """The port of a socket whose queue is full: the kernel drops every further SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(4):
            fillers.append(socket.socket())
            fillers[-1].setblocking(False)
            fillers[-1].connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


async def test_no_answer_to_the_connect_is_a_connect_timeout(full_backlog: int) -> None:
    began = time.monotonic()
    seen = await probe(replace(NOWHERE, port=full_backlog), deadline=0.5)
    assert seen.cause is Cause.CONNECT_TIMEOUT
    assert time.monotonic() - began < 0.6


async def test_a_frozen_server_is_hung(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    server.freeze()
    began = time.monotonic()
    seen = await probe(parse_address(server.superuser_url()), deadline=0.5)
    assert seen.cause is Cause.HUNG
    assert time.monotonic() - began < 0.6


async def test_out_of_descriptors_is_our_fault(
    server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(visitor(server))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    for left in range(3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, hard))
        try:
            seen = await feel(session)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert seen.cause in (Cause.DESCRIPTORS, Cause.OK)
        if left == 0:
            assert seen.cause is Cause.DESCRIPTORS
    assert (await feel(session)).cause is Cause.OK


async def test_every_address_of_a_name_is_tried() -> None:
    """localhost is ::1 and 127.0.0.1; the server listens on one of them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = replace(NOWHERE, host="localhost", port=listener.getsockname()[1])
        assert (await probe(address, deadline=0.3)).cause is Cause.HUNG


async def test_a_hundred_failures_leave_no_descriptor_and_no_thread(
    server: PostgresServer,
    start_proxy: StartProxy,
    make_session: MakeSession,
    count_resources: CountResources,
) -> None:
    proxy = start_proxy(server.port)
    proxy.mode = "reset"
    addresses = [
        parse_address(proxy.url(server.superuser_url())),
        visitor(server, password="wrong"),
        NOWHERE,
        replace(NOWHERE, host="no-such-host.invalid"),
    ]
    logins = LoginLimiter()
    sessions = [make_session(address, logins=logins) for address in addresses]
    await asyncio.gather(*(feel(session) for session in sessions))
    await eventually(lambda: count_resources()[1] == 0)
    before = count_resources()
    for _ in range(25):
        await asyncio.gather(*(feel(session, fresh=True) for session in sessions))
    await eventually(lambda: count_resources() <= before)


async def test_a_feel_that_is_cancelled_leaves_nothing(
    start_postgres: StartPostgres, make_session: MakeSession, count_resources: CountResources
) -> None:
    server = start_postgres()
    session = make_session(parse_address(server.superuser_url()))
    server.freeze()
    before = count_resources()
    feeling = asyncio.create_task(feel(session))
    await asyncio.sleep(0.1)
    feeling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeling
    await eventually(lambda: count_resources() <= before)


async def test_a_silent_host_makes_its_other_databases_wait_for_a_moment_only(
    make_session: MakeSession, full_backlog: int
) -> None:
    logins = LoginLimiter()
    address = replace(NOWHERE, port=full_backlog)
    sessions = [make_session(address, logins=logins, deadline=1.2) for _ in range(20)]
    observed = await asyncio.gather(*(feel(session) for session in sessions))
    assert {seen.cause for seen in observed} == {Cause.CONNECT_TIMEOUT}


async def test_silent_hosts_do_not_delay_a_good_one(
    server: PostgresServer, make_session: MakeSession, full_backlog: int
) -> None:
    logins = LoginLimiter(threads=2)
    silent = [
        make_session(replace(NOWHERE, port=full_backlog), logins=logins, deadline=1)
        for _ in range(50)
    ]
    feels = [asyncio.create_task(feel(session, fresh=True)) for session in silent]
    await asyncio.sleep(0.05)
    began = time.monotonic()
    assert (await feel(make_session(visitor(server), logins=logins), fresh=True)).cause is Cause.OK
    assert time.monotonic() - began < 0.5
    await asyncio.gather(*feels)


SCRIPT = """
import asyncio, sys
from psycopg import pq
from monitor.core.database import parse_address
from monitor.feeler.session import probe
async def main():
    observed = [await probe(parse_address(url)) for url in sys.stdin.read().split()]
    print(pq.__impl__, *(f"{seen.cause}" for seen in observed))
asyncio.run(main())
"""


@pytest.mark.parametrize("implementation", ["binary", "python"])
def test_causes_are_the_same_with_any_loop_and_any_psycopg_whatever_the_environment(
    server: PostgresServer, implementation: str
) -> None:
    if implementation == "python" and not find_library("pq"):
        pytest.skip("psycopg's Python implementation needs a libpq of the system")
    urls = [
        server.superuser_url(),
        server.url("postgres", "visitor", "wrong"),
        server.url("nowhere"),
    ]
    urls = [
        f"{url}?allow_cleartext=1" for url in urls
    ]  # a libpq before 16 cannot refuse: it gets no password else
    hostile = {
        "PGSERVICE": "nobody",
        "PGSSLMODE": "verify-full",
        "PGHOSTADDR": "192.0.2.7",
        "PGOPTIONS": "-c nonsense=1",
        "PGREQUIREAUTH": "none",
        "PGTARGETSESSIONATTRS": "standby",
        "PGCONNECT_TIMEOUT": "1",
        "PGPASSFILE": "/dev/zero",
    }
    script = (
        "from monitor.feeler.login import strip_pg_environment\nstrip_pg_environment()\n" + SCRIPT
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        input="\n".join(urls).encode(),
        env={**os.environ, **hostile, "PSYCOPG_IMPL": implementation, "PYTHONPATH": "."},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.decode().split() == [
        implementation,
        "ok",
        "wrong_password",
        "no_database",
    ], done.stderr.decode()
    assert done.stderr == b""


async def test_a_session_is_felt_by_one_probe_and_nothing_stays(server: PostgresServer) -> None:
    seen = await probe(visitor(server), worker="cli-1")
    assert seen.cause is Cause.OK
    assert seen.fresh_login
    assert seen.steps.keys() == {"dns", "connect", "login", "query"}
    assert {reading.family for reading in seen.readings} == {
        "connections", "activity", "database", "tables", "size",
    }  # fmt: skip
    query = "select count(*) from pg_stat_activity where application_name = 'feeler/cli-1'"
    await eventually(lambda: server.execute(query) == [(0,)])
