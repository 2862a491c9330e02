"""The steps of the fencing protocol, one pure function each, under the names the Lua scripts and functions carry.

A step takes the world and who acts, and returns the next world, or None where it cannot happen or would change nothing.
`without` names the repairs left out. Only tests/model may import this.
"""

from collections.abc import Set
from enum import Enum, auto

from monitor.core.status import Epoch, Identity
from tests.model.repairs import Repair
from tests.model.world import (
    ABSENT,
    NEW,
    NO_EPOCH,
    NO_NAME,
    NOBODY,
    NOT_REPORTED,
    WORKERS,
    Beat,
    Event,
    Leader,
    Name,
    Past,
    Redis,
    Worker,
    World,
    is_open,
    joined,
    last_row,
    put,
    violated,
)

Without = Set[Repair]
MAX_PENDING = 2
Events = tuple[Event, ...]


class Verdict(Enum):
    """What record answers."""

    ACCEPTED = auto()
    CLOSED = auto()
    FENCED = auto()
    AHEAD = auto()
    CONFLICT = auto()


# --- the leader


def acquire(world: World, who: int, without: Without) -> World | None:
    """Take the lease in Postgres; the former holder is not told."""
    postgres = world.postgres
    if not postgres.up:
        return None
    own = postgres.holder == who
    term = postgres.term if own and Repair.TERM_EACH in without else postgres.term + 1
    postgres = postgres._replace(holder=who, term=term)
    return world._replace(postgres=postgres, leaders=put(world.leaders, who, Leader(term)))


def begin(world: World, who: int, without: Without) -> World | None:
    """Mark a closed Redis with the name about to be opened: the mark dies with this life of Redis."""
    redis, leader = world.redis, world.leaders[who]
    if not leader.term or is_open(redis):
        return None
    marked = redis.opening == leader.opening or Repair.BEGUN in without
    if leader.opening.life == redis.life and marked:
        return None
    if redis.term > leader.term:
        return _step_down(world, who)
    epoch = Epoch(leader.term, leader.counter + 1)
    name = Name(redis.life, epoch)
    reported = redis.reported if Repair.ASKED in without else NOT_REPORTED
    redis = redis._replace(generation=NO_NAME, opening=name, term=leader.term, reported=reported)
    return _led(world, who, Leader(leader.term, epoch.counter, opening=name), redis)


def seed(world: World, who: int, without: Without) -> World | None:
    """Confirm the lease in Postgres and merge the last row into the hash, below whatever workers restore."""
    leader, postgres = world.leaders[who], world.postgres
    if leader.opening == NO_NAME or leader.confirmed or not postgres.up:
        return None
    if postgres.term != leader.term and Repair.CONFIRMED not in without:
        return _step_down(world, who)
    status = world.redis.status
    if Repair.SEEDED not in without:
        status = max(status, last_row(postgres))
    return _led(world, who, leader._replace(confirmed=True), world.redis._replace(status=status))


def assign(world: World, who: int, worker: int, without: Without) -> World | None:
    """Give the database to a worker under a fresh epoch; a refused leader steps down."""
    redis, leader = world.redis, world.leaders[who]
    epoch = Epoch(leader.term, leader.counter + 1)
    if Repair.ASSIGN_FENCED not in without and (redis.term > leader.term or redis.epoch >= epoch):
        return _step_down(world, who)
    redis = redis._replace(owner=worker, epoch=epoch, term=max(redis.term, leader.term), proven=False)
    leader = leader._replace(counter=epoch.counter, reissued=leader.opening != NO_NAME)
    return _led(world, who, leader, redis)


def assign_restored(world: World, who: int, worker: int, without: Without) -> World | None:
    """Assign in a closed generation: to the claimant of the highest claim, as long as it lives."""
    redis, leader = world.redis, world.leaders[who]
    if leader.opening == NO_NAME or leader.reissued or is_open(redis) or not world.workers[worker].alive:
        return None
    if redis.claimant not in (NOBODY, worker) and world.workers[redis.claimant].alive:
        return None
    return assign(world, who, worker, without)


def assign_move(world: World, who: int, worker: int, without: Without) -> World | None:
    """Assign in an open generation: a first owner, a planned move, or a move off a worker taken for dead.

    A paused worker looks dead, so a move off an unproven owner is always possible; `planned` is judged in `healing`.
    """
    redis, leader = world.redis, world.leaders[who]
    if not leader.term or not is_open(redis) or redis.owner == worker or not world.workers[worker].alive:
        return None
    return assign(world, who, worker, without)


