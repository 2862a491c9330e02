"""/livez and /readyz: is this process alive, can it serve. Open to anyone, so they name no host and no error text."""

import asyncio
import math
import time
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request, Response
from typing_extensions import TypedDict

from monitor.core.errors import ForeignRedis, StoreUnavailable
from monitor.live import connections, generation
from monitor.live.connections import Live
from monitor.registry import leadership
from monitor.registry.store import Store, pending_migrations
from monitor.web.patience import soon

Verdict = Literal["pass", "warn", "fail"]
FRESH = 1.0  # seconds
_RANK: dict[Verdict, int] = {"pass": 0, "warn": 1, "fail": 2}


class Check(TypedDict):
    """One thing looked at."""

    status: Verdict
    detail: str


class Health(TypedDict):
    """The worst of the checks, and each of them."""

    status: Verdict
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
        return {"redis": await self._writes(), "generation": _check("pass", "open") if found.open else closed}

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
            pending = () if self._migrated else await soon(pending_migrations, self._database_url)
            self._migrated = not pending
            leader = await soon(leadership.current, self._store) if self._migrated else None
        except StoreUnavailable:
            return {"postgres": _check("warn", "does not answer: no history, no changes to the fleet")}
        registry = {"registry": await self._holder()} if self._migrated else {}
        wanting = _check("fail", f"{len(pending)} pending: run `feeler migrate`")
        leads = _check("pass", f"term {leader.term}") if leader else _check("warn", "nobody leads: start a supervisor")
        schema = wanting if pending else _check("pass")
        return {"postgres": _check("pass"), "migrations": schema, "leader": leads, **registry}

    async def _holder(self) -> Check:
        """Look whether the fleet in this Redis is our registry's: no supervisor of ours touches another's."""
        try:
            ours = await soon(leadership.registry, self._store)
            holder = (await generation.standing(self._live)).holder(ours)
        except StoreUnavailable:
            return _check("warn", "unknown: a store does not answer")
        return _check("warn", str(ForeignRedis(ours, holder))) if holder else _check("pass")


def _check(status: Verdict, detail: str = "") -> Check:
    return {"status": status, "detail": detail}
