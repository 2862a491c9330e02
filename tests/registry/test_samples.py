"""Samples: partitions by UTC day, one row per database and moment, no odd answer hurts the
others.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from monitor.core.observation import GAUGES, Value
from monitor.core.status import State
from monitor.registry import fleet
from monitor.registry.samples import Sample, ensure_partitions, write_samples
from monitor.registry.store import Store
from tests.registry.making import NOON


def rows(store: Store, sql: str) -> list[Any]:
    """Return the rows of a query."""
    with store.begin() as connection:
        return list(connection.execute(text(sql)))


def run(store: Store, sql: str) -> None:
    """Run a statement."""
    with store.begin() as connection:
        connection.execute(text(sql))


def sample(database: str = "db1", at: float = NOON, **values: Value) -> Sample:
    """Make a sample."""
    return Sample(database, at, State.AVAILABLE, "w1-0a0b0c", values)


@pytest.fixture
def ready(store: Store) -> Store:
    """A store with partitions and two databases."""
    ensure_partitions(store)
    fleet.add(store, "db1", "sealed", {})
    fleet.add(store, "db2", "sealed", {})
    return store


def partitions(store: Store) -> dict[str, str]:
    """Return each partition and its bounds."""
    query = """SELECT inhrelid::regclass::text, pg_get_expr(relpartbound, pg_class.oid)
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'samples'::regclass"""
    return {name: bounds for name, bounds in rows(store, query)}


def utc_days(store: Store, count: int) -> list[datetime]:
    """Return the next midnights in UTC by Postgres's clock, today's first."""
    ((today,),) = rows(
        store, "SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
    )
    return [today + timedelta(days=days) for days in range(count)]


def test_today_and_two_days_ahead_and_the_rest_have_partitions(store: Store) -> None:
    days = utc_days(store, 4)
    made = ensure_partitions(store)
    assert made == tuple(f"samples_{day:%Y%m%d}" for day in days[:3])
    found = partitions(store)
    assert found.pop("samples_default") == "DEFAULT"
    midnights = [f"'{day:%Y-%m-%d} 00:00:00+00'" for day in days]
    assert found == {
        f"samples_{day:%Y%m%d}": f"FOR VALUES FROM ({start}) TO ({end})"
        for day, (start, end) in zip(days, itertools.pairwise(midnights), strict=False)
    }


def test_the_second_time_there_is_nothing_to_make(store: Store) -> None:
    ensure_partitions(store)
    before = partitions(store)
    assert ensure_partitions(store) == ()
    assert partitions(store) == before


def test_days_are_utc_whatever_the_servers_zone(store: Store, other_store: Store) -> None:
    run(
        store,
        "ALTER DATABASE "
        + rows(store, "SELECT current_database()")[0][0]
        + " SET timezone = 'Asia/Tokyo'",
    )
    days = utc_days(other_store, 3)
    assert ensure_partitions(other_store) == tuple(f"samples_{day:%Y%m%d}" for day in days)


def test_of_many_makers_each_partition_is_made_once(store: Store, other_store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = [
            name
            for names in pool.map(ensure_partitions, [store, other_store] * 3)
            for name in names
        ]
    assert len(made) == len(set(made)) == 3
    assert len(partitions(store)) == 4


def test_rows_that_came_before_their_partition_move_into_it(store: Store) -> None:
    fleet.add(store, "db1", "sealed", {})
    run(store, "CREATE TABLE samples_default PARTITION OF samples DEFAULT")
    today, tomorrow = utc_days(store, 2)
    moments = [
        today.timestamp() - 1,
        today.timestamp(),
        tomorrow.timestamp() - 1,
        tomorrow.timestamp(),
    ]
    assert write_samples(store, [sample(at=at, row_count=7) for at in moments]) == 4
    ensure_partitions(store)
    counts = dict(rows(store, "SELECT tableoid::regclass::text, count(*) FROM samples GROUP BY 1"))
    assert counts == {
        "samples_default": 1,
        f"samples_{today:%Y%m%d}": 2,
        f"samples_{tomorrow:%Y%m%d}": 1,
    }
    assert rows(store, "SELECT sum(row_count) FROM samples") == [(28,)]
    assert write_samples(store, [sample(at=at) for at in moments]) == 0, (
        "the moved rows are still unique"
    )


def test_every_gauge_has_its_column_and_comes_back(ready: Store) -> None:
    values: dict[str, Value] = {name: number for number, name in enumerate(GAUGES, start=1)}
    values |= {"role": "primary", "cache_hit_rate": 99.25, "db_size": 2**62}
    assert write_samples(ready, [sample(**values)]) == 1
    ((*found,),) = rows(ready, f"SELECT {', '.join(GAUGES)} FROM samples")
    assert dict(zip(GAUGES, found, strict=True)) == values
    head = rows(
        ready,
        "SELECT name, observed_at, state, worker FROM samples JOIN databases ON id = database_id",
    )
    assert head == [("db1", datetime.fromtimestamp(NOON, UTC), "available", "w1-0a0b0c")]


def test_what_was_not_read_is_null(ready: Store) -> None:
    write_samples(ready, [sample()])
    assert rows(ready, f"SELECT num_nonnulls({', '.join(GAUGES)}) FROM samples") == [(0,)]


@pytest.mark.parametrize(
    ("gauge", "value", "kept"),
    [
        ("row_count", "many", None),
        ("row_count", 2**63, None),
        ("row_count", -(2**63), None),
        ("row_count", float("nan"), None),
        ("row_count", float("inf"), None),
        ("row_count", 12.0, 12),
        ("row_count", "12", 12),
        ("row_count", True, 1),
        ("cache_hit_rate", "high", None),
        ("cache_hit_rate", 10**400, None),
        ("cache_hit_rate", 3, 3.0),
        ("role", "pri\0mary\t\\N", "pri\ufffdmary\t\\N"),
        ("role", 7, "7"),
        ("never_heard_of", 7, None),
    ],
)
def test_an_odd_answer_hurts_nobody_else(
    ready: Store, gauge: str, value: Value, kept: Value | None
) -> None:
    assert write_samples(ready, [sample(**{gauge: value}), sample("db2", db_size=5)]) == 2
    column = gauge if gauge in GAUGES else "db_size"
    assert rows(
        ready, f"SELECT {column} FROM samples JOIN databases ON id = database_id WHERE name = 'db1'"
    ) == [(kept,)]
    assert rows(ready, "SELECT max(db_size) FROM samples") == [(5,)]


def test_the_same_moment_again_is_left_out(ready: Store) -> None:
    first = [sample(row_count=1), sample("db2", row_count=1)]
    assert write_samples(ready, first) == 2
    assert (
        write_samples(ready, [sample(row_count=2), sample(row_count=3, at=NOON + 1), sample("db2")])
        == 1
    )
    assert rows(ready, "SELECT row_count FROM samples ORDER BY database_id, observed_at") == [
        (1,),
        (3,),
        (1,),
    ]


def test_unknown_databases_are_left_out(ready: Store) -> None:
    assert write_samples(ready, [sample("nobody"), sample()]) == 1


def test_nothing_to_write(ready: Store) -> None:
    assert write_samples(ready, []) == 0


def test_more_than_one_copy_full(ready: Store) -> None:
    assert write_samples(ready, [sample(at=NOON + n) for n in range(10_500)]) == 10_500
    assert rows(ready, "SELECT count(*), max(observed_at) - min(observed_at) FROM samples") == [
        (10_500, timedelta(seconds=10_499))
    ]


def test_competing_writers(ready: Store, other_store: Store) -> None:
    batch = [sample(name, at=NOON + n) for n in range(200) for name in ("db1", "db2")]
    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(write_samples, [ready, other_store] * 4, [batch] * 8))
    assert sum(new) == 400
