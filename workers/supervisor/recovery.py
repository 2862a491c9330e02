"""A new life of Redis for the leader: wait for memories, issue fresh epochs, open last. For
leader.py alone.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping

from monitor.core import assignment as planner
from monitor.core.errors import StoreUnavailable
from monitor.core.timing import RESTORE_GRACE
from monitor.live import assignments, connections, generation, observations, presence
from monitor.live.connections import Live
from monitor.live.generation import Restored
from monitor.live.presence import Presence
from monitor.registry import leadership
from monitor.registry.store import Store
from workers.supervisor.placements import Deposed, Placements

log = logging.getLogger("feeler.leader")

MARK = "supervisor:"


def mark(supervisor: str) -> str:
    """Return the name of the report that says where a supervisor's wait began."""
    return f"{MARK}{supervisor}"


class Recovery:
    """Follows one closed generation after another."""

    def __init__(
        self,
        live: Live,
        store: Store,
        placements: Placements,
        lease_seconds: float,
        since: float | None = None,
    ) -> None:
        self._live, self._store, self._placements, self._lease_seconds = (
            live,
            store,
            placements,
            lease_seconds,
        )
        self._since = since  # when we began to wait, as a standby maybe

    def over(self) -> None:
        """Note that the generation is open."""
        self._since = None

    async def ready(self, members: Collection[str], term_seen: int) -> set[str] | None:
        """Return the reports to rely on once everybody has restored; the first call begins the
        wait.
        """
        lease = self._placements.lease
        if self._since is None:
            self._since = time.monotonic()
            log.warning("action=generation_closed term_seen=%d members=%d", term_seen, len(members))
            await generation.restore(self._live, mark(lease.owner), [], lease.term, lease.registry)
        reports = await generation.reported(self._live)
        if mark(lease.owner) not in reports:
            self._since = None  # memory was lost again
            return None
        return reports if await self._everybody(members, reports) else None

    async def _everybody(self, members: Collection[str], reports: set[str]) -> bool:
        """Wait for every worker known before; for nobody where nothing can have been accepted yet;
        not for ever.
        """
        assert self._since is not None
        if time.monotonic() - self._since >= RESTORE_GRACE:
            return await self._confirmed(everybody=False)
        known = set(members) | await presence.known(self._live)
        first = self._placements.lease.term == 1  # nothing can have been accepted before
        # Without such a word there may be workers that an older memory of Redis does not know of.
        complete = (
            bool(members)
            or first
            or await generation.is_complete(self._live, self._placements.lease.before)
        )
        return complete and known <= reports and await self._confirmed(everybody=True)

    async def _confirmed(self, *, everybody: bool) -> bool:
        """Tell whether Postgres still knows us as the leader: a Redis that forgot all terms cannot
        say it.

        While Postgres is away only the memory of everybody will do instead.
        """
        try:
            if await asyncio.to_thread(
                leadership.renew, self._store, self._placements.lease, self._lease_seconds
            ):
                return True
        except StoreUnavailable as exc:
            log.warning("action=lease_unconfirmed error=%s", exc.detail)
            return everybody
        raise Deposed

    async def reopen(
        self, zones: Mapping[str, str], present: Mapping[str, Presence], reports: set[str]
    ) -> bool:
        """Merge the history below what was restored, give every database a fresh epoch, open the
        generation.
        """
        lease, databases = self._placements.lease, sorted(zones)
        seeds = await self._placements.seeds(databases)
        rows = [Restored(name, status, None, "") for name, status in seeds.items()]
        await generation.restore(self._live, mark(lease.owner), rows, lease.term, lease.registry)
        self._placements.places = await assignments.places(self._live, databases)
        now = await connections.now(self._live)
        here = {who for who in reports if not who.startswith(MARK)}  # announced again or not
        reporters = {who: planner.Worker(who) for who in here}
        workers = {
            one.worker: planner.Worker(one.worker, one.zone, one.capacity)
            for one in present.values()
        }
        owners = self._owners(zones, reporters | workers, now)
        for database, owner in owners.items():
            await self._placements.assign(database, owner, planned=False, now=now)
        for database in set(await observations.names(self._live)) - owners.keys():
            await assignments.unassign(
                self._live, database, lease.term, lease.registry
            )  # no old epoch may count again
        opened = await generation.open_generation(
            self._live, self._placements.epoch(), reports, lease.registry
        )
        self._since = None
        if opened:
            log.info("action=generation_opened name=%s databases=%d", opened, len(databases))
        return bool(opened)

    def _owners(
        self, zones: Mapping[str, str], here: Mapping[str, planner.Worker], now: float
    ) -> dict[str, str]:
        """Leave each database with the live claimant of its highest epoch; plan the rest."""
        places = self._placements.places
        owners = {name: place.claimant for name, place in places.items() if place.claimant in here}
        if here:
            rest = {name: zone for name, zone in zones.items() if name not in owners}
            owners |= {
                move.database: move.target
                for move in planner.plan(rest, here.values(), {}, (), now)
            }
        return owners
