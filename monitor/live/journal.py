"""What happened, in order, one stream per partition; every consumer is a group.

A group reads, works and acknowledges. `record` and `replay` write; the supervisor, the historian
and the notifier read. Imported by workers/ and the doors that show how far behind they are.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitor.core import event as events
from monitor.core.chunks import chunks
from monitor.core.errors import InvalidInput
from monitor.core.event import Event
from monitor.core.timing import DURABLE_REMEMBERED
from monitor.live import letters, steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import PARTITIONS, all_keys, partition_key, partition_keys

log = logging.getLogger("feeler.live")

LIMIT = 50_000  # entries a partition keeps, acknowledged or not
# Seconds between looks for news. Cost: a blocking read of all partitions would wake at once, but no
# command may span hash slots; 32 small ones take half a millisecond of CPU.
LOOK_EVERY = 0.2
IDLE_CONSUMER = 3_600_000  # milliseconds
HISTORIAN = "historian"  # the group that makes transitions durable
DURABLE = (HISTORIAN, "supervisor")  # nothing is trimmed before these groups exist and have seen it

_Row = tuple[str, dict[str, str] | None]  # an id, and the entry; None where it was trimmed
_Taken = tuple[int, Iterable[_Row]]  # a partition, and what was read there
_TRIM = steps.step("trim")
_JOURNALS = all_keys("journal")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as a group gets it, maybe for the second time: know it by its identity."""

    partition: int
    id: str
    event: Event


async def ensure(live: Live, group: str) -> None:
    """Create a group in every partition, from the beginning of the journal, where it is missing."""
    pipe = live.cache.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xgroup_create(key, group, id="0", mkstream=True)
    with wrap_store_errors():
        replies = await pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not _is_there(reply):
                raise reply


