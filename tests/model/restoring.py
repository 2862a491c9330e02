"""The worker's restore, whole and part by part. Only tests/model may import this.

A report is begun, tells its rows, and is done; between the parts a worker may pause for as long as
it likes, and a part may reach Redis when nobody waits for it any more.
"""

from tests.model.repairs import Repair, Without
from tests.model.world import (
    ABSENT,
    NO_EPOCH,
    NO_NAME,
    NOBODY,
    Event,
    Part,
    Redis,
    Telling,
    Worker,
    World,
    is_open,
    is_open_here,
    joined,
    without_those,
    worked,
)

BEGIN, ROWS, DONE = range(3)
WHOLE = 3  # all in one request: it both begins and ends a report


def restore(world: World, who: int, without: Without) -> World | None:
    """Merge what the worker knows into a Redis that has lost it, all parts at once; merging
    commutes.
    """
    worker = world.workers[who]
    if worker.telling or not _may_report(world, who, without):
        return None
    redis = _arrived(world.redis, who, _telling(world, who, WHOLE, without), without)
    return world._replace(redis=redis) if redis and redis != world.redis else None


def tell(world: World, who: int, without: Without) -> World | None:
    """Send the next part of a report and hear its answer: a refusal ends the attempt."""
    telling = next_part(world, who, without)
    if telling is None:
        return None
    redis = _arrived(world.redis, who, telling, without)
    on = () if redis is None or telling.part >= DONE else (telling._replace(part=telling.part + 1),)
    worker = world.workers[who]._replace(telling=on)
    return worked(world, who, worker, redis or world.redis)


def next_part(world: World, who: int, without: Without) -> Telling | None:
    """Return the part the worker would send now."""
    worker = world.workers[who]
    if worker.telling:
        return worker.telling[0] if worker.alive else None
    if not _may_report(world, who, without):
        return None
    return _telling(world, who, WHOLE if Repair.HANDSHAKE in without else BEGIN, without)


def arrive(world: World, part: Part, without: Without) -> World:
    """Let a part that nobody waits for reach Redis; no other part of its attempt will ever come."""
    redis = _arrived(world.redis, part.who, part.telling, without) or world.redis
    begun = without_those(redis.begun, [(part.who, part.telling.attempt)])
    return world._replace(redis=redis._replace(begun=begun))


def _may_report(world: World, who: int, without: Without) -> bool:
    redis, worker = world.redis, world.workers[who]
    if (
        not worker.alive
        or Repair.RESTORED in without
        or (worker.flying and Repair.SETTLED not in without)
    ):
        return False
    if not is_open(redis):
        return who not in redis.reported
    if worker.generation == redis.generation or Repair.LATE_MERGED in without:
        return False
    if redis.generation.epoch < worker.opened and Repair.NEVER_BACK not in without:
        return False
    return _is_news(redis, worker, without)


def _is_news(redis: Redis, worker: Worker, without: Without) -> bool:
    """Say whether a restore would change an open Redis; it is no step where it would not."""
    if worker.term > redis.term and Repair.TERM_RESTORED not in without:
        return True
    if knows_the_name(worker, without) and not redis.signed:
        return True
    return _known(worker, without) > redis.status and _is_wanted(redis, without)


def close(world: World, who: int, without: Without) -> World | None:
    """End a generation older than the newest this worker has entered, in all partitions."""
    redis, worker = world.redis, world.workers[who]
    outlived = worker.alive and is_open(redis) and redis.generation.epoch < worker.opened
    if not outlived or Repair.OUTLIVED in without:
        return None
    term = max(redis.term, worker.term, worker.opened.term)
    return world._replace(redis=redis._replace(generation=NO_NAME, others=NO_NAME, term=term))


def is_untold(world: World, who: int, without: Without) -> bool:
    """Say whether the worker must still restore before it may replay."""
    return bool(world.workers[who].telling) or _may_report(world, who, without)


def _telling(world: World, who: int, part: int, without: Without) -> Telling:
    worker = world.workers[who]
    out = {
        late.telling.attempt for late in world.late if isinstance(late, Part) and late.who == who
    }
    attempt = min({0, 1} - out)
    name = knows_the_name(worker, without)
    return Telling(
        attempt, world.redis.life, part, _known(worker, without), worker.epoch, worker.term, name
    )


def knows_the_name(worker: Worker, without: Without) -> bool:
    """Say whether the worker can tell of which registry the terms are: it learns that with a
    generation.
    """
    return worker.opened != NO_EPOCH and Repair.NAME_RESTORED not in without


def _known(worker: Worker, without: Without) -> Event:
    return worker.accepted if worker.owns or Repair.RELEASED not in without else ABSENT


def _arrived(redis: Redis, who: int, telling: Telling, without: Without) -> Redis | None:
    """Return Redis after one part, or None where it refuses: another life, or a report it knows
    nothing of.
    """
    if telling.life != redis.life:
        return None
    if telling.part == WHOLE:
        return _done(_merged(redis, who, telling, without), who)
    report = (who, telling.attempt)
    if telling.part == BEGIN:
        begun = (*(one for one in redis.begun if one[0] != who), report)
        reported = tuple(one for one in redis.reported if one != who)
        redis = redis._replace(
            begun=tuple(sorted(begun)), reported=reported, announced=joined(redis.announced, (who,))
        )
    elif report not in redis.begun and Repair.ATTEMPTS not in without:
        return None
    if telling.part == ROWS:
        redis = _merged(redis, who, telling, without)
    return _done(redis, who) if telling.part == DONE else redis


def _done(redis: Redis, who: int) -> Redis:
    begun = tuple(one for one in redis.begun if one[0] != who)
    reported = redis.reported if is_open(redis) else joined(redis.reported, (who,))
    return redis._replace(begun=begun, reported=reported, announced=joined(redis.announced, (who,)))


def _merged(redis: Redis, who: int, telling: Telling, without: Without) -> Redis:
    """Merge by the highest identity; an open partition takes a newer Status only, and no claim."""
    known = telling.status
    term = redis.term if Repair.TERM_RESTORED in without else max(redis.term, telling.term)
    redis = redis._replace(signed=redis.signed or telling.named)
    if is_open_here(redis):
        status = max(redis.status, known) if _is_wanted(redis, without) else redis.status
        return redis._replace(term=term, status=status)
    status = known if Repair.MERGED in without and known != ABSENT else max(redis.status, known)
    if telling.claim > redis.claim:
        redis = redis._replace(claim=telling.claim, claimant=who)
    return redis._replace(term=term, status=status)


def _is_wanted(redis: Redis, without: Without) -> bool:
    """Say whether an open partition takes a late memory: the database may be retired, and nothing
    of it stays.
    """
    return redis.owner != NOBODY or (redis.status != ABSENT and Repair.UNOWNED not in without)
