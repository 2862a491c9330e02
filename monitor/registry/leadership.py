"""Who leads: one lease row, by Postgres's clock alone. Supervisors and doors import this.

Every acquisition takes a new term, one's own after expiry too: a process that slept through its lease never meets
its old epochs again.
"""

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, case, func, select, text, update

from monitor.registry.store import Store
from monitor.registry.tables import Leadership

HIGHEST = 1 << 53  # terms from here on are nobody's: Lua's numbers end there


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to lead, as long as it is renewed."""

    owner: str  # a uuid per process life
    term: int
    registry: str = field(default="", compare=False)  # the name of the registry that gave it


def acquire(store: Store, owner: str, seconds: float = 8.0, *, seen: tuple[str, int] = ("", 0)) -> Lease | None:
    """Take the lead in a new term; None while anybody's lease runs.

    `seen` is the highest term Redis has seen and of which registry: one that was restored from an older copy must not
    give its terms out again. Another registry's terms are left alone: then Redis is not ours, and refuses us.
    """
    registry, highest = seen
    ours = case((Leadership.registry_name == registry, highest if highest < HIGHEST else 0), else_=0)
    take = (
        update(Leadership)
        .where(Leadership.expires_at <= _now())
        .values(term=func.greatest(Leadership.term, ours) + 1, owner=owner, expires_at=_in(seconds))
        .returning(Leadership.term, Leadership.registry_name)
    )
    with store.begin() as connection:
        row = connection.execute(take).one_or_none()
    return Lease(owner, row.term, row.registry_name) if row else None


def renew(store: Store, lease: Lease, seconds: float = 8.0) -> bool:
    """Prolong the lease; False when it ran out or another leads: then it is lost for ever."""
    prolong = update(Leadership).where(*_held(lease)).values(expires_at=_in(seconds)).returning(Leadership.term)
    with store.begin() as connection:
        return connection.execute(prolong).scalar() is not None


def release(store: Store, lease: Lease) -> None:
    """Give the lead up at once; does nothing when it is another's by now."""
    with store.begin() as connection:
        connection.execute(update(Leadership).where(*_held(lease)).values(expires_at=_now()))


def current(store: Store) -> Lease | None:
    """Return the lease that runs now."""
    with store.begin() as connection:
        row = connection.execute(
            select(Leadership.owner, Leadership.term).where(Leadership.expires_at > _now())
        ).one_or_none()
    return Lease(row.owner, row.term) if row else None


def _now() -> ColumnElement[object]:
    # Not now(), the start of the transaction: the statement may have waited for the row.
    return func.clock_timestamp()


def _in(seconds: float) -> ColumnElement[object]:
    return func.clock_timestamp() + func.make_interval(text("secs => :seconds").bindparams(seconds=seconds))


def _held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return Leadership.owner == lease.owner, Leadership.term == lease.term, Leadership.expires_at > _now()
