"""The supervisor process: one of them leads, all of them drain the journal.

Run as `python -m workers.supervisor.process`; everything a supervisor consists of is made here.
"""

import asyncio
import logging
import os
import signal
import time
import uuid
from contextlib import suppress

import uvloop

from monitor.config import Settings
from monitor.core.errors import ForeignRedis, StoreUnavailable
from monitor.core.timing import FOREIGN_REGISTRY, LEAD_REST, LEASE_RENEW_EVERY, SWEEP_EVERY
from monitor.live import connections, generation
from monitor.live.connections import Live
from monitor.live.generation import Standing
from monitor.registry import leadership
from monitor.registry.leadership import Lease
from monitor.registry.store import Store, open_store
from workers.nudges import Nudger
from workers.process import end, keep, start
from workers.supervisor import recovery
from workers.supervisor.historian import Historian
from workers.supervisor.leader import Leader
from workers.supervisor.placements import Deposed
from workers.supervisor.sampler import Pruner, Sampler

log = logging.getLogger("feeler.supervisor")

SAMPLE_EVERY = 60.0  # seconds
TRIM_EVERY = 60.0  # seconds


class Supervisor:
    """One life of a supervisor: leads when it can, writes history always."""

    def __init__(self, settings: Settings, live: Live, store: Store) -> None:
        days = settings.history_days
        self._settings, self._live, self._store = settings, live, store
        self._id = str(uuid.uuid4())
        self._nudger = Nudger(connections.rq_connection(settings.redis_url))
        self._historian = Historian(live, store, self._id, days)
        self._sampler = Sampler(live, store)
        self._pruner = Pruner(live, store, days)
        self._leader: Leader | None = None
        self._previous: Leader | None = None  # our last term before this one
        self._renewed_at = 0.0  # monotonic seconds, as all that follow
        # Since when we wait, as a standby, for the workers' reports in a closed generation.
        self._waiting_since: float | None = None
        self._foreign_until = self._resting_until = 0.0
        self._stop = asyncio.Event()
        self._sweep_now = asyncio.Event()

    async def run(self) -> None:
        """Supervise until told to stop, then give up the lead."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        log.info("action=supervisor_started supervisor=%s pid=%d", self._id, os.getpid())
        steps = (
            keep(self._hold_lead, every=SWEEP_EVERY),
            keep(self._sweep, every=SWEEP_EVERY, wake=self._sweep_now),
            keep(self._listen, every=0),
            keep(self._historian.drain, every=0),
            keep(self._sample, every=SAMPLE_EVERY),
            keep(self._trim, every=TRIM_EVERY),
            keep(self._prune, every=TRIM_EVERY),
        )
        tasks = [asyncio.create_task(step) for step in steps]
        await self._stop.wait()
        # Nothing of ours may come after the mark by which the next leader knows all workers.
        await end(tasks)
        await self._give_up()

    # --- taking and keeping the lead --------------------------------------------------------------

    async def _hold_lead(self) -> None:
        """Take the lead or keep it. A Postgres that is away deposes nobody; a higher term does.

        A leader that has completed no sweep for a lease's length gives its lease up, whatever the
        reason (a cut line, a bug, a value it cannot read): another may do better.
        """
        now = time.monotonic()
        leader = self._leader
        if leader is None:
            if now >= self._resting_until:
                await self._take_lead(await generation.standing(self._live))
        elif leader.stuck_for >= self._settings.lease:
            await self._make_way(leader)
        elif now - self._renewed_at >= LEASE_RENEW_EVERY:
            await self._renew(leader, now)

    async def _renew(self, leader: Leader, now: float) -> None:
        seconds = self._settings.lease
        if await asyncio.to_thread(leadership.renew, self._store, leader.lease, seconds):
            self._renewed_at = now
        else:
            self._step_down(leader)

    async def _take_lead(self, standing: Standing) -> None:
        """Take the lease if it is free; without Redis, or where it refuses writes, nobody can lead.

        Where another registry's name stood lately its workers may be about to restore it: then
        wait.
        """
        signed = {one.registry for one in standing.signatures}
        if signed == {""} and time.monotonic() < self._foreign_until:
            return
        await connections.check_writes(self._live)
        try:
            lease = await asyncio.to_thread(
                leadership.acquire,
                self._store,
                self._id,
                self._settings.lease,
                seen=standing.term,
                signed=signed,
            )
        except ForeignRedis:
            self._foreign_until = time.monotonic() + FOREIGN_REGISTRY
            raise
        if lease:
            self._lead(lease)
        else:
            since = self._waiting_since
            self._waiting_since = await recovery.wait_ahead(self._live, self._id, since)

    def _lead(self, lease: Lease) -> None:
        log.info("action=leading supervisor=%s term=%d", self._id, lease.term)
        self._renewed_at = time.monotonic()
        leader = Leader(
            self._live,
            self._store,
            lease,
            self._nudger,
            self._sweep_now,
            lease_seconds=self._settings.lease,
            waiting_since=self._waiting_since,
        )
        if self._previous:
            leader.continue_from(self._previous)
        self._leader = leader
        self._sweep_now.set()

    # --- losing it --------------------------------------------------------------------------------

    def _step_down(self, leader: Leader) -> None:
        log.warning("action=stepped_down supervisor=%s term=%d", self._id, leader.lease.term)
        if self._leader is leader:  # another step may have noticed first, and we may lead anew
            self._leader, self._previous = None, leader

    async def _make_way(self, leader: Leader) -> None:
        """Let another lead; while Postgres cannot give it the lease we stay, since nobody could."""
        log.error("action=no_sweep term=%d seconds=%.1f", leader.lease.term, leader.stuck_for)
        await asyncio.to_thread(leadership.release, self._store, leader.lease)
        self._step_down(leader)
        self._resting_until = time.monotonic() + LEAD_REST

    async def _give_up(self) -> None:
        """Hand the lead over at the end, so that nobody waits for a lease to run out."""
        leader = self._leader
        if leader is None:
            return
        with suppress(StoreUnavailable):
            await leader.sign_off()
        try:
            await asyncio.to_thread(leadership.release, self._store, leader.lease)
        except StoreUnavailable:
            log.warning("action=lease_not_released term=%d", leader.lease.term)

    # --- what goes on meanwhile -------------------------------------------------------------------

    async def _sweep(self) -> None:
        if leader := self._leader:
            try:
                await leader.sweep()
            except Deposed:
                self._step_down(leader)

    async def _listen(self) -> None:
        if self._leader:
            await self._leader.listen()
        else:
            await asyncio.sleep(SWEEP_EVERY)

    async def _trim(self) -> None:
        """Shorten the journal, whoever leads.

        Where Redis is full nobody does, and only this gives room again.
        """
        await self._historian.trim()

    async def _sample(self) -> None:
        if self._leader:
            await self._sampler.sample()

    async def _prune(self) -> None:
        if self._leader:
            await self._pruner.prune()


async def main(settings: Settings) -> None:
    """Run one supervisor."""
    live = connections.connect(settings.redis_url, settings.cache_url)
    store = open_store(settings.database_url)
    try:
        await Supervisor(settings, live, store).run()
    finally:
        await connections.close(live)


if __name__ == "__main__":
    uvloop.run(main(start()))
    os._exit(0)  # threads may be blocked in a store that is away: never wait for them