def open(world: World, who: int, without: Without) -> World | None:
    """Open the generation last: workers that have not restored by now are passed over."""
    redis, leader = world.redis, world.leaders[who]
    if leader.opening == NO_NAME or not (leader.reissued or Repair.FRESH_EPOCHS in without):
        return None
    if not (leader.confirmed or all(redis.reported) or Repair.CONFIRMED in without):
        return None
    if redis.term > leader.term:
        return _step_down(world, who)
    ours = redis.opening == leader.opening or Repair.BEGUN in without
    if leader.opening.life != redis.life or not ours:
        return _led(world, who, leader._replace(opening=NO_NAME, confirmed=False, reissued=False), redis)
    name = named(leader.opening, without)
    past = _judge_opening(world, without)
    redis = redis._replace(
        generation=name, opening=NO_NAME, reported=NOT_REPORTED, claimant=NOBODY, claim=NO_EPOCH
    )
    world = world._replace(past=past)
    return _led(world, who, leader._replace(opening=NO_NAME, confirmed=False, reissued=False), redis)


def named(name: Name, without: Without) -> Name:
    """Return the name a generation gets."""
    return name._replace(epoch=NO_EPOCH) if Repair.RENAMED in without else name


def _led(world: World, who: int, leader: Leader, redis: Redis) -> World:
    return world._replace(redis=redis, leaders=put(world.leaders, who, leader))


def _step_down(world: World, who: int) -> World:
    return world._replace(leaders=put(world.leaders, who, Leader()))


def _judge_opening(world: World, without: Without) -> Past:
    """Excuse what nobody could restore in time; all else that was ever accepted must be in the hash."""
    redis, past = world.redis, world.past
    excused = set(past.excused)
    if Repair.RESTORED not in without:
        for who in WORKERS:
            worker = world.workers[who]
            if not redis.reported[who]:
                known = {*worker.retained, worker.accepted} - set(world.postgres.rows)
                excused.update(e.content for e in known if e > redis.status)
    past = past._replace(excused=tuple(sorted(excused)))
    missed = [e for e in past.accepted if e > redis.status and e.content not in excused]
    return violated(past, "FORGOTTEN: opened with less than was accepted") if missed and redis.status != ABSENT else past


# --- the worker


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
        world = world._replace(redis=redis, past=_accept(world, beat.worker))
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


def _accept(world: World, worker: Worker) -> Past:
    """Judge an accepted beat by what was accepted before it."""
    past = world.past
    if worker.epoch < past.highest:
        past = violated(past, "STALE: a write of an older epoch was accepted after a newer one")
    past = past._replace(highest=max(past.highest, worker.epoch))
    for event in worker.pending:
        if event not in past.accepted:
            past = _chain(past, event)
    status = worker.pending[-1] if worker.pending else worker.accepted
    if any(e > status and e.content not in past.excused for e in past.accepted):
        past = violated(past, "ROLLBACK: the hash went back behind an accepted transition")
    return past


def _chain(past: Past, event: Event) -> Past:
    """Add an accepted transition: it must build on the newest accepted one."""
    identities = {e.identity for e in past.accepted}
    if event.identity in identities:
        past = violated(past, "TWIN: two transitions were accepted under one identity")
    if event.prev not in identities | {NEW.identity}:
        past = violated(past, "PHANTOM: builds on a transition that was never accepted")
    if any(e.identity > event.prev and e.content not in past.excused for e in past.accepted):
        past = violated(past, "FORK: builds past an accepted transition")
    return past._replace(accepted=(*past.accepted, event))


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


# --- the historian


def drain(world: World, event: Event, without: Without) -> World | None:
    """Write one journal entry to Postgres: unique by identity, contents compared."""
    postgres, past = world.postgres, world.past
    if not postgres.up or event in postgres.rows:
        return None
    if any(row.identity == event.identity for row in postgres.rows):
        return world._replace(past=violated(past, "TWIN: Postgres holds another transition under this identity"))
    if event not in past.accepted:
        past = violated(past, "PHANTOM: a transition reached Postgres that was never accepted")
    return world._replace(postgres=postgres._replace(rows=joined(postgres.rows, (event,))), past=past)


def acknowledge(world: World, without: Without) -> World | None:
    """Tell Redis by identity what is durable."""
    redis = world.redis
    durable = [e.identity for e in redis.journal if e in world.postgres.rows]
    drained = joined(redis.drained, durable)
    return world._replace(redis=redis._replace(drained=drained)) if drained != redis.drained else None


def trim(world: World, without: Without) -> World | None:
    """Drop acknowledged entries from the journal."""
    redis = world.redis
    kept = tuple(e for e in redis.journal if e.identity not in redis.drained)
    if Repair.TRIMMED in without:
        kept = redis.journal[1:]
    return world._replace(redis=redis._replace(journal=kept)) if kept != redis.journal else None
