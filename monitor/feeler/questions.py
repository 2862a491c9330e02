"""How a session's statements are sent: prepared on a connection of our own, whole through a pooler.

Pure; for this package alone.
"""

from collections.abc import Mapping
from functools import partial

from psycopg.pq.abc import PGconn

from monitor.feeler.gauges import Query
from monitor.feeler.wire import Unit

# Seconds, seconds, times: a host of ours that died gives its slots back within half a minute, not
# after two hours.
KEEPALIVES = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
LOCK_TIMEOUT = 0.1  # seconds: whoever holds a catalog is not made to wait for us for longer


def pin(timeout: float, local: str) -> str:
    """Return the settings every statement of ours runs under, as a list of set_config calls.

    `timeout` is in seconds. The path is pinned against functions and operators that a database's
    owner may have put into it, temporary tables last.
    """
    settings = {
        "search_path": "pg_catalog, pg_temp",
        "default_transaction_read_only": "on",
        "lock_timeout": f"{LOCK_TIMEOUT * 1000:.0f}",
        "statement_timeout": f"{timeout * 1000:.0f}",
        "idle_in_transaction_session_timeout": "5000",
    }
    return _setting(settings, local)


def _setting(settings: Mapping[str, str], local: str) -> str:
    calls: list[str] = []
    for name, value in settings.items():
        calls.append(f"pg_catalog.set_config('{name}', '{value}', {local})")
    return ", ".join(calls)


def set_up(timeout: float, backend_pid: int) -> Unit:
    """Return the unit that asks whether a pooler is between and, if none is, pins the session.

    A pooler answers with another process id than the one it told libpq. There the settings must end
    with the statement: a read-only session would go on to whoever gets the server connection next.
    """
    settings = f"{pin(timeout, 'pooled')}, {_setting(KEEPALIVES, 'pooled')}"
    is_pooled = "pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) $1::pg_catalog.int4"
    sql = f"SELECT pooled, {settings} FROM (SELECT {is_pooled} AS pooled) AS pooler"  # noqa: S608
    pid = str(backend_pid).encode()
    return [lambda pgconn: pgconn.send_query_params(sql.encode(), [pid])]


def run(query: Query, *, prepared: bool) -> Unit:
    """Return the unit of a statement on a connection of our own; slow ones stay unprepared."""
    if query.slow:
        return [lambda pgconn: pgconn.send_query_params(query.sql, None)]
    if prepared:
        return [partial(_run, query)]
    return [partial(_prepare, query), partial(_run, query)]


def run_through_pooler(query: Query, timeout: float) -> Unit:
    """Return a unit of one message, so of one transaction: its settings end with it."""
    message = f"SELECT {pin(timeout, 'true')}; ".encode() + query.sql
    return [lambda pgconn: pgconn.send_query(message)]


def _prepare(query: Query, pgconn: PGconn) -> None:
    pgconn.send_prepare(query.name.encode(), query.sql)


def _run(query: Query, pgconn: PGconn) -> None:
    pgconn.send_query_prepared(query.name.encode(), None)
