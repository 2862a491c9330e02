"""The fleet: which databases there are and how they are felt. Doors and supervisors import this.

Addresses come and go as ciphertext. Every change bumps `revision`, by which the leader sees what to
publish anew; workers take up a new address without a restart.
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
PAGE = 10_000  # rows of one statement


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


@dataclass(frozen=True, slots=True)
class Fleet:
    """Databases by name, and the names of those that are registered and cannot be read."""

    databases: tuple[Database, ...]
    unreadable: frozenset[str]


def add(
    store: Store,
    name: str,
    ciphertext: str,
    labels: Mapping[str, str],
    policy: str = "default",
    zone: str = "",
) -> Database:
    """Register a database. The name of a retired one is taken up again, and with it its history."""
    values = {
        "ciphertext": ciphertext,
        "labels": dict(labels),
        "policy": policy,
        "zone": zone,
    }
    again = values | {
        "status": DatabaseStatus.ACTIVE.value,
        "revision": Databases.revision + 1,
    }
    new = insert(Databases).values(name=check_name(name), **values)
    taken_up = new.on_conflict_do_update(
        index_elements=["name"],
        set_=again,
        where=Databases.status == RETIRED,
    )
    register = taken_up.returning(Databases.id)
    try:
        with store.begin() as connection:
            registered = connection.execute(register).scalar()
            if registered is None:
                raise AlreadyExists("database", name)
            return _one(store, connection, name)
    except IntegrityError:
        raise NotFound("policy", policy) from None


def get(store: Store, name: str) -> Database:
    """Return one database, a retired one too."""
    with store.begin() as connection:
        return _one(store, connection, name)


def read_named(store: Store, names: Sequence[str]) -> Fleet:
    """Return those of these databases that are registered and not retired."""
    with store.begin() as connection:
        named = Databases.name.in_(names)
        rows = _rows(connection, Databases.status != RETIRED, named)
        return _readable(store, connection, rows)


def read_fleet(store: Store) -> Fleet:
    """Return every database that is not retired, by name.

    In pages: no fleet is too large for the deadline of a statement.
    """
    databases: list[Database] = []
    unreadable: set[str] = set()
    last = ""
    while True:
        page, last = _page(store, last, PAGE)
        databases += page.databases
        unreadable |= page.unreadable
        if not last:
            return Fleet(tuple(databases), frozenset(unreadable))


def list_databases(store: Store, *, after: str = "", limit: int = 100) -> tuple[Database, ...]:
    """Return a page of the databases that are not retired; it is full unless it is the last."""
    found: list[Database] = []
    while wanted := limit - len(found):
        page, after = _page(store, after, wanted)
        found += page.databases
        if not after:
            break
    return tuple(found)


def count_sealed(store: Store) -> int:
    """Return how many addresses are kept under some key."""
    sealed = select(func.count()).where(Databases.ciphertext != "")
    with store.begin() as connection:
        return connection.execute(sealed).scalar_one()


def remove(store: Store, name: str) -> None:
    """Retire a database: its history stays, its address is forgotten; `add` takes it up again."""
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
    """Change what is given, in one step, and where told only at this revision."""
    given: dict[str, object] = {
        "ciphertext": ciphertext,
        "labels": labels and dict(labels),
        "policy": policy,
        "zone": zone,
    }
    values = {column: value for column, value in given.items() if value is not None}
    try:
        with store.begin() as connection:
            _change(connection, name, revision, **values)
            return _one(store, connection, name)
    except IntegrityError:
        raise NotFound("policy", policy or "") from None


def policies(store: Store) -> tuple[Policy, ...]:
    """Return all policies by name."""
    with store.begin() as connection:
        return tuple(_policies(store, connection))


def put_policy(store: Store, policy: Policy) -> None:
    """Make or change a policy; it counts as a change of every database it governs."""
    check_name(policy.name)
    values = asdict(policy)
    new = insert(Policies).values(values)
    put = new.on_conflict_do_update(index_elements=["name"], set_=values)
    governed = (
        Databases.policy == policy.name,
        Databases.status != RETIRED,
    )
    risen = Databases.revision + 1
    change_all = update(Databases).where(*governed).values(revision=risen)
    with store.begin() as connection:
        connection.execute(put)
        connection.execute(change_all)


def _change(
    connection: Connection, name: str, revision: int | None = None, **values: object
) -> None:
    mine = Databases.name == name, Databases.status != RETIRED
    meant = mine if revision is None else (*mine, Databases.revision == revision)
    risen = Databases.revision + 1
    changing = update(Databases).where(*meant).values(**values, revision=risen)
    if connection.execute(changing).rowcount:
        return
    if _rows(connection, *mine):
        raise Outdated("database", name)
    raise NotFound("database", name)


def _page(store: Store, after: str, limit: int) -> tuple[Fleet, str]:
    """Return what can be read of the next rows, and the name to go on after, '' at the end."""
    with store.begin() as connection:
        following = Databases.name > after
        rows = _rows(connection, Databases.status != RETIRED, following, limit=limit)
        fleet = _readable(store, connection, rows)
    if len(rows) < limit:
        return fleet, ""
    return fleet, rows[-1].name


def _one(store: Store, connection: Connection, name: str) -> Database:
    rows = _rows(connection, Databases.name == name)
    if not rows:
        raise NotFound("database", name)
    for found in _readable(store, connection, rows).databases:
        return found
    raise Unreadable("database", name)


def _rows(
    connection: Connection, *where: ColumnElement[bool], limit: int | None = None
) -> Sequence[Row[Any]]:
    some = select(Databases.__table__).where(*where)
    query = some.order_by(Databases.name).limit(limit)
    return connection.execute(query).all()


def _readable(store: Store, connection: Connection, rows: Sequence[Row[Any]]) -> Fleet:
    """Read rows one by one: those that cannot be read are left out, and stop no other.

    Policies come second: none is ever deleted, so each one named is there.
    """
    policies: dict[str, Policy] = {}
    for policy in _policies(store, connection):
        policies[policy.name] = policy
    databases: list[Database] = []
    bad: dict[str, Exception] = {}
    for row in rows:
        try:
            databases.append(_database(row, policies))
        except Exception as exc:  # whatever it is, it is this row's fault
            bad[row.name] = exc
    good = (one.name for one in databases)
    news = store.aside.news("database", bad, good)
    for name, why in news.items():
        error = f"{type(why).__name__}: {why}"[:120]
        log.error("action=row_unreadable kind=database name=%s error=%s", name, error)
    return Fleet(tuple(databases), frozenset(bad))


def _database(row: Row[Any], policies: Mapping[str, Policy]) -> Database:
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


def _labels(stored: object) -> Mapping[str, str]:
    if not isinstance(stored, dict):
        raise TypeError("labels are no object")
    for value in stored.values():
        if not isinstance(value, str):
            raise TypeError("labels are no texts by name")
    return stored


def _policies(store: Store, connection: Connection) -> list[Policy]:
    """Return all policies; one that nobody may use is logged, and has the default's values."""
    query = select(Policies.__table__).order_by(Policies.name)
    found: list[Policy] = []
    bad: dict[str, str] = {}
    for row in connection.execute(query):
        fields = dict(row._mapping)
        policy, trouble = stored(fields)
        found.append(policy)
        if trouble:
            bad[policy.name] = trouble
    good = [policy.name for policy in found if policy.name not in bad]
    news = store.aside.news("policy", bad, good)
    for name, trouble in news.items():
        log.error("action=policy_unusable name=%s used=default error=%s", name, trouble)
    return found
