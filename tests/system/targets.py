"""What tests do to the servers feeler watches."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from monitor.local.embedded import Postgres
from monitor.local.machine import own
from tests.servers import PostgresServer

OUR_SESSIONS = "application_name like 'feeler/%'"


def end_our_sessions(server: PostgresServer) -> int:
    """Terminate the sessions feeler keeps; return how many there were."""
    return len(
        server.execute(
            f"select pg_terminate_backend(pid) from pg_stat_activity where {OUR_SESSIONS}"
        )
    )


def fill_slots(server: PostgresServer, user: str, password: str) -> "list[psycopg.Connection]":
    """Open sessions until the server refuses more."""
    hogs = []
    while True:
        try:
            hogs.append(psycopg.connect(server.url("postgres", user, password), connect_timeout=5))
        except psycopg.OperationalError:
            return hogs


@contextmanager
def held_in_recovery(server: PostgresServer) -> Iterator[None]:
    """Crash the server and start it into a recovery as long as the block: logins get 57P03."""
    server.kill_all()
    held, signal_file = server.folder / "held", server.data / "recovery.signal"
    for path in (held, signal_file):
        path.touch()
        own(path)
    server.settings["restore_command"] = f"while test -e {held}; do sleep 0.05; done; false"
    Postgres.start(server)
    try:
        yield
    finally:
        held.unlink()
        server.wait_ready()
