"""Where every database is, and the only way to change it: fenced by one term, each under an epoch
of its own. For the leader and its recovery alone.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from monitor.core.assignment import Assignment
from monitor.core.errors import StoreUnavailable
from monitor.core.event import Transition
from monitor.core.placement import Assigned, Place
from monitor.core.status import Epoch, Identity, Status
from monitor.live import assignments, targets
from monitor.live.connections import Live
from monitor.live.targets import Target
from monitor.registry.fleet import Database
from monitor.registry.leadership import Lease
from monitor.registry.store import Store
from monitor.registry.transitions import last_status

log = logging.getLogger("feeler.leader")

CHUNK = 200  # commands in flight at once
_MOVES_KEPT = 3  # moments of moves, as `assign` keeps them in Redis


class Deposed(Exception):
    """Somebody leads with a higher term, or for another registry."""


class Placements:
    """The places as last read or written; a write that is refused for ever raises Deposed."""

    def __init__(self, live: Live, store: Store, lease: Lease) -> None:
        self._live, self._store = live, store
        self._counter = 0
        self.lease = lease
        self.progress_at = 0.0  # monotonic seconds: a sweep that takes long gets on
        self.places: dict[str, Place] = {}

    def owner(self, database: str) -> str:
        """Return a database's owner, '' where it has none."""
        place = self.places.get(database)
        return place.owner if place else ""

    def owners(self) -> set[str]:
        """Return everybody who owns anything."""
        return {place.owner for place in self.places.values() if place.owner}

    def epoch(self) -> Epoch:
        """Return a fresh epoch of this term."""
        self._counter += 1
        return Epoch(self.lease.term, self._counter)

    # --- reading ----------------------------------------------------------------------------------

    async def read(self, databases: Iterable[str], paused: Collection[str] = frozenset()) -> None:
        """Read these places anew; know no others, and of paused ones those with an owner alone."""
        places = await assignments.places(self._live, sorted(databases))
        for name in paused:
            if name in places and not places[name].owner:
                del places[name]
        self.places = places

    async def reread(self, databases: Sequence[str]) -> list[Place]:
        """Read some of the places again."""
        fresh = await assignments.places(self._live, databases)
        self.places.update(fresh)
        return list(fresh.values())

    def note(self, transition: Transition) -> bool:
        """Take up the state a database is said to have reached; False for old news."""
        place = self.places.get(transition.database)
        if place is None:
            return False
        if place.identity and transition.identity <= place.identity:
            return False
        self.places[transition.database] = replace(
            place,
            state=transition.target,
            identity=transition.identity,
        )
        return True

    # --- writing ----------------------------------------------------------------------------------

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
            self._live,
            Assignment(database, owner, epoch),
            planned=planned,
            now=now,
            registry=self.lease.registry,
            doubt=doubt,
            seed=seed,
        )
        if result in (Assigned.STALE, Assigned.FOREIGN):
            raise Deposed
        self.progress_at = time.monotonic()
        if result is not Assigned.ASSIGNED:
            return False
        place = self.places.get(database) or Place(database)
        if doubt:
            moves = (*place.moves, now)[-_MOVES_KEPT:]
            place = replace(place, moved_for=doubt, moves=moves)
        self.places[database] = replace(
            place,
            owner=owner,
            epoch=epoch,
            proven=False,
            seeded=place.seeded or seed is not None,
        )
        return True

    async def unassign(self, database: str) -> None:
        """Take a database from its owner; its last observation stays."""
        lease = self.lease
        if not await assignments.unassign(self._live, database, lease.term, lease.registry):
            raise Deposed
        self._took_away(database)

    async def forget(self, database: str) -> None:
        """Remove all Redis knows of a database."""
        lease = self.lease
        if not await assignments.forget(self._live, database, lease.term, lease.registry):
            raise Deposed
        self._took_away(database)

    def _took_away(self, database: str) -> None:
        self.places.pop(database, None)
        self.progress_at = time.monotonic()

    async def seeds(self, databases: Iterable[str]) -> dict[str, Status]:
        """Return the last durable Status of each, `new` where there never was one.

        Nothing while Postgres is away, and of none that a newer version wrote: their owners feel
        and wait.
        """
        wanted = list(databases)
        if not wanted:
            return {}
        try:
            known = await asyncio.to_thread(last_status, self._store, wanted)
        except StoreUnavailable as exc:
            log.warning("action=seeds_unread databases=%d error=%s", len(wanted), exc.detail)
            return {}
        found = {name: known.get(name, Status()) for name in wanted}
        return {name: status for name, status in found.items() if status}

    async def seeds_of_unseeded(self, databases: Iterable[str]) -> dict[str, Status]:
        """Return the seeds of those of these databases whose Status Redis does not hold."""
        return await self.seeds(name for name in databases if not self._is_seeded(name))

    async def seed_waiting(self, fleet: Collection[str], now: float) -> None:
        """Give some owners that feel and wait the Status that Postgres could not tell before."""
        waiting: list[str] = []
        for name, place in self.places.items():
            if place.owner and not place.seeded and name in fleet:
                waiting.append(name)
        seeds = await self.seeds(waiting[:CHUNK])
        for name, seed in seeds.items():
            await self.assign(name, self.owner(name), planned=False, seed=seed, now=now)

    def _is_seeded(self, database: str) -> bool:
        place = self.places.get(database)
        return place is not None and place.seeded

    async def publish(self, rows: Collection[Database]) -> None:
        """Put target addresses (ciphertext) where workers find them."""
        lease = self.lease
        writes = [
            targets.publish(self._live, row.name, _target(row), lease.term, lease.registry)
            for row in rows
        ]
        await asyncio.gather(*writes)
        self.progress_at = time.monotonic()


def _target(row: Database) -> Target:
    return Target(
        ciphertext=row.ciphertext,
        policy=row.policy,
        labels=row.labels,
        revision=row.revision,
    )
