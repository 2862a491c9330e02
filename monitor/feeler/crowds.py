"""Whether a server that has no slot left is full of our own logins: a storm of ours is no evidence
against it.

For this package alone.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from monitor.core.cause import FULL, Cause
from monitor.core.database import Address

MANY = 8  # logins of ours at a server ...
AT_ONCE = 3.0  # ... begun within so many seconds are a storm
PATIENCE = 2.0  # seconds in which nobody got in, after which a storm of ours is no excuse
PAUSE = 0.2  # seconds between two tries at a server that is full

Limit = tuple[str, ...]


@dataclass(slots=True)
class Full:
    """A limit that keeps us out: since when, when the next may try, and who got in first."""

    since: float = field(default_factory=monotonic)
    next_try: float = field(default_factory=monotonic)
    entered: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Crowd:
    """The logins of this process at one server that have no session there yet."""

    def __init__(self) -> None:
        self._begun: deque[float] = deque(maxlen=MANY)
        self._full: dict[Limit, Full] = {}

    def begins(self) -> None:
        """Note that a login begins."""
        self._begun.append(monotonic())

    def entered(self, address: Address) -> None:
        """Note that a login came through: whoever gave way may try."""
        for cause in FULL:
            if full := self._full.pop(_limit(cause, address), None):
                full.entered.set_result(None)

    async def give_way(self, cause: Cause, address: Address) -> bool:
        """Say whether to try again, when it is time; else it counts that there is no slot left."""
        now = monotonic()
        full = self._full.setdefault(_limit(cause, address), Full())
        end = full.since + PATIENCE
        if now >= end or not self._is_storm(now):
            return False
        full.next_try = max(full.next_try, now) + PAUSE  # one after another, until somebody gets in
        await asyncio.wait((full.entered,), timeout=min(full.next_try, end) - now)
        return full.entered.done() or monotonic() < end

    def _is_storm(self, now: float) -> bool:
        return len(self._begun) == MANY and now - self._begun[0] < AT_ONCE


def _limit(cause: Cause, address: Address) -> Limit:
    """Name the limit: the server's, the role's or the database's."""
    if cause is Cause.ROLE_FULL:
        return cause, address.user
    return (cause, address.dbname) if cause is Cause.DATABASE_FULL else (cause,)
