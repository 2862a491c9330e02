"""What must hold once faults have stopped and all get turns. Only tests/model may import this."""

from tests.model import protocol
from tests.model.faults import calmed
from tests.model.repairs import Repair, Without
from tests.model.watching import HOURS
from tests.model.world import (
    LEADERS,
    NOBODY,
    Event,
    Leader,
    Past,
    World,
    called,
    is_open,
    is_there,
    last_row,
    staff,
)

CALM_ROUNDS = 8
RESTLESS_ROUNDS = 4
DIED = "a worker died, and Redis lost its memory or entries"
LOSSES = {"flush", "flush_again", "failover", "left_worker", "left_leader", "force"}


def heal(world: World, without: Without, known: dict[World, str]) -> str:
    """Let everybody take turns until nothing changes; return what is wrong then, or "".

    `known` keeps the verdict on every world passed on the way.
    """
    world = _calm(world)
    passed: list[World] = []
    while world not in known and len(passed) < CALM_ROUNDS:
        passed.append(world)
        following = _round(world, without)
        if following == world:
            known[world] = _judge(world)
        world = following
    verdict = known.get(world, "RESTLESS: never comes to rest")
    known.update(dict.fromkeys(passed, verdict))
    return verdict


def strain(world: World, without: Without, known: dict[World, str]) -> str:
    """Let workers feel something new at each turn and the leader move the database whenever it may.

    Return what goes wrong, or "": somebody must still get a beat accepted.
    """
    start = world = _without_history(_calm(world))
    if start in known:
        return known[start]
    proven = False
    for _ in range(RESTLESS_ROUNDS):
        world = _workers_turn(_leaders_turn(world, without), without, recording=False)
        world = _planned_move(world, without)
        for who in staff(world):
            world = protocol.observe(world, who, without) or world
            world = protocol.record(world, who, without) or world
        proven = proven or world.redis.proven
    known[start] = "" if proven else "STARVED: nobody ever gets a beat accepted"
    return known[start]


def _calm(world: World) -> World:
    """Stop the faults and forget what was spent on them, but for what excuses a loss."""
    dead = any(not worker.alive for worker in world.workers)
    lost = bool(LOSSES & set(world.past.faults))
    faults = tuple(fault for fault in world.past.faults if fault in HOURS)
    faults += (DIED,) if dead and lost else ()
    world = calmed(world)
    return world._replace(past=world.past._replace(feels=0, assigns=0, elections=0, faults=faults))


def _without_history(world: World) -> World:
    """Forget what has no say in who may record next."""
    rows = (last_row(world.postgres),)
    workers = tuple(w._replace(retained=()) for w in world.workers)
    leaders = tuple(v if v.term == world.postgres.term else Leader() for v in world.leaders)
    redis = world.redis._replace(journal=(), acked=(), durable=())
    postgres = world.postgres._replace(rows=rows)
    return World(redis, postgres=postgres, workers=workers, leaders=leaders, past=Past(feels=100))


def _round(world: World, without: Without) -> World:
    world = _workers_turn(_leaders_turn(world, without), without, recording=True)
    return _historians_turn(world, without)


def _leaders_turn(world: World, without: Without) -> World:
    postgres = world.postgres
    if postgres.holder == NOBODY or world.leaders[postgres.holder].term != postgres.term:
        world = protocol.acquire(world, max(postgres.holder, 0), without) or world
    for who in LEADERS:
        step = _own if is_open(world.redis) else _open
        world = step(world, who, without)
    return world


def _open(world: World, who: int, without: Without) -> World:
    """Take one leader from a closed generation to an open one, all live workers restoring."""
    world = protocol.begin(world, who, without) or world
    for worker in staff(world):
        world = protocol.restore(world, worker, without) or world
    world = protocol.seed(world, who, without) or world
    for worker in staff(world):
        world = protocol.assign_restored(world, who, worker, without) or world
    return protocol.open(world, who, without) or world


def _own(world: World, who: int, without: Without) -> World:
    """Give the database to a live worker if it has none."""
    owner = world.redis.owner
    if owner == NOBODY or not is_there(world, owner):
        for worker in staff(world):
            if world.redis.owner == owner:
                world = protocol.assign_move(world, who, worker, without) or world
    return world


def _planned_move(world: World, without: Without) -> World:
    """The leader in office moves the database, unless its owner is unproven."""
    redis = world.redis
    if is_open(redis) and (redis.proven or Repair.PROVEN in without):
        follower = _next(world, redis.owner)
        return protocol.assign_move(world, world.postgres.holder, follower, without) or world
    return world


def _next(world: World, owner: int) -> int:
    return (owner + 1) % len(world.workers)


def _workers_turn(world: World, without: Without, *, recording: bool) -> World:
    for who in staff(world):
        following = (protocol.close, protocol.restore, protocol.replay)
        for step in (*following, protocol.learn, protocol.repeat):
            world = step(world, who, without) or world
        if recording:
            world = protocol.record(world, who, without) or world
    return world


def _historians_turn(world: World, without: Without) -> World:
    world = protocol.gather(world) or world
    for event in world.redis.journal:
        world = protocol.drain(world, event, without) or world
    world = protocol.mark_durable(world, without) or world
    world = protocol.ack(world, without) or world
    for who in staff(world):
        world = protocol.forget(world, who, without) or world
    return protocol.trim(world, without) or world


def _judge(world: World) -> str:
    redis, postgres, past = world.redis, world.postgres, world.past
    if past.violation:
        return past.violation
    if any(e not in postgres.rows and not _died(world, e) for e in past.accepted):
        return "LOST: an accepted transition never reaches Postgres"
    if any(e in postgres.rows for worker in world.workers if worker.alive for e in worker.retained):
        return "HOARDED: a worker retains for ever what is durable"
    if any(w.alive and w.generation != redis.generation for w in world.workers):
        return "OUTCAST: a live worker never follows the generation that is open"
    wrong = _judge_owner(world)
    if not wrong and redis.status != last_row(postgres) and not _died(world, redis.status):
        wrong = "DIVERGED: the hash is not the newest transition in Postgres"
    return wrong


def _judge_owner(world: World) -> str:
    redis = world.redis
    if not is_open(redis) or redis.owner == NOBODY or not is_there(world, redis.owner):
        return "CLOSED: no live worker ever owns the database"
    owner = max(
        w for who, w in enumerate(world.workers) if w.alive and called(w, who) == redis.owner
    )
    if not redis.proven or owner.pending or owner.epoch != redis.epoch:
        return "STUCK: the owner can never record"
    if owner.accepted != redis.status:
        return "DIVERGED: the hash is not what its owner believes"
    return ""


def _died(world: World, event: Event) -> bool:
    """Allow one loss: its accepting worker died, and Redis lost its memory or that entry."""
    holders = [
        w for w in world.workers if not w.alive and (event in w.retained or event in w.pending)
    ]
    return bool(holders and DIED in world.past.faults)
