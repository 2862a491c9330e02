"""What must hold in every world, by what really happened. Only tests/model may import this."""

from tests.model.repairs import Repair, Without
from tests.model.world import ABSENT, NEW, Event, Past, Worker, World, staff, violated


def opened(world: World, without: Without, *, everybody: bool) -> Past:
    """Excuse what nobody could restore in time; all else that was ever accepted must be in the
    hash.

    A leader that does not wait the time-out out, since it takes its reports for everybody's,
    excuses nothing.
    """
    redis, past = world.redis, world.past
    excused = set(past.excused)
    # the history may get more from an old master after it was read
    seen = () if world.old else world.postgres.rows
    if Repair.RESTORED not in without:
        for who in staff(world):
            worker = world.workers[who]
            in_time = worker.alive and (everybody or Repair.WAITED in without)
            if not (who in redis.reported or in_time):
                flying = [e for flight in worker.flying for e in flight.events]
                known = {*worker.retained, worker.accepted, *flying} - set(seen)
                if world.old:
                    known.update(e for e in past.accepted if e <= worker.accepted)
                excused.update(e.content for e in known if e > redis.status)
    past = past._replace(excused=tuple(sorted(excused)))
    missed = [e for e in past.accepted if e > redis.status and e.content not in excused]
    if missed and redis.status != ABSENT:
        past = violated(past, "FORGOTTEN: opened with less than was accepted")
    return past


def accepted(past: Past, worker: Worker) -> Past:
    """Judge an accepted beat by what was accepted before it."""
    if worker.epoch < past.highest:
        past = violated(past, "STALE: a write of an older epoch was accepted after a newer one")
    past = past._replace(highest=max(past.highest, worker.epoch))
    for event in worker.pending:
        if event not in past.accepted:
            past = _chain(past, event)
    status = worker.pending[-1] if worker.pending else worker.accepted
    if any(e > status and e.content not in past.excused for e in past.accepted):
        past = violated(past, "ROLLBACK: the hash went back behind an accepted transition")
    return past


def _chain(past: Past, event: Event) -> Past:
    """Add an accepted transition: it must build on the newest accepted one."""
    identities = {e.identity for e in past.accepted}
    if event.identity in identities:
        past = violated(past, "TWIN: two transitions were accepted under one identity")
    if event.prev not in identities | {NEW.identity}:
        past = violated(past, "PHANTOM: builds on a transition that was never accepted")
    if any(e.identity > event.prev and e.content not in past.excused for e in past.accepted):
        past = violated(past, "FORK: builds past an accepted transition")
    return past._replace(accepted=(*past.accepted, event))
