"""The leader's steps: acquire, begin, seed, assign, open. Only tests/model may import this."""

from monitor.core.status import Epoch
from tests.model import judging
from tests.model.repairs import Repair, Without
from tests.model.world import (
    NO_EPOCH,
    NO_NAME,
    NOBODY,
    Leader,
    Name,
    Redis,
    World,
    called,
    is_open,
    last_row,
    put,
    staff,
)


def acquire(world: World, who: int, without: Without) -> World | None:
    """Take the lease in Postgres; the former holder does not notice."""
    postgres, leader = world.postgres, world.leaders[who]
    if not postgres.up or leader.cut:
        return None
    own = postgres.holder == who
    term = max(postgres.term, world.redis.term) + 1
    if own and Repair.TERM_EACH in without:
        term = postgres.term
    after = _blank(leader, term, met=is_open(world.redis))._replace(before=postgres.term)
    postgres = postgres._replace(holder=who, term=term)
    return _led(world._replace(postgres=postgres), who, after, world.redis)


def mark_complete(world: World, who: int) -> World | None:
    """Give the lead up in order; its last word in an open Redis: this knows all workers."""
    redis, leader = world.redis, world.leaders[who]
    if not leader.term or not is_open(redis) or redis.term > leader.term:
        return None
    return _step_down(world._replace(redis=redis._replace(complete=leader.term)), who)


def begin(world: World, who: int, without: Without) -> World | None:
    """Mark a closed Redis with the name about to be opened: the mark dies with this instance."""
    redis, leader = world.redis, world.leaders[who]
    if not leader.term or is_open(redis):
        return None
    marked = redis.opening == leader.opening or Repair.BEGUN in without
    if leader.opening.instance == redis.instance and marked:
        return None
    if redis.term > leader.term:
        return _step_down(world, who)
    epoch = Epoch(leader.term, leader.counter + 1)
    name = Name(redis.instance, epoch)
    redis = _closed(redis)._replace(opening=name, term=leader.term)
    leader = leader._replace(counter=epoch.counter, opening=name, confirmed=False, reissued=False)
    return _led(world, who, leader, redis)


def _closed(redis: Redis) -> Redis:
    """Forget names of other instances: they open nothing. One of this: a half-open Redis."""
    here = redis.generation if redis.generation.instance == redis.instance else NO_NAME
    others = redis.others if redis.others.instance == redis.instance else NO_NAME
    return redis._replace(generation=here, others=others)


def seed(world: World, who: int, without: Without) -> World | None:
    """Confirm the lease in Postgres and merge the last row below whatever workers restore."""
    leader, postgres = world.leaders[who], world.postgres
    if leader.opening == NO_NAME or leader.confirmed or not postgres.up or leader.cut:
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
    name = called(world.workers[worker], worker)
    redis = _claimed(redis)._replace(owner=name, epoch=epoch, proven=False, bound=NOBODY)
    redis = redis._replace(term=max(redis.term, leader.term))
    leader = leader._replace(counter=epoch.counter, reissued=leader.opening != NO_NAME)
    return _led(world, who, leader, redis)


def assign_restored(world: World, who: int, worker: int, without: Without) -> World | None:
    """Assign in a closed generation: to the claimant of the highest claim, as long as it lives."""
    redis, leader = world.redis, world.leaders[who]
    if (
        leader.opening == NO_NAME
        or leader.reissued
        or is_open(redis)
        or not world.workers[worker].alive
    ):
        return None
    if redis.claimant not in (NOBODY, worker) and world.workers[redis.claimant].alive:
        return None
    return assign(world, who, worker, without)


def unassign(world: World, who: int, without: Without) -> World | None:
    """Take the database from everybody in a closed generation: no worker is here to own it."""
    redis, leader = world.redis, world.leaders[who]
    if leader.opening == NO_NAME or leader.reissued or is_open(redis):
        return None
    if redis.term > leader.term:
        return _step_down(world, who)
    redis = _claimed(redis)._replace(
        owner=NOBODY, proven=False, bound=NOBODY, claimant=NOBODY, claim=NO_EPOCH
    )
    return _led(world, who, leader._replace(reissued=True), redis)


