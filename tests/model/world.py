"""The world of the fencing model: what everybody holds, and what really happened.

One database, two or three workers, two leaders. Only tests/model may import this. Nothing here
acts: `protocol` holds the steps, `faults` what the environment does, `healing` what must hold once
the faults have stopped.

Every value is a tuple of numbers: worlds hash, compare and sort. 0 stands for "none" where the real
thing has None. A Status is modelled by the last transition it contains.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from monitor.core.status import Epoch, Identity

T = TypeVar("T")

LEADERS = (0, 1)
NOBODY = -1
NO_EPOCH = Epoch(0, 0)


class Event(NamedTuple):
    """A transition: `content` tells two transitions apart that carry one identity by mistake."""

    identity: Identity
    prev: Identity
    content: int


NEW = Event(
    Identity(NO_EPOCH, 0), Identity(NO_EPOCH, 0), 0
)  # the state `new`: before the first transition
ABSENT = Event(Identity(NO_EPOCH, -1), Identity(NO_EPOCH, -1), 0)  # the hash holds no state at all

Events = tuple[Event, ...]


class Name(NamedTuple):
    """The name of a generation: the instance of Redis, and the fresh epoch that opened it."""

    instance: int  # the replication id: new at each start and promotion, kept by FLUSHALL
    epoch: Epoch


NO_NAME = Name(0, NO_EPOCH)


class Redis(NamedTuple):
    """What the master holds: a flush empties all but `instance`, a failover brings older contents.

    It is the database's own partition; of the others only the generation counts.
    """

    instance: int = 1
    generation: Name = NO_NAME
    # the generation in the other partitions: another one while an opening stands half-way
    others: Name = NO_NAME
    opening: Name = NO_NAME  # the leader's mark in this instance: the name it is about to open
    term: int = 0
    signed: bool = False  # it holds the name of our registry
    complete: int = 0  # the term of the leader that gave the lead up in order, as its last word
    owner: int = NOBODY
    epoch: Epoch = NO_EPOCH
    proven: bool = False  # the owner has had a beat accepted under its epoch
    bound: int = NOBODY  # the process that had it: the epoch is its own from then on
    status: Event = ABSENT
    claimant: int = NOBODY
    claim: Epoch = NO_EPOCH
    begun: tuple[tuple[int, int], ...] = ()  # reports begun and not done: who, attempt
    reported: tuple[int, ...] = ()  # which workers have restored
    announced: tuple[int, ...] = ()  # which workers this Redis knows of
    journal: Events = ()
    acked: Events = ()  # entries of the journal that the historian's group has acknowledged
    grouped: bool = False  # that group exists in this journal
    durable: tuple[Identity, ...] = ()


class Postgres(NamedTuple):
    """The lease and the history."""

    up: bool = True
    holder: int = NOBODY
    term: int = 0
    rows: Events = ()


class Report(NamedTuple):
    """A report on its way, part by part: what the worker knew when it began."""

    attempt: int
    instance: int
    part: int  # the next one to be sent: see `restoring`
    status: Event
    claim: Epoch
    term: int
    named: bool  # it carries the name of our registry


class Flight(NamedTuple):
    """A beat that Redis has judged and whose answer has not arrived."""

    epoch: Epoch
    status: Event
    events: Events


class Worker(NamedTuple):
    """What a worker knows of the database."""

    alive: bool = True
    owns: bool = False
    epoch: Epoch = NO_EPOCH  # the one it holds or held last
    term: int = 0  # the highest it saw
    generation: Name = NO_NAME  # the one it has entered
    opened: Epoch = NO_EPOCH  # of the newest generation it has entered
    accepted: Event = ABSENT  # the last accepted Status it knows
    pending: Events = ()  # tentative, oldest first
    behind: bool = False  # was answered AHEAD: reads the hash before anything else
    retained: Events = ()  # accepted, not yet acknowledged
    reporting: tuple[Report, ...] = ()
    entering: Name = NO_NAME  # the generation it looked at and is about to enter
    looked: tuple[Redis, ...] = ()  # the hash it has read and not yet learned from
    flying: tuple[Flight, ...] = ()
    left: bool = False  # with the old master, after a failover
    alias: int = NOBODY  # goes by the id of this other process


class Leader(NamedTuple):
    """What a supervisor believes of its own leadership; term 0 does not lead."""

    term: int = 0
    before: int = 0  # the term before it
    counter: int = 0
    opening: Name = NO_NAME  # the generation it is about to open
    confirmed: bool = False  # Postgres said since `begin` that the lease is its own
    reissued: bool = False  # a fresh epoch was assigned since `begin`
    met: bool = False  # it has seen the workers while a generation was open
    cut: bool = False  # off from Postgres
    left: bool = False  # with the old master, after a failover


class Past(NamedTuple):
    """What really happened: no process can see it, the invariants are judged by it."""

    accepted: Events = ()
    excused: tuple[int, ...] = ()  # contents that may be built past: see `judging.opened`
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


class Part(NamedTuple):
    """A part of a report on its way."""

    who: int
    report: Report


class Side(NamedTuple):
    """A master left behind that goes on, and what happened there; `apart`: judged alone."""

    redis: Redis
    accepted: Events
    highest: Epoch
    apart: bool = True


class World(NamedTuple):
    """One state of everything; `replica`: where it stands; `late`: what nobody waits for."""

    redis: Redis = Redis()
    replica: tuple[Redis, ...] = ()
    old: tuple[Side, ...] = ()
    late: tuple[Beat | Part, ...] = ()
    postgres: Postgres = Postgres()
    workers: tuple[Worker, ...] = (Worker(), Worker())
    leaders: tuple[Leader, ...] = (Leader(), Leader())
    past: Past = Past()


def staff(world: World) -> range:
    """Return the workers."""
    return range(len(world.workers))


def called(worker: Worker, who: int) -> int:
    """Return the id a process goes by: its own, or its twin's."""
    return who if worker.alias == NOBODY else worker.alias


def is_there(world: World, name: int) -> bool:
    """Say whether some live process goes by this id."""
    return any(
        worker.alive and called(worker, who) == name for who, worker in enumerate(world.workers)
    )


def put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    """Return `items` with one of them replaced."""
    return (*items[:index], item, *items[index + 1 :])


def joined(items: Iterable[T], more: Iterable[T]) -> tuple[T, ...]:
    """Return the sorted union."""
    return tuple(sorted({*items, *more}))  # type: ignore[type-var]


def without_those(items: Iterable[T], those: Iterable[T]) -> tuple[T, ...]:
    """Return what is left of `items`, in order."""
    gone = set(those)
    return tuple(item for item in items if item not in gone)


def is_open_here(redis: Redis) -> bool:
    """Say whether this instance was opened in the database's partition: all a Lua step can see."""
    return redis.generation.instance == redis.instance


def is_open(redis: Redis) -> bool:
    """Say whether this instance was opened in all partitions: what workers and leaders look at."""
    return redis.generation.instance == redis.instance and redis.others == redis.generation


def last_row(postgres: Postgres) -> Event:
    """Return the newest transition by identity, never by the time of insertion."""
    return max(postgres.rows, default=NEW)


def worked(world: World, who: int, worker: Worker, redis: Redis) -> World:
    """Return the world after a worker's step."""
    return world._replace(redis=redis, workers=put(world.workers, who, worker))


def violated(past: Past, violation: str) -> Past:
    """Remember the first violation."""
    return past if past.violation else past._replace(violation=violation)
