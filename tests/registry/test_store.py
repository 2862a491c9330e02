"""The way to Postgres: URLs, limits, errors turned into ours, nothing leaked, nothing waits for
ever.
"""

import threading
import time
import traceback
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from monitor.core.errors import InvalidInput, StoreUnavailable
from monitor.registry import fleet, leadership
from monitor.registry import store as store_module
from monitor.registry.store import Store, migrate, open_store, pending_migrations
from tests.fixtures import StartPostgres
from tests.servers import PostgresServer

CANARY = "c4n4ry-p4ssw0rd"


def one(store: Store, sql: str) -> object:
    """Return the only value of a query."""
    with store.begin() as connection:
        return connection.execute(text(sql)).scalar_one()


def run(store: Store, *statements: str | Callable[[], object]) -> None:
    """Run statements in one transaction, and what else is to happen between them."""
    with store.begin() as connection:
        for statement in statements:
            connection.execute(text(statement)) if isinstance(statement, str) else statement()


def fail() -> None:
    """Fail for a reason of our own."""
    raise KeyError


def shown(work: Callable[[], object], error: type[Exception] = StoreUnavailable) -> str:
    """Return everything a log could show of the error this must raise, its causes included."""
    with pytest.raises(error) as caught:
        work()
    return (
        "".join(traceback.format_exception(caught.value))
        + repr(caught.value)
        + repr(vars(caught.value))
    )


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_form_of_the_url_works(database_url: str, scheme: str) -> None:
    store = open_store(scheme + database_url.removeprefix("postgresql"))
    assert one(store, "SELECT 1") == 1
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        CANARY,
        f"mysql://u:{CANARY}@h/d",
        f"postgresql+asyncpg://u:{CANARY}@h/d",
        f"postgresql://u:{CANARY}@h:{CANARY}/d",
        f"postgresql://u:{CANARY}@h",
    ],
)
@pytest.mark.parametrize("work", [open_store, migrate, pending_migrations])
def test_an_unusable_url_is_refused_without_an_echo(
    work: Callable[[str], object], url: str
) -> None:
    assert CANARY not in shown(lambda: work(url), InvalidInput)


def test_sessions_are_named_and_limited(store: Store) -> None:
    assert one(store, "SHOW application_name") == "feeler/registry"
    assert one(store, "SHOW statement_timeout") == "5s"
    assert one(store, "SHOW timezone") == "UTC"


