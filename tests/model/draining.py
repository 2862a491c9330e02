"""The historian's steps: drain, acknowledge, trim. Only tests/model may import this."""

from tests.model.repairs import Repair, Without
from tests.model.world import Event, World, joined, violated


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
