"""What the leader does beside leading: a sample of every database each minute, and old transitions
deleted. For process.py alone.
"""

import asyncio
import logging
import time

from monitor.core.chunks import chunks
from monitor.core.observation import ReadingStatus, Value
from monitor.live import connections, observations
from monitor.live.connections import Live
from monitor.live.observations import Latest
from monitor.registry import retention, samples
from monitor.registry.samples import Sample
from monitor.registry.store import Store

log = logging.getLogger("feeler.historian")

CHUNK = 500  # databases read in one round trip
PRUNE_EVERY = 3600.0  # seconds
PAUSE = 0.1  # seconds between two transactions that delete


class Sampler:
    """Writes a sample of every database's newest observation."""

    def __init__(self, live: Live, store: Store) -> None:
        self._live, self._store = live, store

    async def sample(self) -> int:
        """Copy the fleet's newest observations into today's partition; return how many."""
        names = await observations.names(self._live)
        rows: list[Sample] = []
        for chunk in chunks(names, CHUNK):
            latest = await observations.latest(self._live, chunk)
            for one in latest.values():
                if sample := _sample(one):
                    rows.append(sample)
        await asyncio.to_thread(self._write, rows)
        return len(rows)

    def _write(self, rows: list[Sample]) -> None:
        samples.ensure_partitions(self._store)
        samples.write_samples(self._store, rows)


def _sample(latest: Latest) -> Sample | None:
    if latest.at is None:
        return None
    values: dict[str, Value] = {}
    for reading in latest.readings:
        if reading.status is ReadingStatus.OK:
            values |= reading.values
    return Sample(
        latest.database,
        latest.at,
        latest.status.state,
        latest.worker,
        values,
    )


class Pruner:
    """Deletes transitions that are older than they are to be kept."""

    def __init__(self, live: Live, store: Store, days: int) -> None:
        self._live, self._store, self._days = live, store, days
        self._due_at = 0.0  # monotonic seconds

    async def prune(self) -> int:
        """Go through all databases once an hour, a few rows at a time; return how many rows went.

        In small transactions with pauses: nobody else's write should wait for this one.
        """
        if time.monotonic() < self._due_at:
            return 0
        rows, after = 0, ""
        while self._days:
            now = await connections.now(self._live)
            pruned = await asyncio.to_thread(retention.prune, self._store, self._days, now, after)
            rows, after = rows + pruned.rows, pruned.after
            if not (pruned.rows or after):
                break
            await asyncio.sleep(PAUSE)
        self._due_at = time.monotonic() + PRUNE_EVERY
        if rows:
            log.info("action=transitions_pruned rows=%d days=%d", rows, self._days)
        return rows
