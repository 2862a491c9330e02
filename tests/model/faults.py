"""What the environment does to the protocol: at most one fault of each kind. Pauses are free.

Only tests/model may import this.
"""

from tests.model import protocol
from tests.model.repairs import Repair, Without
from tests.model.world import NO_EPOCH, Beat, Event, Redis, World, put


def flush(world: World) -> World | None:
    """FLUSHALL: everything is gone, the life stays the same."""
    empty = Redis(life=world.redis.life)
    return _remembering(world, empty) if world.redis != empty else None


def lag(world: World) -> World:
    """The replica (or the snapshot on disk) gets nothing more from now on."""
    return world._replace(replica=(world.redis,))


def failover(world: World) -> World | None:
    """The replica becomes the master in a life of its own: all since `lag` is lost."""
    if not world.replica:
        return None
    return _remembering(world, world.replica[0]._replace(life=world.redis.life + 1))._replace(replica=())


def failback(world: World, without: Without) -> World | None:
    """The first master, in sync by now, is promoted again: its process never ended."""
    if world.redis.life == 1:
        return None
    life = 1 if Repair.REPLICATION_ID in without else world.redis.life + 1
    return world._replace(redis=world.redis._replace(life=life))


def lost_reply(world: World, who: int) -> World | None:
    """A beat is sent and its worker hears nothing: Redis gets it now or later."""
    worker = world.workers[who]
    return world._replace(late=(Beat(who, worker),)) if worker.owns and worker.pending else None


def arrive(world: World, without: Without) -> World | None:
    """The beat that nobody waits for reaches Redis."""
    return protocol.arrive(world, world.late[0], without)[1]._replace(late=()) if world.late else None


def crash(world: World, who: int) -> World | None:
    """A worker dies; its memory is kept in the model to know what died with it."""
    worker = world.workers[who]
    if not worker.alive or worker.epoch == NO_EPOCH:
        return None
    return world._replace(workers=put(world.workers, who, worker._replace(alive=False)))


def postgres_away(world: World) -> World:
    """Postgres stops answering."""
    return world._replace(postgres=world.postgres._replace(up=False))


def postgres_back(world: World) -> World | None:
    """Postgres answers again, with all it had."""
    return None if world.postgres.up else world._replace(postgres=world.postgres._replace(up=True))


def _remembering(world: World, redis: Redis) -> World:
    """Let Redis lose its memory: what it accepted last without anybody knowing never happened."""
    accepted = world.past.accepted
    while accepted and _unheard_of(world, redis, accepted[-1]):
        accepted = accepted[:-1]
    return world._replace(redis=redis, past=world.past._replace(accepted=accepted))


def _unheard_of(world: World, redis: Redis, event: Event) -> bool:
    """Say whether a transition stood in Redis alone, its worker never having had the answer."""
    known = any(event in w.retained or w.accepted >= event for w in world.workers)
    return not known and event not in world.postgres.rows and event > redis.status
