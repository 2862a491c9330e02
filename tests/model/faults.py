"""What the environment does to the protocol: at most one fault of each kind. Pauses are free.

A worker or leader that is cut off from Redis is one that pauses, and feels on; what differs are the
requests it sent: they may arrive later (`lost_reply`, `lost_part`), or their answers
(`late_answer`).

Only tests/model may import this.
"""

from tests.model import protocol, restoring
from tests.model.repairs import Repair, Without
from tests.model.watching import flight
from tests.model.world import (
    NO_EPOCH,
    NO_NAME,
    NOBODY,
    Beat,
    Event,
    Events,
    Flight,
    Part,
    Redis,
    Side,
    World,
    is_open,
    joined,
    put,
    violated,
    worked,
)


def flush(world: World) -> World | None:
    """FLUSHALL: everything is gone, the instance stays the same."""
    empty = Redis(instance=world.redis.instance)
    return _remembering(world, empty) if world.redis != empty else None


def lag(world: World) -> World:
    """The replica (or the snapshot on disk) gets nothing more from now on."""
    return world._replace(replica=(world.redis,))


def failover(world: World, without: Without) -> World | None:
    """The replica becomes the master in an instance of its own: all since `lag` is lost."""
    if not world.replica:
        return None
    redis = _reborn(world.replica[0], world.redis.instance + 1, without)
    return _remembering(world, redis)._replace(replica=())


def _reborn(redis: Redis, instance: int, without: Without) -> Redis:
    """Begin another instance: the reports in it are another instance's, and count no more."""
    if Repair.ASKED not in without:
        redis = redis._replace(begun=(), reported=())
    return redis._replace(instance=instance)


def split(
    world: World, worker: int, leader: int | None, without: Without, *, apart: bool
) -> World | None:
    """Make the replica a master while the old one goes on with a worker, and maybe a leader."""
    after = failover(world, without)
    if after is None or not world.workers[worker].alive:
        return None
    side = Side(world.redis, world.past.accepted, world.past.highest, apart)
    workers = put(after.workers, worker, after.workers[worker]._replace(left=True))
    leaders = after.leaders
    if leader is not None:
        leaders = put(leaders, leader, leaders[leader]._replace(left=True))
    return after._replace(old=(side,), workers=workers, leaders=leaders)


def swapped(world: World) -> World:
    """Put the old master in the new one's place, and back; each is judged on its own."""
    side, past = world.old[0], world.past
    if not side.apart:
        return world._replace(redis=side.redis, old=(side._replace(redis=world.redis),))
    here = Side(world.redis, past.accepted, past.highest)
    past = past._replace(accepted=side.accepted, highest=side.highest)
    return world._replace(redis=side.redis, past=past, old=(here,))


def known_here(world: World) -> World:
    """Count what the old master accepted as accepted, once the new one knows of it."""
    status, past = world.redis.status, world.past
    if not world.old or status in past.accepted or status not in world.old[0].accepted:
        return world
    return world._replace(past=past._replace(accepted=(*past.accepted, status)))


def rejoin(world: World, who: int) -> World | None:
    """A worker finds the new master: what it accepted meanwhile goes by what it knows."""
    worker = world.workers[who]
    return worked(world, who, worker._replace(left=False), world.redis) if worker.left else None


def rejoin_leader(world: World, who: int) -> World | None:
    """A leader finds the new master."""
    if not world.leaders[who].left:
        return None
    leader = world.leaders[who]._replace(left=False)
    return world._replace(leaders=put(world.leaders, who, leader))


def stray(world: World, who: int) -> World | None:
    """A worker that knows the new master reaches the old one again."""
    worker = world.workers[who]
    if not world.old or worker.left or not worker.alive:
        return None
    return worked(world, who, worker._replace(left=True), world.redis)


def abandon(world: World) -> World:
    """End the old master: what it accepted may be built past, and is durable if anybody knows."""
    if not world.old:
        return world
    side = world.old[0]
    known = tuple(e for e in side.accepted if not _is_unknown(world, world.redis, e))
    workers = tuple(w._replace(left=False) for w in world.workers)
    leaders = tuple(v._replace(left=False) for v in world.leaders)
    past = world.past
    excused = joined(past.excused, (e.content for e in known if e not in past.accepted))
    past = past._replace(accepted=joined(past.accepted, known), excused=excused)
    return world._replace(old=(), workers=workers, leaders=leaders, past=past)


def failback(world: World, without: Without) -> World | None:
    """The first master, in sync by now, is promoted again: its process never ended."""
    if world.redis.instance == 1:
        return None
    instance = 1 if Repair.REPLICATION_ID in without else world.redis.instance + 1
    return world._replace(redis=_reborn(world.redis, instance, without))


