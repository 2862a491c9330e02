"""What happened: transitions, written once each and numbered, and samples of gauges. Historian and
doors import this.

Historians compete, so a batch first locks the chains (databases) it touches; all it then reads
stays true.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Text,
    UnaryExpression,
    cast,
    column,
    func,
    insert,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from monitor.core import chain
from monitor.core.errors import InvalidInput
from monitor.core.event import Transition, encode
from monitor.core.observation import GAUGES, Value
from monitor.core.status import Identity, Status
from monitor.registry.rows import (
    TransitionRow,
    columns_of,
    digest,
    identity_of,
    key_of,
    moment,
    prev_of,
    row_of,
    status_of,
    storable,
)
from monitor.registry.store import Store
from monitor.registry.tables import TransitionConflicts, Transitions, samples

log = logging.getLogger("feeler.registry")

SAMPLES_AT_ONCE = 10_000
_WINDOWS = (
    100,
    10_000,
)  # newest rows of a database in which the fork of a late arrival is looked for
DAYS_AHEAD = 2
_GAUGE_TYPES = {name: samples.columns[name].type.python_type for name in GAUGES}
_Key = tuple[str, Identity]
_Order = tuple[UnaryExpression[int], ...]
_IDENTITY = (Transitions.epoch_term, Transitions.epoch_counter, Transitions.n)
_NEWEST_FIRST = tuple(part.desc() for part in _IDENTITY)
_OLDEST_FIRST = tuple(part.asc() for part in _IDENTITY)

LOCK_CHAINS = (
    text("""
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended('feeler.chain ' || name, 0) AS key
        FROM unnest(CAST(:names AS text[])) AS name ORDER BY key) AS keys""")
)  # in one order: no deadlocks
_DIGESTS = text("""
    SELECT database_name, epoch_term, epoch_counter, n, digest FROM transitions
    JOIN unnest(CAST(:names AS text[]), CAST(:terms AS bigint[]), CAST(:counters AS bigint[]), CAST(:ns AS bigint[]))
        AS wanted (database_name, epoch_term, epoch_counter, n) USING (database_name, epoch_term, epoch_counter, n)""")
_EXPIRED = text(
    "SELECT CAST(extract(epoch FROM now() - make_interval(days => :days)) AS double precision)"
)
_RENUMBER = text("""
    UPDATE transitions SET version = changed.version
    FROM unnest(CAST(:ids AS bigint[]), CAST(:versions AS bigint[])) AS changed (id, version)
    WHERE transitions.id = changed.id""")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: all of it is durable; `conflicts` came under identities taken by
    another content.
    """

    durable: tuple[_Key, ...]
    conflicts: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The gauges of one database at one moment."""

    database: str
    observed_at: float
    state: str
    worker: str
    values: Mapping[str, Value]


# --- transitions ----------------------------------------------------------------------------------


def write_transitions(store: Store, transitions: Sequence[Transition], days: int = 0) -> Written:
    """Keep each transition once, whatever the order and however often it comes, and number its
    chain.

    What retention deleted after so many days (0: never) is not written again.
    """
    if not transitions:
        return Written((), 0)
    with store.begin() as connection:
        connection.execute(LOCK_CHAINS, {"names": sorted({one.database for one in transitions})})
        fresh, contradictions = _sort_out(transitions, _digests(connection, transitions))
        fresh = _unexpired(connection, fresh, days)
        versions = _number(connection, fresh)
        if fresh:
            connection.execute(
                insert(Transitions),
                [columns_of(one, versions[one.database, one.identity]) for one in fresh],
            )
        conflicts = _keep_conflicts(connection, contradictions)
    return Written(
        tuple(dict.fromkeys((one.database, one.identity) for one in transitions)), conflicts
    )


def transitions(
    store: Store, database: str, limit: int = 50, before: int | None = None
) -> tuple[TransitionRow, ...]:
    """Return a page of a database's transitions, newest first; `before` is the id of the last row
    so far.
    """
    found: list[TransitionRow] = []
    with store.begin() as connection:
        while wanted := limit - len(found):
            rows = _page(connection, database, wanted, before)
            found += [row for row in map(_readable, rows) if row]
            if len(rows) < wanted:
                break
            before = rows[-1].id
    return tuple(found)


def _page(
    connection: Connection, database: str, limit: int, before: int | None
) -> Sequence[Row[Any]]:
    page = select(Transitions.__table__).where(Transitions.database_name == database)
    if before is not None:
        page = page.where(
            tuple_(*_IDENTITY)
            < select(*_IDENTITY).where(Transitions.id == before).scalar_subquery()
        )
    return connection.execute(page.order_by(*_NEWEST_FIRST).limit(limit)).all()


def _readable(row: Row[Any]) -> TransitionRow | None:
    """Return a row, None where a newer version wrote what is not known here: it must not hide the
    others.
    """
    try:
        return row_of(row)
    except (KeyError, TypeError, ValueError, InvalidInput) as exc:
        log.error(
            "action=row_unreadable kind=transition database=%s id=%d error=%s",
            row.database_name,
            row.id,
            exc,
        )
        return None


def last_status(store: Store, names: Iterable[str]) -> dict[str, Status | None]:
    """Return the status each database's last transition left it in, None where a newer version
    wrote that one.

    Names without a transition are left out.
    """
    with store.begin() as connection:
        return {
            row.database_name: status_of(row) if _readable(row) else None
            for row in _ends(connection, names)
        }


def _digests(connection: Connection, transitions: Sequence[Transition]) -> dict[_Key, bytes]:
    """Return the digests of those identities that are kept already."""
    wanted = {
        "names": [one.database for one in transitions],
        "terms": [one.identity.epoch.term for one in transitions],
        "counters": [one.identity.epoch.counter for one in transitions],
        "ns": [one.identity.n for one in transitions],
    }
    rows = connection.execute(_DIGESTS, wanted)
    return {(row.database_name, identity_of(row)): row.digest for row in rows}


def _sort_out(
    transitions: Sequence[Transition], kept: Mapping[_Key, bytes]
) -> tuple[list[Transition], list[Transition]]:
    """Return the new ones and those that contradict what is kept under their identity; equal ones
    are neither.
    """
    seen, fresh, contradictions = dict(kept), [], []
    for one in transitions:
        key, content = (one.database, one.identity), digest(one)
        if key not in seen:
            seen[key] = content
            fresh.append(one)
        elif seen[key] != content:
            contradictions.append(one)
    return fresh, contradictions


def _unexpired(connection: Connection, fresh: list[Transition], days: int) -> list[Transition]:
    """Leave out what is older than retention keeps and lies below all that is kept of its
    database.
    """
    if not days or not fresh:
        return fresh
    before = connection.execute(_EXPIRED, {"days": days}).scalar_one()
    if names := {one.database for one in fresh if one.at < before}:
        lowest = {
            row.database_name: identity_of(row) for row in _ends(connection, names, _OLDEST_FIRST)
        }
        fresh = [
            one
            for one in fresh
            if one.at >= before or not one.identity < lowest.get(one.database, one.identity)
        ]
    return fresh


def _number(connection: Connection, fresh: Iterable[Transition]) -> dict[_Key, int | None]:
    """Return the versions of new transitions; renumber what is kept where they do not simply follow
    the head.
    """
    arrived: dict[str, dict[Identity, Identity | None]] = defaultdict(dict)
    for one in fresh:
        arrived[one.database][one.identity] = one.prev
    heads = {
        row.database_name: (identity_of(row), row.version) for row in _ends(connection, arrived)
    }
    versions = dict[_Key, int | None]()
    for database, links in arrived.items():
        head, version = heads.get(database, (None, 0))
        numbers = chain.extend(head, version, links) or _renumber(connection, database, links)
        versions |= {(database, identity): version for identity, version in numbers.items()}
    return versions


def _renumber(
    connection: Connection, database: str, arrived: chain.Links
) -> Mapping[Identity, int | None]:
    """Number the newest part of a chain anew after a fork, a gap or a late arrival.

    However long the history is, its newest 10,000 rows are all that is read and changed: what comes
    later than that gets no number, and a fork from further back counts as from there.
    """
    numbers, kept = None, dict[Identity, Row[Any]]()
    for most in _WINDOWS:
        kept = _newest(connection, database, most)
        numbers = _numbered(kept, arrived, whole=len(kept) < most, last=most == _WINDOWS[-1])
        if numbers is not None:
            break
    assert numbers is not None
    changed = [
        (kept[identity].id, at)
        for identity, at in numbers.items()
        if _differs(kept.get(identity), at)
    ]
    if changed:
        ids, versions = zip(*changed, strict=True)
        connection.execute(_RENUMBER, {"ids": list(ids), "versions": list(versions)})
        log.warning("action=chain_renumbered database=%s changed=%d", database, len(changed))
    return {**dict.fromkeys(arrived), **numbers}


def _numbered(
    kept: Mapping[Identity, Row[Any]], arrived: chain.Links, *, whole: bool, last: bool
) -> Mapping[Identity, int | None] | None:
    """Return the numbers from the lowest member on that was read, None where more must be read."""
    links = {identity: prev_of(row) for identity, row in kept.items()} | dict(arrived)
    anchor = min((identity for identity, row in kept.items() if row.version), default=None)
    if anchor is None or (
        whole and kept[anchor].version == 1
    ):  # else retention took what was below
        return chain.number(links)
    if min(arrived) < anchor and not (whole or last):
        return None
    above = {identity: prev for identity, prev in links.items() if identity >= anchor}
    return chain.renumber(above, anchor, kept[anchor].version, last=whole or last)


def _differs(row: Row[Any] | None, version: int | None) -> bool:
    return row is not None and row.version != version


def _newest(connection: Connection, database: str, most: int) -> dict[Identity, Any]:
    columns = [
        getattr(Transitions, name)
        for name in ("id", "version", "prev_term", "prev_counter", "prev_n")
    ]
    query = select(*columns, *_IDENTITY).where(Transitions.database_name == database)
    rows = connection.execute(query.order_by(*_NEWEST_FIRST).limit(most))
    return {identity_of(row): row for row in rows}


def _keep_conflicts(connection: Connection, contradictions: Iterable[Transition]) -> int:
    """Put contradicting events where somebody will look; return how many were not there yet."""
    keep = upsert(TransitionConflicts).on_conflict_do_nothing().returning(TransitionConflicts.id)
    count = 0
    for one in contradictions:
        values = key_of(one) | {"content": encode(one), "digest": digest(one)}
        if connection.execute(keep, values).scalar():
            count += 1
            log.error(
                "action=transition_conflict database=%s identity=%s", one.database, one.identity
            )
    return count


def _ends(
    connection: Connection, names: Iterable[str], order: _Order = _NEWEST_FIRST
) -> Sequence[Row[Any]]:
    """Return the transition with the highest identity of each name, or the lowest."""
    return connection.execute(ends(names, order)).all()


def ends(names: Iterable[str], order: _Order = _NEWEST_FIRST) -> Select[Any]:
    """Ask for the first transition of each name in this order: one index probe per name."""
    listed = func.unnest(cast(sorted(set(names)), ARRAY(Text))).table_valued(
        column("name", Text), name="given"
    )
    given = (
        listed.render_derived()
    )  # else given.name is a cast to Postgres's type `name`, which no index is of
    its = select(Transitions.__table__).where(Transitions.database_name == given.c.name)
    edge = its.order_by(*order).limit(1).lateral("edge")
    return select(edge).select_from(given.join(edge, true()))


# --- samples --------------------------------------------------------------------------------------


def write_samples(store: Store, rows: Sequence[Sample]) -> int:
    """Keep samples, one per database and moment; return how many were new. Unknown databases are
    left out.
    """
    return sum(
        _copy(store, rows[start : start + SAMPLES_AT_ONCE])
        for start in range(0, len(rows), SAMPLES_AT_ONCE)
    )


def ensure_partitions(store: Store) -> tuple[str, ...]:
    """Make the partitions of today and the days ahead (UTC, Postgres's clock) and the default one;
    return the new.
    """
    with store.begin() as connection:
        if not _missing(connection):
            return ()
        connection.execute(text("SET LOCAL lock_timeout = '2s'"))
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended('feeler.partitions', 0))")
        )
        connection.execute(
            text("CREATE TABLE IF NOT EXISTS samples_default PARTITION OF samples DEFAULT")
        )
        missing = _missing(connection)  # again: another supervisor may have been quicker
        for day in missing:
            _make_partition(connection, day)
    return tuple(_partition(day) for day in missing)


def _missing(connection: Connection) -> list[date]:
    days = text("""
        SELECT day FROM generate_series(0, :ahead) AS i,
            LATERAL (SELECT CAST(now() AT TIME ZONE 'UTC' AS date) + i AS day) AS days
        WHERE to_regclass('samples_' || to_char(day, 'YYYYMMDD')) IS NULL""")
    return list(connection.execute(days, {"ahead": DAYS_AHEAD}).scalars())


def _partition(day: date) -> str:
    return f"samples_{day:%Y%m%d}"


def _make_partition(connection: Connection, day: date) -> None:
    """Make one day's partition, taking over what fell into the default one: with such rows there
    CREATE would fail.
    """
    name, start, end = _partition(day), f"'{day}T00:00Z'", f"'{day + timedelta(days=1)}T00:00Z'"
    for statement in (
        f"CREATE TABLE {name} (LIKE samples INCLUDING ALL)",
        "LOCK TABLE samples_default IN ACCESS EXCLUSIVE MODE",
        f"WITH strays AS (DELETE FROM samples_default WHERE observed_at >= {start} AND observed_at < {end}"  # noqa: S608
        f" RETURNING *) INSERT INTO {name} SELECT * FROM strays",
        f"ALTER TABLE samples ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})",
    ):
        connection.exec_driver_sql(statement)


def _copy(store: Store, rows: Sequence[Sample]) -> int:
    """COPY into a table of this transaction, then join names to ids: COPY itself cannot skip what
    is there already.
    """
    columns = ", ".join(samples.columns.keys()[1:])  # all but database_id
    with store.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS SELECT CAST(NULL AS text) AS name, {columns}"  # noqa: S608
            " FROM samples WITH NO DATA"
        )
        driver: Any = connection.connection.driver_connection
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY incoming (name, {columns}) FROM STDIN") as copy,
        ):
            for sample in rows:
                copy.write_row(_sample_columns(sample))
        done = connection.exec_driver_sql(
            f"INSERT INTO samples (database_id, {columns})"  # noqa: S608 - our own column names
            f" SELECT databases.id, {columns} FROM incoming JOIN databases USING (name) ON CONFLICT DO NOTHING"
        )
        return done.rowcount


def _sample_columns(sample: Sample) -> tuple[Value | datetime | None, ...]:
    gauges = (_fit(kind, sample.values.get(name)) for name, kind in _GAUGE_TYPES.items())
    return (sample.database, moment(sample.observed_at), str(sample.state), sample.worker, *gauges)


def _fit(kind: type, value: Value | None) -> Value | None:
    """Return the value as its column takes it, None when it cannot: one odd answer must not lose
    all samples.
    """
    try:
        fitted = None if value is None else kind(value)
    except (ValueError, OverflowError):
        return None
    if isinstance(fitted, int) and abs(fitted) >= 1 << 63:
        return None
    return storable(fitted) if isinstance(fitted, str) else fitted
