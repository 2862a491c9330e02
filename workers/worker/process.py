"""The worker process: puts its parts together, announces itself, leaves in order.

Run as `python -m workers.worker.process`: the patrol in the main thread, RQ's nudges in another.
"""

import asyncio
import logging
import os
import re
import resource
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator

import uvloop

from monitor.config import Settings
from monitor.core.errors import StoreUnavailable
from monitor.core.timing import ANNOUNCE_EVERY, HANDOVER, LAST_WORDS, RECONCILE_EVERY
from monitor.feeler.login import LoginLimiter, strip_pg_environment
from monitor.live import connections, presence
from monitor.live.connections import Live
from monitor.live.presence import Alive, Presence
from monitor.secrets import SecretBox, load_keys
from workers import nudges
from workers.process import RETRY_AFTER, end, keep, start
from workers.worker import jobs
from workers.worker.clock import FleetClock
from workers.worker.observing import Observer
from workers.worker.patrol import Patrol
from workers.worker.peers import Peers
from workers.worker.recorder import Recorder
from workers.worker.watches import Watches

log = logging.getLogger("feeler.worker")

UNLIMITED_FILES = 1_000_000  # open files, where there is no limit
OTHER_FILES = 200  # open files for everything but sessions
FILES_EACH = 2  # a kept connection and a fresh login
LOOK_EVERY = 0.2  # seconds between two looks whether we may leave


def new_id() -> str:
    """Return a worker id, new in every incarnation: a short host name and ten hex digits.

    Longer ones would not fit beside what a witness says in a value of 64 bytes.
    """
    host = re.sub(r"[^a-z0-9]", "", socket.gethostname().lower())[:8] or "worker"
    return f"{host}-{secrets.token_hex(5)}"


async def claim_id(live: Live) -> str:
    """Draw ids until one is free, and hold it: nobody lives by it, and none that died is known."""
    while True:
        try:
            drawn = new_id()
            if drawn not in await presence.known(live) and await presence.claim(live, drawn):
                return drawn
            log.warning("action=id_taken worker=%s", drawn)
        except StoreUnavailable as exc:
            log.warning("action=id_unclaimed error=%s", exc.detail)
            await asyncio.sleep(RETRY_AFTER)


