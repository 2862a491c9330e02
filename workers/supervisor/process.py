"""The supervisor process: one of them leads, all of them drain the journal. `python -m
workers.supervisor.process`.
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
from monitor.registry.store import Store, open_store
from workers.nudges import Nudger
from workers.process import keep, start
from workers.supervisor.historian import Historian, Pruner, Sampler
from workers.supervisor.leader import Leader
from workers.supervisor.placements import Deposed
from workers.supervisor.recovery import mark

log = logging.getLogger("feeler.supervisor")

SAMPLE_EVERY = 60.0
TRIM_EVERY = 60.0


class Supervisor:
    """One life of a supervisor: leads when it can, writes history always."""

    def __init__(self, settings: Settings, live: Live, store: Store) -> None:
        self._settings, self._live, self._store = settings, live, store
        self._id = str(uuid.uuid4())
        self._nudger = Nudger(connections.rq_connection(settings.redis_url))
        self._historian = Historian(live, store, self._id, settings.history_days)
        self._sampler, self._pruner = (
            Sampler(live, store),
            Pruner(live, store, settings.history_days),
        )
        self._leader: Leader | None = None
        self._before: Leader | None = None  # who led here last
        self._renewed = 0.0
        self._waiting_since: float | None = (
            None  # for memories, in a closed generation, while another leads
        )
        self._foreign_until = self._resting_until = 0.0
        self._stop = asyncio.Event()
        self._sweep_now = asyncio.Event()

    async def run(self) -> None:
        """Supervise until told to stop, then give up the lead."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        log.info("action=supervisor_started supervisor=%s pid=%d", self._id, os.getpid())
        parts = [
            asyncio.create_task(part)
            for part in (
                keep(self._hold, every=SWEEP_EVERY),
                keep(self._sweep, every=SWEEP_EVERY, wake=self._sweep_now),
                keep(self._listen, every=0),
                keep(self._historian.drain, every=0),
                keep(self._sample, every=SAMPLE_EVERY),
                keep(self._trim, every=TRIM_EVERY),
                keep(self._prune, every=TRIM_EVERY),
            )
        ]
        await self._stop.wait()
        for part in parts:
            part.cancel()
        await asyncio.gather(
            *parts, return_exceptions=True
        )  # nothing of ours may come after our last word
        await self._give_up()

    async def _hold(self) -> None:
        """Take the lead or keep it. A Postgres that is away deposes nobody; a higher term in Redis
        does.

        Without Redis nobody can lead: who cannot write there takes no lead. A leader that has
        completed no sweep for a lease's length gives its lease up, whatever the reason, so that
        another may do better, if one can.
        """
        now = asyncio.get_running_loop().time()
        if (leader := self._leader) is None:
            if now >= self._resting_until:
                await self._take_lead(await generation.standing(self._live))
        elif leader.unswept >= self._settings.lease:
            await self._make_way(leader)
        elif now - self._renewed >= LEASE_RENEW_EVERY:
            if await asyncio.to_thread(
                leadership.renew, self._store, leader.lease, self._settings.lease
            ):
                self._renewed = now
            else:
                self._step_down(leader)

    async def _take_lead(self, standing: Standing) -> None:
        """Try to, unless Redis refuses to write: then we would do no better than who led before.

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
            log.info("action=leading supervisor=%s term=%d", self._id, lease.term)
            self._renewed = asyncio.get_running_loop().time()
            since = self._waiting_since
            self._leader = Leader(
                self._live, self._store, lease, self._nudger, self._settings.lease, since
            )
            self._leader.wake = self._sweep_now
            if self._before:
                self._leader.inherit(self._before)
            self._sweep_now.set()
        else:
            await self._wait_ahead()

    async def _wait_ahead(self) -> None:
        """Begin as a standby to wait for the workers' memories, so that it ends sooner with the
        lease.
        """
        if (await generation.generation(self._live)).open:
            self._waiting_since = None
        elif self._waiting_since is None or mark(self._id) not in await generation.reported(
            self._live
        ):
            now = time.monotonic()
            done = await generation.restore(self._live, mark(self._id), [], 0, "")
            self._waiting_since = now if done else None

    async def _sweep(self) -> None:
        if leader := self._leader:
            try:
                await leader.sweep()
            except Deposed:
                self._step_down(leader)

    async def _listen(self) -> None:
        if self._leader is None:
            await asyncio.sleep(SWEEP_EVERY)
        else:
            await self._leader.listen()

    async def _trim(self) -> None:
        """Shorten the journal, whoever leads: where Redis is full nobody does, and only this gives
        room again.
        """
        await self._historian.trim()

    async def _sample(self) -> None:
        if self._leader:
            await self._sampler.sample()

    async def _prune(self) -> None:
        if self._leader:
            await self._pruner.prune()

    def _step_down(self, leader: Leader) -> None:
        log.warning("action=stepped_down supervisor=%s term=%d", self._id, leader.lease.term)
        if self._leader is leader:
            self._leader, self._before = None, leader

    async def _make_way(self, leader: Leader) -> None:
        """Let another lead; while Postgres cannot give it the lease we stay, since nobody could."""
        log.error("action=no_sweep term=%d seconds=%.1f", leader.lease.term, leader.unswept)
        await asyncio.to_thread(leadership.release, self._store, leader.lease)
        self._step_down(leader)
        self._resting_until = asyncio.get_running_loop().time() + LEAD_REST

    async def _give_up(self) -> None:
        if leader := self._leader:
            with suppress(StoreUnavailable):
                await leader.rest()
            try:
                await asyncio.to_thread(leadership.release, self._store, leader.lease)
            except StoreUnavailable:
                log.warning("action=lease_not_released term=%d", leader.lease.term)


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
