"""A generation that is closed, until the leader has opened another: wait, confirm, merge, assign,
open. For the leader, and for a standby that waits ahead.

Redis lost its memory or came back with an older one. Until the new generation is open nothing is
recorded; workers feel on and report what they were last told to be accepted. Every step of the way
may be interrupted: by Redis, which may forget again, and by another leader. Then nothing is opened,
and the next sweep begins where it must.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from monitor.core import assignment as planner
from monitor.core.assignment import Worker
from monitor.core.errors import StoreUnavailable
from monitor.core.timing import RESTORE_GRACE
from monitor.live import connections, generation, observations, presence
from monitor.live.connections import Live
from monitor.live.generation import Restored
from monitor.live.presence import Presence
from monitor.registry import leadership
from monitor.registry.store import Store
from workers.supervisor import roster
from workers.supervisor.placements import Deposed, Placements

log = logging.getLogger("feeler.leader")

_MARK = "supervisor:"


def mark(supervisor: str) -> str:
    """Return the name of the report that says where a supervisor's wait began.

    It stands among the workers' reports and goes with Redis's memory: while it is there, nothing
    that was reported since has been lost.
    """
    return f"{_MARK}{supervisor}"


async def wait_ahead(live: Live, supervisor: str, since: float | None) -> float | None:
    """Begin the wait as a standby, so that it is over sooner once the lease is ours.

    Return since when (monotonic) we wait, None where there is nothing to wait for.
    """
    if (await generation.generation(live)).open:
        return None
    our_mark = mark(supervisor)
    if since is not None and our_mark in await generation.reported(live):
        return since
    now = time.monotonic()
    if await generation.restore(live, our_mark, rows=[], term=0, signature=""):
        return now
    return None


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
        self._live, self._store = live, store
        self._placements = placements
        self._lease_seconds = lease_seconds
        self._mark = mark(placements.lease.owner)
        self._since = since  # when the wait began (monotonic), as a standby maybe

    def generation_is_open(self) -> None:
        """Note that there is nothing to recover: the next closed generation is a new one."""
        self._since = None

    # --- wait and confirm -------------------------------------------------------------------------

    async def reports(self, met: Collection[str], term_seen: int) -> set[str] | None:
        """Return whose reports to rely on, once the wait is over and the lease is confirmed.

        Until then None, and a sweep asks again; the first time begins the wait. `met` are the
        workers this leader has seen itself.
        """
        if self._since is None:
            self._since = await self._begin_wait(met, term_seen)
        reports = await generation.reported(self._live)
        if self._mark not in reports:
            self._since = None  # Redis forgot once more, and reports with it: wait anew
            return None
        everybody = await self._has_everybody(reports, met)
        waited = time.monotonic() - self._since
        if not everybody and waited < RESTORE_GRACE:
            return None
        return reports if await self._confirm_lease(everybody=everybody) else None

    async def _begin_wait(self, met: Collection[str], term_seen: int) -> float:
        """Leave our mark; return since when we wait."""
        log.warning("action=generation_closed term_seen=%d workers=%d", term_seen, len(met))
        now = time.monotonic()
        await self._report([])
        return now

    async def _has_everybody(self, reports: Collection[str], met: Collection[str]) -> bool:
        """Tell whether every worker has reported that can have had anything accepted.

        A Redis that came back with an older memory knows an older set of workers. We know all of
        them if we met them ourselves, if nobody ever led before, or if the leader just before us
        marked this very memory as complete.
        """
        known = await presence.known(self._live)
        if not known.union(met).issubset(reports):
            return False
        lease = self._placements.lease
        if met or lease.term == 1:
            return True
        return await generation.is_complete(self._live, lease.before)

    async def _confirm_lease(self, *, everybody: bool) -> bool:
        """Tell whether Postgres still knows us as the leader: a Redis that forgot all terms can't.

        A leader that was frozen while its lease ran out would open beside its successor. While
        Postgres is away everybody's reports will do instead: a successor's term is among them, and
        refuses ours.
        """
        lease = self._placements.lease
        try:
            held = await asyncio.to_thread(
                leadership.renew, self._store, lease, self._lease_seconds
            )
        except StoreUnavailable as exc:
            log.warning("action=lease_unconfirmed error=%s", exc.detail)
            return everybody
        if not held:
            raise Deposed
        return True

    # --- merge, assign and open -------------------------------------------------------------------

    async def reopen(
        self,
        zones: Mapping[str, str],
        present: Mapping[str, Presence],
        reports: Collection[str],
    ) -> bool:
        """Merge, assign and open; False where the generation could not be opened: then wait anew.

        `zones` names every database to watch, with the zone it is wanted in.
        """
        await self._merge_history(zones)
        await self._placements.read(zones)
        now = await connections.now(self._live)
        owners = self._owners(zones, present, reports, now)
        for database, owner in owners.items():
            await self._placements.assign(database, owner, planned=False, now=now)
        await self._unassign_all_but(owners)
        opened = await self._open(reports)
        self._since = None
        if opened:
            log.info("action=generation_opened name=%s databases=%d", opened, len(zones))
        return bool(opened)

    async def _merge_history(self, databases: Collection[str]) -> None:
        """Put what Postgres knows below what was reported: it counts where nobody knew more."""
        rows: list[Restored] = []
        seeds = await self._placements.seeds(sorted(databases))
        for name, status in seeds.items():
            rows.append(Restored(name, status, epoch=None, owner=""))
        await self._report(rows)

    async def _report(self, rows: Sequence[Restored]) -> None:
        """Report as one who never held a database itself; without rows it is our mark alone."""
        lease = self._placements.lease
        await generation.restore(self._live, self._mark, rows, lease.term, lease.registry)

    def _owners(
        self,
        zones: Mapping[str, str],
        present: Mapping[str, Presence],
        reports: Collection[str],
        now: float,
    ) -> dict[str, str]:
        """Leave each database with the claimant of its highest epoch if it lives; plan the rest."""
        # Who reported lives, announced again or not; a supervisor's mark is no worker.
        reporters = [who for who in reports if not who.startswith(_MARK)]
        here = {worker: Worker(worker) for worker in reporters}
        here |= roster.workers(present.values())
        owners: dict[str, str] = {}
        for name, place in self._placements.places.items():
            if place.claimant in here:
                owners[name] = place.claimant
        unclaimed = {name: zone for name, zone in zones.items() if name not in owners}
        moves = planner.plan(unclaimed, here.values(), current={}, refusals=(), now=now)
        for move in moves:
            owners[move.database] = move.target
        return owners

    async def _unassign_all_but(self, owners: Collection[str]) -> None:
        """Take the rest from whoever had it: under no old epoch may anything be accepted again."""
        known = await observations.names(self._live)
        for database in set(known) - set(owners):
            await self._placements.unassign(database)

    async def _open(self, reports: Collection[str]) -> str | None:
        """Open last: from here on workers record, each under the epoch it was just given.

        Refused where a report that we rely on, or our mark, is gone: Redis forgot on the way.
        """
        epoch = self._placements.epoch()
        registry = self._placements.lease.registry
        return await generation.open_generation(self._live, epoch, reports, registry)