def descriptors() -> int:
    """Raise this process's limit of open files as far as it may; return those left for sessions."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = UNLIMITED_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - OTHER_FILES


class Worker:
    """One incarnation of a worker."""

    def __init__(self, worker: str, settings: Settings, live: Live, box: SecretBox) -> None:
        self.id = worker
        self._settings, self._live = settings, live
        self._capacity = min(settings.capacity, descriptors() // FILES_EACH)
        self.peers, self._clock = Peers(), FleetClock()
        self._look = asyncio.Event()  # set to read the assignments now
        self._recorder = Recorder(live, worker, self._look.set)
        logins = LoginLimiter(workers=lambda: self.peers.eligible, ca_dir=settings.ca_dir)
        watches = Watches(worker, box, self._clock, logins, self._capacity)
        observer = Observer(
            self._clock, self._recorder.pulse, self.peers, owned=lambda: len(watches)
        )
        self._patrol = Patrol(
            live,
            worker,
            watches,
            observer,
            self._recorder,
            self._clock,
            self.peers,
            self._look,
        )
        self._alive = Alive()
        self._leaving = False
        self._started_at = 0.0
        self._stop = asyncio.Event()

    async def run(self) -> bool:
        """Work until told to stop, then hand over; False when another process goes by our id."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._take_nudges(loop)
        log.info("action=worker_started worker=%s pid=%d", self.id, os.getpid())
        parts = list(self._start_parts())
        stopping = asyncio.create_task(self._stop.wait())
        twin_met = asyncio.create_task(self._recorder.twin.wait())
        waited_for = [*parts, stopping, twin_met]
        done, _ = await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        handed_over = stopping in done and await self._hand_over()
        await end(parts, within=LAST_WORDS)
        if self._recorder.twin.is_set():
            await self._drain()
        else:
            await self._leave(forget=handed_over)
        await self._patrol.close()
        for part in done - {stopping, twin_met}:
            part.result()  # a part that ended by itself is a bug: let it be seen
        return not self._recorder.twin.is_set()

    def _start_parts(self) -> Iterator["asyncio.Task[object]"]:
        recorder, patrol = self._recorder, self._patrol
        for part in (
            patrol.run(),
            recorder.run(),
            recorder.pulse.run(),
            keep(self._announce, every=ANNOUNCE_EVERY),
            keep(self._follow, every=ANNOUNCE_EVERY),
            keep(patrol.reconcile, every=RECONCILE_EVERY, wake=self._look),
            keep(recorder.forget_durable, every=RECONCILE_EVERY),
        ):
            yield asyncio.create_task(part)

    def _take_nudges(self, loop: asyncio.AbstractEventLoop) -> None:
        def nudge(kind: str, databases: tuple[str, ...]) -> None:
            loop.call_soon_threadsafe(self._patrol.nudge, kind, databases)

        jobs.host(nudge)
        arguments = connections.rq_connection(self._settings.redis_url), self.id
        listening = threading.Thread(
            target=nudges.listen, args=arguments, name="nudges", daemon=True
        )
        listening.start()

    # --- who is here ------------------------------------------------------------------------------

    async def _announce(self) -> None:
        """Say that we are here, and see who else is."""
        asked = time.monotonic()
        try:
            if not await presence.claim(self._live, self.id):
                self._recorder.give_up_id()
                return
            now = await connections.now(self._live)
            self._clock.anchor(now, time.monotonic() - asked)
            self._started_at = self._started_at or self._clock.now()
            await presence.announce(self._live, self._presence())
            present = self._alive.among(await presence.present(self._live), time.monotonic())
            self._meet(present, led=await presence.is_led(self._live))
        except StoreUnavailable:
            self.peers.lose_sight()
            raise

    async def _follow(self) -> None:
        """Follow the generation, beside `_announce`: a restore of many databases takes long."""
        if await self._recorder.follow_generation():
            self._look.set()

    def _presence(self) -> Presence:
        recorder, patrol, now = self._recorder, self._patrol, time.monotonic()
        return Presence(
            worker=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            zone=self._settings.zone,
            capacity=self._capacity,
            started_at=self._started_at,
            owned=patrol.owned,
            leaving=self._leaving,
            generation=recorder.generation,
            lateness=patrol.lateness(),
            rejected=recorder.rejected,
            retained=recorder.retained,
            at=self._clock.now(),
            replaced=recorder.replaced,
            unjudged=recorder.unjudged,
            able=patrol.faults.can_watch(now),
            given_up=patrol.faults.causes(now),
        )

    def _meet(self, present: dict[str, Presence], *, led: bool) -> None:
        others = 0
        for one in present.values():
            is_other = one.worker != self.id
            others += is_other and one.able and not one.leaving
        self.peers.meet(others, led=led, now=time.monotonic())

    # --- leaving ----------------------------------------------------------------------------------

    async def _hand_over(self) -> bool:
        """Feel on until others own our databases and all we retain is durable; False for too late.

        Nobody else, or a Redis that is away, is not waited for.
        """
        log.info("action=leaving worker=%s databases=%d", self.id, self._patrol.owned)
        self._leaving = True
        until = time.monotonic() + HANDOVER
        try:
            async with asyncio.timeout(HANDOVER):
                while await self._is_needed():
                    self._look.set()
                    await _pause_until(until)
            return True
        except (TimeoutError, StoreUnavailable):
            log.warning("action=left_early worker=%s databases=%d", self.id, self._patrol.owned)
            return False

    async def _is_needed(self) -> bool:
        await self._announce()
        await self._recorder.forget_durable()
        can_be_replaced = self.peers.eligible > 1
        owns = self._patrol.owned and can_be_replaced
        return bool(self._recorder.retained or owns)

    async def _leave(self, *, forget: bool) -> None:
        """Say that we are gone, last of all: one more announcement would bring us back for 7 s."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                await presence.leave(self._live, self.id)
                if forget:
                    await presence.forget(self._live, self.id)
                    connection = connections.rq_connection(self._settings.redis_url)
                    await asyncio.to_thread(nudges.forget, connection, self.id)
        except (TimeoutError, StoreUnavailable):
            log.warning("action=not_unannounced worker=%s", self.id)

    async def _drain(self) -> None:
        """Wait until all we retain is durable: our twin knows nothing of it, and has our id now."""
        recorder = self._recorder
        until = time.monotonic() + HANDOVER
        try:
            async with asyncio.timeout(HANDOVER):
                while recorder.retained:
                    await recorder.forget_durable()
                    await _pause_until(until)
        except (TimeoutError, StoreUnavailable):
            retained = recorder.retained
            log.error("action=retained_lost worker=%s transitions=%d", self.id, retained)


async def _pause_until(until: float) -> None:
    """Wait a little; raise TimeoutError once it is later (monotonic).

    A timeout is a cancellation, and may be dropped like any other: see workers.process.end.
    """
    await asyncio.sleep(LOOK_EVERY)
    if time.monotonic() >= until:
        raise TimeoutError


async def main(settings: Settings) -> int:
    """Run one worker; return the process's exit code."""
    live = connections.connect(settings.redis_url, settings.cache_url)
    try:
        keys = load_keys(settings.home, settings.secret_keys, settings.secret_keys_file)
        box = SecretBox(keys)
        return 0 if await Worker(await claim_id(live), settings, live, box).run() else 1
    finally:
        await connections.close(live)


if __name__ == "__main__":
    strip_pg_environment()
    code = uvloop.run(main(start()))
    os._exit(code)  # the nudges' thread may be blocked in Redis: never wait for it
