"""Behind a pooler nothing of ours may stay in a server connection that is somebody else's next."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import pq

from monitor.core.cause import Cause
from monitor.core.database import parse_address
from monitor.core.observation import Observation, ReadingStatus
from monitor.feeler.pooler import LARGEST_PID
from monitor.feeler.session import Session
from tests.conftest import StartPgBouncer, StartPostgres
from tests.feeler import hostile
from tests.feeler.conftest import MakeSession, feel, feel_and_note
from tests.feeler.hostile import Hostile, Talk
from tests.poolers import PgBouncer
from tests.servers import PostgresServer
from tests.waiting import eventually

DEADLINE = 1.0  # seconds
SETTINGS = ("search_path", "default_transaction_read_only", "lock_timeout", "statement_timeout")


def lend(upstream: socket.socket) -> Callable[[Talk], None]:
    """Relay each client over one server connection, as a pooler of one does."""
    upstream.settimeout(0.02)
    one_at_a_time = threading.Lock()

    def behave(talk: Talk) -> None:
        talk.start_up()
        with one_at_a_time:
            talk.welcome(pid=31337)
            gone = threading.Event()
            answers = threading.Thread(target=relay, args=(upstream, talk.sock, gone), daemon=True)
            answers.start()
            try:
                while (heard := talk.read())[0] != b"X":
                    upstream.sendall(hostile.message(*heard))
            finally:
                gone.set()
                answers.join()

    return behave


def relay(source: socket.socket, sink: socket.socket, gone: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not gone.is_set():
            with contextlib.suppress(TimeoutError):
                sink.sendall(source.recv(65536))


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[Hostile]:
    pgconn = pq.PGconn.connect(postgres_server.superuser_url().encode())
    with (
        socket.fromfd(pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as upstream,
        Hostile(lend(upstream)) as pooler,
    ):
        yield pooler
    pgconn.finish()


def through(pooler: Hostile) -> "psycopg.Connection[tuple[str]]":
    return psycopg.connect(
        f"postgresql://u:p@127.0.0.1:{pooler.port}/db?sslmode=disable", autocommit=True
    )


def left_behind(pooler: Hostile) -> list[str]:
    with through(pooler) as client:
        shown = [client.execute(f"show {name}".encode()).fetchall()[0][0] for name in SETTINGS]
        prepared = client.execute(b"select name from pg_prepared_statements").fetchall()
    return [*shown, *(name for (name,) in prepared)]


async def test_a_pooler_is_noticed_and_gets_its_connection_back_as_it_was(
    pooler: Hostile, make_session: MakeSession
) -> None:
    before = left_behind(pooler)
    session = make_session(pooler.address())
    for fresh in (False, False):
        seen = await feel(session, fresh=fresh, slow=True)
        assert seen.cause is Cause.OK
        assert seen.access.pooled
        assert {reading.status for reading in seen.readings} == {ReadingStatus.OK}
        assert {reading.family for reading in seen.readings} >= {
            "connections",
            "activity",
            "database",
        }
    await session.close()
    assert left_behind(pooler) == before


async def test_a_session_of_our_own_is_not_taken_for_pooled(
    postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    seen = await feel(make_session(parse_address(postgres_server.superuser_url())))
    assert not seen.access.pooled


@pytest.mark.parametrize("code", ["26000", "42P05"])
async def test_statements_that_vanish_are_sent_whole_from_then_on(
    make_session: MakeSession, code: str
) -> None:
    """A pooler that passes the server's process id through shows itself by what happens to prepared
    statements.
    """
    whole: list[bool] = []

    def forget(talk: Talk, sql: str) -> None:
        if talk.bound:
            raise hostile.Refusal(code)
        whole.append("set_config" not in sql)
        hostile.honest(talk, sql)

    with Hostile(hostile.logged_in(forget)) as server:
        session = make_session(server.address())
        for expected in (2, 4):
            seen = await feel(session)
            assert seen.cause is Cause.OK
            assert seen.access.pooled
            assert sum(whole) == expected
        assert server.accepted == 1


class Pool:
    """A pooler that lends a server connection as long as its client stays; who finds none waits
    without a word.
    """

    def __init__(self, taken: bytes) -> None:
        self.held = self.most = 0
        self._taken, self._free = taken, threading.Semaphore(1)

    def grow(self) -> None:
        self._free.release()

    def __call__(self, talk: Talk) -> None:
        talk.start_up()
        with self._free:
            self.held += 1
            self.most = max(self.most, self.held)
            try:
                talk.welcome(pid=LARGEST_PID + 1)
                talk.serve(self._answer)
            finally:
                self.held -= 1

    def _answer(self, talk: Talk, sql: str) -> None:
        if "set_config" in sql:
            talk.row({"pooled": b"t"})
        else:
            talk.row(
                {
                    **{name: hostile.GOOD[name] for name in hostile.columns(sql)},
                    "connections": self._taken,
                }
            )


async def test_a_pooler_whose_server_is_full_keeps_logins_waiting(
    make_session: MakeSession,
) -> None:
    with Hostile(Pool(taken=hostile.GOOD["connections_max"])) as pooler:
        session = make_session(pooler.address(), deadline=0.5)
        assert await felt(session) == (Cause.OK, True)
        for _ in range(2):
            seen = await eventually(lambda: proved(session))
            assert seen.cause is Cause.POOLER_WAITING
        assert await felt(session) == (Cause.OK, True), "the kept session is kept"


async def test_a_pool_that_has_room_again_lends_a_connection_beside_the_kept_one(
    make_session: MakeSession,
) -> None:
    pool = Pool(taken=b"3")
    with Hostile(pool) as pooler:
        session = make_session(pooler.address(), deadline=0.5)
        assert await felt(session) == (Cause.OK, True)
        assert (await eventually(lambda: proved(session))).cause is Cause.OK
        assert pool.most == 1, "the kept one gave way"
        pool.grow()
        assert (await eventually(lambda: proved(session))).cause is Cause.OK
        assert pool.most == 2


async def proved(session: Session) -> Observation | None:
    """Feel; return what it says when it was the session's turn to prove a login."""
    seen, notes = await feel_and_note(session, fresh=True)
    return None if notes.login_waiting else seen


