"""The fleet: which databases there are and how they are felt. Doors and supervisors import this.

Addresses come and go as ciphertext. Every change bumps `revision`, by which the leader sees what to
publish anew.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from monitor.core.database import DatabaseStatus, check_name
from monitor.core.errors import AlreadyExists, InvalidInput, NotFound, Outdated, Unreadable
from monitor.core.policy import Policy, stored
from monitor.registry.store import Store
from monitor.registry.tables import Databases, Policies

log = logging.getLogger("feeler.registry")

RETIRED = DatabaseStatus.RETIRED.value
PAGE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database as the registry has it."""

    name: str
    id: int
    ciphertext: str = field(repr=False)  # of its URL; empty once it is retired
    labels: Mapping[str, str]
    policy: Policy
    zone: str
    status: DatabaseStatus
    revision: int
    created_at: float


class Registry(tuple[Database, ...]):
    """Databases by name; `unreadable` names those that are registered and cannot be read."""

    unreadable: frozenset[str] = frozenset()


def add(
    store: Store,
    name: str,
    ciphertext: str,
    labels: Mapping[str, str],
    policy: str = "default",
    zone: str = "",
) -> Database:
    """Register a database. The name of a retired one is taken up again, and with it its history."""
    values = {"ciphertext": ciphertext, "labels": dict(labels), "policy": policy, "zone": zone}
    new = insert(Databases).values(name=check_name(name), **values)
    again = values | {"status": DatabaseStatus.ACTIVE.value, "revision": Databases.revision + 1}
    taken = new.on_conflict_do_update(
        index_elements=["name"], set_=again, where=Databases.status == RETIRED
    )
    try:
        with store.begin() as connection:
            if connection.execute(taken.returning(Databases.id)).scalar() is None:
                raise AlreadyExists("database", name)
            return _one(store, connection, name)
    except IntegrityError:
        raise NotFound("policy", policy) from None


def get(store: Store, name: str) -> Database:
    """Return one database, a retired one too."""
    with store.begin() as connection:
        return _one(store, connection, name)


def named(store: Store, names: Sequence[str]) -> Registry:
    """Return those of these databases that are registered and not retired."""
    with store.begin() as connection:
        rows = _rows(connection, Databases.status != RETIRED, Databases.name.in_(names))
        return _readable(store, connection, rows)


def list_databases(store: Store, *, after: str = "", limit: int = 100) -> tuple[Database, ...]:
    """Return a page of the databases that are not retired, by name; it is full unless it is the
    last one.
    """
    found: list[Database] = []
    while wanted := limit - len(found):
        page, last = _page(store, after, wanted)
        found += page
        if not last:
            break
        after = last
    return tuple(found)


def fleet(store: Store) -> Registry:
    """Return every database that is not retired, by name; in pages, so that no fleet is too large
    for a deadline.
    """
    every, unreadable, last = list[Database](), set[str](), ""
    while True:
        page, last = _page(store, last, PAGE)
        every += page
        unreadable |= page.unreadable
        if not last:
            break
    found = Registry(every)
    found.unreadable = frozenset(unreadable)
    return found


def count_sealed(store: Store) -> int:
    """Return how many addresses are kept under some key."""
    with store.begin() as connection:
        return connection.execute(
            select(func.count()).where(Databases.ciphertext != "")
        ).scalar_one()


def remove(store: Store, name: str) -> None:
    """Retire a database: its history stays, its address is forgotten at once; `add` takes it up
    again.
    """
    with store.begin() as connection:  # also one that cannot be read: this is the way out
        _change(connection, name, status=RETIRED, ciphertext="")


def set_status(store: Store, name: str, status: DatabaseStatus) -> None:
    """Pause a database or go on with it; retiring is `remove`, and `add` the way back."""
    if status is DatabaseStatus.RETIRED:
        raise InvalidInput("status", "retiring forgets the address", "remove the database instead")
    with store.begin() as connection:
        _change(connection, name, status=status.value)


def change(
    store: Store,
    name: str,
    *,
    ciphertext: str | None = None,
    labels: Mapping[str, str] | None = None,
    policy: str | None = None,
    zone: str | None = None,
    revision: int | None = None,
) -> Database:
    """Change what is given, in one step, and where told only at this revision; workers take up a
    new address without a restart.
    """
    values = {
        "ciphertext": ciphertext,
        "labels": labels and dict(labels),
        "policy": policy,
        "zone": zone,
    }
    try:
        given = {key: value for key, value in values.items() if value is not None}
        with store.begin() as connection:
            _change(connection, name, revision, **given)
            return _one(store, connection, name)
    except IntegrityError:
        raise NotFound("policy", policy or "") from None