def lost_reply(world: World, who: int) -> World | None:
    """A beat is sent and its worker gets no reply: Redis gets it now or later."""
    worker = world.workers[who]
    if not worker.owns or not worker.pending or worker.flying or world.late:
        return None
    return world._replace(late=(Beat(who, worker),))


def late_answer(world: World, who: int, without: Without) -> World | None:
    """Accept a beat whose reply is on its way while the worker goes on with all but recording."""
    worker = world.workers[who]
    if not worker.alive or not worker.owns or worker.behind or worker.flying or not worker.pending:
        return None
    verdict, after = protocol.arrive(world, Beat(who, worker), without)
    if verdict is not protocol.Reply.ACCEPTED:
        return None
    return worked(after, who, worker._replace(flying=(flight(worker),)), after.redis)


def lost_part(world: World, who: int, without: Without) -> World | None:
    """Lose the reply to a part of a report: Redis gets it later, the worker begins anew."""
    report = restoring.next_part(world, who, without)
    if report is None or world.late:
        return None
    world = worked(world, who, world.workers[who]._replace(reporting=()), world.redis)
    return world._replace(late=(Part(who, report),))


def arrive(world: World, without: Without) -> World | None:
    """The request that nobody waits for reaches Redis."""
    if not world.late:
        return None
    request, world = world.late[0], world._replace(late=())
    if isinstance(request, Part):
        return restoring.arrive(world, request, without)
    return protocol.arrive(world, request, without)[1]


def crash(world: World, who: int) -> World | None:
    """A worker dies; what it knew is kept in the model to know what died with it."""
    worker = world.workers[who]
    if not worker.alive or worker.epoch == NO_EPOCH:
        return None
    return world._replace(workers=put(world.workers, who, worker._replace(alive=False)))


def twin(world: World, who: int) -> World | None:
    """A process that was given nothing yet draws the id of the one that owns the database."""
    worker, owner = world.workers[who], world.redis.owner
    if not worker.alive or worker.owns or worker.epoch != NO_EPOCH or owner in (NOBODY, who):
        return None
    return worked(world, who, worker._replace(alias=owner), world.redis)


def cut(world: World, who: int) -> World:
    """A leader is cut off from Postgres, which answers the other one."""
    return world._replace(leaders=put(world.leaders, who, world.leaders[who]._replace(cut=True)))


def mended(world: World, who: int) -> World | None:
    """It reaches Postgres again."""
    if not world.leaders[who].cut:
        return None
    leader = world.leaders[who]._replace(cut=False)
    return world._replace(leaders=put(world.leaders, who, leader))


def intruded(world: World, without: Without) -> World | None:
    """Have another registry's supervisor lead, in any term it needs, where nothing refuses it.

    An unsigned Redis is free until somebody who knows better reports: the search ends there.
    """
    redis = world.redis
    if redis.signed and Repair.SIGNED not in without:
        return None
    reported = any(world.workers[who].opened != NO_EPOCH for who in redis.reported)
    if not reported and not is_open(redis):
        return None
    taken = "TAKEN: a leader of another registry assigns and forgets"
    return world._replace(past=violated(world.past, taken))


def postgres_away(world: World) -> World:
    """Postgres stops answering."""
    return world._replace(postgres=world.postgres._replace(up=False))


def postgres_back(world: World) -> World | None:
    """Postgres answers again, with all it had."""
    return None if world.postgres.up else world._replace(postgres=world.postgres._replace(up=True))


def calmed(world: World) -> World:
    """Return the world without faults: what is cut off is back, what was on its way is settled."""
    world = abandon(postgres_back(world) or world)
    for who, worker in enumerate(world.workers):
        if worker.flying:
            world = protocol.apply_reply(world, who, frozenset()) or world
        if worker.reporting or worker.looked or worker.entering != NO_NAME:
            rested = world.workers[who]._replace(reporting=(), entering=NO_NAME, looked=())
            world = worked(world, who, rested, world.redis)
    for who in range(len(world.leaders)):
        world = mended(world, who) or world
    return world._replace(replica=(), late=())


def _remembering(world: World, redis: Redis) -> World:
    """Let Redis lose its memory: what it accepted last without anybody knowing never happened."""
    accepted = world.past.accepted
    while accepted and _is_unknown(world, redis, accepted[-1]):
        accepted = accepted[:-1]
    return world._replace(redis=redis, past=world.past._replace(accepted=accepted))


def _is_unknown(world: World, redis: Redis, event: Event) -> bool:
    """Say whether a transition stood in Redis alone, its worker never having had the answer."""
    known = any(
        event in (*w.retained, *_flying(w.flying)) or w.accepted >= event for w in world.workers
    )
    return not known and event not in world.postgres.rows and event > redis.status


def _flying(flights: tuple[Flight, ...]) -> Events:
    return tuple(event for one in flights for event in one.events)
