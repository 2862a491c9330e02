"""The fleet: which databases there are and how they are felt. Doors and supervisors import this.

Addresses come and go as ciphertext. Every change bumps `revision`, by which the leader sees what to publish anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from sqlalchemy import ColumnElement, Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from monitor.core.database import DatabaseStatus, check_name
from monitor.core.errors import AlreadyExists, InvalidInput, NotFound, Outdated
from monitor.core.policy import Policy, stored
from monitor.registry.store import Store
from monitor.registry.tables import Databases, Policies

RETIRED = DatabaseStatus.RETIRED.value
PAGE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
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


def add(
    store: Store, name: str, ciphertext: str, labels: Mapping[str, str], policy: str = "default", zone: str = ""
) -> Registered:
    """Register a database. The name of a retired one is taken up again, and with it its history."""
    values = {"ciphertext": ciphertext, "labels": dict(labels), "policy": policy, "zone": zone}
    new = insert(Databases).values(name=check_name(name), **values)
    again = values | {"status": DatabaseStatus.ACTIVE.value, "revision": Databases.revision + 1}
    taken = new.on_conflict_do_update(index_elements=["name"], set_=again, where=Databases.status == RETIRED)
    try:
        with store.begin() as connection:
            if connection.execute(taken.returning(Databases.id)).scalar() is None:
                raise AlreadyExists("database", name)
            return _read(connection, Databases.name == name)[0]
    except IntegrityError:
        raise NotFound("policy", policy) from None


def get(store: Store, name: str) -> Registered:
    """Return one database, a retired one too."""
    with store.begin() as connection:
        found = _read(connection, Databases.name == name)
    if not found:
        raise NotFound("database", name)
    return found[0]


def named(store: Store, names: Sequence[str]) -> tuple[Registered, ...]:
    """Return those of these databases that are registered and not retired."""
    with store.begin() as connection:
        return _read(connection, Databases.status != RETIRED, Databases.name.in_(names))


def list_databases(store: Store, *, after: str = "", limit: int = 100) -> tuple[Registered, ...]:
    """Return a page of the databases that are not retired, by name."""
    with store.begin() as connection:
        return _read(connection, Databases.status != RETIRED, Databases.name > after, limit=limit)


def fleet(store: Store) -> tuple[Registered, ...]:
    """Return every database that is not retired, by name; in pages, so that no fleet is too large for a deadline."""
    every: list[Registered] = []
    while page := list_databases(store, after=every[-1].name if every else "", limit=PAGE):
        every += page
        if len(page) < PAGE:
            break
    return tuple(every)


def sealed(store: Store) -> int:
    """Return how many addresses are kept under some key."""
    with store.begin() as connection:
        return connection.execute(select(func.count()).where(Databases.ciphertext != "")).scalar_one()


def remove(store: Store, name: str) -> None:
    """Retire a database: its history stays, its address is forgotten at once; `add` takes it up again."""
    _change(store, name, status=RETIRED, ciphertext="")


def set_status(store: Store, name: str, status: DatabaseStatus) -> None:
    """Pause a database or go on with it; retiring is `remove`, and `add` the way back."""
    if status is DatabaseStatus.RETIRED:
        raise InvalidInput("status", "retiring forgets the address", "remove the database instead")
    _change(store, name, status=status.value)


def change(
    store: Store,
    name: str,
    *,
    ciphertext: str | None = None,
    labels: Mapping[str, str] | None = None,
    policy: str | None = None,
    zone: str | None = None,
    revision: int | None = None,
) -> Registered:
    """Change what is given, in one step, and where told only at this revision; workers take up a new address
    without a restart.
    """
    values = {"ciphertext": ciphertext, "labels": labels and dict(labels), "policy": policy, "zone": zone}
    try:
        given = {key: value for key, value in values.items() if value is not None}
        return _change(store, name, revision, **given)
    except IntegrityError:
        raise NotFound("policy", policy or "") from None


def policies(store: Store) -> tuple[Policy, ...]:
    """Return all policies by name."""
    with store.begin() as connection:
        return tuple(_policies(connection))


def put_policy(store: Store, policy: Policy) -> None:
    """Make or change a policy; it counts as a change of every database it governs."""
    values = asdict(policy)
    check_name(policy.name)
    with store.begin() as connection:
        connection.execute(insert(Policies).values(values).on_conflict_do_update(index_elements=["name"], set_=values))
        governed = update(Databases).where(Databases.policy == policy.name, Databases.status != RETIRED)
        connection.execute(governed.values(revision=Databases.revision + 1))


def _change(store: Store, name: str, revision: int | None = None, **values: object) -> Registered:
    mine = Databases.name == name, Databases.status != RETIRED
    meant = mine if revision is None else (*mine, Databases.revision == revision)
    with store.begin() as connection:
        done = connection.execute(update(Databases).where(*meant).values(**values, revision=Databases.revision + 1))
        if not done.rowcount:
            raise Outdated("database", name) if _read(connection, *mine) else NotFound("database", name)
        return _read(connection, Databases.name == name)[0]


def _read(connection: Connection, *where: ColumnElement[bool], limit: int | None = None) -> tuple[Registered, ...]:
    """Return databases by name. Policies come second: none is ever deleted, so each one named is there."""
    query = select(Databases.__table__).where(*where).order_by(Databases.name).limit(limit)
    rows = connection.execute(query).all()
    policies = {policy.name: policy for policy in _policies(connection)}
    return tuple(
        Registered(
            name=row.name,
            id=row.id,
            ciphertext=row.ciphertext,
            labels=row.labels,
            policy=policies[row.policy],
            zone=row.zone,
            status=DatabaseStatus(row.status),
            revision=row.revision,
            created_at=row.created_at.timestamp(),
        )
        for row in rows
    )


def _policies(connection: Connection) -> list[Policy]:
    rows = connection.execute(select(Policies.__table__).order_by(Policies.name))
    return [stored(dict(row._mapping)) for row in rows]