# --- a pgbouncer ----------------------------------------------------------------------------------

POOLED = ["transaction", "session"]


@contextlib.contextmanager
def used_up(bouncer: PgBouncer) -> Iterator[None]:
    """Hold its one server connection in a transaction."""
    with psycopg.connect(bouncer.url()) as hog:
        hog.execute("select 1")
        yield


async def felt(
    session: Session, *, fresh: bool = False, pooled: bool = False
) -> tuple[Cause, bool]:
    seen = await feel(session, fresh=fresh, pooled=pooled)
    return seen.cause, seen.access.pooled


@pytest.mark.parametrize("mode", POOLED)
@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "trust"])
async def test_a_pool_that_is_used_up_is_waited_for(
    start_pgbouncer: StartPgBouncer,
    postgres_server: PostgresServer,
    make_session: MakeSession,
    mode: str,
    auth: str,
) -> None:
    bouncer = start_pgbouncer(postgres_server, pool_mode=mode, auth_type=auth)
    with used_up(bouncer):
        first = make_session(parse_address(bouncer.url()), deadline=DEADLINE)
        for _ in range(2):
            assert await felt(first) == (Cause.POOLER_WAITING, True), (
                "it was never seen before, too"
            )
    session = make_session(parse_address(bouncer.url()), deadline=DEADLINE)
    assert await felt(session) == (Cause.OK, True)
    assert await felt(session, fresh=True) == (Cause.OK, True), (
        "one connection is enough to prove a login"
    )


@pytest.mark.parametrize("way", ["used up", "paused"])
async def test_a_kept_session_waits_for_the_pool(
    start_pgbouncer: StartPgBouncer,
    postgres_server: PostgresServer,
    make_session: MakeSession,
    way: str,
) -> None:
    bouncer = start_pgbouncer(postgres_server)
    session = make_session(parse_address(bouncer.url()), deadline=DEADLINE)
    assert await felt(session) == (Cause.OK, True)
    with contextlib.ExitStack() as stack:
        if way == "paused":
            bouncer.command("PAUSE")
            stack.callback(bouncer.command, "RESUME")
        else:
            stack.enter_context(used_up(bouncer))
        for fresh in (False, False, True):
            assert await felt(session, fresh=fresh) == (Cause.POOLER_WAITING, True)
    assert await felt(session) == (Cause.OK, True)


async def test_a_pooler_says_by_its_code_that_it_has_no_connection(
    start_pgbouncer: StartPgBouncer, start_postgres: StartPostgres, make_session: MakeSession
) -> None:
    server = start_postgres()
    bouncer = start_pgbouncer(server, server_login_retry="60")
    session = make_session(parse_address(bouncer.url()), deadline=DEADLINE)
    assert await felt(session) == (Cause.OK, True)
    server.kill_all()
    assert await felt(session) == (Cause.POOLER_WAITING, True)
    seen = await feel(session)
    assert (seen.cause, seen.sqlstate) == (Cause.POOLER_WAITING, "08P01")
    assert "server login has been failing" in seen.detail


async def test_what_a_pooler_says_at_the_door_is_about_us(
    start_pgbouncer: StartPgBouncer, postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    bouncer = start_pgbouncer(postgres_server)
    address = replace(parse_address(bouncer.url()), password="wrong")
    seen = await feel(make_session(address), pooled=True)
    assert (seen.cause, seen.sqlstate) == (Cause.SERVER_ERROR, "08P01")


async def test_a_pooler_that_is_silent_itself_is_silent(
    start_pgbouncer: StartPgBouncer, postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    bouncer = start_pgbouncer(postgres_server)
    session = make_session(parse_address(bouncer.url()), deadline=DEADLINE)
    assert await felt(session) == (Cause.OK, True)
    bouncer.freeze()
    for _ in range(2):
        assert await felt(session) == (Cause.HUNG, True)
    bouncer.kill()
    assert await felt(session) == (Cause.PORT_CLOSED, True)


@pytest.mark.parametrize(("pooled", "cause"), [(True, Cause.POOLER_WAITING), (False, Cause.HUNG)])
async def test_a_login_that_waits_without_a_word_is_read_by_what_is_known(
    start_pgbouncer: StartPgBouncer,
    start_postgres: StartPostgres,
    make_session: MakeSession,
    pooled: bool,
    cause: Cause,
) -> None:
    server = start_postgres()
    bouncer = start_pgbouncer(server, auth_type="trust")
    server.freeze()
    address = replace(parse_address(bouncer.url()), sslmode="disable")
    session = make_session(address, deadline=DEADLINE)
    assert await felt(session, pooled=pooled) == (cause, pooled)


async def test_a_pooler_that_went_away_is_forgotten(
    postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    session = make_session(parse_address(postgres_server.superuser_url()))
    assert await felt(session, pooled=True) == (Cause.OK, False)


async def test_a_pooler_that_dies_in_the_login_is_gone(make_session: MakeSession) -> None:
    def die(talk: Talk) -> None:
        talk.start_up()
        talk.send(b"R", struct.pack("!i", hostile.AUTH_OK))

    with Hostile(die) as pooler:
        assert await felt(make_session(pooler.address()), pooled=True) == (Cause.RESET, True)
