"""The worker's writing hand: records in batches, restores a Redis that lost its data, replays.

What may be said, and what an answer means, custody decides; here it is carried out. The patrol
and the worker's process import this.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from monitor.core.beat import Beat, Reply
from monitor.core.chunks import chunks
from monitor.core.custody import Custody, Following
from monitor.core.errors import StoreUnavailable
from monitor.core.event import Transition
from monitor.core.generation import Generation
from monitor.core.observation import Observation
from monitor.core.status import Epoch, Status
from monitor.core.timing import RECORD_RETRY, REPLAY_EVERY, REPLAY_RETRY
from monitor.live import durability, generation, journal, observations
from monitor.live.connections import Live
from workers.troubles import Trouble
from workers.worker.pulse import Pulse
from workers.worker.reasons import Reasons

log = logging.getLogger("feeler.recorder")

BATCH = 500  # beats, or transitions, per round trip
# Of a round trip: at most 0.1 s of this loop, where transitions pile up; halved when one takes too
# long.
BYTES = 250_000
GATHER = 0.01  # seconds to wait for other beats before a batch leaves


class Recorder:
    """Records the newest observation of each database held.

    `on_rejected` asks the patrol to learn from the hashes again.
    """

    def __init__(self, live: Live, worker: str, on_rejected: Callable[[], None]) -> None:
        self._live, self._worker, self._on_rejected = live, worker, on_rejected
        self._outbox: dict[str, Observation] = {}
        self._flying: dict[str, Observation] = {}  # the batch on its way
        self._bytes = BYTES
        self._trouble = Trouble("record")
        self._wake = asyncio.Event()
        # Held while a batch is on its way, and while we restore and replay. A beat accepted in
        # between would be in neither: Redis may lose it with the old generation, and what we
        # restored is older. Costs a batch at most one restore of waiting.
        self._exchange = asyncio.Lock()
        self._repeat_at = 0.0
        self._reasons = Reasons(live)
        self.custody = Custody()
        self.pulse = Pulse(self._fence)
        self.twin = asyncio.Event()  # set for good when another process was found to go by our id
        self.rejected = 0
        self.replaced = 0  # observations that a newer one replaced before they could leave

    @property
    def generation(self) -> str:
        return self.custody.generation

    @property
    def retained(self) -> int:
        return len(self.custody.retained)

    @property
    def unjudged(self) -> int:
        return self.custody.unjudged

    # --- databases come and go --------------------------------------------------------------------

    def offer(self, observation: Observation) -> None:
        """Record this observation with the next batch, in place of an older one that waits."""
        database = observation.database
        waiting = self._outbox.get(database)
        self.replaced += waiting is not None and waiting is not self._flying.get(database)
        self._outbox[database] = observation
        self._wake.set()

    def learn(self, database: str, epoch: Epoch, stored: Status) -> None:
        """Take a database, or a new epoch of it, from what its hash holds."""
        _log_accepted(self.custody.learn(database, epoch, stored))

    def release(self, database: str, stored: Status | None) -> None:
        """Give a database up; `stored` is what its hash holds, None where nobody knows."""
        self._outbox.pop(database, None)
        self._reasons.forget(database)
        _log_accepted(self.custody.release(database, stored, time.monotonic()))

    def give_up_id(self) -> None:
        """Another process goes by our id: say nothing more; whoever learns it first, ends."""
        held = len(self.custody.holdings)
        log.error("action=twin_met worker=%s databases=%d", self._worker, held)
        self.custody.stop()
        self.twin.set()

    def _fence(self) -> None:
        """This process was frozen: its databases may be another's by now. Look before any write."""
        log.warning("action=self_fenced databases=%d", len(self.custody.holdings))
        self.custody.stop()
        self._on_rejected()

    # --- batches ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Record for ever, whatever Redis does."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER)
            if not await self.flush():
                await asyncio.sleep(RECORD_RETRY)

    async def flush(self) -> bool:
        """Record one batch; False when nothing could be written now."""
        async with self._exchange:
            return await self._flush()

    async def _flush(self) -> bool:
        self.pulse.check()  # whoever wakes first after a freeze: nothing leaves before this
        batch = self._take()
        if not batch:
            self._wake.clear()
            return True
        if not self.generation:
            return False
        replies = await self._send(batch)
        if replies is None:
            return False
        for beat, reply in zip(batch, replies, strict=True):
            self._take_reply(beat, reply)
        await self._reasons.tell()
        return Reply.CLOSED not in replies

    def _take(self) -> list[Beat]:
        """Return the next batch, at least one beat; entries stay in the outbox until the reply."""
        batch: list[Beat] = []
        size = 0
        for database, observation in list(self._outbox.items()):
            beat = self.custody.beat(observation)
            if beat is None:
                del self._outbox[database]
                continue
            size += observations.weight(beat)
            if batch and size > self._bytes:
                break
            batch.append(beat)
            if len(batch) == BATCH:
                break
        return batch

    async def _send(self, batch: Sequence[Beat]) -> list[Reply] | None:
        """Return the replies; None where Redis is away, and any part may have been written."""
        self._flying = {beat.database: beat.observation for beat in batch}
        try:
            replies = await self._record(batch)
        except StoreUnavailable as exc:
            self._trouble.failed(f"{exc.store}:{exc.detail}")
            self._retreat(late=exc.detail == "timeout")
            return None
        finally:
            self._flying = {}
        self._bytes = min(BYTES, 2 * self._bytes)
        self._trouble.worked()
        return replies

    async def _record(self, batch: Sequence[Beat]) -> list[Reply]:
        """Record; a row that Redis chokes on is set aside alone.

        Costs a round trip for each halving; to record the others again is safe.
        """
        try:
            return await observations.record(self._live, self.generation, self._worker, batch)
        except StoreUnavailable:
            raise
        except Exception:
            if len(batch) == 1:
                log.exception("action=record_broken database=%s", batch[0].database)
                return [Reply.CONFLICT]
        half = len(batch) // 2
        return await self._record(batch[:half]) + await self._record(batch[half:])

    def _retreat(self, *, late: bool) -> None:
        """After a failure send less at once where it took too long, and let the others go first."""
        if late:
            self._bytes = max(1, self._bytes // 2)
        for database in self._flying:
            if database in self._outbox:
                self._outbox[database] = self._outbox.pop(database)

    def _take_reply(self, beat: Beat, reply: Reply) -> None:
        _log_accepted(self.custody.apply_reply(beat, reply))
        if reply is Reply.CLOSED:
            self._on_rejected()
            return  # the beat leaves again with the next generation
        if self._outbox.get(beat.database) is beat.observation:
            del self._outbox[beat.database]  # else a newer one came while this was on its way
        if reply is Reply.ACCEPTED:
            self._reasons.note(beat.observation)
            return
        if reply is Reply.TWIN:
            self.give_up_id()
        self.rejected += 1
        log.warning(
            "action=record_rejected database=%s epoch=%s reply=%s", beat.database, beat.epoch, reply
        )
        self._on_rejected()

    # --- durable ----------------------------------------------------------------------------------

    async def forget_durable(self) -> None:
        """Drop accepted transitions that Postgres holds, and replay what may have been lost."""
        for lost in self.custody.expire(time.monotonic()):
            log.error(
                "action=retained_dropped database=%s identity=%s", lost.database, lost.identity
            )
        await self._replay_found()
        keys = list(self.custody.retained)
        for chunk in chunks(keys, BATCH):
            durable = await durability.durable(self._live, chunk)
            if not durable:
                break  # nothing of the oldest is: Postgres is away
            self.custody.forget_durable(durable)
        await self._repeat()

    async def _replay_found(self) -> None:
        found = self.custody.found
        if found and self.generation and await self._replay(self.generation, found):
            self.custody.replayed(found)

    async def _repeat(self) -> None:
        """Replay what has been retained for an hour: the journal may have lost it by itself.

        Not while the journal has something to drain: what Postgres is waited for stands there
        already, and would only grow.
        """
        if not self.generation or time.monotonic() < self._repeat_at:
            return
        if await journal.is_behind(self._live):
            self._repeat_at = time.monotonic() + REPLAY_RETRY
            return
        waiting = self.custody.repeat()
        self._repeat_at = time.monotonic() + REPLAY_EVERY
        if waiting:
            log.warning("action=retained_replayed transitions=%d", len(waiting))
        await self._replay(self.generation, waiting)

    async def _replay(self, generation_name: str, events: Sequence[Transition]) -> bool:
        """Put events into the journal again; False where the generation was closed meanwhile."""
        for chunk in chunks(events, BATCH):
            if not await durability.replay(self._live, generation_name, chunk):
                return False
        return True

    # --- generations ------------------------------------------------------------------------------

    async def follow_generation(self) -> bool:
        """Look at the generation: restore while it is closed; True when a new one was entered."""
        async with self._exchange:
            return await self._follow()

    async def _follow(self) -> bool:
        seen = await generation.generation(self._live)
        following = self.custody.follow(seen)
        if following is Following.RESTORE:
            if not (self.custody.restored and await self._has_reported()):
                self.custody.restored = await self._restore()
        elif following is Following.END:
            await self._end(seen.name)
        elif following is Following.ENTER:
            return await self._enter(seen)
        return False

    async def _has_reported(self) -> bool:
        """Tell whether our report is still there: Redis may have forgotten once more."""
        return self._worker in await generation.reported(self._live)

    async def _end(self, outlived: str) -> None:
        """End a generation older than ours, above all terms seen: who leads must open another."""
        opened, term = self.custody.opened, self.custody.term
        log.warning("action=outlived generation=%s entered=%s", outlived, opened)
        await generation.close_generation(self._live, opened, term + 1)

    async def _enter(self, seen: Generation) -> bool:
        # Where the others did not wait for us, what we hold may be newer than what stands: whoever
        # owns it next must not build on less. Both steps refuse once it is closed again.
        if not await self._restore():
            return False
        if not await self._replay(seen.name, list(self.custody.retained.values())):
            return False
        self.custody.enter(seen)
        log.info("action=following generation=%s", seen.name)
        await generation.withdraw(self._live, self._worker)
        return True

    async def _restore(self) -> bool:
        """Hand in all we hold; False where Redis lost its data meanwhile: then again."""
        custody = self.custody
        rows = [
            generation.Restored(database=name, status=status, epoch=epoch, owner=self._worker)
            for name, (status, epoch) in custody.restorable().items()
        ]
        done = await generation.restore(
            self._live, self._worker, rows, custody.term, custody.signature
        )
        log.info("action=restored databases=%d term=%d whole=%s", len(rows), custody.term, done)
        return done


def _log_accepted(accepted: Sequence[Transition]) -> None:
    for one in accepted:
        log.info(
            "action=transition database=%s identity=%s from=%s to=%s rule=%s",
            one.database,
            one.identity,
            one.source,
            one.target,
            one.rule,
        )
