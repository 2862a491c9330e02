"""Breadth-first search over all worlds within bounds: the first violation met has a shortest history.

Only tests/model may import this.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from monitor.core.status import Epoch
from tests.model import faults, protocol
from tests.model.healing import heal, strain
from tests.model.repairs import Repair, Without
from tests.model.world import LEADERS, NEW, WORKERS, Leader, Name, Postgres, Redis, Worker, World, is_open


class Bounds(NamedTuple):
    """How much may happen on one way through the worlds."""

    faults: tuple[str, ...] = ()
    feels: int = 2
    assigns: int = 2
    elections: int = 1
    states: int = 200_000
    strained: bool = False


class Found(NamedTuple):
    """The outcome of a search."""

    states: int
    exhausted: bool
    seconds: float
    violation: str
    history: tuple[str, ...]

    def __str__(self) -> str:
        extent = "exhausted" if self.exhausted else "BOUND HIT" if not self.violation else "stopped"
        head = f"{self.states} states, {extent}, {self.seconds:.1f} s: {self.violation or 'no violation'}"
        return "\n".join((head, *(f"  {i:2}. {step}" for i, step in enumerate(self.history, 1))))


Move = tuple[str, World]
Maybe = tuple[str, World | None]


def fresh(without: Without = frozenset()) -> World:
    """Return the beginning: an empty Redis, no leader."""
    return World()


def running(without: Without = frozenset()) -> World:
    """Return the quiet middle: L0 leads by term 1, its generation is open, W0 owns the database in state new."""
    name, epoch = protocol.named(Name(1, Epoch(1, 1)), without), Epoch(1, 2)
    return World(
        redis=Redis(generation=name, term=1, owner=0, epoch=epoch, proven=True, status=NEW),
        postgres=Postgres(holder=0, term=1),
        workers=(Worker(owns=True, epoch=epoch, term=1, generation=name, accepted=NEW), Worker(generation=name)),
        leaders=(Leader(term=1, counter=2), Leader()),
    )


def opening(without: Without = frozenset()) -> World:
    """Return the middle of the first opening: L0 has begun and assigned W0 in the closed generation."""
    name, epoch = Name(1, Epoch(1, 1)), Epoch(1, 2)
    return World(
        redis=Redis(opening=name, term=1, owner=0, epoch=epoch, status=NEW),
        postgres=Postgres(holder=0, term=1),
        leaders=(Leader(term=1, counter=2, opening=name, confirmed=True, reissued=True), Leader()),
    )


def deposed(without: Without = frozenset()) -> World:
    """Return the quiet middle after a change of leaders: L1 gave the database to W1, L0 has not noticed, nor has W0."""
    world, epoch = running(without), Epoch(2, 1)
    w0, w1 = world.workers
    return world._replace(
        redis=world.redis._replace(term=2, owner=1, epoch=epoch),
        postgres=Postgres(holder=1, term=2),
        workers=(w0, w1._replace(owns=True, epoch=epoch, term=2, accepted=NEW)),
        leaders=(world.leaders[0], Leader(term=2, counter=1)),
        past=world.past._replace(highest=epoch),
    )


def moves(world: World, bounds: Bounds, without: Without) -> Iterator[Move]:
    """Yield every step that can happen next."""
    for name, following in _all_moves(world, bounds, without):
        if following is not None:
            yield name, following


def _all_moves(world: World, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    yield from _leaders(world, bounds, without)
    yield from _workers(world, bounds, without)
    yield from _historian(world, without)
    yield "Postgres is back", faults.postgres_back(world)
    yield "FAILOVER to the replica", faults.failover(world)
    yield "the late beat arrives", faults.arrive(world, without)
    for fault in bounds.faults:
        if fault not in world.past.faults:
            for name, following in _faults(world, fault, without):
                yield name, following and _spent(following, faults=(*world.past.faults, fault))


def _leaders(world: World, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    past = world.past
    for who in LEADERS:
        if past.elections < bounds.elections:
            acquired = protocol.acquire(world, who, without)
            yield f"L{who} takes the lease", acquired and _spent(acquired, elections=past.elections + 1)
        if not world.leaders[who].term:
            continue
        yield f"L{who} begins", _begun(world, who, without)
        yield f"L{who} seeds", protocol.seed(world, who, without)
        yield f"L{who} opens", protocol.open(world, who, without)
        if past.assigns < bounds.assigns:
            step = protocol.assign_move if is_open(world.redis) else protocol.assign_restored
            for worker in WORKERS:
                assigned = step(world, who, worker, without)
                yield f"L{who} assigns W{worker}", assigned and _spent(assigned, assigns=past.assigns + 1)


def _begun(world: World, who: int, without: Without) -> World | None:
    """Begin and seed at once while Postgres answers: a later look at the lease would only be a fresher one."""
    begun = protocol.begin(world, who, without)
    return begun and (protocol.seed(begun, who, without) or begun)


def _workers(world: World, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    for who in WORKERS:
        if not world.workers[who].alive:
            continue
        for step in (protocol.restore, protocol.replay, protocol.learn, protocol.record):
            yield f"W{who} {step.__name__}s", step(world, who, without)
        if world.past.feels < bounds.feels:
            yield f"W{who} feels", protocol.feel(world, who, without)


def _historian(world: World, without: Without) -> Iterator[Maybe]:
    for event in world.redis.journal:
        yield f"historian drains {event.identity}", protocol.drain(world, event, without)
    yield "historian acknowledges", _acknowledged(world, without)
    if Repair.TRIMMED in without:
        yield "trim", protocol.trim(world, without)


def _acknowledged(world: World, without: Without) -> World | None:
    """Acknowledge, forget and trim at once: putting the last two off only keeps more."""
    done = protocol.acknowledge(world, without)
    if not done:
        return None
    for who in WORKERS:
        done = protocol.forget(done, who, without) or done
    if Repair.TRIMMED not in without:
        done = protocol.trim(done, without) or done
    asked = {e.identity for e in (*done.redis.journal, *(e for w in done.workers for e in w.retained))}
    return done._replace(redis=done.redis._replace(drained=tuple(i for i in done.redis.drained if i in asked)))


def _faults(world: World, fault: str, without: Without) -> Iterator[Maybe]:
    match fault:
        case "flush":
            yield "FLUSHALL", faults.flush(world)
        case "failover":
            yield "the replica falls behind", faults.lag(world)
        case "failback":
            yield "FAILBACK to the first master", faults.failback(world, without)
        case "postgres_away":
            yield "Postgres AWAY", faults.postgres_away(world)
        case "crash":
            yield from ((f"W{who} CRASHES", faults.crash(world, who)) for who in WORKERS)
        case "lost_reply":
            yield from ((f"W{who} records and HEARS NOTHING", faults.lost_reply(world, who)) for who in WORKERS)


def _spent(world: World, **spent: Any) -> World:
    return world._replace(past=world.past._replace(**spent))


def search(start: World, bounds: Bounds, without: Without = frozenset()) -> Found:
    """Visit every world within bounds, nearest first; stop at the first violation."""
    began = time.process_time()
    parents: dict[World, World | None] = {start: None}
    queue = deque([start])
    calm: dict[World, str] = {}
    strained: dict[World, str] = {}
    while queue and len(parents) < bounds.states:
        world = queue.popleft()
        violation, last = world.past.violation, ""
        if not violation:
            violation, last = heal(world, without, calm), "(everybody gets its turns)"
        if not violation and bounds.strained:
            violation, last = strain(world, without, strained), "(everybody gets its turns, restlessly)"
        if violation:
            history = filter(None, (*_history(parents, world, bounds, without), last))
            return Found(len(parents), False, time.process_time() - began, violation, tuple(history))
        for _, following in moves(world, bounds, without):
            if following not in parents:
                parents[following] = world
                queue.append(following)
    return Found(len(parents), not queue, time.process_time() - began, "", ())


def _history(parents: dict[World, World | None], world: World, bounds: Bounds, without: Without) -> list[str]:
    steps: list[str] = []
    while (parent := parents[world]) is not None:
        steps.append(next(name for name, following in moves(parent, bounds, without) if following == world))
        world = parent
    return steps[::-1]
