"""One asyncio loop that feels every database assigned to this worker, each on its own schedule.

feel -> tick -> record. Only workers/worker imports this.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from monitor.core.chunks import chunks
from monitor.core.machine import Context
from monitor.core.observation import Observation
from monitor.core.own_faults import OwnFaults
from monitor.core.schedule import Wheel, next_due
from monitor.core.status import Status
from monitor.live import assignments, observations, targets
from monitor.live.connections import Live
from monitor.live.targets import Target
from workers.worker.clock import FleetClock
from workers.worker.observing import Observer
from workers.worker.peers import Peers
from workers.worker.recorder import Recorder
from workers.worker.watch import Watch
from workers.worker.watches import Watches

log = logging.getLogger("feeler.patrol")

CHUNK = 500  # databases learned between two looks at the loop
LATENESS_BEATS = 1000  # whose lateness is summed up
# Feels that begin, a millisecond or two each, before the loop turns to everything else: hundreds
# that die at once must not hold it up together.
ABREAST = 20


class Patrol:
    """Feels what the index assigns to `worker`, ticks, and hands over to the recorder.

    `look` is set by whoever wants the assignments to be read now.
    """

    def __init__(
        self,
        live: Live,
        worker: str,
        watches: Watches,
        observer: Observer,
        recorder: Recorder,
        clock: FleetClock,
        peers: Peers,
        look: asyncio.Event,
    ) -> None:
        self._live, self._worker = live, worker
        self._watches, self._observer, self._recorder = watches, observer, recorder
        self._clock, self._peers, self._look = clock, peers, look
        self._wheel, self._wake = Wheel(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lateness: deque[float] = deque(maxlen=LATENESS_BEATS)
        self.faults = OwnFaults()

    @property
    def owned(self) -> int:
        return len(self._watches)

    def lateness(self) -> float:
        """Return the 99th percentile of the last beats' lateness, in seconds."""
        late = sorted(self._lateness)
        if not late:
            return 0.0
        return late[int(len(late) * 0.99)]

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Feel what is due, for ever."""
        while True:
            now = time.monotonic()
            for number, (database, due_at) in enumerate(self._wheel.pop(now), 1):
                self._lateness.append(time.monotonic() - due_at)
                self._start(database)
                if number % ABREAST == 0:
                    await asyncio.sleep(0)
            due = self._wheel.next()
            self._wake.clear()
            timeout = None if due is None else max(0.0, due - time.monotonic())
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def nudge(self, kind: str, databases: tuple[str, ...]) -> None:
        """Take an RQ job's hint: look at the assignments, or feel these now."""
        if kind != "observe_now":
            self._look.set()
            return
        for database in databases:
            watch = self._watches.get(database)
            if watch:
                watch.slow_due = watch.login_due = 0.0
                watch.login_requested = True
                self._feel_now(database)

    def _feel_now(self, database: str) -> None:
        watch = self._watches.get(database)
        if watch is None:
            return
        watch.feel_again = watch.feeling
        if not watch.feeling:
            self._set_due(database, time.monotonic())

    def _set_due(self, database: str, due: float) -> None:
        self._wheel.set(database, due)
        self._wake.set()

    def _start(self, database: str) -> None:
        watch = self._watches.get(database)
        if watch is None or watch.feeling:
            return
        task = asyncio.create_task(self._beat(watch))
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    async def _beat(self, watch: Watch) -> None:
        """Feel one database once and say so; a bug in it must not end its watch."""
        watch.feeling, watch.feel_again = True, False
        observation = None
        try:
            status = self._status(watch.database)
            observation = await self._observer.observe(watch, status)
            if self._watches.is_watched(watch):
                self._tick(watch, observation)
        except Exception:
            log.exception("action=beat_failed database=%s", watch.database)
        finally:
            watch.feeling = False
            if self._watches.is_watched(watch):
                self._schedule(watch, observation)

    def _tick(self, watch: Watch, observation: Observation) -> None:
        holding = self._recorder.custody.holdings.get(watch.database)
        if holding is None or holding.stopped:
            return
        alone_since = self._peers.alone_since
        if alone_since is not None:
            alone_since = self._clock.date(alone_since)
        context = Context(
            worker=self._worker,
            epoch=holding.epoch,
            policy=watch.policy,
            revision=watch.revision,
            eligible=self._peers.eligible,
            alone_since=alone_since,
        )
        holding.observe(observation, context)
        self.faults.note(observation, holding.faults, time.monotonic())
        self._recorder.offer(observation)

    def _status(self, database: str) -> Status:
        holding = self._recorder.custody.holdings.get(database)
        return holding.tentative if holding else Status()

    def _schedule(self, watch: Watch, observation: Observation | None) -> None:
        now, mono = self._clock.now(), time.monotonic()
        due = now
        if not watch.feel_again:
            status = self._status(watch.database)
            due = next_due(watch.database, watch.policy, status, observation, now)
        self._set_due(watch.database, mono + due - now)

    # --- what is ours -----------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Make the watches equal the index: Redis holds the truth, nudges only hasten this.

        In a closed generation nothing is assigned and nothing is taken away: feel on.
        """
        # what we hold goes into a new generation before we learn from it
        await self._recorder.follow_generation()
        generation = self._recorder.generation
        index = await assignments.mine(self._live, self._worker)
        gone = sorted(set(self._watches) - index.keys())
        if gone:
            # the index may be empty because Redis forgot it
            await self._recorder.follow_generation()
        if not generation or generation != self._recorder.generation:
            return
        for chunk in chunks(gone, CHUNK):
            await self._release_all(chunk)
        unknown = [name for name, value in index.items() if self._must_learn(name, value)]
        for chunk in chunks(unknown, CHUNK):
            await self._learn_all(chunk, index)

    async def _release_all(self, databases: Sequence[str]) -> None:
        held = await observations.held(self._live, databases)
        for database in databases:
            latest = held.get(database)
            self._wheel.remove(database)
            stored = latest.status if latest and latest.seeded else None
            self._recorder.release(database, stored)
            await self._watches.close(database)
            log.info("action=released database=%s", database)

    def _must_learn(self, database: str, value: str) -> bool:
        watch = self._watches.get(database)
        if watch is None or watch.index != value:
            return True
        if self._watches.lacks_room(database) and self._watches.has_room():
            return True
        return self._recorder.custody.must_learn(database)

    async def _learn_all(self, databases: Sequence[str], index: dict[str, str]) -> None:
        held = await observations.held(self._live, databases)
        wanted = await targets.targets(self._live, databases)
        for database in databases:
            if database in held and database in wanted:
                await self._learn(database, index[database], held[database], wanted[database])

    async def _learn(
        self, database: str, value: str, latest: observations.Latest, target: Target
    ) -> None:
        if latest.owner != self._worker or latest.epoch is None:
            return  # the index is behind the hash; the hash is the truth
        watch = self._watches.get(database)
        lacks_room = self._watches.lacks_room(database)
        if watch is None or watch.revision != target.revision or lacks_room:
            wake = partial(self._feel_now, database)
            watch = await self._watches.open(database, target, latest.access, wake)
        watch.index = value
        if latest.seeded:  # else nobody knows yet what was: feel, say nothing, wait
            self._recorder.learn(database, latest.epoch, latest.status)
        self._feel_now(database)

    async def close(self) -> None:
        """End every feel, sever every session."""
        for task in tuple(self._tasks):
            task.cancel()
        await self._watches.close_all()
