"""The world of the fencing model: what Redis, Postgres, the workers and the leaders hold, and what really happened.

One database, two workers, two leaders. Only tests/model may import this. Nothing here acts: `protocol` holds the steps,
`faults` what the environment does, `healing` what must hold once the faults have stopped.

Every value is a tuple of numbers: worlds hash, compare and sort. 0 stands for "none" where the real thing has None.
A Status is modelled by the last transition it contains.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from monitor.core.status import Epoch, Identity

T = TypeVar("T")

WORKERS = (0, 1)
LEADERS = (0, 1)
NOBODY = -1
NO_EPOCH = Epoch(0, 0)
NOT_REPORTED = (False, False)


class Event(NamedTuple):
    """A transition: `content` tells two transitions apart that carry one identity by mistake."""

    identity: Identity
    prev: Identity
    content: int


NEW = Event(Identity(NO_EPOCH, 0), Identity(NO_EPOCH, 0), 0)  # the state `new`: before the first transition
ABSENT = Event(Identity(NO_EPOCH, -1), Identity(NO_EPOCH, -1), 0)  # the hash holds no state at all


class Name(NamedTuple):
    """The name of a generation: which life of Redis, and the leader's fresh epoch that opened it."""

    life: int  # the replication id: new at each start and promotion, kept by FLUSHALL
    epoch: Epoch


NO_NAME = Name(0, NO_EPOCH)


class Redis(NamedTuple):
    """What the master holds; a flush empties all but `life`, a failover brings back older contents in a new life."""

    life: int = 1
    generation: Name = NO_NAME
    opening: Name = NO_NAME  # the leader's mark in this life: the name it is about to open
    term: int = 0
    owner: int = NOBODY
    epoch: Epoch = NO_EPOCH
    proven: bool = False  # the owner has had a beat accepted under its epoch
    status: Event = ABSENT
    claimant: int = NOBODY
    claim: Epoch = NO_EPOCH
    reported: tuple[bool, ...] = NOT_REPORTED  # which workers have restored
    journal: tuple[Event, ...] = ()
    drained: tuple[Identity, ...] = ()


class Postgres(NamedTuple):
    """The lease and the history."""

    up: bool = True
    holder: int = NOBODY
    term: int = 0
    rows: tuple[Event, ...] = ()


class Worker(NamedTuple):
    """A worker's memory of the database."""

    alive: bool = True
    owns: bool = False
    epoch: Epoch = NO_EPOCH  # the one it holds or held last
    term: int = 0  # the highest it saw
    generation: Name = NO_NAME  # the one it has entered
    accepted: Event = ABSENT  # the last accepted Status it knows
    pending: tuple[Event, ...] = ()  # tentative, oldest first
    behind: bool = False  # told AHEAD: reads the hash before anything else
    retained: tuple[Event, ...] = ()  # accepted, not yet acknowledged


class Leader(NamedTuple):
    """What a supervisor believes of its own leadership; term 0 does not lead."""

    term: int = 0
    counter: int = 0
    opening: Name = NO_NAME  # the generation it is about to open
    confirmed: bool = False  # Postgres said since `begin` that the lease is its own
    reissued: bool = False  # a fresh epoch was assigned since `begin`


class Past(NamedTuple):
    """What really happened: no process can see it, the invariants are judged by it."""

    accepted: tuple[Event, ...] = ()
    excused: tuple[int, ...] = ()  # contents that may be built past: see `protocol.open`
    highest: Epoch = NO_EPOCH  # the newest epoch Redis accepted a beat under
    feels: int = 0
    assigns: int = 0
    elections: int = 0
    faults: tuple[str, ...] = ()
    violation: str = ""


class Beat(NamedTuple):
    """A record request on its way: who sent it and what it knew then."""

    who: int
    worker: Worker


class World(NamedTuple):
    """One state of everything: `replica` is where a lagging one stands, `late` a beat nobody hears of any more."""

    redis: Redis = Redis()
    replica: tuple[Redis, ...] = ()
    late: tuple[Beat, ...] = ()
    postgres: Postgres = Postgres()
    workers: tuple[Worker, ...] = (Worker(), Worker())
    leaders: tuple[Leader, ...] = (Leader(), Leader())
    past: Past = Past()


def put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    """Return `items` with one of them replaced."""
    return (*items[:index], item, *items[index + 1 :])


def joined(items: Iterable[T], more: Iterable[T]) -> tuple[T, ...]:
    """Return the sorted union."""
    return tuple(sorted({*items, *more}))  # type: ignore[type-var]


def is_open(redis: Redis) -> bool:
    """Say whether this very life of Redis was opened."""
    return redis.generation.life == redis.life


def last_row(postgres: Postgres) -> Event:
    """Return the newest transition by identity, never by the time of insertion."""
    return max(postgres.rows, default=NEW)


def violated(past: Past, violation: str) -> Past:
    """Remember the first violation."""
    return past if past.violation else past._replace(violation=violation)