def policies(store: Store) -> tuple[Policy, ...]:
    """Return all policies by name."""
    with store.begin() as connection:
        return tuple(_policies(store, connection))


def put_policy(store: Store, policy: Policy) -> None:
    """Make or change a policy; it counts as a change of every database it governs."""
    values = asdict(policy)
    check_name(policy.name)
    with store.begin() as connection:
        connection.execute(
            insert(Policies)
            .values(values)
            .on_conflict_do_update(index_elements=["name"], set_=values)
        )
        governed = update(Databases).where(
            Databases.policy == policy.name, Databases.status != RETIRED
        )
        connection.execute(governed.values(revision=Databases.revision + 1))


def _change(
    connection: Connection, name: str, revision: int | None = None, **values: object
) -> None:
    mine = Databases.name == name, Databases.status != RETIRED
    meant = mine if revision is None else (*mine, Databases.revision == revision)
    done = connection.execute(
        update(Databases).where(*meant).values(**values, revision=Databases.revision + 1)
    )
    if not done.rowcount:
        raise Outdated("database", name) if _rows(connection, *mine) else NotFound("database", name)


def _page(store: Store, after: str, limit: int) -> tuple[Registry, str]:
    """Return what can be read of the next rows, and the name that the ones after them follow, '' at
    the end.
    """
    with store.begin() as connection:
        rows = _rows(connection, Databases.status != RETIRED, Databases.name > after, limit=limit)
        return _readable(store, connection, rows), rows[-1].name if len(rows) == limit else ""


def _one(store: Store, connection: Connection, name: str) -> Database:
    rows = _rows(connection, Databases.name == name)
    if not rows:
        raise NotFound("database", name)
    for found in _readable(store, connection, rows):
        return found
    raise Unreadable("database", name)


def _rows(
    connection: Connection, *where: ColumnElement[bool], limit: int | None = None
) -> Sequence[Row[Any]]:
    query = select(Databases.__table__).where(*where).order_by(Databases.name).limit(limit)
    return connection.execute(query).all()


def _readable(store: Store, connection: Connection, rows: Sequence[Row[Any]]) -> Registry:
    """Read rows one by one: those that cannot be read are told, named and left out, and stop no
    other.

    Policies come second: none is ever deleted, so each one named is there.
    """
    policies = {policy.name: policy for policy in _policies(store, connection)}
    every, bad = list[Database](), dict[str, Exception]()
    for row in rows:
        try:
            every.append(_registered(row, policies))
        except Exception as exc:  # whatever it is, it is this row's fault
            bad[row.name] = exc
    for name, why in store.aside.news("database", bad, (one.name for one in every)).items():
        log.error(
            "action=row_unreadable kind=database name=%s error=%s",
            name,
            f"{type(why).__name__}: {why}"[:120],
        )
    found = Registry(every)
    found.unreadable = frozenset(bad)
    return found


def _registered(row: Row[Any], policies: Mapping[str, Policy]) -> Database:
    return Database(
        name=row.name,
        id=row.id,
        ciphertext=row.ciphertext,
        labels=_labels(row.labels),
        policy=policies[row.policy],
        zone=row.zone,
        status=DatabaseStatus(row.status),
        revision=row.revision,
        created_at=row.created_at.timestamp(),
    )


def _labels(told: object) -> Mapping[str, str]:
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise TypeError("labels are no texts by name")
    return told


def _policies(store: Store, connection: Connection) -> list[Policy]:
    """Return all policies; one that nobody may use is told, and has the default's values."""
    rows = connection.execute(select(Policies.__table__).order_by(Policies.name))
    read = [stored(dict(row._mapping)) for row in rows]
    bad = {policy.name: trouble for policy, trouble in read if trouble}
    for name, trouble in store.aside.news(
        "policy", bad, (one.name for one, trouble in read if not trouble)
    ).items():
        log.error("action=policy_unusable name=%s used=default error=%s", name, trouble)
    return [policy for policy, _ in read]
