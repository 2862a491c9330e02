"""What happened, in order, one stream per partition; every consumer is a group that reads, works
and acknowledges.

Written by `record` and `replay`. The supervisor, the historian and the notifier read it as groups.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from monitor.core import event as events
from monitor.core.errors import InvalidInput
from monitor.core.event import Event, Transition
from monitor.core.status import Identity
from monitor.core.timing import DURABLE_REMEMBERED, READ_BLOCK_MOST
from monitor.live import letters, steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import PARTITIONS, partition, partition_key

log = logging.getLogger("feeler.live")

LIMIT = 100_000  # entries a partition keeps, acknowledged or not
IDLE_CONSUMER = 3_600_000  # milliseconds
DURABLE = (
    "historian",
    "supervisor",
)  # nothing is trimmed before these groups exist and have seen it

_Row = tuple[str, dict[str, str] | None]
_REPLAY, _TRIM = steps.step("replay"), steps.step("trim")
_JOURNALS = [partition_key(number, "journal") for number in range(PARTITIONS)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as a group gets it; `replayed` events may have been seen before."""

    partition: int
    id: str
    event: Event
    replayed: bool = False


async def ensure(live: Live, group: str) -> None:
    """Create a group in every partition, from the beginning of the journal, where it is missing."""
    pipe = live.cache.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xgroup_create(key, group, id="0", mkstream=True)
    with wrap_store_errors():
        for reply in await pipe.execute(raise_on_error=False):
            if isinstance(reply, Exception) and not str(reply).startswith("BUSYGROUP"):
                raise reply


async def read(live: Live, group: str, consumer: str, *, count: int, block: float) -> list[Entry]:
    """Return about `count` entries nobody of the group has had, waiting at most `block` seconds for
    the first.

    Creates the group where it is missing: at first, and after Redis lost its memory.
    """
    try:
        return await _read(live, group, consumer, count, block)
    except ResponseError as exc:
        if not _is_missing(exc):
            raise
    await ensure(live, group)
    return await _read(live, group, consumer, count, block)


