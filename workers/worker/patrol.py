"""One asyncio loop that feels every database assigned to this worker, each on its own schedule.

feel -> tick -> record. Imported by worker.py alone.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from monitor.core.access import Access
from monitor.core.cause import Cause
from monitor.core.database import parse_address
from monitor.core.errors import InvalidInput
from monitor.core.machine import Context, wants_login
from monitor.core.observation import Observation
from monitor.core.own_faults import OwnFaults
from monitor.core.schedule import Wheel, grid
from monitor.core.status import State, Status
from monitor.feeler.login import LoginLimiter
from monitor.feeler.session import Feeling, Session
from monitor.live import assignments, observations, targets
from monitor.live.connections import Live
from monitor.live.targets import Target
from monitor.secrets import SecretBox
from workers.worker.clock import FleetClock
from workers.worker.recorder import Recorder
from workers.worker.watch import (
    UnreadableAddress,
    Watch,
    login_interval,
    next_due,
    slow_due,
    urgency,
)

log = logging.getLogger("feeler.patrol")

CHUNK = 500  # databases learned between two looks at the loop
LATENESS_OF = 1000  # beats
ABREAST = (
    20  # feels that begin, a millisecond or two each, before the loop turns to everything else
)


@dataclass(slots=True)
class Peers:
    """Who else is there to form an opinion.

    `alone_since` (monotonic) is None unless exactly one worker is, without a break, where somebody
    leads.
    """

    eligible: int = 1
    alone_since: float | None = None


class Patrol:
    """Feels what the index assigns to `worker`, ticks, and hands over to the recorder."""

    def __init__(
        self, live: Live, worker: str, box: SecretBox, ca_dir: Path, capacity: int
    ) -> None:
        self._live, self._worker, self._box, self._ca_dir = live, worker, box, ca_dir
        self._wheel, self._wake = Wheel(), asyncio.Event()
        self._logins = LoginLimiter(workers=lambda: self.peers.eligible)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: dict[str, Watch] = {}
        self._capacity = capacity
        self._refused: set[str] = set()  # watches that have no session: there was no room for one
        self._lateness: deque[float] = deque(maxlen=LATENESS_OF)
        self.look = asyncio.Event()  # set to reconcile now
        self.clock = FleetClock()
        self.peers = Peers()
        self.faults = OwnFaults()
        self.recorder = Recorder(live, worker, self.look.set)

    @property
    def owned(self) -> int:
        return len(self._watches)

    def lateness(self) -> float:
        """Return the 99th percentile of the last beats' lateness, in seconds."""
        late = sorted(self._lateness)
        return late[int(len(late) * 0.99)] if late else 0.0

    async def run(self) -> None:
        """Feel what is due, for ever."""
        while True:
            now = time.monotonic()
            for number, (database, due_at) in enumerate(self._wheel.pop(now), 1):
                self._lateness.append(time.monotonic() - due_at)
                self._start(database)
                if number % ABREAST == 0:
                    await asyncio.sleep(
                        0
                    )  # hundreds that die at once must not hold up the loop together
            due = self._wheel.next()
            self._wake.clear()
            try:
                async with asyncio.timeout(
                    None if due is None else max(0.0, due - time.monotonic())
                ):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def nudge(self, kind: str, databases: tuple[str, ...]) -> None:
        """Take an RQ job's hint: look at the assignments, or feel these now."""
        if kind != "observe_now":
            self.look.set()
        for database in databases:
            if kind == "observe_now" and (watch := self._watches.get(database)):
                watch.slow_due = watch.login_due = 0.0
                watch.asked = True
                self._soon(watch)

    async def reconcile(self) -> None:
        """Make the watches equal the index: the assignments in Redis are the truth, nudges only
        hasten this.

        In a closed generation nothing is assigned and nothing is taken away: feel on.
        """
        await (
            self.recorder.follow_generation()
        )  # what we remember goes into a new one before we learn from it
        generation = self.recorder.generation
        index = await assignments.mine(self._live, self._worker)
        gone = self._watches.keys() - index.keys()
        if gone:
            await (
                self.recorder.follow_generation()
            )  # the index may be empty because Redis forgot it
        if not generation or generation != self.recorder.generation:
            return
        for start in range(0, len(gone), CHUNK):
            names = sorted(gone)[start : start + CHUNK]
            known = await observations.held(self._live, names)
            for database in names:
                await self._release(database, known.get(database))
        unlearned = [name for name, value in index.items() if self._must_learn(name, value)]
        for start in range(0, len(unlearned), CHUNK):
            names = unlearned[start : start + CHUNK]
            latest = await observations.held(self._live, names)
            wanted = await targets.targets(self._live, names)
            for name in names:
                if name in latest and name in wanted:
                    await self._learn(name, index[name], latest[name], wanted[name])

    def _must_learn(self, database: str, value: str) -> bool:
        watch = self._watches.get(database)
        if database in self._refused and self._has_room():
            return True
        must_learn = self.recorder.custody.must_learn(database)
        return watch is None or watch.index != value or must_learn

    def _has_room(self) -> bool:
        return len(self._watches) - len(self._refused) < self._capacity

    async def _learn(
        self, database: str, value: str, latest: observations.Latest, target: Target
    ) -> None:
        if latest.owner != self._worker or latest.epoch is None:
            return  # the index is behind the hash; the hash is the truth
        watch = self._watches.get(database)
        if watch is None or watch.revision != target.revision or database in self._refused:
            await self._open(database, target, latest.access)
        self._watches[database].index = value
        if latest.seeded:  # else nobody knows yet what was: feel, say nothing, wait
            self.recorder.learn(database, latest.epoch, latest.status)
        self._soon(self._watches[database])

    async def _open(self, database: str, target: Target, access: Access) -> None:
        if old := self._watches.pop(database, None):
            await old.session.close()
        self._refused.discard(database)
        session = self._session(database, target) if self._has_room() else self._refuse(database)
        address = f"{crc32(target.ciphertext.encode()):08x}"
        self._watches[database] = Watch(
            database, "", target.policy, target.revision, session, access.at(address)
        )

    def _refuse(self, database: str) -> UnreadableAddress:
        """Take no more than we can hold: what is opened beyond it takes the descriptors of all the
        others.
        """
        log.error(
            "action=refused database=%s reason=no_capacity capacity=%d", database, self._capacity
        )
        self._refused.add(database)
        return UnreadableAddress(
            self.clock.now, Cause.NO_CAPACITY, f"refused, no capacity: {self._capacity} are watched"
        )

    def _session(self, database: str, target: Target) -> Session | UnreadableAddress:
        """Open the address; one that we cannot open must not keep us from the others."""
        try:
            address = parse_address(self._box.open(database, target.ciphertext))
        except InvalidInput as exc:
            log.error("action=address_sealed database=%s error=%s", database, exc)
            return UnreadableAddress(self.clock.now)
        return Session(
            address,
            worker=self._worker,
            deadline=target.policy.deadline,
            clock=self.clock.now,
            logins=self._logins,
            ca_dir=self._ca_dir,
            on_lost=lambda: self._look_soon(database),
            on_turn=lambda: self._look_soon(database),
        )

    async def _release(self, database: str, latest: observations.Latest | None) -> None:
        self._wheel.remove(database)
        self._refused.discard(database)
        self.recorder.release(database, latest.status if latest and latest.seeded else None)
        await self._watches.pop(database).session.close()
        log.info("action=released database=%s", database)

    def _look_soon(self, database: str) -> None:
        if watch := self._watches.get(database):
            self._soon(watch)

    def _soon(self, watch: Watch) -> None:
        watch.again = watch.feeling
        if not watch.feeling:
            self._wheel.set(watch.database, time.monotonic())
            self._wake.set()

    def _start(self, database: str) -> None:
        watch = self._watches.get(database)
        if watch is None or watch.feeling:
            return
        self._spawn(self._beat(watch))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat(self, watch: Watch) -> None:
        """Feel one database once and say so; a bug in it must not end its watch."""
        watch.feeling, watch.again = True, False
        observation = None
        try:
            observation = await self._feel(watch)
            if (
                self._watches.get(watch.database) is watch
            ):  # else it was felt at an address that is no more
                self._tick(watch, observation)
        except Exception:
            log.exception("action=beat_failed database=%s", watch.database)
        finally:
            watch.feeling = False
            if self._watches.get(watch.database) is watch:
                self._schedule(watch, observation)

    async def _feel(self, watch: Watch) -> Observation:
        began = time.monotonic()
        status = self._status(watch.database)
        fresh = wants_login(status) or began >= watch.login_due
        slow = began >= watch.slow_due and status.state in (State.NEW, State.AVAILABLE)
        access = watch.access
        feeling = await watch.session.feel(
            fresh=fresh,
            slow=slow,
            urgency=urgency(status),
            held=None if watch.asked else access.held(self.clock.now(), watch.policy),
            login_deadline=access.deadline(watch.policy),
            pooled=access.pooled,
        )
        self._learn_access(watch, feeling)
        login_every = login_interval(watch, self.owned, self.peers.eligible)
        if feeling.fresh_login or (fresh and not feeling.waiting):
            now = (
                self.clock.now()
            )  # spread by name: one of a server's databases finds out soon, and tells the others
            watch.login_due = time.monotonic() + grid(watch.database, login_every, now) - now
        if feeling.slots_full:
            watch.login_due = 0.0  # the next beat proves that logins work ...
            watch.again |= not (
                fresh or feeling.fresh_login
            )  # ... at once, where this one did not try
        watch.again |= feeling.cause is Cause.NAME_MOVED
        if slow:
            watch.slow_due = slow_due(watch, feeling, began)
        told = _dated(self._judged(feeling, began), time.monotonic() - (feeling.began or began))
        return self._observation(watch, told, login_every)

    def _learn_access(self, watch: Watch, feeling: Feeling) -> None:
        """Remember what a login told, for the next one's sake: ours, or that of the next owner."""
        if feeling.pooled or feeling.cause is Cause.OK:
            watch.access = replace(watch.access, pooled=feeling.pooled)
        if not feeling.fresh_login:
            return
        watch.asked = False
        if feeling.login_seconds:
            watch.access = watch.access.entered(feeling.login_seconds)
        else:
            watch.access = watch.access.refused(feeling.cause, feeling.at, watch.policy)

    def _judged(self, feeling: Feeling, began: float) -> Feeling:
        """Void a negative that our own standing still may have caused."""
        negative = feeling.cause not in (Cause.OK, Cause.LATE_LOOP)
        if negative and self.recorder.pulse.stalled_since(feeling.began or began):
            return replace(feeling, cause=Cause.LATE_LOOP)
        return feeling

    def _observation(self, watch: Watch, feeling: Feeling, login_every: float) -> Observation:
        return Observation(
            database=watch.database,
            worker=self._worker,
            sent_at=feeling.sent_at,
            at=feeling.at,
            cause=feeling.cause,
            readings=feeling.readings,
            fresh_login=feeling.fresh_login,
            login_interval=round(login_every, 1),
            access=watch.access,
            detail=feeling.detail,
            sqlstate=feeling.sqlstate,
            revision=watch.revision,
            steps=feeling.steps,
            waited=feeling.waited,
            tried=feeling.tried,
            dns_stale=feeling.dns_stale,
        )

    def _tick(self, watch: Watch, observation: Observation) -> None:
        holding = self.recorder.custody.holdings.get(watch.database)
        if holding is None or holding.stopped:
            return
        context = Context(
            worker=self._worker,
            epoch=holding.epoch,
            policy=watch.policy,
            revision=watch.revision,
            eligible=self.peers.eligible,
            alone_since=None
            if self.peers.alone_since is None
            else self.clock.date(self.peers.alone_since),
        )
        holding.observe(observation, context)
        self.faults.note(observation, holding.faults, time.monotonic())
        self.recorder.offer(observation)

    def _status(self, database: str) -> Status:
        holding = self.recorder.custody.holdings.get(database)
        return holding.tentative if holding else Status()

    def _schedule(self, watch: Watch, observation: Observation | None) -> None:
        now, mono = self.clock.now(), time.monotonic()
        due = (
            now if watch.again else next_due(watch, self._status(watch.database), observation, now)
        )
        self._wheel.set(watch.database, mono + due - now)
        self._wake.set()

    async def close(self) -> None:
        """Sever every session."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(
            *(watch.session.close() for watch in self._watches.values()), return_exceptions=True
        )


def _dated(feeling: Feeling, longest: float) -> Feeling:
    """Bound how long a feel took by this host's own clock: the fleet's may have been set
    meanwhile.
    """
    took = round(feeling.at - feeling.sent_at, 3)
    bounded = min(max(took, 0.0), round(longest, 3))
    return feeling if took == bounded else replace(feeling, sent_at=round(feeling.at - bounded, 3))