def _claimed(redis: Redis) -> Redis:
    """Have our registry's name stand before anything under its term: see test_claiming."""
    return redis._replace(signed=True)


def assign_move(world: World, who: int, worker: int, without: Without) -> World | None:
    """Assign in an open generation: a first owner, a planned move, or a move off a worker taken for
    dead.

    A paused worker looks dead, so a move off an unproven owner is always possible; `planned` is
    judged in `healing`.
    """
    redis, leader = world.redis, world.leaders[who]
    if (
        not leader.term
        or not is_open(redis)
        or redis.owner == called(world.workers[worker], worker)
        or not world.workers[worker].alive
    ):
        return None
    return assign(world, who, worker, without)


def open(world: World, who: int, without: Without) -> World | None:
    """Open the generation last, in all partitions at once."""
    here = open_half(world, who, without, here=True)
    if here and here.leaders[who].opening == NO_NAME:
        return here  # refused
    return open_half(here or world, who, without, here=False) or here


def open_half(world: World, who: int, without: Without, *, here: bool) -> World | None:
    """Open the database's partition or the others; who has not restored by now is passed over."""
    redis, leader = world.redis, world.leaders[who]
    name = named(leader.opening, without)
    if not _ready(world, who, without) or (redis.generation if here else redis.others) == name:
        return None
    if redis.term > leader.term:
        return _step_down(world, who)
    ours = redis.opening == leader.opening or Repair.BEGUN in without
    if leader.opening.instance != redis.instance or not ours:
        return _led(world, who, _anew(leader), redis)
    if here:
        world = world._replace(
            past=judging.opened(world, without, everybody=_everybody(world, who, without))
        )
        redis = redis._replace(
            generation=name, begun=(), reported=(), claimant=NOBODY, claim=NO_EPOCH
        )
    else:
        redis = redis._replace(others=name)
    if redis.generation == redis.others == name:
        redis = redis._replace(opening=NO_NAME, announced=tuple(staff(world)))
        leader = _anew(leader)._replace(met=True)
    return _led(world, who, leader, redis)


def _ready(world: World, who: int, without: Without) -> bool:
    """Say whether the leader may open: with its lease confirmed, or everybody's report."""
    redis, leader = world.redis, world.leaders[who]
    if leader.opening == NO_NAME or not (leader.reissued or Repair.FRESH_EPOCHS in without):
        return False
    half = named(leader.opening, without) in (redis.generation, redis.others)
    confirmed = leader.confirmed or Repair.CONFIRMED in without
    return confirmed or half or _everybody(world, who, without)


def give_up(world: World, who: int) -> World | None:
    """Hear no answer while opening: a leader that does not know what is open begins anew."""
    redis, leader = world.redis, world.leaders[who]
    half = leader.opening != NO_NAME and leader.opening in (redis.generation, redis.others)
    return _led(world, who, _anew(leader), redis) if half else None


def _everybody(world: World, who: int, without: Without) -> bool:
    """Say whether everybody the leader knows of has restored; a new one knows nobody, whatever an
    old memory says.

    In the first term nothing can have been accepted before.
    """
    redis, leader = world.redis, world.leaders[who]
    if leader.met:
        return set(redis.reported) >= set(staff(world))
    vouched = redis.complete == leader.before or Repair.MARKED_COMPLETE in without
    complete = redis.complete and vouched
    trusted = leader.term == 1 or complete or (Repair.MET in without and redis.announced)
    return bool(trusted and set(redis.reported) >= set(redis.announced))


def named(name: Name, without: Without) -> Name:
    """Return the name a generation gets."""
    return name._replace(epoch=NO_EPOCH) if Repair.RENAMED in without else name


def _blank(leader: Leader, term: int, *, met: bool) -> Leader:
    return Leader(term, met=met, cut=leader.cut, left=leader.left)


def _anew(leader: Leader) -> Leader:
    return leader._replace(opening=NO_NAME, confirmed=False, reissued=False)


def _led(world: World, who: int, leader: Leader, redis: Redis) -> World:
    return world._replace(redis=redis, leaders=put(world.leaders, who, leader))


def _step_down(world: World, who: int) -> World:
    return world._replace(leaders=put(world.leaders, who, _blank(world.leaders[who], 0, met=False)))