async def _read(live: Live, group: str, consumer: str, count: int, block: float) -> list[Entry]:
    wait = round(min(block, READ_BLOCK_MOST) * 1000) or None  # 0 would be for ever
    each = max(1, count // PARTITIONS)
    with wrap_store_errors():
        found: Any = await live.blocking.xreadgroup(
            group, consumer, dict.fromkeys(_JOURNALS, ">"), count=each, block=wait
        )
    return await _entries(live, group, [(_JOURNALS.index(key), rows) for key, rows in found or []])


async def claim(live: Live, group: str, consumer: str, *, idle: float) -> list[Entry]:
    """Take over entries some consumer took and did not acknowledge for `idle` seconds."""
    pipe = live.cache.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xautoclaim(key, group, consumer, min_idle_time=round(idle * 1000), count=100)
    with wrap_store_errors():
        replies = await pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not _is_missing(reply):
                raise reply
    taken = [
        (number, reply[1])
        for number, reply in enumerate(replies)
        if not isinstance(reply, Exception)
    ]
    return await _entries(live, group, taken)


def _is_missing(exc: Exception) -> bool:
    return str(exc).startswith("NOGROUP")


async def _entries(
    live: Live, group: str, found: Sequence[tuple[int, Iterable[_Row]]]
) -> list[Entry]:
    """Decode; what cannot be read becomes a dead letter: it must hold up neither the others nor the
    trim.
    """
    entries: list[Entry] = []
    broken: dict[int, list[tuple[str, dict[str, str]]]] = {}
    for number, id_, row in (
        (number, id_, row) for number, rows in found for id_, row in rows if row
    ):
        try:
            entries.append(
                Entry(number, id_, events.decode(row["event"]), row.get("replayed") == "1")
            )
        except (KeyError, InvalidInput) as exc:
            log.error(
                "action=entry_unreadable group=%s partition=%d id=%s error=%s",
                group,
                number,
                id_,
                exc,
            )
            broken.setdefault(number, []).append((id_, row))
    for number, rows in broken.items():
        await letters.bury(live, group, number, rows)
    return entries


async def ack(live: Live, group: str, entries: Sequence[Entry]) -> None:
    """Acknowledge entries: their work is done."""
    pipe = live.cache.pipeline(transaction=False)
    for entry in entries:
        pipe.xack(_JOURNALS[entry.partition], group, entry.id)
    with wrap_store_errors():
        await pipe.execute()


async def mark_durable(live: Live, identities: Sequence[tuple[str, Identity]], now: float) -> None:
    """Say that these transitions are durable: the workers that retain them may forget them."""
    pipe = live.cache.pipeline(transaction=False)
    for name, identity in identities:
        pipe.zadd(partition_key(partition(name), "durable"), {f"{name} {identity}": now})
    with wrap_store_errors():
        await pipe.execute()


async def durable(
    live: Live, identities: Sequence[tuple[str, Identity]]
) -> set[tuple[str, Identity]]:
    """Return which of these transitions are known to be durable."""
    pipe = live.cache.pipeline(transaction=False)
    for name, identity in identities:
        pipe.zscore(partition_key(partition(name), "durable"), f"{name} {identity}")
    with wrap_store_errors():
        scores = await pipe.execute()
    return {which for which, score in zip(identities, scores, strict=True) if score is not None}


async def replay(live: Live, generation: str, transitions: Sequence[Transition]) -> bool:
    """Give accepted events to the journal again; False unless this generation is open in every
    partition concerned.
    """
    by_partition: dict[int, list[str]] = {}
    for one in transitions:
        by_partition.setdefault(partition(one.database), []).append(events.encode(one))
    calls: list[steps.Call] = []
    for number, texts in by_partition.items():
        keys = [partition_key(number, kind) for kind in ("generation", "counters", "journal")]
        calls += [(keys, [generation, *part]) for part in steps.chunks(texts, 500)]
    return all(await steps.run(live.cache, _REPLAY, calls))


async def trim(live: Live, now: float, *, limit: int = LIMIT) -> int:
    """Drop entries every group has acknowledged; beyond `limit` also others, loudly. Return how
    many went.
    """
    words = (limit, f"{now - DURABLE_REMEMBERED:.3f}", IDLE_CONSUMER, *DURABLE)
    calls = [
        ([partition_key(number, kind) for kind in ("journal", "durable", "counters")], words)
        for number in range(PARTITIONS)
    ]
    rows = await steps.run(live.cache, _TRIM, calls)
    if forced := sum(row[1] for row in rows):
        log.error("action=journal_trimmed_unacknowledged entries=%d limit=%d", forced, limit)
    return sum(map(sum, rows))


async def count_conflicts(live: Live, conflicts: int) -> None:
    """Count transitions that Postgres holds under the same identity with other content."""
    with wrap_store_errors():
        await live.cache.hincrby(partition_key(0, "counters"), "identity_conflicts", conflicts)


async def is_behind(live: Live) -> bool:
    """Tell whether the group that makes transitions durable has still something to read or to
    finish.
    """
    waiting = await backlog(live)
    return any(waiting.get(f"{DURABLE[0]}_{what}", 0) for what in ("pending", "lag"))


async def waiting(live: Live, now: float) -> float:
    """Return for how many seconds the oldest entry has waited to be made durable, 0 where none
    waits.
    """
    pipe = live.cache.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xinfo_groups(key)
    with wrap_store_errors():
        replies: list[Any] = await pipe.execute(raise_on_error=False)
    pipe = live.cache.pipeline(transaction=False)
    for key, groups in zip(_JOURNALS, replies, strict=True):
        if not isinstance(groups, Exception):  # else there is no stream in this partition yet
            _ask_for_oldest(pipe, key, {group["name"]: group for group in groups}.get(DURABLE[0]))
    with wrap_store_errors():
        found = [reply[0] for reply in await pipe.execute() if reply]
    oldest = (row["message_id"] if isinstance(row, dict) else row[0] for row in found)
    return max((max(0.0, now - int(one.partition("-")[0]) / 1000) for one in oldest), default=0.0)


def _ask_for_oldest(pipe: Any, key: str, group: Mapping[str, Any] | None) -> None:
    """Ask for the oldest entry that was taken and not acknowledged, else for the oldest that nobody
    took.
    """
    if group and group["pending"]:
        pipe.xpending_range(key, DURABLE[0], "-", "+", 1)
    else:
        pipe.xrange(key, f"({group['last-delivered-id']}" if group else "-", "+", count=1)


async def backlog(live: Live) -> dict[str, int]:
    """Return the journal's length, the dead letters, and per group what is pending (taken) and
    lagging (not taken).
    """
    pipe = live.cache.pipeline(transaction=False)
    for key in _JOURNALS:
        pipe.xlen(key)
        pipe.xinfo_groups(key)
    for number in range(PARTITIONS):
        pipe.xlen(partition_key(number, "dead"))
    with wrap_store_errors():
        replies: list[Any] = await pipe.execute(raise_on_error=False)
    total: Counter[str] = Counter({"length": 0, "dead": sum(replies[2 * PARTITIONS :])})
    for length, groups in zip(
        replies[: 2 * PARTITIONS : 2], replies[1 : 2 * PARTITIONS : 2], strict=True
    ):
        if isinstance(groups, Exception):  # no stream in this partition yet
            continue
        total["length"] += length
        for group in groups:
            total[f"{group['name']}_pending"] += group["pending"]
            total[f"{group['name']}_lag"] += length if group["lag"] is None else group["lag"]
    return dict(total)
