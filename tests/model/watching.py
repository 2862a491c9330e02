"""The worker's steps: restore, replay, learn, feel, record, forget; and `judge`, what record does in Redis.

Only tests/model may import this.
"""

from enum import Enum, auto

from monitor.core.status import Identity
from tests.model import judging
from tests.model.repairs import Repair, Without
from tests.model.world import (
    ABSENT,
    NO_EPOCH,
    NO_NAME,
    Beat,
    Event,
    Redis,
    Worker,
    World,
    is_open,
    joined,
    last_row,
    put,
    violated,
)

MAX_PENDING = 2
Events = tuple[Event, ...]


class Verdict(Enum):
    """What record answers."""

    ACCEPTED = auto()
    CLOSED = auto()
    FENCED = auto()
    AHEAD = auto()
    CONFLICT = auto()


def restore(world: World, who: int, without: Without) -> World | None:
    """Merge what the worker knows into a Redis that has lost it; merging commutes. The report comes last."""
    redis, worker = world.redis, world.workers[who]
    if not worker.alive or Repair.RESTORED in without:
        return None
    term = redis.term if Repair.TERM_RESTORED in without else max(redis.term, worker.term)
    known = worker.accepted if worker.owns or Repair.RELEASED not in without else ABSENT
    if is_open(redis):
        if worker.generation == redis.generation or Repair.LATE_MERGED in without:
            return None
        merged = redis._replace(term=term, status=max(redis.status, known))
        return world._replace(redis=merged) if merged != redis else None
    if redis.reported[who]:
        return None
    status = known if Repair.MERGED in without and known != ABSENT else max(redis.status, known)
    if worker.epoch > redis.claim:
        redis = redis._replace(claim=worker.epoch, claimant=who)
    return world._replace(redis=redis._replace(term=term, status=status, reported=put(redis.reported, who, True)))


def replay(world: World, who: int, without: Without) -> World | None:
    """Enter the open generation: put into its journal whatever is retained and not known to be drained."""
    redis, worker = world.redis, world.workers[who]
    if not worker.alive or not is_open(redis) or worker.generation == redis.generation:
        return None
    if restore(world, who, without):
        return None  # what it knows comes first
    mine = redis.owner == who and redis.epoch == worker.epoch
    lost: Events = tuple(e for e in worker.retained if e.identity not in redis.drained)
    if Repair.RETAINED in without or (Repair.REPLAYED in without and not mine):
        lost = ()
    redis = redis._replace(journal=joined(redis.journal, lost))
    return _worked(world, who, worker._replace(generation=redis.generation), redis)


def learn(world: World, who: int, without: Without) -> World | None:
    """Read the hash: adopt a newer epoch, give up a lost one, or catch up after AHEAD."""
    redis, worker = world.redis, world.workers[who]
    if not worker.alive:
        return None
    entered = is_open(redis) and worker.generation == redis.generation
    if not entered and Repair.ENTERED not in without:
        return None
    newer = redis.epoch > worker.epoch
    if redis.owner != who:
        return _release(world, who, without) if newer and worker.owns else None
    if not newer and not (worker.behind and redis.epoch == worker.epoch):
        return None
    base = redis.status
    if base == ABSENT:
        if not world.postgres.up:
            return None  # feels and waits
        base = last_row(world.postgres)
    if base < worker.accepted:
        world = world._replace(past=violated(world.past, "WENT BACK: a worker forgot what it knew was accepted"))
    found, carried = _settle(worker.pending, base, without)
    worker = _found(worker, found, without)._replace(
        owns=True, epoch=redis.epoch, term=max(worker.term, redis.term), behind=False, accepted=base, pending=carried
    )
    return _worked(world, who, worker, redis)


def _release(world: World, who: int, without: Without) -> World:
    """Go back to the last accepted Status; it is kept, to be restored if Redis loses it."""
    redis, worker = world.redis, world.workers[who]
    found, _ = _settle(worker.pending, redis.status, without)
    accepted = found[-1] if found else worker.accepted
    worker = _found(worker, found, without)._replace(
        owns=False, term=max(worker.term, redis.term), behind=False, accepted=accepted, pending=()
    )
    return _worked(world, who, worker, redis)


def _settle(pending: Events, base: Event, without: Without) -> tuple[Events, Events]:
    """Return which pending events the hash shows accepted, and which go on under their identity."""
    if base in pending and Repair.SAME_AGAIN not in without:
        cut = pending.index(base) + 1
        return pending[:cut], pending[cut:]
    return (), pending if pending and pending[0].prev == base.identity else ()


