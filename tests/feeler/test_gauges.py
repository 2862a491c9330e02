"""The gauges: which query for which server, what a row becomes, what nobody can know."""

import shutil
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.cause import Cause
from monitor.core.database import parse_address
from monitor.core.observation import (
    FAMILIES,
    GAUGES,
    SLOW_FAMILIES,
    Observation,
    Reading,
    ReadingStatus,
)
from monitor.feeler import gauges
from monitor.feeler.gauges import Counters, Query
from monitor.feeler.session import FeelNotes
from monitor.local.machine import drop_privileges, own
from tests.feeler.conftest import MakeSession, feel, feel_and_note
from tests.fixtures import StartPostgres
from tests.servers import PostgresServer
from tests.waiting import eventually


def family(seen: Observation, name: str) -> Reading:
    return next(reading for reading in seen.readings if reading.family == name)


def names(version: int, *, slow: bool = False) -> set[str]:
    return {query.name for query in gauges.queries(version, slow=slow)}


def query(name: str) -> Query:
    return next(query for query in gauges.QUERIES if query.name == name)


def test_every_server_gets_the_queries_of_its_version() -> None:
    assert names(90624) == {"activity_before_10", "database_before_10"}
    for version in (100000, 150018, 180006):
        assert names(version) == {"activity", "database"}
    assert names(90624, slow=True) == names(180006, slow=True) == SLOW_FAMILIES


def test_a_server_too_old_for_everything_is_unsupported_not_empty() -> None:
    assert names(90500) == set()
    readings = gauges.unsupported(90500, 1.0, slow=False)
    assert {reading.family for reading in readings} == {"connections", "activity", "database"}
    assert {reading.status for reading in readings} == {ReadingStatus.UNSUPPORTED}
    assert gauges.unsupported(150000, 1.0, slow=False) == ()


def test_every_family_of_the_catalogue_has_a_query_and_no_other_has() -> None:
    assert {family for query in gauges.QUERIES for family in query.families} == set(FAMILIES)


@pytest.mark.parametrize(
    "path", sorted(Path(gauges.__file__).with_name("queries").glob("*.sql")), ids=lambda p: p.name
)
def test_every_query_says_what_it_costs_and_needs(path: Path) -> None:
    head = [line.split(":")[0] for line in path.read_text().splitlines() if line.startswith("-- ")]
    assert {"-- families", "-- cost", "-- cadence", "-- privilege", "-- least"} <= set(head)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("42501", ReadingStatus.DENIED),
        ("57014", ReadingStatus.TIMED_OUT),
        ("55P03", ReadingStatus.TIMED_OUT),
        ("42883", ReadingStatus.UNSUPPORTED),
        ("0A000", ReadingStatus.UNSUPPORTED),
        ("53100", ReadingStatus.ERROR),
        ("40001", ReadingStatus.ERROR),
    ],
)
def test_an_error_says_how_its_family_came_out(code: str, status: ReadingStatus) -> None:
    assert gauges.status_of_sqlstate(code) is status


BEFORE = Counters(at=10.0, transactions=1000, hits=900, reads=100, reset_at=5.0)


def test_rates_are_of_the_time_between_two_looks() -> None:
    now = Counters(at=12.0, transactions=1030, hits=990, reads=110, reset_at=5.0)
    assert gauges.rates(BEFORE, now) == {"xact_rate": 15.0, "cache_hit_rate": 90.0}


def test_a_first_look_knows_no_rate_and_the_hits_since_reset() -> None:
    assert gauges.rates(None, BEFORE) == {"cache_hit_rate": 90.0}


def test_a_reset_makes_no_rate() -> None:
    assert "xact_rate" not in gauges.rates(BEFORE, Counters(12.0, 5000, 10, 10, reset_at=11.0))
    assert gauges.rates(BEFORE, Counters(12.0, 7, 3, 1, reset_at=5.0)) == {"cache_hit_rate": 75.0}


