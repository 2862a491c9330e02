"""Under which settings statements run, whatever the database's owner has set."""

from collections.abc import Iterator

import pytest
from psycopg import pq

from monitor.core.cause import Cause
from monitor.core.database import parse_address
from monitor.feeler import libpq, questions
from monitor.feeler.session import probe
from tests.servers import PostgresServer

SETTINGS = {
    "search_path": b"pg_catalog, pg_temp",
    "default_transaction_read_only": b"on",
    "lock_timeout": b"100ms",
    "statement_timeout": b"1500ms",
    "idle_in_transaction_session_timeout": b"5s",
}


@pytest.fixture
def pgconn(postgres_server: PostgresServer) -> Iterator[pq.PGconn]:
    pgconn = pq.PGconn.connect(postgres_server.superuser_url().encode())
    yield pgconn
    pgconn.finish()


def ask(pgconn: pq.PGconn, unit: questions.Unit) -> bytes | None:
    for send in unit:
        send(pgconn)
    answers = []
    while result := pgconn.get_result():
        assert result.status == pq.ExecStatus.TUPLES_OK, result.error_message
        answers.append(result.get_value(0, 0))
    return answers[-1]


def shown(pgconn: pq.PGconn) -> dict[str, bytes | None]:
    return {name: pgconn.exec_(f"show {name}".encode()).get_value(0, 0) for name in SETTINGS}


def test_a_session_of_our_own_is_pinned_for_good(pgconn: pq.PGconn) -> None:
    assert ask(pgconn, questions.set_up(1.5, pgconn.backend_pid)) == b"f"
    assert shown(pgconn) == SETTINGS


def test_a_shared_session_is_left_as_it_was(pgconn: pq.PGconn) -> None:
    before = shown(pgconn)
    assert ask(pgconn, questions.set_up(1.5, pgconn.backend_pid + 1)) == b"t"
    assert shown(pgconn) == before


def test_through_a_pooler_the_settings_hold_for_one_message(pgconn: pq.PGconn) -> None:
    before = shown(pgconn)
    for name, value in SETTINGS.items():
        query = questions.Query(
            "q", (), slow=False, least=0, sql=f"SELECT current_setting('{name}')".encode()
        )
        assert ask(pgconn, questions.run_through_pooler(query, 1.5)) == value
    assert shown(pgconn) == before


async def test_functions_of_the_databases_owner_are_not_called(
    postgres_server: PostgresServer,
) -> None:
    postgres_server.execute("create database trap")
    for sql in (
        "create schema trap",
        "create function trap.pg_is_in_recovery() returns bool language sql as 'select true'",
        "create function trap.set_config(text, text, bool) returns text language sql "
        "as $$select 'trapped'$$",
        "create function trap.differ(int, int) returns bool language sql as 'select true'",
        "create operator trap.<> (leftarg = int, rightarg = int, function = trap.differ)",
        "alter database trap set search_path = trap, pg_catalog",
        "alter database trap set default_transaction_read_only = on",
    ):
        postgres_server.execute(sql, "trap")
    seen = await probe(parse_address(postgres_server.superuser_url("trap")))
    assert seen.cause is Cause.OK
    assert not seen.access.pooled
    values = {name: value for reading in seen.readings for name, value in reading.values.items()}
    assert values["role"] == "primary"


def test_the_libpq_of_psycopg_is_found() -> None:
    assert libpq._library is not None
    assert libpq._library.PQlibVersion() == pq.version()