def test_a_transaction_is_undone_by_an_exception(store: Store) -> None:
    with pytest.raises(KeyError):
        run(store, "UPDATE leadership SET term = 7", fail)
    assert one(store, "SELECT term FROM leadership") == 0


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("25006", "read only"),
        ("53100", "disk full"),
        ("53200", "out of resources"),
        ("53300", "too many connections"),
        ("57P01", "shutting down"),
        ("57P03", "shutting down"),
        ("57014", "statement timeout"),
        ("55P03", "lock timeout"),
        ("40P01", "deadlock"),
        ("58030", "system error"),
        ("08006", "connection lost"),
        ("42P01", "not migrated (run `feeler migrate`)"),
    ],
)
def test_errors_that_pass_are_store_unavailable(store: Store, sqlstate: str, kind: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        one(store, f"DO $$ BEGIN RAISE EXCEPTION 'c4n4ry' USING ERRCODE = '{sqlstate}'; END $$")
    assert (caught.value.store, caught.value.detail, caught.value.permanent) == (
        "postgres",
        kind,
        False,
    )
    assert "c4n4ry" not in str(caught.value)


def test_a_read_only_server_is_unavailable(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="read only"):
        run(store, "SET TRANSACTION READ ONLY", "UPDATE leadership SET term = 7")


def test_connections_to_a_demoted_server_are_not_used_again(store: Store) -> None:
    """They stand for ones a switch-over left behind: where the name leads now takes writes."""
    run(store, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    with pytest.raises(StoreUnavailable, match="read only"):
        leadership.acquire(store, "a")
    assert leadership.acquire(store, "a")


def test_kept_connections_to_a_standby_are_replaced(start_postgres: StartPostgres) -> None:
    """Who only reads would otherwise read an old registry for as long as the pool keeps them."""
    server = start_postgres(wal_level="replica")
    store = open_store(server.url("postgres"))
    pid = "SELECT pg_backend_pid()"
    assert one(store, pid) == one(store, pid)
    server.demote()
    assert one(store, pid) != one(store, pid)
    store.close()


def test_a_slow_statement_is_cut_short(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        run(store, "SET LOCAL statement_timeout = '20ms'", "SELECT pg_sleep(5)")
    assert one(store, "SELECT 1") == 1


def test_constraints_and_bugs_are_not_called_unavailable(store: Store) -> None:
    with pytest.raises(IntegrityError):
        one(store, "INSERT INTO leadership VALUES (2, 1, '', now()) RETURNING 1")
    with pytest.raises(Exception, match="syntax error") as caught:
        one(store, "SELEKT")
    assert not isinstance(caught.value, StoreUnavailable)


def test_what_postgres_cannot_store_is_invalid_input(store: Store) -> None:
    with pytest.raises(InvalidInput):
        leadership.acquire(store, "a\0b")


def test_a_database_never_migrated(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE DATABASE bare")
    store = open_store(postgres_server.url("bare"))
    with pytest.raises(StoreUnavailable, match="feeler migrate"):
        fleet.read_fleet(store)
    store.close()
    postgres_server.execute("DROP DATABASE bare")


def test_nobody_listens_there() -> None:
    store = open_store(f"postgresql://u:{CANARY}@127.0.0.1:1/d")
    assert CANARY not in shown(lambda: one(store, "SELECT 1"))
    assert CANARY not in repr(store)
    store.close()


def test_a_wrong_password(postgres_server: PostgresServer) -> None:
    store = open_store(postgres_server.url("postgres", password=CANARY))
    assert CANARY not in shown(lambda: one(store, "SELECT 1"))
    store.close()


def test_the_real_password_is_in_no_error(
    database_url: str, postgres_server: PostgresServer
) -> None:
    store = open_store(database_url)
    texts = [
        shown(lambda: one(store, "SELECT * FROM nowhere")),
        shown(lambda: one(store, "SELEKT"), Exception),
        shown(lambda: leadership.acquire(store, f"\0{postgres_server.password}"), InvalidInput),
    ]
    assert not any(postgres_server.password in text for text in texts)
    store.close()


def test_a_restart_is_survived(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    store = open_store(server.url("postgres"))
    assert one(store, "SELECT 1") == 1
    server.stop()
    with pytest.raises(StoreUnavailable):
        one(store, "SELECT 1")
    server.start()
    assert one(store, "SELECT 1") == 1
    server.kill_all()
    server.start()
    assert one(store, "SELECT 1") == 1, "a kept connection that died is replaced, nobody notices"
    store.close()


def test_a_frozen_server_does_not_hold_us(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    store = open_store(server.url("postgres"))
    assert one(store, "SELECT 1") == 1
    server.freeze()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        one(store, "SELECT 1")
    assert time.monotonic() - began < 6, "the ping and one login, two seconds each"
    server.thaw()
    assert one(store, "SELECT 1") == 1
    store.close()


def test_a_server_frozen_in_the_midst_of_it_does_not_hold_us(
    start_postgres: StartPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "UNIT_SECONDS", 0.3)
    server = start_postgres()
    store = open_store(server.url("postgres"))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        run(store, server.freeze, "SELECT 1")
    assert time.monotonic() - began < 2
    server.thaw()
    assert one(store, "SELECT 1") == 1
    store.close()


def test_a_server_frozen_before_the_commit_does_not_hold_us(
    start_postgres: StartPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "UNIT_SECONDS", 0.3)
    server = start_postgres()
    store = open_store(server.url("postgres"))
    with pytest.raises(StoreUnavailable):
        run(store, "SELECT 1", server.freeze)
    server.thaw()
    store.close()


def test_more_callers_than_connections_wait_their_turn(store: Store) -> None:
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(one(store, "SELECT pg_sleep(0.01)")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
