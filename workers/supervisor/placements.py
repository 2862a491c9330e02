"""The leader's pen: every assignment of one term goes through it, under an epoch of its own. For
the leader alone.
"""

import asyncio
import logging
import time
from dataclasses import replace

from monitor.core.assignment import Assignment
from monitor.core.errors import StoreUnavailable
from monitor.core.placement import Assigned, Place
from monitor.core.status import Epoch, Identity, Status
from monitor.live import assignments
from monitor.live.connections import Live
from monitor.registry.leadership import Lease
from monitor.registry.store import Store
from monitor.registry.transitions import last_status

log = logging.getLogger("feeler.leader")


class Deposed(Exception):
    """Somebody leads with a higher term, or for another registry."""


class Placements:
    """Assigns, and remembers where every database is."""

    def __init__(self, live: Live, store: Store, lease: Lease) -> None:
        self._live, self._store = live, store
        self._counter = 0
        self.lease = lease
        self.worked_at = 0.0  # monotonic seconds: a sweep that takes long gets on
        self.places: dict[str, Place] = {}

    def epoch(self) -> Epoch:
        """Return a fresh epoch of this term."""
        self._counter += 1
        return Epoch(self.lease.term, self._counter)

    async def assign(
        self,
        database: str,
        owner: str,
        *,
        planned: bool,
        now: float,
        doubt: Identity | None = None,
        seed: Status | None = None,
    ) -> bool:
        """Give a database to a worker; False where the step does not allow it yet."""
        epoch = self.epoch()
        result = await assignments.assign(
            self._live, Assignment(database, owner, epoch), planned=planned, now=now, registry=self.lease.registry,
            doubt=doubt, seed=seed,
        )  # fmt: skip
        if result in (Assigned.STALE, Assigned.FOREIGN):
            raise Deposed
        self.worked_at = time.monotonic()
        if result is not Assigned.ASSIGNED:
            return False
        place = self.places.get(database) or Place(database)
        if doubt:
            place = replace(place, moved_for=doubt, moves=(*place.moves, now)[-3:])
        self.places[database] = replace(
            place, owner=owner, epoch=epoch, proven=False, seeded=place.seeded or seed is not None
        )
        return True

    def is_seeded(self, database: str) -> bool:
        """Tell whether Redis holds a Status of it."""
        place = self.places.get(database)
        return place is not None and place.seeded

    async def seeds(self, databases: list[str]) -> dict[str, Status]:
        """Return the last durable Status of each, `new` where there never was one; nothing while
        Postgres is away, or where a newer version wrote it."""
        if not databases:
            return {}
        try:
            known = await asyncio.to_thread(last_status, self._store, databases)
        except StoreUnavailable as exc:
            log.warning("action=seeds_unread databases=%d error=%s", len(databases), exc.detail)
            return {}
        found = {name: known.get(name, Status()) for name in databases}
        return {name: status for name, status in found.items() if status}
