"""The worker's steps, and `judge`, what record does in Redis.

Only tests/model may import this.
"""

from enum import Enum, auto

from monitor.core.status import Identity
from tests.model import judging
from tests.model.repairs import Repair, Without
from tests.model.restoring import must_report
from tests.model.world import (
    ABSENT,
    NO_EPOCH,
    NO_NAME,
    NOBODY,
    Beat,
    Event,
    Events,
    Flight,
    Redis,
    Worker,
    World,
    called,
    is_open,
    is_open_here,
    joined,
    last_row,
    violated,
    without_those,
    worked,
)

MAX_PENDING = 2
HOURS = {"force", "expire"}  # faults that take hours


class Reply(Enum):
    """What record answers."""

    ACCEPTED = auto()
    CLOSED = auto()
    FENCED = auto()
    AHEAD = auto()
    CONFLICT = auto()
    TWIN = auto()


def replay(world: World, who: int, without: Without) -> World | None:
    """Put into the journal of the open generation whatever is retained, and enter it."""
    replayed = replay_only(world, who, without)
    return replayed and enter(replayed, who, without)


def replay_only(world: World, who: int, without: Without) -> World | None:
    """Put what is retained into the open generation's journal; it may pause before it enters."""
    redis, worker = world.redis, world.workers[who]
    known = (worker.generation, worker.entering)
    if not worker.alive or not is_open(redis) or redis.generation in known:
        return None
    if redis.generation.epoch < worker.opened and Repair.NEVER_BACK not in without:
        return None  # a server that was left behind
    on_its_way = worker.flying and Repair.NONE_FLYING not in without
    if on_its_way or must_report(world, who, without):
        return None  # what it knows comes first
    mine = redis.owner == called(worker, who) and redis.epoch == worker.epoch
    lost = worker.retained
    if Repair.RETAINED in without or (Repair.REPLAYED in without and not mine):
        lost = ()
    redis = _journaled(redis, lost)._replace(announced=joined(redis.announced, (who,)))
    return worked(world, who, worker._replace(entering=redis.generation), redis)


def enter(world: World, who: int, without: Without) -> World | None:
    """Go on in the generation that was restored and replayed into, whatever became of it."""
    worker = world.workers[who]
    if not worker.alive or worker.entering == NO_NAME:
        return None
    opened = max(worker.opened, worker.entering.epoch)
    term = max(worker.term, opened.term)
    worker = worker._replace(generation=worker.entering, opened=opened, entering=NO_NAME, term=term)
    return worked(world, who, worker, world.redis)


def repeat(world: World, who: int, without: Without) -> World | None:
    """Replay what is retained for an hour: trimmed by force, or not known as durable now."""
    redis, worker = world.redis, world.workers[who]
    if not HOURS & set(world.past.faults):
        return None  # all that is promised without it comes sooner
    lost = without_those(worker.retained, redis.journal)
    if not worker.alive or not lost or Repair.REPEATED in without:
        return None
    if not is_open_here(redis) or redis.generation != worker.generation:
        return None
    return world._replace(redis=_journaled(redis, lost))


def _journaled(redis: Redis, events: Events) -> Redis:
    return redis._replace(
        journal=joined(redis.journal, events), acked=without_those(redis.acked, events)
    )


def look(world: World, who: int, without: Without) -> World | None:
    """Take the two looks `learn` rests on one at a time: at the generation, then at the hash."""
    redis, worker = world.redis, world.workers[who]
    if not worker.alive or (worker.looked and worker.looked[0].instance):
        return None
    if worker.looked:
        seen = Redis(1, owner=redis.owner, epoch=redis.epoch, term=redis.term, status=redis.status)
    elif _has_entered(redis, worker, without):
        seen = Redis(0)
    else:
        return None
    return worked(world, who, worker._replace(looked=(seen,)), redis)


def learn(world: World, who: int, without: Without) -> World | None:
    """Read the hash: adopt a newer epoch, give up a lost one, or catch up after AHEAD."""
    redis, worker = world.redis, world.workers[who]
    if not worker.alive or worker.looked or not _has_entered(redis, worker, without):
        return None
    return _learned(world, who, redis, without)


def adopt(world: World, who: int, without: Without) -> World | None:
    """Learn from the hash as it was when `look` read it."""
    worker = world.workers[who]
    if not worker.alive or not worker.looked or not worker.looked[0].instance:
        return None
    seen = worker.looked[0]
    world = worked(world, who, worker._replace(looked=()), world.redis)
    return _learned(world, who, seen, without) or world


def _has_entered(redis: Redis, worker: Worker, without: Without) -> bool:
    entered = is_open(redis) and worker.generation == redis.generation
    return entered or Repair.ENTERED in without


def _news(seen: Redis, who: int, worker: Worker) -> bool:
    if seen.owner != called(worker, who):
        return worker.owns
    return not worker.owns or seen.epoch != worker.epoch or worker.behind


def _learned(world: World, who: int, seen: Redis, without: Without) -> World | None:
    worker = world.workers[who]
    if not _news(seen, who, worker):
        return None
    if seen.owner != called(worker, who):
        return _release(world, who, seen, without)
    base = seen.status
    if base == ABSENT:
        if not world.postgres.up:
            return None  # feels and waits
        base = last_row(world.postgres)
    if base < worker.accepted:
        if Repair.KEPT in without:
            forgot = "WENT BACK: a worker forgot what it knew was accepted"
            world = world._replace(past=violated(world.past, forgot))
        else:
            base = worker.accepted
    found, carried = _split_pending(worker.pending, base, without)
    worker = _found(worker, found, without)._replace(owns=True, behind=False)
    term = max(worker.term, seen.epoch.term)
    worker = worker._replace(epoch=seen.epoch, term=term, accepted=base, pending=carried)
    return worked(world, who, worker, world.redis)


