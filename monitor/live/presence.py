"""Who is here: a key of 7 s per worker on the bus, renewed every 1.5 s by the loop that feels.

Workers and doors import this. Absence proves something only after 6 s of uninterrupted Redis:
`mark_bus` tells when the bus has lost its memory.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from monitor.core.errors import InvalidInput
from monitor.core.foreign import fitting, moment
from monitor.core.timing import BUS_MARK, ID_CLAIM_TTL, LED_MARK, PRESENCE_TTL
from monitor.live import quarantine, steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import LED, WORKERS, bus_key, claim_key, presence_key
from monitor.live.quarantine import Rows

PROCESS = secrets.token_hex(8)  # this one among all that ever were: ids of workers may meet
_CLAIM = steps.step("claim")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """One worker as it describes itself."""

    worker: str
    host: str
    pid: int
    zone: str
    capacity: int
    started_at: float
    owned: int
    leaving: bool
    generation: str
    lateness: float  # seconds, 99th percentile of the last minute
    rejected: int
    retained: int
    at: float
    replaced: int = 0  # observations that newer ones replaced before they could leave
    unjudged: int = 0  # observations that changed no state: too many events wait for Redis
    able: bool = True  # False: lately it met nothing but faults of its own; it gets nothing more
    # How many databases it could not look at lately, by cause.
    given_up: Mapping[str, int] = field(default_factory=dict)


async def claim(live: Live, worker: str) -> bool:
    """Take a worker id for this process, or hold on to it; False while another process holds it."""
    keys = [claim_key(worker)]
    args = (PROCESS, ID_CLAIM_TTL)
    call = (keys, args)
    [held] = await steps.run(live.bus, _CLAIM, [call])
    return bool(held)


async def announce(live: Live, presence: Presence) -> None:
    """Say that a worker is here for the next 7 s."""
    text = json.dumps(asdict(presence))
    milliseconds = round(PRESENCE_TTL * 1000)
    pipe = live.bus.pipeline(transaction=False)
    pipe.set(presence_key(presence.worker), text, px=milliseconds)
    pipe.zadd(WORKERS, {presence.worker: presence.at})
    with wrap_store_errors():
        await pipe.execute()


async def present(live: Live) -> Rows[Presence]:
    """Return the workers whose presence has not expired."""
    known_workers = await known(live)
    workers = sorted(known_workers)
    if not workers:
        return Rows()
    keys = [presence_key(worker) for worker in workers]
    with wrap_store_errors():
        texts = await live.bus.mget(keys)
    found = []
    for worker, text in zip(workers, texts, strict=True):
        if text:
            found.append((worker, text))
    return await quarantine.decode(live, "presence", found, _presence)


def _presence(worker: str, text: str | bytes) -> Presence:
    presence = decode(text)
    if presence.worker != worker:
        raise InvalidInput("presence", "speaks of another worker")
    return presence


def decode(text: str | bytes) -> Presence:
    """Read a presence of this or a newer version; raise where it tells less than is needed."""
    fields = fitting(Presence, json.loads(text))
    presence = Presence(**fields)
    if not isinstance(presence.given_up, dict):
        raise InvalidInput("given_up", "not a number of databases by cause")
    moment(presence.at)
    moment(presence.started_at)
    return presence


# By worker: the moment of its newest announcement, and since when we know it (monotonic).
_Newest = dict[str, tuple[float, float]]


class Alive:
    """Tells who still announces itself, by a clock of our own.

    Race: where Redis's clock was set back, keys outlive their time.
    """

    def __init__(self) -> None:
        self._newest: _Newest = {}

    def among(self, present: Mapping[str, Presence], now: float) -> dict[str, Presence]:
        """Return those that announced themselves anew within the time a presence lives."""
        newest: _Newest = {}
        alive = {}
        for worker, one in present.items():
            announced_at, since = self._newest.get(worker, (None, now))
            if announced_at != one.at:
                since = now
            newest[worker] = (one.at, since)
            if now - since < PRESENCE_TTL:
                alive[worker] = one
        self._newest = newest
        return alive


async def known(live: Live) -> set[str]:
    """Return every worker that was announced and not forgotten, here or not."""
    with wrap_store_errors():
        workers: list[Any] = await live.bus.zrange(WORKERS, 0, -1)
    return set(workers)


async def leave(live: Live, worker: str) -> None:
    """End a worker's presence now; it stays known until the leader forgets it."""
    with wrap_store_errors():
        await live.bus.delete(presence_key(worker), claim_key(worker))


async def forget(live: Live, worker: str) -> None:
    """Drop a worker from those known; one that lives announces itself again."""
    with wrap_store_errors():
        await live.bus.zrem(WORKERS, worker)


async def mark_bus(live: Live, leader: str) -> bool:
    """Renew this leader's mark; False where the bus lost it with its memory, or never had it."""
    with wrap_store_errors():
        server = await live.bus.info("server")
        run_id = server["run_id"]
        key = bus_key(leader)
        mark = await live.bus.set(key, run_id, ex=BUS_MARK, get=True)
    return bool(mark == run_id)


async def mark_swept(live: Live, leader: str) -> None:
    """Say that a leader has completed a sweep."""
    with wrap_store_errors():
        await live.bus.set(LED, leader, ex=LED_MARK)


async def swept(live: Live) -> float | None:
    """Return the seconds since a leader completed a sweep, None where nobody has led lately."""
    with wrap_store_errors():
        left: int = await live.bus.pttl(LED)  # milliseconds; -2 where there is none
    since = LED_MARK - left / 1000
    # A mark that lives longer than it may was given by a clock that was set back.
    return since if 0 <= since <= LED_MARK else None


async def is_led(live: Live) -> bool:
    """Tell whether a leader got something done lately; else who is present proves nothing."""
    return await swept(live) is not None
