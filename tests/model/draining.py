"""The steps of historian and trim. Only tests/model may import this.

An event is `durable` by identity (what workers ask for) and `acked` as an entry of the journal
(what the trim asks for). An entry that is replayed is another entry: nobody has acknowledged it.
What a historian holds in its hands is forgotten between two steps: any other may take its entries
over.
"""

from monitor.core.status import Identity
from tests.model.repairs import Repair, Without
from tests.model.world import Event, World, joined, violated, without_those


def gather(world: World) -> World | None:
    """Create the historian's group where the journal has none: it begins with the first entry."""
    redis = world.redis
    if redis.grouped or not redis.journal:
        return None
    return world._replace(redis=redis._replace(grouped=True))


def drain(world: World, event: Event, without: Without) -> World | None:
    """Write one journal entry to Postgres: unique by identity, contents compared."""
    postgres, past = world.postgres, world.past
    if not postgres.up or event in postgres.rows:
        return None
    if any(row.identity == event.identity for row in postgres.rows):
        twin = "TWIN: Postgres holds another transition under this identity"
        return world._replace(past=violated(past, twin))
    if event not in past.accepted and not any(event in side.accepted for side in world.old):
        past = violated(past, "PHANTOM: a transition reached Postgres that was never accepted")
    postgres = postgres._replace(rows=joined(postgres.rows, (event,)))
    return world._replace(postgres=postgres, past=past)


def mark_durable(world: World, without: Without) -> World | None:
    """Tell Redis by identity what is durable."""
    redis = world.redis
    unacked = without_those(redis.journal, redis.acked)
    found = [e.identity for e in unacked if e in world.postgres.rows]
    durable = joined(redis.durable, found)
    if durable == redis.durable:
        return None
    return world._replace(redis=redis._replace(durable=durable))


def ack(world: World, without: Without) -> World | None:
    """Acknowledge entries of the journal, after their identities."""
    redis = world.redis
    done = [e for e in redis.journal if e in world.postgres.rows]
    if Repair.ACKED_LAST not in without:
        done = [e for e in done if e.identity in redis.durable]
    acked = joined(redis.acked, done)
    return world._replace(redis=redis._replace(acked=acked)) if acked != redis.acked else None


def trim(world: World, without: Without) -> World | None:
    """Drop entries that every group has acknowledged; the supervisor's group only puts this off."""
    redis = world.redis
    kept = without_those(redis.journal, redis.acked)
    if Repair.TRIMMED in without:
        kept = redis.journal[1:]
    if Repair.GROUPED in without and not redis.grouped:
        kept = ()
    if kept == redis.journal:
        return None
    acked = tuple(e for e in redis.acked if e in kept)
    return world._replace(redis=redis._replace(journal=kept, acked=acked))


def trim_by_force(world: World, event: Event) -> World | None:
    """Drop an entry nobody has acknowledged: the journal has reached its limit."""
    redis = world.redis
    if event in redis.acked:
        return None
    return world._replace(redis=redis._replace(journal=without_those(redis.journal, (event,))))


def expire(world: World, identity: Identity) -> World:
    """Forget a durable identity: it is an hour old."""
    redis = world.redis
    durable = tuple(i for i in redis.durable if i != identity)
    return world._replace(redis=redis._replace(durable=durable))
