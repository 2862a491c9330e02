"""The way to our Postgres: a small pool, deadlines, driver's errors turned into ours, migrations.

Anyone above core may open a store; only registry/ and alembic/env.py look inside. No error text of
the server or the driver goes into ours: it may quote the URL.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import (
    Connection,
    Engine,
    ExceptionContext,
    NullPool,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from monitor.core.aside import Aside
from monitor.core.errors import InvalidInput, StoreUnavailable

CONNECT_SECONDS = 2
ANSWER_SECONDS = 2.0  # for the first words on a connection and the ping at checkout
STATEMENT_MS = 5_000  # Postgres ends a statement after this
UNIT_SECONDS = 10.0  # we cut the line after this: a frozen server keeps no timeouts
READ_ONLY = "25006"
MIGRATION_LOCK = 0x666565_6C6572  # 'feeler'; one migration at a time per database
_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")
_HERE = Path(__file__).resolve()

_KINDS = {  # by SQLSTATE, else by its class; short words of ours, never the server's
    READ_ONLY: "read only",
    "40P01": "deadlock",
    "42P01": "not migrated (run `feeler migrate`)",
    "42703": "not migrated (run `feeler migrate`)",
    "53100": "disk full",
    "53300": "too many connections",
    "55P03": "lock timeout",
    "57014": "statement timeout",
    "08": "connection lost",
    "28": "login refused",
    "3D": "no such database",
    "53": "out of resources",
    "57": "shutting down",
    "58": "system error",
}


class Store:
    """Our Postgres, for the functions of this folder."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.aside = Aside()  # rows that could not be read

    def __repr__(self) -> str:
        return "Store(postgres)"

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Run one transaction; whatever happens to Postgres meanwhile, it ends, in StoreUnavailable
        at worst.
        """
        with wrapped(self._engine), self._engine.connect() as connection:
            line = connection.connection.driver_connection
            # the commit is cut short too
            with severed_after(UNIT_SECONDS, line), connection.begin():
                yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def open_store(url: str) -> Store:
    """Return a store for postgres://, postgresql:// or postgresql+psycopg://; connects at first
    use.
    """
    return Store(_engine(url, pool_size=3, max_overflow=2, pool_timeout=5, pool_recycle=1800))


def migrate(url: str) -> None:
    """Bring the schema to the newest revision, all or nothing."""
    with migration(url) as connection, _known_revisions():
        command.upgrade(migrations(connection), "head")


@contextmanager
def migration(url: str) -> Iterator[Connection]:
    """Run one transaction that changes the schema, however long it takes; of many callers one works
    and the others wait.
    """
    engine = _engine(url, poolclass=NullPool)
    with wrapped(engine), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        # The lock has a connection of its own: no commit or rollback of the migration can end it.
        guard.exec_driver_sql("SET statement_timeout = '60s'")
        guard.exec_driver_sql(f"SELECT pg_catalog.pg_advisory_lock({MIGRATION_LOCK})")
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(
                "SET LOCAL lock_timeout = '10s'"
            )  # DDL must not queue before everybody else
            yield connection


def pending_migrations(url: str) -> tuple[str, ...]:
    """Return the revisions `migrate` would apply, oldest first."""
    store = Store(_engine(url, poolclass=NullPool))
    with store.begin() as connection:
        applied = MigrationContext.configure(connection).get_current_heads()
    with _known_revisions():
        steps = ScriptDirectory.from_config(migrations()).iterate_revisions(
            "heads", applied or "base"
        )
        return tuple(step.revision for step in reversed(list(steps)))


def migrations(connection: Connection | None = None) -> Config:
    """Return alembic's configuration: the scripts lie in the wheel, or beside monitor/ in a
    checkout.
    """
    shipped = _HERE.parents[1] / "_migrations"
    folder = shipped if (shipped / "env.py").exists() else _HERE.parents[2] / "alembic"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def wrapped(engine: Engine) -> Iterator[None]:
    """Turn what says 'Postgres cannot serve us now' into StoreUnavailable; constraints and bugs
    pass as they are.
    """
    driver: Any = engine.dialect.loaded_dbapi  # COPY speaks to the driver itself
    try:
        yield
    except (IntegrityError, driver.IntegrityError):
        raise
    except (DataError, driver.DataError) as exc:
        raise InvalidInput("value", "Postgres cannot store it") from exc
    except PoolTimeout as exc:
        raise StoreUnavailable("postgres", "all connections are busy") from exc
    except (DBAPIError, driver.Error) as exc:
        cause = exc.orig if isinstance(exc, DBAPIError) else exc
        state = getattr(cause, "sqlstate", None) or ""
        kind = _KINDS.get(state) or _KINDS.get(state[:2])
        if kind or (
            not state and isinstance(cause, driver.OperationalError | driver.InterfaceError)
        ):
            raise StoreUnavailable("postgres", kind or "no connection") from exc
        raise


@contextmanager
def severed_after(seconds: float, connection: Any) -> Iterator[None]:
    """Shut the connection's socket down when the block takes longer; what waits on it then fails at
    once.
    """
    lock, over = threading.Lock(), False

    def sever() -> None:
        with lock, suppress(OSError, type(connection).OperationalError):
            if not over:  # afterwards the descriptor may be another connection's
                with socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, sever)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            over = True
        timer.cancel()


def _engine(url: str, **pool: Any) -> Engine:
    """Build the engine: nothing connects yet, no parameter or URL shows in errors."""
    options = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "feeler/registry",
        "prepare_threshold": None,
    }
    try:  # prepared statements do not survive a pooler in transaction mode, hence none
        address = make_url(url)
        if address.drivername not in _SCHEMES or not address.database:
            raise ValueError
        engine = create_engine(
            address.set(drivername="postgresql+psycopg"),
            connect_args=options,
            hide_parameters=True,
            **pool,
        )
    except (ArgumentError, ValueError):
        raise InvalidInput(
            "DATABASE_URL", "not usable", "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    event.listen(engine, "connect", _greet)
    event.listen(engine, "checkout", _ping)
    event.listen(engine, "handle_error", _leave_demoted)
    return engine


def _greet(connection: Any, record: ConnectionPoolEntry) -> None:
    """Set up a new connection. By SET: poolers refuse unknown start-up parameters."""
    with severed_after(ANSWER_SECONDS, connection):
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {STATEMENT_MS}")
        connection.execute("SET timezone = 'UTC'")
        connection.autocommit = False
    record.info["fresh"] = True


def _ping(connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    """Replace a kept connection that died or leads to a standby, where the name has led elsewhere
    since a switch-over.

    SQLAlchemy's own pre-ping waits for ever on a frozen server.
    """
    if record.info.pop("fresh", False):
        return
    try:
        with severed_after(ANSWER_SECONDS, connection):
            connection.autocommit = True
            [demoted] = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
            connection.autocommit = False
    except connection.Error as exc:
        raise InvalidatePoolError from exc
    if demoted:
        raise InvalidatePoolError


def _leave_demoted(context: ExceptionContext) -> None:
    """Take a server that takes no writes any more for gone: no kept connection to it is used
    again.
    """
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


@contextmanager
def _known_revisions() -> Iterator[None]:
    try:
        yield
    except (CommandError, RevisionError) as exc:
        raise InvalidInput(
            "DATABASE_URL", "this database was migrated by a newer feeler", "upgrade feeler"
        ) from exc
