"""What happened: every change of state, written once and numbered. Historians, doors import this.

Historians compete, so a batch first locks the chains (databases) it touches; all it then reads
stays true.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from monitor.core.errors import InvalidInput
from monitor.core.event import Transition, encode
from monitor.core.status import Key, Status
from monitor.registry import chains
from monitor.registry.rows import (
    TransitionRow,
    columns_of,
    digest,
    identity_columns,
    identity_of,
    key_of,
    row_of,
    status_of,
)
from monitor.registry.store import Store
from monitor.registry.tables import TransitionConflicts, Transitions

log = logging.getLogger("feeler.registry")

_DIGESTS = text("""
    SELECT database_name, epoch_term, epoch_counter, n, digest FROM transitions
    JOIN unnest(
            CAST(:names AS text[]), CAST(:terms AS bigint[]),
            CAST(:counters AS bigint[]), CAST(:ns AS bigint[])
        ) AS wanted (database_name, epoch_term, epoch_counter, n)
        USING (database_name, epoch_term, epoch_counter, n)""")
_EXPIRED = text("""
    SELECT CAST(extract(epoch FROM now() - make_interval(days => :days)) AS double precision)""")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: all of it is durable; `conflicts` came under a taken identity."""

    durable: tuple[Key, ...]
    conflicts: int


def write_transitions(store: Store, transitions: Sequence[Transition], days: int = 0) -> Written:
    """Keep each transition once, whatever the order and however often it comes; number its chain.

    What retention deleted after so many days (0: never) is not written again.
    """
    if not transitions:
        return Written((), 0)
    databases = {one.database for one in transitions}
    with store.begin() as connection:
        chains.lock(connection, databases)
        kept = _digests(connection, transitions)
        fresh, contradictions = _sort_out(transitions, kept)
        unexpired = _unexpired(connection, fresh, days)
        _insert(connection, unexpired)
        conflicts = _keep_conflicts(connection, contradictions)
    durable = dict.fromkeys(key_of(one) for one in transitions)
    return Written(tuple(durable), conflicts)


def read_transitions(
    store: Store, database: str, limit: int = 50, before: int | None = None
) -> tuple[TransitionRow, ...]:
    """Return a page of a database's transitions, newest first.

    `before` is the id of the last row so far. Rows that cannot be read are left out.
    """
    found: list[TransitionRow] = []
    with store.begin() as connection:
        while wanted := limit - len(found):
            rows = _page(connection, database, wanted, before)
            found += filter(None, map(_readable, rows))
            if len(rows) < wanted:
                break
            before = rows[-1].id
    return tuple(found)


def last_status(store: Store, names: Iterable[str]) -> dict[str, Status | None]:
    """Return the status each database's last transition left it in.

    None where a newer version wrote that one; names without a transition are left out.
    """
    found: dict[str, Status | None] = {}
    with store.begin() as connection:
        for row in chains.heads(connection, names):
            found[row.database_name] = status_of(row) if _readable(row) else None
    return found


def _page(
    connection: Connection, database: str, limit: int, before: int | None
) -> Sequence[Row[Any]]:
    is_its = Transitions.database_name == database
    its = select(Transitions.__table__).where(is_its)
    if before is not None:
        last = select(*chains.IDENTITY).where(Transitions.id == before)
        identity = tuple_(*chains.IDENTITY)
        its = its.where(identity < last.scalar_subquery())
    page = its.order_by(*chains.NEWEST_FIRST).limit(limit)
    return connection.execute(page).all()


def _readable(row: Row[Any]) -> TransitionRow | None:
    """Return a row; None where a newer version wrote it: that must not hide the others."""
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


def _digests(connection: Connection, transitions: Sequence[Transition]) -> dict[Key, bytes]:
    """Return the digests of those identities that are kept already."""
    identities = [one.identity for one in transitions]
    wanted = {
        "names": [one.database for one in transitions],
        "terms": [identity.epoch.term for identity in identities],
        "counters": [identity.epoch.counter for identity in identities],
        "ns": [identity.n for identity in identities],
    }
    digests: dict[Key, bytes] = {}
    for row in connection.execute(_DIGESTS, wanted):
        key = row.database_name, identity_of(row)
        digests[key] = row.digest
    return digests


def _sort_out(
    transitions: Sequence[Transition], kept: Mapping[Key, bytes]
) -> tuple[list[Transition], list[Transition]]:
    """Return the new ones, and those that contradict what is kept under their identity.

    Equal ones are neither.
    """
    seen = dict(kept)
    fresh: list[Transition] = []
    contradictions: list[Transition] = []
    for one in transitions:
        key = key_of(one)
        content = digest(one)
        if key not in seen:
            seen[key] = content
            fresh.append(one)
        elif seen[key] != content:
            contradictions.append(one)
    return fresh, contradictions


def _unexpired(connection: Connection, fresh: list[Transition], days: int) -> list[Transition]:
    """Leave out what is older than retention keeps and lies below all kept of its database."""
    if not days or not fresh:
        return fresh
    before = connection.execute(_EXPIRED, {"days": days}).scalar_one()
    old = {one.database for one in fresh if one.at < before}
    if not old:
        return fresh
    lowest = chains.lowest(connection, old)
    kept = []
    for one in fresh:
        ends_at = lowest.get(one.database, one.identity)
        if one.at >= before or one.identity >= ends_at:
            kept.append(one)
    return kept


def _insert(connection: Connection, fresh: Sequence[Transition]) -> None:
    if not fresh:
        return
    versions = chains.number(connection, fresh)
    rows: list[dict[str, Any]] = []
    for one in fresh:
        version = versions[key_of(one)]
        rows.append(columns_of(one, version))
    connection.execute(insert(Transitions), rows)


def _keep_conflicts(connection: Connection, contradictions: Iterable[Transition]) -> int:
    """Put contradicting events where somebody will look; return how many were not there yet."""
    keep = upsert(TransitionConflicts).on_conflict_do_nothing().returning(TransitionConflicts.id)
    count = 0
    for one in contradictions:
        values = identity_columns(one) | {"content": encode(one), "digest": digest(one)}
        if connection.execute(keep, values).scalar():
            count += 1
            log.error(
                "action=transition_conflict database=%s identity=%s", one.database, one.identity
            )
    return count
