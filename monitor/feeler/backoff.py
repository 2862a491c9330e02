"""Backing off where a server that has no slot left is full of our own logins.

A storm of ours is no evidence against the server. For this package alone.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from monitor.core.cause import FULL, Cause
from monitor.core.database import Address

STORM_LOGINS = 8  # of ours at one server ...
STORM_SECONDS = 3.0  # ... begun within so many seconds are a storm
EXCUSED_SECONDS = 2.0  # in which nobody got in, after which a storm of ours is no excuse
RETRY_SPACING = 0.2  # seconds between two tries at a server that is full

Limit = tuple[str, ...]


def _new_future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class FullLimit:
    """A limit that keeps us out; moments are monotonic seconds."""

    since: float = field(default_factory=monotonic)
    next_retry: float = field(default_factory=monotonic)
    login_succeeded: "asyncio.Future[None]" = field(default_factory=_new_future)


class LoginBackoff:
    """The logins of this process at one server that have no session there yet."""

    def __init__(self) -> None:
        self._begun: deque[float] = deque(maxlen=STORM_LOGINS)
        self._full: dict[Limit, FullLimit] = {}

    def login_begins(self) -> None:
        """Note that a login begins."""
        self._begun.append(monotonic())

    def login_succeeded(self, address: Address) -> None:
        """Note that a login came through: whoever backed off may try."""
        for cause in FULL:
            full = self._full.pop(_limit(cause, address), None)
            if full:
                full.login_succeeded.set_result(None)

    async def wait(self, cause: Cause, address: Address) -> bool:
        """Wait to retry; False where there is no excuse, and no slot left is the evidence."""
        now = monotonic()
        full = self._full.setdefault(_limit(cause, address), FullLimit())
        excused_until = full.since + EXCUSED_SECONDS
        if now >= excused_until or not self._is_storm(now):
            return False
        # one after another, until somebody gets in
        full.next_retry = max(full.next_retry, now) + RETRY_SPACING
        pause = min(full.next_retry, excused_until) - now
        await asyncio.wait((full.login_succeeded,), timeout=pause)
        return full.login_succeeded.done() or monotonic() < excused_until

    def _is_storm(self, now: float) -> bool:
        return len(self._begun) == STORM_LOGINS and now - self._begun[0] < STORM_SECONDS


def _limit(cause: Cause, address: Address) -> Limit:
    """Name the limit: the server's, the role's or the database's."""
    if cause is Cause.ROLE_FULL:
        return cause, address.user
    if cause is Cause.DATABASE_FULL:
        return cause, address.dbname
    return (cause,)