async def read(live: Live, group: str, consumer: str, *, count: int, block: float) -> list[Entry]:
    """Return about `count` entries nobody of the group has had.

    Waits at most `block` seconds for the first. Creates the group where it is missing: at first,
    and after Redis lost its memory.
    """
    until = time.monotonic() + block
    each = max(1, count // PARTITIONS)
    while True:
        found = await _read(live, group, consumer, each)
        left = until - time.monotonic()
        if found or left <= 0:
            return found
        await asyncio.sleep(min(LOOK_EVERY, left))


async def _read(live: Live, group: str, consumer: str, each: int) -> list[Entry]:
    taken, missing = await _take(live, group, consumer, each)
    if missing:
        await ensure(live, group)
        more, _ = await _take(live, group, consumer, each)
        taken += more
    return await _entries(live, group, taken)


async def _take(live: Live, group: str, consumer: str, each: int) -> tuple[list[_Taken], bool]:
    """Return what was new in each partition, and whether the group is missing in some."""
    # A patient client: what Redis hands out after we have hung up is claimed only much later.
    pipe = live.journal.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xreadgroup(group, consumer, {key: ">"}, count=each)
    with wrap_store_errors():
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        taken: list[_Taken] = []
        missing = False
        broken: Exception | None = None
        for number, reply in enumerate(replies):
            if not isinstance(reply, Exception):
                for _, rows in reply:
                    taken.append((number, rows))
            elif _is_missing(reply):
                missing = True
            else:
                broken = reply
        if broken and not taken:  # what other partitions handed out must not be dropped
            raise broken
    return taken, missing


async def claim(live: Live, group: str, consumer: str, *, idle: float) -> list[Entry]:
    """Take over entries some consumer took and did not acknowledge for `idle` seconds."""
    least = round(idle * 1000)
    pipe = live.cache.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xautoclaim(key, group, consumer, min_idle_time=least, count=100)
    with wrap_store_errors():
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        taken = []
        for number, reply in enumerate(replies):
            if not isinstance(reply, Exception):
                _, rows, *_ = reply
                taken.append((number, rows))
            elif not _is_missing(reply):
                raise reply
    return await _entries(live, group, taken)


def _is_there(exc: Exception) -> bool:
    return str(exc).startswith("BUSYGROUP")


def _is_missing(exc: Exception) -> bool:
    return str(exc).startswith("NOGROUP")


async def _entries(live: Live, group: str, found: Sequence[_Taken]) -> list[Entry]:
    """Decode; what cannot be read becomes a dead letter: it must hold up nothing behind it."""
    entries: list[Entry] = []
    for number, rows in found:
        unreadable = []
        for id_, row in rows:
            if row is None:
                continue
            try:
                event = events.decode(row["event"])
                entries.append(Entry(number, id_, event))
            except (KeyError, InvalidInput) as exc:
                what = f"group={group} partition={number} id={id_}"
                log.error("action=entry_unreadable %s error=%s", what, exc)
                unreadable.append((id_, row))
        if unreadable:
            await letters.bury(live, group, number, unreadable)
    return entries


async def ack(live: Live, group: str, entries: Sequence[Entry]) -> None:
    """Acknowledge entries: their work is done."""
    pipe = live.cache.pipeline(transaction=False)
    for entry in entries:
        journal = _JOURNALS[entry.partition]
        pipe.xack(journal, group, entry.id)
    with wrap_store_errors():
        await pipe.execute()


async def trim(live: Live, now: float, *, limit: int = LIMIT) -> int:
    """Drop entries every group has acknowledged; beyond `limit` also others, loudly.

    Return how many went. `now`: fleet seconds.
    """
    forget_before = f"{now - DURABLE_REMEMBERED:.3f}"
    args = (limit, forget_before, IDLE_CONSUMER, *DURABLE)
    calls: list[steps.Call] = []
    for number in range(PARTITIONS):
        keys = partition_keys(number, "journal", "durable", "counters")
        calls.append((keys, args))
    answers = await steps.run(live.cache, _TRIM, calls)
    trimmed = 0
    forced = 0
    for acknowledged, by_force in answers:
        trimmed += acknowledged
        forced += by_force
    if forced:
        log.error("action=journal_trimmed_unacknowledged entries=%d limit=%d", forced, limit)
    return trimmed + forced


async def is_behind(live: Live) -> bool:
    """Tell whether the historians have still something to read or to finish."""
    counts = await backlog(live)
    to_finish = counts.get(f"{HISTORIAN}_pending", 0)
    to_read = counts.get(f"{HISTORIAN}_lag", 0)
    return bool(to_finish or to_read)


async def waiting(live: Live, now: float) -> float:
    """Return for how many seconds the oldest entry has waited to be made durable, 0 for none."""
    pipe = live.cache.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xinfo_groups(key)
    with wrap_store_errors():
        replies: list[Any] = await pipe.execute(raise_on_error=False)
    pipe = live.cache.pipeline(transaction=False)
    for key, groups in zip(_JOURNALS, replies, strict=True):
        if isinstance(groups, Exception):  # no stream in this partition yet
            continue
        by_name = {group["name"]: group for group in groups}
        _ask_for_oldest(pipe, key, by_name.get(HISTORIAN))
    with wrap_store_errors():
        found = await pipe.execute()
    oldest = 0.0
    for rows in found:
        for row in rows:
            oldest = max(oldest, now - _written_at(row))
    return oldest


def _written_at(row: Any) -> float:
    """Return when an entry was written, by its id: XPENDING's row of it or XRANGE's."""
    id_ = row["message_id"] if isinstance(row, dict) else row[0]
    milliseconds, _, _ = id_.partition("-")
    return int(milliseconds) / 1000


def _ask_for_oldest(pipe: Any, key: str, group: Mapping[str, Any] | None) -> None:
    """Ask for the oldest entry taken and not acknowledged, else the oldest nobody took."""
    if group and group["pending"]:
        pipe.xpending_range(key, HISTORIAN, "-", "+", 1)
        return
    start = "-"
    if group:
        last = group["last-delivered-id"]
        start = f"({last}"
    pipe.xrange(key, start, "+", count=1)


async def backlog(live: Live) -> dict[str, int]:
    """Return `length` of the journal, `dead` letters, and of each group what it still has to do.

    That is GROUP_pending (taken, not acknowledged) and GROUP_lag (not taken).
    """
    pipe = live.cache.pipeline(transaction=False)
    for number, key in enumerate(_JOURNALS):
        pipe.xlen(partition_key(number, "dead"))
        pipe.xlen(key)
        pipe.xinfo_groups(key)
    with wrap_store_errors():
        replies: list[Any] = await pipe.execute(raise_on_error=False)
    total: Counter[str] = Counter(length=0, dead=0)
    for dead, length, groups in chunks(replies, 3):
        total["dead"] += dead
        if isinstance(groups, Exception):  # no stream in this partition yet
            continue
        total["length"] += length
        for group in groups:
            name = group["name"]
            lag = group["lag"]
            total[f"{name}_pending"] += group["pending"]
            total[f"{name}_lag"] += length if lag is None else lag
    return dict(total)
