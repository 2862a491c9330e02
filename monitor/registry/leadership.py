"""Who leads: one lease row, by Postgres's clock alone. Supervisors and doors import this.

Every acquisition takes a new term, one's own after expiry too: a process that slept through its
lease never meets its old epochs again.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, bindparam, func, not_, select, text, update

from monitor.core.errors import ForeignRedis
from monitor.core.timing import LEASE
from monitor.registry.store import Store
from monitor.registry.tables import Leadership

HIGHEST = 1 << 53  # terms from here on are nobody's: Lua's numbers end there
_LEASE = (Leadership.owner, Leadership.term, Leadership.registry_name)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to lead, as long as it is renewed."""

    owner: str  # a uuid per process life
    term: int
    registry: str = field(default="", compare=False)  # the name of the registry that gave it
    before: str = field(default="", compare=False)  # the lease before it, as `Lease.named` says it

    @property
    def named(self) -> str:
        """Return what the next leader knows this lease by."""
        return f"{self.owner} {self.term}"


def acquire(
    store: Store, owner: str, seconds: float = LEASE, *, seen: int = 0, signed: Collection[str] = ()
) -> Lease | None:
    """Take the lead in a new term; None while anybody's lease runs.

    `seen` is the highest term in Redis: a registry that was restored from an older copy must not
    give its terms out again. `signed` are the registries whose names stand there: where another is
    among them, ForeignRedis.
    """
    highest = seen if seen < HIGHEST else 0
    term = func.greatest(Leadership.term, highest) + 1
    free = not_(_runs(seconds))
    unchanged = Leadership.term == bindparam("last")
    take = (
        update(Leadership)
        .where(free, unchanged)
        .values(term=term, owner=owner, expires_at=_in(seconds))
        .returning(Leadership.term)
    )
    with store.begin() as connection:
        last = connection.execute(select(*_LEASE)).one()
        foreign = set(signed) - {last.registry_name, ""}
        if foreign:
            raise ForeignRedis(last.registry_name, min(foreign))
        taken = connection.execute(take, {"last": last.term}).scalar()
    if not taken:
        return None
    before = Lease(last.owner, last.term)
    return Lease(owner, taken, last.registry_name, before.named)


def registry(store: Store) -> str:
    """Return this registry's name, its own for ever."""
    name = select(Leadership.registry_name)
    with store.begin() as connection:
        return connection.execute(name).scalar_one()


def renew(store: Store, lease: Lease, seconds: float = LEASE) -> bool:
    """Prolong the lease; False when it ran out or another leads: then it is lost for ever."""
    prolong = (
        update(Leadership)
        .where(*_held(lease))
        .values(expires_at=_in(seconds))
        .returning(Leadership.term)
    )
    with store.begin() as connection:
        return connection.execute(prolong).scalar() is not None


def release(store: Store, lease: Lease) -> None:
    """Give the lead up at once; does nothing when it is another's by now."""
    mine = update(Leadership).where(*_held(lease))
    end = mine.values(expires_at=_now())
    with store.begin() as connection:
        connection.execute(end)


def current(store: Store, seconds: float = LEASE) -> Lease | None:
    """Return the lease that runs now."""
    running = select(*_LEASE).where(_runs(seconds))
    with store.begin() as connection:
        row = connection.execute(running).one_or_none()
    if row is None:
        return None
    return Lease(row.owner, row.term, row.registry_name)


def _now() -> ColumnElement[object]:
    # Not now(), the start of the transaction: the statement may have waited for the row.
    return func.clock_timestamp()


def _in(seconds: float) -> ColumnElement[object]:
    lease = text("secs => :seconds").bindparams(seconds=seconds)
    return func.clock_timestamp() + func.make_interval(lease)


def _runs(seconds: float) -> ColumnElement[bool]:
    """Ask whether the lease runs.

    One that ends later than a lease given now was dated by a clock that was set back since: it is
    nobody's.
    """
    return and_(
        Leadership.expires_at > _now(),
        Leadership.expires_at <= _in(seconds),
    )


def _held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        Leadership.owner == lease.owner,
        Leadership.term == lease.term,
        Leadership.expires_at > _now(),
    )