def test_no_traffic_has_the_hits_since_reset_and_no_traffic_ever_has_none() -> None:
    assert gauges.rates(BEFORE, Counters(12.0, 1000, 900, 100, 5.0)) == {
        "xact_rate": 0.0,
        "cache_hit_rate": 90.0,
    }
    assert gauges.rates(None, Counters(12.0, 0, 0, 0, 5.0)) == {}


counts = st.integers(0, 2**62)


@given(
    st.builds(Counters, st.floats(0, 1e9), counts, counts, counts, st.floats(0, 1e9)),
    counts,
    counts,
    counts,
)
def test_rates_are_never_nonsense(
    before: Counters, transactions: int, hits: int, reads: int
) -> None:
    found = gauges.rates(
        before, Counters(before.at + 1, transactions, hits, reads, before.reset_at)
    )
    assert found.get("xact_rate", 0.0) >= 0
    assert (
        0 <= found.get("cache_hit_rate", 0.0) <= 100 or hits < before.hits or reads < before.reads
    )


@given(
    st.dictionaries(
        st.sampled_from([name.encode() for name in GAUGES] + [b"visible"]), st.none() | st.binary()
    )
)
def test_no_row_makes_more_than_an_error(row: dict[bytes | None, bytes | None]) -> None:
    for each in gauges.QUERIES:
        try:
            readings = gauges.readings(each, row, 1.0, {})
        except ValueError:
            continue
        for reading in readings:
            for name, value in reading.values.items():
                assert GAUGES[name].family == reading.family
                assert value == value  # noqa: PLR0124 - no NaN
                assert value in ("primary", "standby") or abs(float(value)) < float("inf")


@pytest.mark.parametrize("text", [b"nan", b"inf", b"9" * 30, b"", b"1e5", b"0x10", b"twelve"])
def test_what_is_no_number_of_ours_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        gauges.readings(query("size"), {b"db_size": text}, 1.0, {})


def test_what_nobody_may_see_is_denied_and_what_is_null_is_absent() -> None:
    row = {
        b"connections": b"3",
        b"connections_max": None,
        b"visible": b"f",
        b"longest_transaction": b"0",
    }
    seen, hidden = gauges.readings(query("activity"), row, 1.0, {})
    assert (seen.status, seen.values) == (ReadingStatus.OK, {"connections": 3})
    assert (hidden.status, hidden.values, hidden.code) == (ReadingStatus.DENIED, {}, "42501")


def test_slots_are_full_when_as_many_are_taken_as_there_are() -> None:
    def reading(taken: int) -> Reading:
        return Reading(
            "connections", 1.0, ReadingStatus.OK, {"connections": taken, "connections_max": 97}
        )

    assert gauges.slots_full([reading(97)])
    assert not gauges.slots_full([reading(96)])
    assert not gauges.slots_full([])


async def test_gauges_say_what_the_server_does(
    start_postgres: StartPostgres, make_session: MakeSession
) -> None:
    server = start_postgres()
    server.execute("create table t as select generate_series(1, 1000) as x")
    server.execute("create table u (x int)")
    server.execute("analyze t")
    server.execute("create index on t (x)")
    session = make_session(parse_address(server.superuser_url()))
    await feel(session)
    with (
        psycopg.connect(server.superuser_url()) as holder,
        psycopg.connect(server.superuser_url()) as waiter,
    ):
        holder.execute("lock table t")
        blocked = threading.Thread(target=lambda: waiter.execute("select from t"), daemon=True)
        blocked.start()

        async def waiting() -> tuple[Observation, FeelNotes] | None:
            seen, notes = await feel_and_note(session, slow=True)
            blocked = family(seen, "activity").values["blocked_sessions"]
            return (seen, notes) if blocked == 1 else None

        seen, notes = await eventually(waiting)
        assert family(seen, "connections").values == {"connections": 3, "connections_max": 27}
        assert family(seen, "activity").values["longest_transaction"] > 0
        assert family(seen, "activity").values["longest_idle_in_transaction"] > 0
        database = family(seen, "database").values
        assert database["role"] == "primary"
        assert "replication_lag" not in database
        assert database["xid_age"] > 0
        assert database["xact_rate"] >= 0
        assert 0 <= database["cache_hit_rate"] <= 100
        tables = family(seen, "tables").values
        assert (tables["table_count"], tables["row_count"]) == (2, 1000)
        assert family(seen, "size").values["db_size"] > 1_000_000
        assert notes.slow_seconds > 0
        holder.rollback()
        blocked.join()


