"""The chain of each database: its lock, its two ends, and the versions that number it.

`transitions` and `retention` import this; they call it inside a transaction of theirs.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from monitor.core import chain
from monitor.core.event import Transition
from monitor.core.status import Identity, Key
from monitor.registry.rows import identity_of, prev_of
from monitor.registry.tables import Transitions

log = logging.getLogger("feeler.registry")

# Newest rows of a database in which the fork of a late arrival is looked for: few, then many.
WINDOWS = (100, 10_000)

IDENTITY = (Transitions.epoch_term, Transitions.epoch_counter, Transitions.n)
NEWEST_FIRST = tuple(part.desc() for part in IDENTITY)
OLDEST_FIRST = tuple(part.asc() for part in IDENTITY)
_Order = tuple[UnaryExpression[int], ...]
_Links = dict[Identity, Identity | None]
_Kept = Mapping[Identity, Row[Any]]
_Versions = Mapping[Identity, int | None]
_LINKED = (
    Transitions.id,
    Transitions.version,
    Transitions.prev_term,
    Transitions.prev_counter,
    Transitions.prev_n,
)

# Sorted: two batches that touch the same databases never wait for one another in a circle.
_LOCK = text("""
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended('feeler.chain ' || name, 0) AS key
        FROM unnest(CAST(:names AS text[])) AS name ORDER BY key) AS keys""")
_RENUMBER = text("""
    UPDATE transitions SET version = changed.version
    FROM unnest(CAST(:ids AS bigint[]), CAST(:versions AS bigint[])) AS changed (id, version)
    WHERE transitions.id = changed.id""")


def lock(connection: Connection, names: Iterable[str]) -> None:
    """Lock these chains until the transaction ends: historians compete."""
    connection.execute(_LOCK, {"names": sorted(set(names))})


def heads(connection: Connection, names: Iterable[str]) -> Sequence[Row[Any]]:
    """Return the transition with the highest identity of each name."""
    return connection.execute(ends(names, NEWEST_FIRST)).all()


def lowest(connection: Connection, names: Iterable[str]) -> dict[str, Identity]:
    """Return the lowest identity that is kept of each name."""
    found: dict[str, Identity] = {}
    for row in connection.execute(ends(names, OLDEST_FIRST)):
        found[row.database_name] = identity_of(row)
    return found


def ends(names: Iterable[str], order: _Order) -> Select[Any]:
    """Ask for the first transition of each name in this order: one index probe per name."""
    array = cast(sorted(set(names)), ARRAY(Text))
    name = column("name", Text)
    listed = func.unnest(array).table_valued(name, name="given")
    # Else given.name is a cast to Postgres's type `name`, and no index is of that.
    given = listed.render_derived()
    is_its = Transitions.database_name == given.c.name
    its = select(Transitions.__table__).where(is_its)
    first = its.order_by(*order).limit(1)
    edge = first.lateral("edge")
    each = given.join(edge, true())
    return select(edge).select_from(each)


def number(connection: Connection, new: Iterable[Transition]) -> dict[Key, int | None]:
    """Return the versions of new transitions; renumber kept ones where these don't follow the head.

    What is superseded has none.
    """
    links: dict[str, _Links] = defaultdict(dict)
    for one in new:
        links[one.database][one.identity] = one.prev
    head_of: dict[str, Row[Any]] = {}
    for row in heads(connection, links):
        head_of[row.database_name] = row
    versions: dict[Key, int | None] = {}
    for database, arrived in links.items():
        head = head_of.get(database)
        numbers = _follow(head, arrived)
        if numbers is None:
            numbers = _renumber(connection, database, arrived)
        for identity, version in numbers.items():
            versions[database, identity] = version
    return versions


def _follow(head: Row[Any] | None, arrived: chain.Links) -> _Versions | None:
    """Return the versions of what simply follows the head, None where it does not."""
    if head is None:
        return chain.extend(None, 0, arrived)
    newest = identity_of(head)
    return chain.extend(newest, head.version, arrived)


def _renumber(connection: Connection, database: str, arrived: chain.Links) -> _Versions:
    """Number the newest part of a chain anew after a fork, a gap or a late arrival.

    However long the history is, its newest 10,000 rows are all that is read and changed: what comes
    later than that gets no number, and a fork from further back counts as from there.
    """
    kept, numbers = _from_the_fork(connection, database, arrived)
    changed: dict[int, int | None] = {}
    for identity, version in numbers.items():
        row = kept.get(identity)
        if row is not None and row.version != version:
            changed[row.id] = version
    if changed:
        given = {"ids": list(changed), "versions": list(changed.values())}
        connection.execute(_RENUMBER, given)
        log.warning("action=chain_renumbered database=%s changed=%d", database, len(changed))
    # What lies below the numbers has none.
    return {**dict.fromkeys(arrived), **numbers}


def _from_the_fork(
    connection: Connection, database: str, arrived: chain.Links
) -> tuple[_Kept, _Versions]:
    """Return what is kept in the smallest window with the fork, and the numbers from there."""
    for most in WINDOWS:
        kept = _newest(connection, database, most)
        whole = len(kept) < most
        last = most == WINDOWS[-1]
        numbers = _numbered(kept, arrived, whole=whole, last=last)
        if numbers is not None:
            return kept, numbers
    raise AssertionError("the last window numbers whatever it holds")


def _newest(connection: Connection, database: str, most: int) -> dict[Identity, Any]:
    is_its = Transitions.database_name == database
    its = select(*_LINKED, *IDENTITY).where(is_its)
    newest = its.order_by(*NEWEST_FIRST).limit(most)
    found: dict[Identity, Any] = {}
    for row in connection.execute(newest):
        found[identity_of(row)] = row
    return found


def _numbered(kept: _Kept, arrived: chain.Links, *, whole: bool, last: bool) -> _Versions | None:
    """Return the numbers from the lowest member on that was read, None where more must be read.

    `whole`: nothing but `kept` is kept; `last`: no more can be read.
    """
    links: _Links = {}
    members: list[Identity] = []
    for identity, row in kept.items():
        links[identity] = prev_of(row)
        if row.version:
            members.append(identity)
    links.update(arrived)
    if not members:
        return chain.number(links)
    anchor = min(members)
    version = kept[anchor].version
    if whole and version == 1:  # else retention took what was below
        return chain.number(links)
    nothing_below = whole or last
    if min(arrived) < anchor and not nothing_below:
        return None
    for identity in list(links):
        if identity < anchor:
            del links[identity]
    return chain.renumber(links, anchor, version, last=nothing_below)
