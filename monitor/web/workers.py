"""GET /api/v1/workers: who is here, by presence in Redis."""

import asyncio

from fastapi import APIRouter

from monitor.core.overlay import age
from monitor.live import presence
from monitor.live.connections import now
from monitor.live.presence import Presence
from monitor.shapes import WorkerShape, WorkersShape
from monitor.web.parameters import STRICT, LiveOf
from monitor.web.problems import DOCUMENTED
from monitor.web.representation import rfc3339

router = APIRouter(tags=["workers"], dependencies=[STRICT], responses=DOCUMENTED)


@router.get("/workers")
async def workers(live: LiveOf) -> WorkersShape:
    """Return every worker whose presence has not expired, sorted by id."""
    present, at = await asyncio.gather(presence.present(live), now(live))
    data = []
    for worker in sorted(present):
        data.append(_worker(present[worker], at))
    return {"data": data}


def _worker(one: Presence, at: float) -> WorkerShape:
    return {
        "id": one.worker,
        "host": one.host,
        "zone": one.zone,
        "capacity": one.capacity,
        "owned": one.owned,
        "age_seconds": age(one.at, at),
        "started_at": rfc3339(one.started_at),
        "lateness_seconds": one.lateness,
        "rejected": one.rejected,
        "retained": one.retained,
        "replaced": one.replaced,
        "unjudged": one.unjudged,
        "leaving": one.leaving,
        "able": one.able,
        "given_up": dict(one.given_up),
    }