async def test_gauges_equal_what_the_drivers_own_connection_reads(
    postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    """AsyncConnection is the reference: the same statements, the same values."""
    postgres_server.execute("create database reference")
    url = postgres_server.superuser_url("reference")
    seen = await feel(make_session(parse_address(url)), slow=True)
    steady = {
        "connections_max",
        "role",
        "server_version_num",
        "table_count",
        "row_count",
        "db_size",
    }
    read: dict[str, object] = {}
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as reference:
        for each in (*gauges.queries(150000, slow=False), *gauges.queries(150000, slow=True)):
            cursor = await reference.execute(each.sql)
            row = await cursor.fetchone()
            read |= dict(
                zip([column.name for column in cursor.description or ()], row or (), strict=True)
            )
    ours = {name: value for reading in seen.readings for name, value in reading.values.items()}
    assert {name: ours[name] for name in steady} == {name: read[name] for name in steady}


async def test_without_pg_monitor_activity_is_denied_and_the_rest_is_not(
    postgres_server: PostgresServer, make_session: MakeSession
) -> None:
    postgres_server.execute("create role plain login password 'plain'")
    session = make_session(parse_address(postgres_server.url("postgres", "plain", "plain")))
    seen = await feel(session, slow=True)
    status = {reading.family: reading.status for reading in seen.readings}
    assert status.pop("activity") is ReadingStatus.DENIED
    assert set(status.values()) == {ReadingStatus.OK}
    assert family(seen, "activity").values == {}
    assert family(seen, "connections").values["connections"] >= 1
    postgres_server.execute("grant pg_monitor to plain")
    assert family(await feel(session), "activity").status is ReadingStatus.OK


async def test_a_standby_has_a_lag_and_a_primary_has_none(
    start_postgres: StartPostgres, make_session: MakeSession, servers_folder: Path
) -> None:
    primary = start_postgres(wal_level="replica", max_wal_senders="4")
    standby = clone(primary, servers_folder / "standby")
    try:
        session = make_session(parse_address(standby.superuser_url()))

        async def follows() -> Observation | None:
            seen = await feel(session, slow=True)
            lag = family(seen, "database").values.get("replication_lag")
            return seen if seen.cause is Cause.OK and lag == 0 else None

        seen = await eventually(follows, within=15)
        assert {reading.status for reading in seen.readings} == {ReadingStatus.OK}
        assert family(seen, "database").values["role"] == "standby"
        primary.execute("create table news ()")
        await eventually(lambda: standby.execute("select 1 from pg_class where relname = 'news'"))
        # with nobody to receive from, what was replayed may no longer be all there is
        primary.stop()

        async def behind() -> bool:
            return family(await feel(session), "database").values["replication_lag"] > 0

        assert await eventually(behind, within=10)
        standby.execute("select pg_promote(true, 10)")
        values = family(await feel(session), "database").values
        assert values["role"] == "primary"
        assert "replication_lag" not in values
    finally:
        standby.stop()
        shutil.rmtree(standby.folder)


def clone(primary: PostgresServer, folder: Path) -> PostgresServer:
    """Start a standby of a server."""
    folder.mkdir(mode=0o700)
    own(folder)
    standby = PostgresServer(
        folder, binaries=primary.binaries, password=primary.password, settings=primary.settings
    )
    url = primary.superuser_url()
    command = [
        f"{primary.binaries}/pg_basebackup",
        "-d",
        url,
        "-D",
        str(standby.data),
        "-R",
        "-X",
        "stream",
        "-c",
        "fast",
    ]
    subprocess.run(command, check=True, capture_output=True, **drop_privileges())
    standby.start()
    return standby
