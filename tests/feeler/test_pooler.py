"""Behind a pooler nothing of ours may stay in a server connection that is somebody else's next."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import pq

from monitor.core.cause import Cause
from monitor.core.database import parse_address
from monitor.core.observation import ReadingStatus
from tests.feeler import hostile
from tests.feeler.conftest import MakeSession
from tests.feeler.hostile import Hostile, Talk
from tests.servers import PostgresServer

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
    return psycopg.connect(f"postgresql://u:p@127.0.0.1:{pooler.port}/db?sslmode=disable", autocommit=True)


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
        feeling = await session.feel(fresh=fresh, slow=True)
        assert feeling.cause is Cause.OK
        assert feeling.pooled
        assert {reading.status for reading in feeling.readings} == {ReadingStatus.OK}
        assert {reading.family for reading in feeling.readings} >= {"connections", "activity", "database"}
    await session.close()
    assert left_behind(pooler) == before


async def test_a_session_of_our_own_is_not_taken_for_pooled(
    postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    feeling = await make_session(parse_address(postgres_server.superuser_url())).feel(fresh=False, slow=False)
    assert not feeling.pooled


@pytest.mark.parametrize("code", ["26000", "42P05"])
async def test_statements_that_vanish_are_sent_whole_from_then_on(make_session: MakeSession, code: str) -> None:
    """A pooler that passes the server's process id through shows itself by what happens to prepared statements."""
    whole: list[bool] = []

    def forget(talk: Talk, sql: str) -> None:
        if talk.bound:
            raise hostile.Refusal(code)
        whole.append("set_config" not in sql)
        hostile.honest(talk, sql)

    with Hostile(hostile.logged_in(forget)) as server:
        session = make_session(server.address())
        for expected in (2, 4):
            feeling = await session.feel(fresh=False, slow=False)
            assert feeling.cause is Cause.OK
            assert feeling.pooled
            assert sum(whole) == expected
        assert server.accepted == 1
