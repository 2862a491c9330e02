"""The historian: journal -> Postgres. Transitions by every supervisor's consumer, samples,
retention by the leader.
"""

import asyncio
import logging
import time

from monitor.core.errors import ForeignRedis, StoreUnavailable
from monitor.core.event import Transition
from monitor.core.observation import ReadingStatus, Value
from monitor.core.timing import HISTORIAN_ABANDONED, HISTORIAN_CLAIM_EVERY
from monitor.live import connections, generation, journal, observations
from monitor.live.connections import Live
from monitor.live.journal import Entry
from monitor.live.observations import Latest
from monitor.registry import leadership, retention
from monitor.registry.samples import Sample, ensure_partitions, write_samples
from monitor.registry.store import Store
from monitor.registry.transitions import write_transitions

log = logging.getLogger("feeler.historian")

GROUP = "historian"
BATCH = 500
BLOCK = 1.0  # seconds a read waits for news
PRUNE_EVERY = 3600.0
BREATH = 0.1  # seconds between two transactions that delete
TRIES = 2  # databases that cannot be written by themselves, until Postgres is taken for away


class Historian:
    """Drains transitions into Postgres and acknowledges them by identity."""

    def __init__(self, live: Live, store: Store, consumer: str, days: int = 0) -> None:
        self._live, self._store, self._consumer, self._days = live, store, consumer, days
        self._claim_at = 0.0
        self._held: list[Entry] = []
        self._ours = ""  # the name of our registry

    async def drain(self) -> bool:
        """Write one batch of transitions; True when there was work. Nothing is acknowledged before
        it is committed.
        """
        await self._check()
        if not self._held:  # else Postgres failed us: the stream waits with the rest
            self._held = await self._abandoned()
            self._held += await journal.read(
                self._live, GROUP, self._consumer, count=BATCH, block=BLOCK
            )
        entries = self._held
        if entries:
            await self._check()  # it may have been taken over while we waited
            try:
                await self._write(entries)
            except StoreUnavailable as exc:
                await self._write_apart(entries, exc)
        self._held = []
        return bool(entries)

    async def trim(self) -> None:
        """Drop what every group has acknowledged. Historians may do it side by side: it needs no
        fence.
        """
        await self._check()
        await journal.trim(self._live, await connections.now(self._live))

    async def _write(self, entries: list[Entry]) -> None:
        transitions = [entry.event for entry in entries if isinstance(entry.event, Transition)]
        if transitions:
            written = await asyncio.to_thread(
                write_transitions, self._store, transitions, self._days
            )
            if written.conflicts:
                log.error("action=identity_conflict count=%d", written.conflicts)
                await journal.count_conflicts(self._live, written.conflicts)
            await journal.mark_durable(
                self._live, written.durable, await connections.now(self._live)
            )
        await journal.ack(self._live, GROUP, entries)

    async def _write_apart(self, entries: list[Entry], trouble: StoreUnavailable) -> None:
        """Write database by database: one of them must not hold up the others. Where none can be
        written, Postgres is away. What is left over is claimed again later."""
        by_database: dict[str, list[Entry]] = {}
        for entry in entries:
            by_database.setdefault(entry.event.database, []).append(entry)
        left = list[str]()
        for database, its in by_database.items():
            try:
                await self._write(its)
            except StoreUnavailable as exc:
                left.append(database)
                log.warning(
                    "action=history_left database=%s events=%d error=%s",
                    database,
                    len(its),
                    exc.detail,
                )
                if (
                    len(left) == min(TRIES, len(by_database))
                    and list(by_database)[: len(left)] == left
                ):
                    raise trouble from exc

    async def _check(self) -> None:
        """Leave another registry's journal to its own historians, with what we took of it: our
        Postgres is not its.
        """
        standing = await generation.standing(self._live)
        if standing.holder(self._ours):
            self._ours = await asyncio.to_thread(leadership.registry, self._store)
        if holder := standing.holder(self._ours):
            self._held = []
            raise ForeignRedis(self._ours, holder)

    async def _abandoned(self) -> list[Entry]:
        """Return entries a historian took and never finished."""
        if time.monotonic() < self._claim_at:
            return []
        self._claim_at = time.monotonic() + HISTORIAN_CLAIM_EVERY
        return await journal.claim(self._live, GROUP, self._consumer, idle=HISTORIAN_ABANDONED)


class Pruner:
    """Deletes transitions that are older than they are to be kept; the leader's work."""

    def __init__(self, live: Live, store: Store, days: int) -> None:
        self._live, self._store, self._days = live, store, days
        self._due = 0.0  # monotonic

    async def prune(self) -> int:
        """Go through all databases once an hour, a few rows at a time; return how many rows
        went.
        """
        rows, after = 0, ""
        if time.monotonic() < self._due:
            return 0
        while self._days:
            now = await connections.now(self._live)
            pruned = await asyncio.to_thread(retention.prune, self._store, self._days, now, after)
            rows, after = rows + pruned.rows, pruned.after
            if not (pruned.rows or after):
                break
            await asyncio.sleep(BREATH)
        self._due = time.monotonic() + PRUNE_EVERY
        if rows:
            log.info("action=transitions_pruned rows=%d days=%d", rows, self._days)
        return rows


class Sampler:
    """Writes a sample of every database's newest observation; the leader's work."""

    def __init__(self, live: Live, store: Store) -> None:
        self._live, self._store = live, store

    async def sample(self) -> int:
        """Copy the fleet's newest observations into today's partition; return how many."""
        names = await observations.names(self._live)
        rows = []
        for start in range(0, len(names), BATCH):
            latest = await observations.latest(self._live, names[start : start + BATCH])
            rows += [sample for one in latest.values() if (sample := _sample(one))]
        await asyncio.to_thread(self._write, rows)
        return len(rows)

    def _write(self, rows: list[Sample]) -> None:
        ensure_partitions(self._store)
        write_samples(self._store, rows)


def _sample(latest: Latest) -> Sample | None:
    if latest.at is None:
        return None
    values: dict[str, Value] = {}
    for reading in latest.readings:
        if reading.status is ReadingStatus.OK:
            values |= reading.values
    return Sample(latest.database, latest.at, latest.status.state, latest.worker, values)
