"""Samples of gauges, in a partition for each day. Historians import this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from monitor.core.chunks import chunks
from monitor.core.observation import GAUGES, Value
from monitor.registry.rows import moment, storable
from monitor.registry.store import Store
from monitor.registry.tables import Samples

DAYS_AHEAD = 2
AT_ONCE = 10_000  # rows of one transaction
BIGINT = 1 << 63  # whole numbers from here on fit no column

_GAUGE_TYPES = {name: Samples.columns[name].type.python_type for name in GAUGES}
_COLUMNS = ", ".join(list(Samples.columns.keys())[1:])  # all but database_id

# COPY cannot skip what is there already: it fills a table of the transaction, which is then joined.
_INCOMING = (
    f"CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS"  # noqa: S608
    f" SELECT CAST(NULL AS text) AS name, {_COLUMNS} FROM samples WITH NO DATA"
)
_COPY = f"COPY incoming (name, {_COLUMNS}) FROM STDIN"
_KEEP = (
    f"INSERT INTO samples (database_id, {_COLUMNS})"  # noqa: S608
    f" SELECT databases.id, {_COLUMNS} FROM incoming JOIN databases USING (name)"
    f" ON CONFLICT DO NOTHING"
)

_LOCK_PARTITIONS = text("SELECT pg_advisory_xact_lock(hashtextextended('feeler.partitions', 0))")
_MISSING_DAYS = text("""
    SELECT day FROM generate_series(0, :ahead) AS i,
        LATERAL (SELECT CAST(now() AT TIME ZONE 'UTC' AS date) + i AS day) AS days
    WHERE to_regclass('samples_' || to_char(day, 'YYYYMMDD')) IS NULL""")


@dataclass(frozen=True, slots=True)
class Sample:
    """The gauges of one database at one moment."""

    database: str
    observed_at: float
    state: str
    worker: str
    values: Mapping[str, Value]


def write_samples(store: Store, rows: Sequence[Sample]) -> int:
    """Keep samples, one per database and moment; return how many were new.

    Samples of databases that are not registered are left out.
    """
    new = 0
    for chunk in chunks(rows, AT_ONCE):
        new += _write(store, chunk)
    return new


def ensure_partitions(store: Store) -> tuple[str, ...]:
    """Make the default partition, today's and those of the days ahead; return the new days'.

    Days are of UTC, by Postgres's clock.
    """
    with store.begin() as connection:
        if not _missing(connection):
            return ()
        connection.execute(text("SET LOCAL lock_timeout = '2s'"))
        connection.execute(_LOCK_PARTITIONS)
        connection.execute(
            text("CREATE TABLE IF NOT EXISTS samples_default PARTITION OF samples DEFAULT")
        )
        missing = _missing(connection)  # again: another supervisor may have been quicker
        for day in missing:
            _make_partition(connection, day)
    return tuple(_partition(day) for day in missing)


def _missing(connection: Connection) -> Sequence[date]:
    return connection.execute(_MISSING_DAYS, {"ahead": DAYS_AHEAD}).scalars().all()


def _partition(day: date) -> str:
    return f"samples_{day:%Y%m%d}"


def _make_partition(connection: Connection, day: date) -> None:
    """Make one day's partition, taking over what fell into the default one.

    With such rows there, CREATE TABLE ... PARTITION OF would fail.
    """
    name = _partition(day)
    start, end = f"'{day}T00:00Z'", f"'{day + timedelta(days=1)}T00:00Z'"
    for statement in (
        f"CREATE TABLE {name} (LIKE samples INCLUDING ALL)",
        "LOCK TABLE samples_default IN ACCESS EXCLUSIVE MODE",
        f"WITH strays AS (DELETE FROM samples_default"  # noqa: S608
        f" WHERE observed_at >= {start} AND observed_at < {end} RETURNING *)"
        f" INSERT INTO {name} SELECT * FROM strays",
        f"ALTER TABLE samples ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})",
    ):
        connection.exec_driver_sql(statement)


def _write(store: Store, rows: Sequence[Sample]) -> int:
    with store.begin() as connection:
        connection.exec_driver_sql(_INCOMING)
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            for sample in rows:
                copy.write_row(_columns_of(sample))
        return connection.exec_driver_sql(_KEEP).rowcount


def _columns_of(sample: Sample) -> tuple[Value | datetime | None, ...]:
    values = sample.values
    gauges = [_fit(kind, values.get(name)) for name, kind in _GAUGE_TYPES.items()]
    observed_at = moment(sample.observed_at)
    return (sample.database, observed_at, str(sample.state), sample.worker, *gauges)


def _fit(kind: type, value: Value | None) -> Value | None:
    """Return the value as its column takes it, None when it cannot.

    One odd answer must not lose all samples.
    """
    if value is None:
        return None
    try:
        fitted: Value = kind(value)
    except (ValueError, OverflowError):
        return None
    if isinstance(fitted, int) and abs(fitted) >= BIGINT:
        return None
    return storable(fitted) if isinstance(fitted, str) else fitted