def _release(world: World, who: int, seen: Redis, without: Without) -> World:
    """Keep the last Status known to be accepted, to be restored if Redis loses it."""
    worker = world.workers[who]
    accepted, found = worker.accepted, ()
    if Repair.GIVEN_UP not in without:
        accepted = max(accepted, seen.status)
        found, _ = _split_pending(worker.pending, accepted, without)
    worker = _found(worker, found, without)._replace(
        owns=False, behind=False, accepted=accepted, pending=()
    )
    return worked(world, who, worker, world.redis)


def _split_pending(pending: Events, base: Event, without: Without) -> tuple[Events, Events]:
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


def observe(world: World, who: int, without: Without) -> World | None:
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
    return worked(world._replace(past=past), who, worker, world.redis)


def record(world: World, who: int, without: Without) -> World | None:
    """Send a beat with all pending events: hash and journal in one fenced step."""
    worker = world.workers[who]
    if not worker.alive or not worker.owns or worker.behind or worker.flying:
        return None
    reply, world = arrive(world, Beat(who, worker), without)
    if reply is Reply.AHEAD:
        return worked(world, who, worker._replace(behind=True), world.redis)
    if reply is Reply.TWIN:
        # it ends, once what it retains is durable, and begins anew under an id of its own
        gone = worker._replace(alias=len(world.workers) + who, owns=False, pending=())
        return worked(world, who, gone, world.redis)
    if reply is Reply.ACCEPTED:
        retained = joined(worker.retained, worker.pending) if Repair.RETAINED not in without else ()
        accepted = worker.pending[-1] if worker.pending else worker.accepted
        worker = worker._replace(accepted=accepted, pending=(), retained=retained)
        return worked(world, who, worker, world.redis)
    if reply is Reply.CONFLICT:
        conflict = "CONFLICT: another transition under this identity"
        return world._replace(past=violated(world.past, conflict))
    return None  # CLOSED, FENCED: nothing but replay and learn help, and those wait for no reply


def apply_reply(world: World, who: int, without: Without) -> World | None:
    """Take the reply to a beat accepted some time ago, after learning or releasing maybe."""
    worker = world.workers[who]
    if not worker.alive or not worker.flying:
        return None
    flight, worker = worker.flying[0], worker._replace(flying=())
    mine = worker.owns and worker.epoch == flight.epoch
    if mine or Repair.REPLIED_LATE not in without:
        worker = worker._replace(retained=joined(worker.retained, flight.events))
    if mine:
        worker = worker._replace(
            accepted=flight.status, pending=without_those(worker.pending, flight.events)
        )
    elif not worker.owns and Repair.REPLIED_LATE not in without:
        worker = worker._replace(accepted=max(worker.accepted, flight.status))
    if worker.accepted < world.workers[who].accepted:
        undone = "WENT BACK: an answer that came late undid what was learned"
        world = world._replace(past=violated(world.past, undone))
    return worked(world, who, worker, world.redis)


def arrive(world: World, beat: Beat, without: Without) -> tuple[Reply, World]:
    """Let Redis judge a beat, whether or not its worker still waits for the answer."""
    reply, redis = judge(world.redis, beat.who, beat.worker, without)
    if reply is Reply.ACCEPTED:
        world = world._replace(redis=redis, past=judging.accepted(world.past, beat.worker))
    return reply, world


def flight(worker: Worker) -> Flight:
    """Return what a beat of this worker would carry."""
    return Flight(
        worker.epoch, worker.pending[-1] if worker.pending else worker.accepted, worker.pending
    )


def _refusal(redis: Redis, who: int, worker: Worker, without: Without) -> Reply | None:
    """Return why this process may not write now, whatever it says."""
    opened = redis.generation != NO_NAME if Repair.INSTANCE in without else is_open_here(redis)
    if not (opened and worker.generation == redis.generation) and Repair.GATED not in without:
        return Reply.CLOSED
    if redis.owner != called(worker, who) or redis.epoch != worker.epoch:
        return Reply.FENCED
    twin = redis.bound not in (NOBODY, who) and Repair.BOUND not in without
    return Reply.TWIN if twin else None


def judge(redis: Redis, who: int, worker: Worker, without: Without) -> tuple[Reply, Redis]:
    """Return the reply of the Lua step, and Redis after it."""
    if refusal := _refusal(redis, who, worker, without):
        return refusal, redis
    events, base = worker.pending, worker.accepted
    status = events[-1] if events else base
    known = next((i for i, e in enumerate(events) if e.identity == redis.status.identity), None)
    if known is not None and Repair.SAME_AGAIN not in without:
        base, events = events[known], events[known + 1 :]
    if redis.status.identity == base.identity and redis.status != base:
        return Reply.CONFLICT, redis
    behind = redis.status < base
    if behind and (Repair.INSTALLED in without or (events and Repair.WITH_EVENTS in without)):
        return Reply.AHEAD, redis
    if redis.status > base:
        return Reply.AHEAD, redis
    if Repair.ONE_STEP in without:
        events = tuple(e for e in events if e.identity.epoch == worker.epoch)
    return Reply.ACCEPTED, _journaled(redis._replace(status=status, proven=True, bound=who), events)


def forget(world: World, who: int, without: Without) -> World | None:
    """Drop what the historian has acknowledged from the retained events."""
    worker, drained = world.workers[who], world.redis.durable
    if Repair.ACKNOWLEDGED in without and drained:
        kept = tuple(e for e in worker.retained if e.identity > drained[-1])
    else:
        kept = tuple(e for e in worker.retained if e.identity not in drained)
    if not worker.alive or kept == worker.retained:
        return None
    return worked(world, who, worker._replace(retained=kept), world.redis)
