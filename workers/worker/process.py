"""The worker process: presence, the patrol in the main thread, RQ's nudges in another. `python -m
workers.worker.process`.
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

import uvloop

from monitor.config import Settings
from monitor.core.errors import StoreUnavailable
from monitor.core.timing import ANNOUNCE_EVERY, HANDOVER, LAST_WORDS, RECONCILE_EVERY
from monitor.feeler.login import strip_pg_environment
from monitor.live import connections, presence
from monitor.live.connections import Live
from monitor.live.presence import Alive, Presence
from monitor.secrets import SecretBox, load_keys
from workers import nudges
from workers.process import RETRY_AFTER, keep, start
from workers.worker import jobs
from workers.worker.patrol import Patrol, Peers

log = logging.getLogger("feeler.worker")

ENOUGH = 1_000_000  # open files, where there is no limit
RESERVED = 200  # open files for everything but sessions


def new_id() -> str:
    """Return a worker id, new in every incarnation: a short host name and ten hex digits.

    Longer ones would not fit beside what a witness says in a value of 64 bytes.
    """
    host = re.sub(r"[^a-z0-9]", "", socket.gethostname().lower())[:8] or "worker"
    return f"{host}-{secrets.token_hex(5)}"


async def claim_id(live: Live) -> str:
    """Draw ids until one is free, and hold it: neither lived in nor still known of a worker that
    died.
    """
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
    """Raise this process's limit of open files as far as it may; return what is left for
    sessions.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = ENOUGH
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - RESERVED


class Worker:
    """One incarnation of a worker."""

    def __init__(self, worker: str, settings: Settings, live: Live, box: SecretBox) -> None:
        self.id = worker
        self._settings, self._live = settings, live
        self._capacity = min(
            settings.capacity, descriptors() // 2
        )  # a kept connection and a fresh login each
        self._patrol = Patrol(live, self.id, box, settings.ca_dir, self._capacity)
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
        recorder = self._patrol.recorder
        parts: list[asyncio.Task[object]] = [
            asyncio.create_task(part)
            for part in (
                self._patrol.run(),
                recorder.run(),
                recorder.pulse.run(),
                keep(self._announce, every=ANNOUNCE_EVERY),
                keep(self._follow, every=ANNOUNCE_EVERY),
                keep(self._patrol.reconcile, every=RECONCILE_EVERY, wake=self._patrol.look),
                keep(recorder.forget_durable, every=RECONCILE_EVERY),
            )
        ]
        stopping, meeting = (
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(recorder.twin.wait()),
        )
        done, _ = await asyncio.wait(
            [*parts, stopping, meeting], return_when=asyncio.FIRST_COMPLETED
        )
        handed_over = stopping in done and await self._hand_over()
        for part in parts:
            part.cancel()
        await asyncio.wait(parts, timeout=LAST_WORDS)
        if recorder.twin.is_set():
            await self._drain()
        else:
            await self._leave(forget=handed_over)
        await self._patrol.close()
        for part in done - {stopping, meeting}:
            part.result()  # a part that ended by itself is a bug: let it be seen
        return not recorder.twin.is_set()

    def _take_nudges(self, loop: asyncio.AbstractEventLoop) -> None:
        def nudge(kind: str, databases: tuple[str, ...]) -> None:
            loop.call_soon_threadsafe(self._patrol.nudge, kind, databases)

        jobs.host(nudge)
        connection = connections.rq_connection(self._settings.redis_url)
        threading.Thread(
            target=nudges.listen, args=(connection, self.id), name="nudges", daemon=True
        ).start()

    async def _announce(self) -> None:
        """Say that we are here, and see who else is."""
        asked = time.monotonic()
        try:
            if not await presence.claim(self._live, self.id):
                self._patrol.recorder.give_up_id()
                return
            self._patrol.clock.anchor(await connections.now(self._live), time.monotonic() - asked)
            self._started_at = self._started_at or self._patrol.clock.now()
            await presence.announce(self._live, self._presence())
            present = self._alive.among(await presence.present(self._live), time.monotonic())
            self._meet(present, led=await presence.is_led(self._live))
        except StoreUnavailable:
            self._patrol.peers.alone_since = None  # a break: nobody can be seen
            raise

    async def _follow(self) -> None:
        """Follow Redis's life: apart from `_announce`, since a restore takes longer the more we
        know.
        """
        if await self._patrol.recorder.follow_generation():
            self._patrol.look.set()

    def _presence(self) -> Presence:
        recorder = self._patrol.recorder
        return Presence(
            worker=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            zone=self._settings.zone,
            capacity=self._capacity,
            started_at=self._started_at,
            owned=self._patrol.owned,
            leaving=self._leaving,
            generation=recorder.generation,
            lateness=self._patrol.lateness(),
            rejected=recorder.rejected,
            retained=recorder.retained,
            at=self._patrol.clock.now(),
            replaced=recorder.replaced,
            unjudged=recorder.unjudged,
            able=self._patrol.faults.can_watch(time.monotonic()),
            given_up=self._patrol.faults.causes(time.monotonic()),
        )

    def _meet(self, present: dict[str, Presence], *, led: bool) -> None:
        """See who else is here. At a Redis that nobody leads we may be the one left behind, not the
        only one.
        """
        others = [
            one
            for one in present.values()
            if one.worker != self.id and one.able and not one.leaving
        ]
        since = self._patrol.peers.alone_since or time.monotonic()
        self._patrol.peers = Peers(1 + len(others), since if led and not others else None)

    async def _hand_over(self) -> bool:
        """Feel on until somebody else owns our databases, and until what we retain is durable;
        False for too late.

        Nobody else, or a Redis that is away, is not waited for.
        """
        log.info("action=leaving worker=%s databases=%d", self.id, self._patrol.owned)
        self._leaving = True
        try:
            async with asyncio.timeout(HANDOVER):
                while await self._is_needed():
                    self._patrol.look.set()
                    await asyncio.sleep(0.2)
            return True
        except (TimeoutError, StoreUnavailable):
            log.warning("action=left_early worker=%s databases=%d", self.id, self._patrol.owned)
            return False

    async def _leave(self, *, forget: bool) -> None:
        """Say that we are gone, last of all: whatever still announces us would bring us back for 7
        s.
        """
        try:
            async with asyncio.timeout(LAST_WORDS):
                await presence.leave(self._live, self.id)
                if forget:
                    await presence.forget(self._live, self.id)
                    await asyncio.to_thread(
                        nudges.forget, connections.rq_connection(self._settings.redis_url), self.id
                    )
        except (TimeoutError, StoreUnavailable):
            log.warning("action=not_unannounced worker=%s", self.id)

    async def _drain(self) -> None:
        """Wait until what we retain is durable: our twin knows nothing of it, and our id is its own
        now.
        """
        try:
            async with asyncio.timeout(HANDOVER):
                while self._patrol.recorder.retained:
                    await self._patrol.recorder.forget_durable()
                    await asyncio.sleep(0.2)
        except (TimeoutError, StoreUnavailable):
            log.error(
                "action=retained_lost worker=%s transitions=%d",
                self.id,
                self._patrol.recorder.retained,
            )

    async def _is_needed(self) -> bool:
        await self._announce()
        await self._patrol.recorder.forget_durable()
        heirs = self._patrol.peers.eligible > 1
        return bool(self._patrol.recorder.retained or (self._patrol.owned and heirs))


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
