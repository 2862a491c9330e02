"""The worker's writing hand: record in batches, keep what was accepted until it is durable, restore
a lost Redis.

Holds the worker's side of the fencing protocol; only the patrol imports this.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from monitor.core.beat import Beat, Reply
from monitor.core.errors import StoreUnavailable
from monitor.core.event import Transition
from monitor.core.generation import Generation, Signature
from monitor.core.observation import Observation
from monitor.core.status import Epoch, Identity, Status
from monitor.core.timing import RECORD_RETRY, RELEASED_KEPT, REPLAY_EVERY, REPLAY_RETRY
from monitor.live import durability, generation, journal, observations
from monitor.live.connections import Live
from workers.troubles import Trouble
from workers.worker.ledger import Ledger
from workers.worker.pulse import Pulse
from workers.worker.reasons import Reasons

log = logging.getLogger("feeler.recorder")

BATCH = 500  # beats per round trip
# Of a round trip: at most 0.1 s of this loop, where transitions pile up; halved when one takes too
# long.
BYTES = 250_000
GATHER = 0.01  # seconds to wait for peers before a batch leaves
RETAINED_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Released:
    """The last accepted Status of a database this worker gave up, until `until` (monotonic
    seconds).
    """

    status: Status
    epoch: Epoch
    until: float


class Recorder:
    """Records the newest observation of each ledger; `on_rejected` asks the patrol to learn
    again.
    """

    def __init__(self, live: Live, worker: str, on_rejected: Callable[[], None]) -> None:
        self._live, self._worker, self._on_rejected = live, worker, on_rejected
        self._outbox: dict[str, Observation] = {}
        self._flying: dict[str, Observation] = {}  # the batch on its way
        self._bytes = BYTES
        self._trouble = Trouble("record")
        self._wake = asyncio.Event()
        self._released: dict[str, Released] = {}
        self._retained: dict[tuple[str, Identity], Transition] = {}
        self._found: list[
            Transition
        ] = []  # accepted, as the hash told: the journal may have lost them
        self._term = 0
        self._signature = Signature()  # whose the Redis is that we follow
        self._settled = (
            asyncio.Lock()
        )  # while we restore and replay no beat is on its way: it would be missing
        self._waiting: tuple[
            tuple[str, Identity], ...
        ] = ()  # what was retained when it was last replayed
        self._repeat_at = 0.0
        self._reasons = Reasons(live)
        self.pulse = Pulse(self._fence)
        self.twin = asyncio.Event()  # set for good when another process was found to go by our id
        self.ledgers: dict[str, Ledger] = {}
        # into the closed generation of now: a report may be an earlier period's, come late
        self._restored = False
        self._opened_at = Epoch(0, 0)  # the leader's epoch of the newest generation seen
        self.generation = ""  # "" while closed: feel on, record nothing
        self.rejected = 0
        self.replaced = 0  # observations that a newer one replaced before they could leave

    @property
    def unjudged(self) -> int:
        """Return how many observations could change nothing, since too much waits for Redis."""
        return sum(ledger.unjudged for ledger in self.ledgers.values())

    @property
    def retained(self) -> int:
        return len(self._retained)

    def offer(self, observation: Observation) -> None:
        """Record this observation with the next batch; it replaces an older one that has not left
        yet.
        """
        database = observation.database
        waiting = self._outbox.get(database)
        self.replaced += waiting is not None and waiting is not self._flying.get(database)
        self._outbox[database] = observation
        self._wake.set()

    def release(self, database: str, stored: Status | None) -> None:
        """Stop speaking for a database, but remember what was accepted of it: with an answer, or as
        the hash tells.
        """
        self._outbox.pop(database, None)
        self._reasons.forget(database)
        if ledger := self.ledgers.pop(database, None):
            if stored is not None:
                self._find(database, ledger.learn(ledger.epoch, stored))
            self._released[database] = Released(
                ledger.accepted, ledger.epoch, time.monotonic() + RELEASED_KEPT
            )

    def learned(self, ledger: Ledger, accepted: tuple[Transition, ...]) -> None:
        """Take a ledger under its (new) epoch, and the transitions that proved to have been
        accepted.
        """
        self.ledgers[ledger.database] = ledger
        self._released.pop(ledger.database, None)
        self._term = max(self._term, ledger.epoch.term)
        self._find(ledger.database, accepted)

    def remembered(self, database: str) -> Status | None:
        """Return the last accepted Status of a database this worker gave up lately."""
        kept = self._released.get(database)
        return kept.status if kept else None

    def _find(self, database: str, accepted: tuple[Transition, ...]) -> None:
        self._retain(database, accepted)
        self._found += accepted

    async def run(self) -> None:
        """Record for ever, whatever Redis does."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER)
            if not await self.flush():
                await asyncio.sleep(RECORD_RETRY)

    async def flush(self) -> bool:
        """Record one batch; False when nothing could be written now."""
        async with self._settled:
            return await self._flush()

    async def _flush(self) -> bool:
        self.pulse.check()
        beats = self._take()
        if not beats:
            self._wake.clear()
            return True
        if not self.generation:
            return False
        self._flying = {beat.database: observation for beat, observation in beats}
        try:
            verdicts = await self._record([beat for beat, _ in beats])
            self._bytes = min(BYTES, 2 * self._bytes)
            self._trouble.worked()
        except StoreUnavailable as exc:
            self._trouble.failed(f"{exc.store}:{exc.detail}")
            self._retreat(late=exc.detail == "timeout")
            return False
        finally:
            self._flying = {}
        for (beat, observation), verdict in zip(beats, verdicts, strict=True):
            self._settle(beat, observation, verdict)
            if verdict is Reply.ACCEPTED:
                self._reasons.note(observation)
        await self._reasons.tell()
        return Reply.CLOSED not in verdicts

    def _retreat(self, *, late: bool) -> None:
        """After a failure: send less at once where it took too long, and let the others go
        first.
        """
        if late:
            self._bytes = max(1, self._bytes // 2)
        for database in self._flying:
            if database in self._outbox:
                self._outbox[database] = self._outbox.pop(database)

    async def _record(self, beats: list[Beat]) -> list[Reply]:
        """Record; a row that Redis chokes on is set aside alone (recording the others again is
        safe).
        """
        try:
            return await observations.record(self._live, self.generation, self._worker, beats)
        except StoreUnavailable:
            raise
        except Exception:
            if len(beats) == 1:
                log.exception("action=record_broken database=%s", beats[0].database)
                return [Reply.CONFLICT]
        half = len(beats) // 2
        return await self._record(beats[:half]) + await self._record(beats[half:])

    def _take(self) -> list[tuple[Beat, Observation]]:
        """Return the next batch, at least one beat; entries stay in the outbox until they are
        settled.
        """
        beats: list[tuple[Beat, Observation]] = []
        size = 0
        for database, observation in list(self._outbox.items()):
            ledger = self.ledgers.get(database)
            if ledger is None or ledger.stopped:
                del self._outbox[database]
                continue
            beat = Beat(database, ledger.epoch, ledger.tentative, observation, ledger.pending)
            size += observations.weight(beat)
            if beats and size > self._bytes:
                break
            beats.append((beat, observation))
            if len(beats) == BATCH:
                break
        return beats

    def _settle(self, beat: Beat, observation: Observation, verdict: Reply) -> None:
        if verdict is Reply.CLOSED:
            self.generation = ""
            self._on_rejected()
            return
        if self._outbox.get(beat.database) is observation:
            del self._outbox[beat.database]
        ledger = self.ledgers.get(beat.database)
        if verdict is Reply.ACCEPTED:
            if ledger and ledger.epoch == beat.epoch:
                self._retain(beat.database, ledger.accept(beat))
            else:
                self._hear_late(beat)
            return
        if verdict is Reply.TWIN:
            self.give_up_id()
        self.rejected += 1
        log.warning(
            "action=record_rejected database=%s epoch=%s verdict=%s",
            beat.database,
            beat.epoch,
            verdict,
        )
        if ledger and ledger.epoch == beat.epoch:
            ledger.stop()
            self._on_rejected()

    def _hear_late(self, beat: Beat) -> None:
        """Remember what was accepted while we gave the database up: nobody else retains it."""
        self._retain(
            beat.database, tuple(event for event in beat.events if isinstance(event, Transition))
        )
        kept = self._released.get(beat.database)
        if kept and kept.epoch == beat.epoch:
            ledger = Ledger(beat.database, kept.epoch, kept.status)
            ledger.learn(kept.epoch, beat.status)
            self._released[beat.database] = replace(kept, status=ledger.accepted)

    def give_up_id(self) -> None:
        """Another process goes by our id: say nothing more; whoever is told so first, ends."""
        log.error("action=twin_met worker=%s databases=%d", self._worker, len(self.ledgers))
        for ledger in self.ledgers.values():
            ledger.stop()
        self.twin.set()

    def _fence(self) -> None:
        """This process was frozen: nothing it believed to own may be written before it has looked
        again.
        """
        log.warning("action=self_fenced databases=%d", len(self.ledgers))
        for ledger in self.ledgers.values():
            ledger.stop()
        self._on_rejected()

    def _retain(self, database: str, accepted: tuple[Transition, ...]) -> None:
        for transition in accepted:
            if (database, transition.identity) not in self._retained:
                log.info(
                    "action=transition database=%s identity=%s from=%s to=%s rule=%s",
                    database, transition.identity, transition.source, transition.target, transition.rule,
                )  # fmt: skip
            self._retained[database, transition.identity] = transition
        while len(self._retained) > RETAINED_MOST:
            lost = self._retained.pop(next(iter(self._retained)))
            log.error(
                "action=retained_dropped database=%s identity=%s", lost.database, lost.identity
            )

    async def forget_durable(self) -> None:
        """Drop accepted transitions that the historian acknowledged, by identity."""
        if self._found and self.generation:
            found = list(self._found)
            if await durability.replay(self._live, self.generation, found):
                del self._found[: len(found)]  # more may have been found meanwhile
        keys = list(self._retained)
        for start in range(0, len(keys), BATCH):
            durable = await durability.durable(self._live, keys[start : start + BATCH])
            if not durable:
                break  # nothing of the oldest is: Postgres is away
            for key in durable:
                self._retained.pop(key, None)
        now = time.monotonic()
        self._released = {name: kept for name, kept in self._released.items() if kept.until > now}
        await self._repeat()

    async def _repeat(self) -> None:
        """Replay what has been retained for an hour: its entry was trimmed by force, or its
        identity forgotten.

        Not while the journal has something to drain: what Postgres is waited for stands there
        already.
        """
        if not self.generation or time.monotonic() < self._repeat_at:
            return
        if await journal.is_behind(self._live):
            self._repeat_at = time.monotonic() + REPLAY_RETRY
            return
        waiting = [self._retained[key] for key in self._waiting if key in self._retained]
        if waiting:
            log.warning("action=retained_replayed transitions=%d", len(waiting))
        self._waiting, self._repeat_at = tuple(self._retained), time.monotonic() + REPLAY_EVERY
        for start in range(0, len(waiting), BATCH):
            if not await durability.replay(
                self._live, self.generation, waiting[start : start + BATCH]
            ):
                return

    async def follow_generation(self) -> bool:
        """Look at Redis's life: restore while it is closed; True when a new one was opened."""
        async with self._settled:
            return await self._follow()

    async def _follow(self) -> bool:
        seen = await generation.generation(self._live)
        self._sign(seen)
        if not seen.open:
            self.generation = ""
            if not self._restored or self._worker not in await generation.reported(self._live):
                self._restored = await self._restore()
            return False
        assert seen.epoch
        if seen.name == self.generation:
            return False  # nothing new
        if (
            seen.epoch < self._opened_at
        ):  # a server that was left behind, or all that was newer is lost but to us
            log.warning("action=outlived generation=%s entered=%s", seen.name, self._opened_at)
            await generation.close_generation(
                self._live, self._opened_at, self._term + 1
            )  # who leads makes way
            return False
        if not await self._restore():
            # closed again; where the others did not wait for us, what is newer than theirs still
            # counts
            return False
        retained = list(self._retained.values())
        for start in range(0, len(retained), BATCH):
            if not await durability.replay(self._live, seen.name, retained[start : start + BATCH]):
                return False  # closed again meanwhile
        self.generation, self._opened_at, self._restored = seen.name, seen.epoch, False
        self._term = max(
            self._term, seen.epoch.term
        )  # who owned nothing restores it too: else no leader hears of it
        log.info("action=following generation=%s", seen.name)
        await generation.withdraw(self._live, self._worker)
        return True

    def _sign(self, seen: Generation) -> None:
        """Remember whose the Redis is: a take-over is obeyed, and whoever has opened a
        generation.
        """
        told, known = seen.signature, self._signature
        if told > known or (seen.open and told.registry and told.takeovers == known.takeovers):
            self._signature = told

    async def _restore(self) -> bool:
        kept = {name: (r.status, r.epoch) for name, r in self._released.items()}
        kept |= {name: (ledger.accepted, ledger.epoch) for name, ledger in self.ledgers.items()}
        rows = [
            generation.Restored(database=name, status=status, epoch=epoch, owner=self._worker)
            for name, (status, epoch) in kept.items()
        ]
        done = await generation.restore(self._live, self._worker, rows, self._term, self._signature)
        log.info("action=restored databases=%d term=%d whole=%s", len(rows), self._term, done)
        return done
