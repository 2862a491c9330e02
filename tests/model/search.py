"""Breadth-first search of all worlds within bounds: what it meets first has a shortest history."""

import gc
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.model import faults, protocol
from tests.model.healing import heal, strain
from tests.model.repairs import Without
from tests.model.symmetry import canonical
from tests.model.world import LEADERS, Events, Worker, World, is_open, staff

# What takes several requests: one step, or the parts it really has.
DRAINING, RESTORING, OPENING = "draining", "restoring", "opening"
LEARNING, ENTERING = "learning", "entering"


class Bounds(NamedTuple):
    """How much may happen on one way through the worlds."""

    faults: tuple[str, ...] = ()
    feels: int = 2
    assigns: int = 2
    elections: int = 1
    states: int = 2_000_000
    strained: bool = False
    parts: tuple[str, ...] = ()  # which steps are cut into theirs
    ownerless: bool = False  # a generation may be opened with no worker there
    resigning: bool = False  # leaders may give the lead up in order
    one_truth: bool = False  # two masters at a time are judged as one


class Found(NamedTuple):
    """The outcome of a search."""

    states: int
    exhausted: bool
    seconds: float
    violation: str
    history: tuple[str, ...]
    reached: tuple[int, ...] = ()  # how many worlds each of the asked situations was met in

    def __str__(self) -> str:
        extent = "exhausted" if self.exhausted else "BOUND HIT" if not self.violation else "stopped"
        outcome = self.violation or "no violation"
        head = f"{self.states} states, {extent}, {self.seconds:.1f} s: {outcome}"
        return "\n".join((head, *(f"  {i:2}. {step}" for i, step in enumerate(self.history, 1))))


Move = tuple[str, World]
Maybe = tuple[str, World | None]
Situation = Callable[[World], bool]


def moves(world: World, bounds: Bounds, without: Without) -> Iterator[Move]:
    """Yield every step that can happen next."""
    for name, following in _all_moves(world, bounds, without):
        if following is not None:
            yield name, following


