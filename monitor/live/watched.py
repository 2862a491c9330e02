"""Whether anybody watches: who is here, who leads, and how old the oldest observation is. Doors
import this.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from monitor.core.chunks import chunks
from monitor.core.errors import InvalidInput
from monitor.core.foreign import moment
from monitor.live import observations, presence, targets
from monitor.live.connections import Live, now, wrap_store_errors
from monitor.live.keys import database_key, target_key

CHUNK = 500  # databases read at once


@dataclass(frozen=True, slots=True)
class Watchers:
    """Who is at work on the bus."""

    workers: int
    led: bool  # a leader was at work lately

    @property
    def troubles(self) -> tuple[str, ...]:
        """Say what keeps observations from coming; nothing where all is well."""
        found = []
        if not self.workers:
            found.append("nobody watches: no worker is present (start one: `feeler run worker`)")
        if not self.led:
            found.append("no supervisor is at work: what a lost worker watched stays unwatched")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Watched:
    """The databases that shall be watched."""

    databases: int = 0
    overdue: int = 0  # never observed, or not for longer than their policies allow
    oldest: float = 0.0  # seconds since the oldest of the last observations

    @property
    def trouble(self) -> str:
        """Say what is not observed as it should be, '' where all is well."""
        if not self.overdue:
            return ""
        late = f"{self.overdue} of {self.databases} without a recent observation"
        return f"{late}; the oldest is {self.oldest:.0f} s old"


async def watchers(live: Live) -> Watchers:
    """Return who is here now."""
    present, led = await asyncio.gather(
        presence.present(live),
        presence.is_led(live),
    )
    unreadable = len(present.unreadable)  # a newer version may watch too
    return Watchers(len(present) + unreadable, led)


async def watched(live: Live) -> Watched:
    """Look at the age of every observation: two fields a database, 10 us each."""
    names = await observations.names(live)
    total = Watched()
    for chunk in chunks(names, CHUNK):
        total = _sum(total, await _part(live, chunk))
    return total


async def _part(live: Live, names: Sequence[str]) -> Watched:
    pipe = live.cache.pipeline(transaction=False)
    for name in names:
        pipe.hget(target_key(name), "policy")
        pipe.hget(database_key(name), "observed_at")
    with wrap_store_errors():
        replies = await pipe.execute()
    at = await now(live)
    databases, overdue, oldest = 0, 0, 0.0
    for policy, observed_at in chunks(replies, 2):
        if not policy:
            continue  # a paused one has no target
        databases += 1
        age = _age(observed_at, at)
        if age is None or age > _stale_after(policy):
            overdue += 1
        oldest = max(oldest, age or 0.0)
    return Watched(databases, overdue, oldest)


def _sum(one: Watched, other: Watched) -> Watched:
    return Watched(
        databases=one.databases + other.databases,
        overdue=one.overdue + other.overdue,
        oldest=max(one.oldest, other.oldest),
    )


def _age(observed_at: str | None, at: float) -> float | None:
    """Return the seconds since an observation, None where there is none that can be read."""
    try:
        return max(0.0, at - moment(observed_at or ""))
    except (ValueError, InvalidInput):
        return None


@lru_cache(maxsize=256)
def _stale_after(policy: str) -> float:
    try:
        return targets.decode_policy(policy).stale_after
    except (ValueError, TypeError, InvalidInput):  # a newer version's: then anything is late
        return 0.0