def _found(worker: Worker, found: Events, without: Without) -> Worker:
    """Retain what was accepted without an answer, and enter the generation again to replay it."""
    if not found or Repair.FOUND_REPLAYED in without:
        return worker
    return worker._replace(retained=joined(worker.retained, found), generation=NO_NAME)


def feel(world: World, who: int, without: Without) -> World | None:
    """Tick to a new, tentative transition; a worker feels on in a closed generation."""
    worker = world.workers[who]
    if not worker.alive or not worker.owns or worker.behind or len(worker.pending) >= MAX_PENDING:
        return None
    last = worker.pending[-1] if worker.pending else worker.accepted
    n = last.identity.n + 1 if last.identity.epoch == worker.epoch else 1
    identity = Identity(worker.epoch, n)
    if Repair.IDENTITY in without:
        identity = Identity(NO_EPOCH, last.identity.n + 1)
    past = world.past._replace(feels=world.past.feels + 1)
    event = Event(identity, last.identity, past.feels)
    worker = worker._replace(pending=(*worker.pending, event))
    if Repair.TENTATIVE in without:
        worker = worker._replace(accepted=event)
    return _worked(world._replace(past=past), who, worker, world.redis)


def record(world: World, who: int, without: Without) -> World | None:
    """Send a beat with all pending events: hash and journal in one fenced step."""
    worker = world.workers[who]
    if not worker.alive or not worker.owns or worker.behind:
        return None
    verdict, world = arrive(world, Beat(who, worker), without)
    if verdict is Verdict.AHEAD:
        return _worked(world, who, worker._replace(behind=True), world.redis)
    if verdict is Verdict.ACCEPTED:
        retained = joined(worker.retained, worker.pending) if Repair.RETAINED not in without else ()
        accepted = worker.pending[-1] if worker.pending else worker.accepted
        worker = worker._replace(accepted=accepted, pending=(), retained=retained)
        return _worked(world, who, worker, world.redis)
    if verdict is Verdict.CONFLICT:
        return world._replace(past=violated(world.past, "CONFLICT: another transition under this identity"))
    return None  # CLOSED, FENCED: nothing but replay and learn help, and those wait for no verdict


def arrive(world: World, beat: Beat, without: Without) -> tuple[Verdict, World]:
    """Let Redis judge a beat, whether or not its worker still waits for the answer."""
    verdict, redis = judge(world.redis, beat.who, beat.worker, without)
    if verdict is Verdict.ACCEPTED:
        world = world._replace(redis=redis, past=judging.accepted(world.past, beat.worker))
    return verdict, world


def judge(redis: Redis, who: int, worker: Worker, without: Without) -> tuple[Verdict, Redis]:
    """Return the verdict of the Lua step, and Redis after it."""
    opened = redis.generation != NO_NAME if Repair.LIFE in without else is_open(redis)
    if not (opened and worker.generation == redis.generation) and Repair.GATED not in without:
        return Verdict.CLOSED, redis
    if redis.owner != who or redis.epoch != worker.epoch:
        return Verdict.FENCED, redis
    events, base = worker.pending, worker.accepted
    status = events[-1] if events else base
    known = next((i for i, e in enumerate(events) if e.identity == redis.status.identity), None)
    if known is not None and Repair.SAME_AGAIN not in without:
        base, events = events[known], events[known + 1 :]
    if redis.status.identity == base.identity and redis.status != base:
        return Verdict.CONFLICT, redis
    behind = redis.status < base
    if behind and (Repair.INSTALLED in without or (events and Repair.WITH_EVENTS in without)):
        return Verdict.AHEAD, redis
    if redis.status > base:
        return Verdict.AHEAD, redis
    if Repair.ONE_STEP in without:
        events = tuple(e for e in events if e.identity.epoch == worker.epoch)
    redis = redis._replace(status=status, proven=True, journal=joined(redis.journal, events))
    return Verdict.ACCEPTED, redis


def forget(world: World, who: int, without: Without) -> World | None:
    """Drop what the historian has acknowledged from the retained events."""
    worker, drained = world.workers[who], world.redis.drained
    if Repair.ACKNOWLEDGED in without and drained:
        kept = tuple(e for e in worker.retained if e.identity > drained[-1])
    else:
        kept = tuple(e for e in worker.retained if e.identity not in drained)
    if not worker.alive or kept == worker.retained:
        return None
    return _worked(world, who, worker._replace(retained=kept), world.redis)


def _worked(world: World, who: int, worker: Worker, redis: Redis) -> World:
    return world._replace(redis=redis, workers=put(world.workers, who, worker))
