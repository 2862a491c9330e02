"""The registry's fleet as the leader last read it. For the leader alone.

Postgres may be away or hang for hours: reading goes on in a thread, and the last fleet stays.
"""

import asyncio
import logging
import math
import time

from monitor.core.database import DatabaseStatus
from monitor.core.errors import StoreUnavailable
from monitor.core.policy import Policy
from monitor.core.timing import FLEET_EVERY
from monitor.registry import fleet
from monitor.registry.fleet import Database, Fleet
from monitor.registry.store import Store

log = logging.getLogger("feeler.leader")


class FleetView:
    """The databases to watch, those not to, and which of their targets stand in Redis."""

    def __init__(self, store: Store, wake: asyncio.Event) -> None:
        self._store = store
        self._wake = wake  # set when there is something new to take up
        self.known = False
        self.databases: dict[str, Database] = {}  # the active ones, by name
        self.paused: set[str] = set()
        self.unreadable: frozenset[str] = frozenset()
        self.reading: asyncio.Task[Fleet] | None = None
        self._due_at = 0.0  # monotonic seconds
        self._published: dict[str, int] = {}  # the revision of each target in Redis

    def read_now(self) -> None:
        """Note that the registry has changed; the next refresh reads it."""
        self._due_at = 0.0

    def refresh(self) -> None:
        """Begin to read what is due and take up what was read, without waiting for Postgres."""
        if self.reading is None and time.monotonic() >= self._due_at:
            # Until it is read nothing is due; but who asks meanwhile wants what comes after it.
            self._due_at = math.inf
            read = asyncio.to_thread(fleet.read_fleet, self._store)
            self.reading = asyncio.create_task(read)
            self.reading.add_done_callback(lambda _: self._wake.set())
        if self.reading and self.reading.done():
            reading, self.reading = self.reading, None
            if self._due_at:
                self._due_at = time.monotonic() + FLEET_EVERY
            self._take_up(reading)

    def _take_up(self, reading: asyncio.Task[Fleet]) -> None:
        try:
            read = reading.result()
        except StoreUnavailable as exc:
            log.warning("action=fleet_unread known=%d error=%s", len(self.databases), exc.detail)
            return
        # A row that cannot be read is no reason to stop watching: it stays as it was.
        databases: dict[str, Database] = {}
        for name, row in self.databases.items():
            if name in read.unreadable:
                databases[name] = row
        paused: set[str] = set()
        for row in read.databases:
            if row.status is DatabaseStatus.ACTIVE:
                databases[row.name] = row
            else:
                paused.add(row.name)
        self.databases = databases
        self.paused = paused
        self.unreadable = read.unreadable
        self.known = True

    def zones(self) -> dict[str, str]:
        """Return the zone each database is wanted in."""
        return {name: row.zone for name, row in self.databases.items()}

    def policy(self, database: str) -> Policy:
        """Return a database's policy, the default where it is not known."""
        row = self.databases.get(database)
        return row.policy if row else Policy()

    def unpublished(self) -> list[Database]:
        """Return the databases whose newest target does not stand in Redis."""
        rows: list[Database] = []
        for name, row in self.databases.items():
            if self._published.get(name) != row.revision:
                rows.append(row)
        return rows

    def note_published(self, rows: list[Database]) -> None:
        """Note that these targets stand in Redis."""
        for row in rows:
            self._published[row.name] = row.revision

    def note_withdrawn(self, database: str) -> None:
        """Note that a database's target went."""
        self._published.pop(database, None)

    def publish_all_again(self) -> None:
        """Note that Redis may have lost the targets, or dropped them."""
        self._published.clear()