def _all_moves(world: World, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    for name, following in _sided(world, bounds, without):
        yield name, following and faults.known_here(following)
    if world.old:
        yield from _at_the_old_master(world, bounds, without)
    yield "Postgres is back", faults.postgres_back(world)
    yield from _failovers(world, bounds, without)
    yield "the late request arrives", faults.arrive(world, without)
    for who in staff(world):
        if world.workers[who].flying:
            yield f"W{who} gets its reply", protocol.apply_reply(world, who, without)
    for fault in bounds.faults:
        if fault not in world.past.faults:
            for name, following in _faults(world, fault, bounds, without):
                yield name, following and _spent(following, faults=(*world.past.faults, fault))


def _failovers(world: World, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    apart = not bounds.one_truth
    if "left_worker" in bounds.faults:
        for who in staff(world):
            after = faults.split(world, who, None, without, apart=apart)
            yield f"FAILOVER, W{who} LEFT BEHIND", after
    elif "left_leader" in bounds.faults:
        for who in staff(world):
            after = faults.split(world, who, 0, without, apart=apart)
            yield f"FAILOVER, L0 and W{who} LEFT BEHIND", after
    else:
        yield "FAILOVER to the replica", faults.failover(world, without)


def _sided(
    world: World, bounds: Bounds, without: Without, *, left: bool = False
) -> Iterator[Maybe]:
    for who in LEADERS:
        if world.leaders[who].left == left:
            yield from _leader(world, who, bounds, without)
    for who in staff(world):
        if world.workers[who].alive and world.workers[who].left == left:
            yield from _worker(world, who, bounds, without)
    yield from _historian(world, bounds, without)


def _at_the_old_master(world: World, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    for name, following in _sided(faults.swapped(world), bounds, without, left=True):
        if following is not None:
            yield f"{name} (old master)", faults.swapped(following)
    for who in staff(world):
        yield f"W{who} finds the new master", faults.rejoin(world, who)
    for who in LEADERS:
        yield f"L{who} finds the new master", faults.rejoin_leader(world, who)


def _leader(world: World, who: int, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    past = world.past
    if past.elections < bounds.elections:
        acquired = protocol.acquire(world, who, without)
        yield f"L{who} takes the lease", acquired and _spent(acquired, elections=past.elections + 1)
    if world.leaders[who].cut:
        yield f"L{who} reaches Postgres again", faults.mended(world, who)
    if not world.leaders[who].term:
        return
    if bounds.resigning:
        yield f"L{who} marks it complete", protocol.mark_complete(world, who)
    yield f"L{who} begins", _begun(world, who, without)
    yield f"L{who} seeds", protocol.seed(world, who, without)
    if OPENING in bounds.parts:
        yield f"L{who} opens this partition", protocol.open_half(world, who, without, here=True)
        yield f"L{who} opens the others", protocol.open_half(world, who, without, here=False)
        yield f"L{who} gives up opening", protocol.give_up(world, who)
    else:
        yield f"L{who} opens", protocol.open(world, who, without)
    if past.assigns < bounds.assigns:
        yield from _assigns(world, who, bounds, without)


def _assigns(world: World, who: int, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    step = protocol.assign_move if is_open(world.redis) else protocol.assign_restored
    spent = world.past.assigns + 1
    for worker in staff(world):
        assigned = step(world, who, worker, without)
        yield f"L{who} assigns W{worker}", assigned and _spent(assigned, assigns=spent)
    if bounds.ownerless:
        yield f"L{who} finds no worker", protocol.unassign(world, who, without)


def _begun(world: World, who: int, without: Without) -> World | None:
    """Begin and seed at once while Postgres answers: a later look at the lease is but fresher."""
    begun = protocol.begin(world, who, without)
    return begun and (protocol.seed(begun, who, without) or begun)


def _worker(world: World, who: int, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    yield f"W{who} closes what it outlived", protocol.close(world, who, without)
    if RESTORING in bounds.parts:
        yield f"W{who} sends a part", protocol.report_part(world, who, without)
    else:
        yield f"W{who} restores", protocol.restore(world, who, without)
    if ENTERING in bounds.parts:
        yield f"W{who} replays", protocol.replay_only(world, who, without)
        yield f"W{who} enters", protocol.enter(world, who, without)
    else:
        yield f"W{who} replays", protocol.replay(world, who, without)
    if LEARNING in bounds.parts:
        yield f"W{who} looks", protocol.look(world, who, without)
        yield f"W{who} learns", protocol.adopt(world, who, without)
    else:
        yield f"W{who} learns", protocol.learn(world, who, without)
    yield f"W{who} records", protocol.record(world, who, without)
    yield f"W{who} replays once more", protocol.repeat(world, who, without)
    if world.past.feels < bounds.feels:
        yield f"W{who} feels", protocol.observe(world, who, without)


def _historian(world: World, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    apart = DRAINING in bounds.parts
    if apart:
        yield "historian makes its group", protocol.gather(world)
    if not apart or world.redis.grouped:
        for event in world.redis.journal:
            yield f"historian drains {event.identity}", protocol.drain(world, event, without)
    if not apart:
        yield "historian acknowledges", _acknowledged(world, without)
        return
    yield "historian acknowledges", protocol.mark_durable(world, without)
    yield "historian acks", protocol.ack(world, without)
    for who in staff(world):
        yield f"W{who} forgets", protocol.forget(world, who, without)
    yield "trim", protocol.trim(world, without)


def _acknowledged(world: World, without: Without) -> World | None:
    """Acknowledge, ack, forget and trim at once: putting the last three off only keeps more."""
    done = protocol.mark_durable(world, without) or protocol.ack(world, without)
    if not done:
        return None
    done = protocol.ack(done, without) or done
    for who in staff(world):
        done = protocol.forget(done, who, without) or done
    done = protocol.trim(done, without) or done
    asked = {e.identity for w in done.workers for e in _may_be_retained(w)}
    asked |= {e.identity for e in done.redis.journal}
    durable = tuple(i for i in done.redis.durable if i in asked)
    return done._replace(redis=done.redis._replace(durable=durable))


def _may_be_retained(worker: Worker) -> Events:
    flying = (event for flight in worker.flying for event in flight.events)
    return (*worker.retained, *worker.pending, *flying)


def _faults(world: World, fault: str, bounds: Bounds, without: Without) -> Iterator[Maybe]:
    match fault:
        case "flush" | "flush_again":
            yield "FLUSHALL", faults.flush(world)
        case "failover" | "left_worker" | "left_leader":
            yield "the replica falls behind", faults.lag(world)
        case "failback":
            yield "FAILBACK to the first master", faults.failback(world, without)
        case "postgres_away" | "intruder":
            yield _postgres_fault(world, fault, without)
        case "force" | "expire":
            yield from _journal_faults(world, fault)
        case "cut":
            told = "is CUT OFF from Postgres"
            yield from ((f"L{who} {told}", faults.cut(world, who)) for who in LEADERS)
        case _:
            for who in staff(world):
                yield from _worker_faults(world, fault, who, without)


def _postgres_fault(world: World, fault: str, without: Without) -> Maybe:
    if fault == "intruder":
        return "ANOTHER REGISTRY leads", faults.intruded(world, without)
    return "Postgres AWAY", faults.postgres_away(world)


def _journal_faults(world: World, fault: str) -> Iterator[Maybe]:
    if fault == "force":
        for event in world.redis.journal:
            yield f"{event.identity} is TRIMMED BY FORCE", protocol.trim_by_force(world, event)
    else:
        for identity in world.redis.durable:
            yield f"an HOUR after {identity}", protocol.expire(world, identity)


def _worker_faults(world: World, fault: str, who: int, without: Without) -> Iterator[Maybe]:
    match fault:
        case "crash":
            yield f"W{who} CRASHES", faults.crash(world, who)
        case "lost_reply":
            yield f"W{who} records and GETS NO REPLY", faults.lost_reply(world, who)
        case "late_answer":
            after = faults.late_answer(world, who, without)
            yield f"W{who} records, its reply is ON ITS WAY", after
        case "lost_part":
            yield f"W{who} sends a part and GETS NO REPLY", faults.lost_part(world, who, without)
        case "twin":
            yield f"W{who} draws the OWNER'S ID", faults.twin(world, who)
        case "stray":
            yield f"W{who} STRAYS to the old master", faults.stray(world, who)


def _spent(world: World, **spent: Any) -> World:
    return world._replace(past=world.past._replace(**spent))


def search(
    start: World, bounds: Bounds, without: Without = frozenset(), asked: tuple[Situation, ...] = ()
) -> Found:
    """Visit every world within bounds, nearest first; stop at the first violation."""
    gc.disable()  # nothing here goes round in circles, and looking for that costs a tenth
    try:
        return _search(start, bounds, without, asked)
    finally:
        gc.enable()


def _search(start: World, bounds: Bounds, without: Without, asked: tuple[Situation, ...]) -> Found:
    began = time.process_time()
    # two are seldom alike: looking costs more than it saves
    same = canonical if len(start.workers) > 2 else _itself
    parents: dict[World, World | None] = {start: None}
    known: set[World] | dict[World, World | None] = parents if same is _itself else {same(start)}
    reached = [0] * len(asked)
    queue = deque([start])
    calm: dict[World, str] = {}
    strained: dict[World, str] = {}
    while queue and len(parents) < bounds.states:
        world = queue.popleft()
        violation, last = _wrong(world, bounds, without, calm, strained)
        if violation:
            history = tuple(filter(None, (*_history(parents, world, bounds, without), last)))
            seconds = time.process_time() - began
            return Found(len(parents), False, seconds, violation, history, tuple(reached))
        for i, situation in enumerate(asked):
            reached[i] += situation(world)
        for _, following in moves(world, bounds, without):
            if (representative := same(following)) not in known:
                if isinstance(known, set):
                    known.add(representative)
                parents[following] = world
                queue.append(following)
    return Found(len(parents), not queue, time.process_time() - began, "", (), tuple(reached))


def _wrong(
    world: World,
    bounds: Bounds,
    without: Without,
    calm: dict[World, str],
    strained: dict[World, str],
) -> tuple[str, str]:
    if world.past.violation:
        return world.past.violation, ""
    if violation := heal(world, without, calm):
        return violation, "(everybody gets its turns)"
    if bounds.strained and (violation := strain(world, without, strained)):
        return violation, "(everybody gets its turns, restlessly)"
    return "", ""


def _itself(world: World) -> World:
    return world


def _history(
    parents: dict[World, World | None], world: World, bounds: Bounds, without: Without
) -> list[str]:
    steps: list[str] = []
    while (parent := parents[world]) is not None:
        following = moves(parent, bounds, without)
        steps.append(next(name for name, one in following if one == world))
        world = parent
    return steps[::-1]
