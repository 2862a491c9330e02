"""/livez and /readyz: is this process alive, can it serve.

Open to anyone, so they name no host and no error text. app.py imports this.
"""

import asyncio
import math
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request, Response
from typing_extensions import TypedDict

from monitor.core.errors import ForeignRedis, StoreUnavailable
from monitor.core.timing import LEASE
from monitor.live import connections, generation, journal, presence, watched
from monitor.live.connections import Live
from monitor.live.watched import Watched
from monitor.registry import leadership
from monitor.registry.leadership import Lease
from monitor.registry.store import Store, pending_migrations
from monitor.web.registry_access import within_deadline

Level = Literal["pass", "warn", "fail"]
FRESH = 1.0  # seconds
BEHIND = 10.0  # seconds a transition may wait for Postgres
LOOKING_SHARE = 0.05  # of the time, at most, that all observations are looked at
_RANK: dict[Level, int] = {"pass": 0, "warn": 1, "fail": 2}


class Check(TypedDict):
    """One thing looked at."""

    status: Level
    detail: str


class Health(TypedDict):
    """The worst of the checks, and each of them."""

    status: Level
    checks: dict[str, Check]


router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Health:
    """Say that this process answers; asks no store."""
    return {"status": "pass", "checks": {}}


@router.get("/readyz", responses={503: {"model": Health}})
async def readyz(request: Request, response: Response) -> Health:
    """Say whether /last_observation can be answered; 503 when it cannot."""
    checks = await request.app.state.readiness.checks()
    worst = max((check["status"] for check in checks.values()), key=_RANK.__getitem__)
    if worst == "fail":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = "2"
    return {"status": worst, "checks": checks}


class Readiness:
    """The checks of this second: anyone may ask, so asking often must not keep the stores busy."""

    def __init__(self, live: Live, store: Store, database_url: str) -> None:
        self._live, self._store, self._database_url = live, store, database_url
        self._asking = asyncio.Lock()
        self._found: dict[str, Check] = {}
        self._asked_at = -math.inf
        self._migrated = False
        self._ages = ObservationAges(live)

    async def checks(self) -> dict[str, Check]:
        """Return what is true now or was within the last second."""
        async with self._asking:
            if time.monotonic() - self._asked_at > FRESH:
                live, registry = await asyncio.gather(self._live_checks(), self._registry_checks())
                self._found = live | registry
                self._asked_at = time.monotonic()
            return self._found

    async def _live_checks(self) -> dict[str, Check]:
        try:
            found = await generation.generation(self._live)
        except StoreUnavailable:
            return {"redis": _check("fail", "does not answer")}
        closed = _check("warn", "closed: nobody records until a leader opens it")
        checks = {
            "redis": await self._writes(),
            "generation": _check("pass", "open") if found.open else closed,
        }
        return checks | await self._watch_checks()

    async def _watch_checks(self) -> dict[str, Check]:
        """Warn where nobody looks at the databases: what is served only grows older."""
        try:
            here, seen = await asyncio.gather(watched.watchers(self._live), self._ages.look())
        except StoreUnavailable:
            silent = "nobody knows: the Redis of REDIS_URL does not answer"
            return {"workers": _check("warn", silent)}
        workers = _check("warn", "none is present: nobody watches")
        if here.workers:
            workers = _check("pass", f"{here.workers} present")
        unled = "none is at work: what a lost worker watched stays unwatched"
        supervisor = _check("pass", "at work") if here.led else _check("warn", unled)
        return {
            "history": await self._durable(),
            "workers": workers,
            "supervisor": supervisor,
            "observations": _check("warn" if seen.overdue else "pass", seen.trouble),
        }

    async def _durable(self) -> Check:
        """Warn where what happened stays in Redis alone: no historian, or Postgres has no room."""
        behind = await journal.waiting(self._live, await connections.now(self._live))
        if behind < BEHIND:
            return _check("pass")
        why = "the supervisor's log says why, or Postgres has no room"
        return _check("warn", f"not written down for {behind:.0f} s: {why}")

    async def _writes(self) -> Check:
        """A Redis that refuses writes still answers: with observations that grow old."""
        try:
            await connections.check_writes(self._live)
        except StoreUnavailable as exc:
            return _check("warn", f"takes no writes: {exc.detail}")
        return _check("pass")

    async def _registry_checks(self) -> dict[str, Check]:
        """Postgres may be away: answers come from Redis. A registry of another version may not."""
        try:
            pending = (
                ()
                if self._migrated
                else await within_deadline(pending_migrations, self._database_url)
            )
            self._migrated = not pending
            leader = (
                await within_deadline(leadership.current, self._store) if self._migrated else None
            )
        except StoreUnavailable:
            silent = "does not answer: no history, no changes to the fleet"
            return {"postgres": _check("warn", silent)}
        schema = _check("pass")
        if pending:
            schema = _check("fail", f"{len(pending)} pending: run `feeler migrate`")
        checks = {
            "postgres": _check("pass"),
            "migrations": schema,
            "leader": await self._leads(leader),
        }
        if self._migrated:
            checks["registry"] = await self._holder()
        return checks

    async def _leads(self, leader: Lease | None) -> Check:
        """Look whether somebody leads, and gets its sweeps done."""
        if leader is None:
            fix = "start a supervisor; one that runs says in its log why not"
            return _check("warn", f"nobody leads: {fix}")
        term = f"term {leader.term}"
        try:
            ago = await presence.swept(self._live)
        except StoreUnavailable:
            return _check("warn", f"{term}; whether it gets its work done stands in Redis")
        if ago is None or ago > LEASE:  # who completes no sweep for so long shall not lead
            since = f"for {ago:.0f} s" if ago else "lately"
            why = "the supervisor's log says why"
            return _check("warn", f"{term} has completed no sweep {since}: {why}")
        return _check("pass", term)

    async def _holder(self) -> Check:
        """Look whether this Redis is our registry's: no supervisor of ours touches another's."""
        try:
            ours = await within_deadline(leadership.registry, self._store)
            holder = (await generation.standing(self._live)).holder(ours)
        except StoreUnavailable:
            return _check("warn", "unknown: a store does not answer")
        return _check("warn", str(ForeignRedis(ours, holder))) if holder else _check("pass")


class ObservationAges:
    """How old the observations are; read in the background: a large fleet takes its time."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._found = Watched()
        self._again_at = -math.inf
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> Watched:
        """Return the newest count, a new one where that takes less than a second."""
        if self._looking is None and time.monotonic() >= self._again_at:
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=FRESH)
        return self._found

    async def _look(self) -> None:
        began = time.monotonic()
        with suppress(StoreUnavailable):
            self._found = await watched.watched(self._live)
        ended = time.monotonic()
        self._again_at, self._looking = ended + (ended - began) / LOOKING_SHARE, None


def _check(status: Level, detail: str = "") -> Check:
    return {"status": status, "detail": detail}
