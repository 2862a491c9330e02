"""The leader's steps: acquire, begin, seed, assign, open. Only tests/model may import this."""

from monitor.core.status import Epoch
from tests.model import judging
from tests.model.repairs import Repair, Without
from tests.model.world import (
    NO_EPOCH,
    NO_NAME,
    NOBODY,
    NOT_REPORTED,
    Leader,
    Name,
    Redis,
    World,
    is_open,
    last_row,
    put,
)


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
    past = judging.opened(world, without)
    redis = redis._replace(generation=name, opening=NO_NAME, reported=NOT_REPORTED, claimant=NOBODY, claim=NO_EPOCH)
    world = world._replace(past=past)
    return _led(world, who, leader._replace(opening=NO_NAME, confirmed=False, reissued=False), redis)


def named(name: Name, without: Without) -> Name:
    """Return the name a generation gets."""
    return name._replace(epoch=NO_EPOCH) if Repair.RENAMED in without else name


def _led(world: World, who: int, leader: Leader, redis: Redis) -> World:
    return world._replace(redis=redis, leaders=put(world.leaders, who, leader))


def _step_down(world: World, who: int) -> World:
    return world._replace(leaders=put(world.leaders, who, Leader()))
