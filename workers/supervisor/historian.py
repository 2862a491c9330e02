"""Transitions from the journal to Postgres, by every supervisor. For process.py alone.

Nothing is acknowledged before it is committed, and writing twice is harmless: a crash, a lost reply
or a stalled Postgres costs work, never a transition.
"""

import asyncio
import logging
import time

from monitor.core.errors import ForeignRedis, StoreUnavailable
from monitor.core.event import Transition
from monitor.core.timing import HISTORIAN_ABANDONED, HISTORIAN_CLAIM_EVERY
from monitor.live import connections, durability, generation, journal
from monitor.live.connections import Live
from monitor.live.journal import Entry
from monitor.registry import leadership
from monitor.registry.store import Store
from monitor.registry.transitions import write_transitions

log = logging.getLogger("feeler.historian")

GROUP = "historian"
BATCH = 500  # entries
BLOCK = 1.0  # seconds a read waits for news
TRIES = 2  # databases that cannot be written by themselves, until Postgres is taken for away


class Historian:
    """Drains transitions into Postgres and acknowledges them by identity."""

    def __init__(self, live: Live, store: Store, consumer: str, days: int = 0) -> None:
        self._live, self._store, self._consumer, self._days = live, store, consumer, days
        self._claim_at = 0.0  # monotonic seconds
        self._held: list[Entry] = []  # read, and not written yet
        self._ours = ""  # the name of our registry, once there was a reason to ask

    async def drain(self) -> bool:
        """Write one batch of transitions; True when there was work."""
        await self._check_registry()
        if not self._held:  # else Postgres failed us: what we hold comes first
            self._held = await self._abandoned()  # held at once: a claim that is lost waits long
            self._held += await journal.read(
                self._live, GROUP, self._consumer, count=BATCH, block=BLOCK
            )
        entries = self._held
        if entries:
            await self._check_registry()  # Redis may have been taken over while we waited
            try:
                await self._write(entries)
            except StoreUnavailable as exc:
                await self._write_apart(entries, exc)
        self._held = []
        return bool(entries)

    async def trim(self) -> None:
        """Drop what every group has acknowledged; any number of historians may, without a fence."""
        await self._check_registry()
        await journal.trim(self._live, await connections.now(self._live))

    async def _abandoned(self) -> list[Entry]:
        """Return entries that a historian took and never finished."""
        if time.monotonic() < self._claim_at:
            return []
        self._claim_at = time.monotonic() + HISTORIAN_CLAIM_EVERY
        return await journal.claim(self._live, GROUP, self._consumer, idle=HISTORIAN_ABANDONED)

    async def _write(self, entries: list[Entry]) -> None:
        """Commit to Postgres first, then tell the workers, then the journal."""
        transitions = [entry.event for entry in entries if isinstance(entry.event, Transition)]
        if transitions:
            written = await asyncio.to_thread(
                write_transitions, self._store, transitions, self._days
            )
            if written.conflicts:
                log.error("action=identity_conflict count=%d", written.conflicts)
                await durability.count_conflicts(self._live, written.conflicts)
            now = await connections.now(self._live)
            await durability.mark_durable(self._live, written.durable, now)
        await journal.ack(self._live, GROUP, entries)

    async def _write_apart(self, entries: list[Entry], trouble: StoreUnavailable) -> None:
        """Write database by database: one that is locked must not hold up the others.

        What is left over is claimed again later. Where the first ones all fail Postgres is away:
        then we hold on to everything.
        """
        by_database: dict[str, list[Entry]] = {}
        for entry in entries:
            by_database.setdefault(entry.event.database, []).append(entry)
        tries = min(TRIES, len(by_database))
        written = failed = 0
        for database, its in by_database.items():
            try:
                await self._write(its)
                written += 1
            except StoreUnavailable as exc:
                failed += 1
                log.warning(
                    "action=history_left database=%s events=%d error=%s",
                    database,
                    len(its),
                    exc.detail,
                )
                if not written and failed == tries:
                    raise trouble from exc

    async def _check_registry(self) -> None:
        """Leave another registry's journal to its own historians, and what we took of it too.

        Our Postgres is not its: written here, its transitions would be lost to it.
        """
        standing = await generation.standing(self._live)
        if standing.holder(self._ours):
            self._ours = await asyncio.to_thread(leadership.registry, self._store)
        if holder := standing.holder(self._ours):
            self._held = []
            raise ForeignRedis(self._ours, holder)
