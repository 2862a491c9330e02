"""Situations a search must meet to say anything. Only tests/model may import this."""

from tests.model.world import NO_NAME, NOBODY, Redis, World, is_open, is_open_here


def replayed_after_the_drain(world: World) -> bool:
    """The journal holds an unacknowledged entry of a transition acknowledged as durable before."""
    redis = world.redis
    return any(e.identity in redis.durable and e not in redis.acked for e in redis.journal)


def trimmed_while_retained(world: World) -> bool:
    """An entry is gone that a worker still retains, durable and acknowledged."""
    redis = world.redis
    gone = {e for w in world.workers for e in w.retained} - set(redis.journal)
    return any(e.identity in redis.durable for e in gone)


def lost_to_the_journal(world: World) -> bool:
    """What was accepted in this very generation is neither durable nor in the journal."""
    redis = world.redis
    kept = (*redis.journal, *world.postgres.rows)
    return is_open(redis) and redis.status in world.past.accepted and redis.status not in kept


def durable_and_forgotten(world: World) -> bool:
    """A worker retains what is durable, and nobody will say so."""
    redis = world.redis
    durable = {e for w in world.workers for e in w.retained if e in world.postgres.rows}
    durable.difference_update(redis.journal)
    return is_open(redis) and any(e.identity not in redis.durable for e in durable)


def reporting_into_an_open_generation(world: World) -> bool:
    """A report is half-way, and the leader has opened without it."""
    return is_open(world.redis) and any(w.reporting and w.reporting[0].part for w in world.workers)


def reporting_into_another_memory(world: World) -> bool:
    """A worker is in the middle of a report that Redis has lost."""
    begun = world.redis.begun
    return any(
        w.reporting and (who, w.reporting[0].attempt) not in begun
        for who, w in enumerate(world.workers)
    )


def part_outlives_memory(world: World) -> bool:
    """A part of a report is on its way to a Redis that lost its memory since."""
    lost = "flush" in world.past.faults or "failover" in world.past.faults
    return bool(world.late) and lost and not is_open(world.redis)


def half_open(world: World) -> bool:
    """The database's partition is open, another is not."""
    return is_open_here(world.redis) and not is_open(world.redis)


def others_open_first(world: World) -> bool:
    """Other partitions are open, the database's is not."""
    redis = world.redis
    return redis.others.instance == redis.instance and not is_open_here(redis)


def entering_what_is_closed(world: World) -> bool:
    """A worker has replayed into a generation that is no more, and is about to enter it."""
    return any(w.entering not in (NO_NAME, world.redis.generation) for w in world.workers)


def read_in_another_generation(world: World) -> bool:
    """A worker is about to learn from a hash it read after a loss, before it restored."""
    return any(_seen(w.looked) and w.generation != world.redis.generation for w in world.workers)


def _seen(looked: tuple[Redis, ...]) -> bool:
    return bool(looked) and bool(looked[0].instance)


def open_without_an_owner(world: World) -> bool:
    """The generation is open, the database belongs to nobody."""
    return is_open(world.redis) and world.redis.owner == NOBODY


def released_in_flight(world: World) -> bool:
    """A worker has given the database up before it knew that its beat was accepted."""
    return any(w.flying and not w.owns for w in world.workers)


def lost_in_flight(world: World) -> bool:
    """Redis lost what it accepted before its worker knew of it."""
    return any(w.flying and w.flying[0].status > world.redis.status for w in world.workers)


def two_masters_disagree(world: World) -> bool:
    """The old master accepted a transition that the new one, open, does not know."""
    return is_open(world.redis) and any(
        e not in world.past.accepted for side in world.old for e in side.accepted
    )


def strayed(world: World) -> bool:
    """A worker of the new generation stands before the old master, which still takes beats."""
    opened = [w.opened for w in world.workers if w.left]
    return any(one > side.redis.generation.epoch for side in world.old for one in opened)


def two_owners(world: World) -> bool:
    """Two workers own the database, each at a master that takes its beats."""
    return any(
        is_open(s.redis) and s.redis.owner != world.redis.owner and s.redis.proven
        for s in world.old
    ) and (is_open(world.redis) and world.redis.proven)


def opened_without_postgres(world: World) -> bool:
    """A leader that is cut off from Postgres has opened a generation."""
    name = world.redis.generation
    return is_open(world.redis) and any(
        v.cut and v.term == name.epoch.term and v.met for v in world.leaders
    )


def passed_over(world: World) -> bool:
    """A generation was opened without what some live worker knows."""
    return bool(world.past.excused) and is_open(world.redis)


def three_last_statuses(world: World) -> bool:
    """Three workers know three different last transitions."""
    return len({w.accepted for w in world.workers}) > 2


def gone_for_good(world: World) -> bool:
    """No live worker can bring back an accepted transition, neither durable nor in a journal."""
    kept = {*world.postgres.rows, *world.redis.journal}
    for worker in world.workers:
        if worker.alive:
            kept.update(worker.retained, worker.pending, *(one.events for one in worker.flying))
    accepted = {*world.past.accepted}
    for side in world.old:
        kept.update(side.redis.journal)
        accepted.update(side.accepted)
    return not accepted <= kept
