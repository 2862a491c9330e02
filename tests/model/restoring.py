"""The worker's restore, whole and part by part. Only tests/model may import this.

A report is begun, sends its rows, and is done; between the parts a worker may pause for as long as
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
    Report,
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
    """Merge all the worker knows into a Redis that lost it, at once: merging commutes."""
    worker = world.workers[who]
    if worker.reporting or not _may_report(world, who, without):
        return None
    redis = _arrived(world.redis, who, _report(world, who, WHOLE, without), without)
    return world._replace(redis=redis) if redis and redis != world.redis else None


def report_part(world: World, who: int, without: Without) -> World | None:
    """Send the next part of a report and get its reply: a refusal ends the attempt."""
    report = next_part(world, who, without)
    if report is None:
        return None
    redis = _arrived(world.redis, who, report, without)
    on = () if redis is None or report.part >= DONE else (report._replace(part=report.part + 1),)
    worker = world.workers[who]._replace(reporting=on)
    return worked(world, who, worker, redis or world.redis)


def next_part(world: World, who: int, without: Without) -> Report | None:
    """Return the part the worker would send now."""
    worker = world.workers[who]
    if worker.reporting:
        return worker.reporting[0] if worker.alive else None
    if not _may_report(world, who, without):
        return None
    return _report(world, who, WHOLE if Repair.HANDSHAKE in without else BEGIN, without)


def arrive(world: World, part: Part, without: Without) -> World:
    """Let a part that nobody waits for reach Redis; no other part of its attempt will ever come."""
    redis = _arrived(world.redis, part.who, part.report, without) or world.redis
    begun = without_those(redis.begun, [(part.who, part.report.attempt)])
    return world._replace(redis=redis._replace(begun=begun))


def _may_report(world: World, who: int, without: Without) -> bool:
    redis, worker = world.redis, world.workers[who]
    waits = worker.flying and Repair.NONE_FLYING not in without
    if not worker.alive or Repair.RESTORED in without or waits:
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


def must_report(world: World, who: int, without: Without) -> bool:
    """Say whether the worker must still restore before it may replay."""
    return bool(world.workers[who].reporting) or _may_report(world, who, without)


def _report(world: World, who: int, part: int, without: Without) -> Report:
    worker = world.workers[who]
    out = {late.report.attempt for late in world.late if isinstance(late, Part) and late.who == who}
    attempt = min({0, 1} - out)
    name, known = knows_the_name(worker, without), _known(worker, without)
    instance = world.redis.instance
    return Report(attempt, instance, part, known, worker.epoch, worker.term, name)


def knows_the_name(worker: Worker, without: Without) -> bool:
    """Say whether the worker knows whose the terms are: it learns that with a generation."""
    return worker.opened != NO_EPOCH and Repair.NAME_RESTORED not in without


def _known(worker: Worker, without: Without) -> Event:
    if Repair.LEARNED in without:
        return max(worker.retained, default=ABSENT)
    return worker.accepted if worker.owns or Repair.RELEASED not in without else ABSENT


def _arrived(redis: Redis, who: int, report: Report, without: Without) -> Redis | None:
    """Return Redis after one part; None where its instance or its report is another."""
    if report.instance != redis.instance:
        return None
    if report.part == WHOLE:
        return _done(_merged(redis, who, report, without), who)
    key = (who, report.attempt)
    if report.part == BEGIN:
        begun = (*(one for one in redis.begun if one[0] != who), key)
        reported = tuple(one for one in redis.reported if one != who)
        redis = redis._replace(begun=tuple(sorted(begun)), reported=reported)
        redis = redis._replace(announced=joined(redis.announced, (who,)))
    elif key not in redis.begun and Repair.ATTEMPTS not in without:
        return None
    if report.part == ROWS:
        redis = _merged(redis, who, report, without)
    return _done(redis, who) if report.part == DONE else redis


def _done(redis: Redis, who: int) -> Redis:
    begun = tuple(one for one in redis.begun if one[0] != who)
    reported = redis.reported if is_open(redis) else joined(redis.reported, (who,))
    return redis._replace(begun=begun, reported=reported, announced=joined(redis.announced, (who,)))


def _merged(redis: Redis, who: int, report: Report, without: Without) -> Redis:
    """Merge by the highest identity; an open partition takes a newer Status only, and no claim."""
    known = report.status
    term = redis.term if Repair.TERM_RESTORED in without else max(redis.term, report.term)
    redis = redis._replace(signed=redis.signed or report.named)
    if is_open_here(redis):
        status = max(redis.status, known) if _is_wanted(redis, without) else redis.status
        return redis._replace(term=term, status=status)
    status = known if Repair.MERGED in without and known != ABSENT else max(redis.status, known)
    if report.claim > redis.claim:
        redis = redis._replace(claim=report.claim, claimant=who)
    return redis._replace(term=term, status=status)


def _is_wanted(redis: Redis, without: Without) -> bool:
    """Say whether an open partition takes a late report: of what is retired nothing may stay."""
    return redis.owner != NOBODY or (redis.status != ABSENT and Repair.UNOWNED not in without)
