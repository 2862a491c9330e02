"""One database, two signals: a session that is kept, and fresh logins beside it.

Workers and the CLI import `Session`, `FeelNotes` and `probe`. Feels of one session follow one
another, never overlap.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from monitor.core.access import Access
from monitor.core.cause import LOCKS, Cause
from monitor.core.database import Address
from monitor.core.observation import Observation
from monitor.feeler import evidence, gauges
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed, clean
from monitor.feeler.evidence import Outcome
from monitor.feeler.gauges import Readings
from monitor.feeler.login import Login, LoginLimiter
from monitor.feeler.login_queue import Urgency
from monitor.feeler.name_watch import NameWatch
from monitor.feeler.reader import Reader, SlowReadings
from monitor.feeler.servers import LoginReports
from monitor.feeler.signals import Signals
from monitor.feeler.wire import Wire

log = logging.getLogger("feeler.session")

# Seconds a server gets to end a session that was given up, before a login and before the next.
SLOT_PAUSES = (0.05, 0.25)


@dataclass(frozen=True, slots=True)
class FeelNotes:
    """What the next feel must know of this one, beside its Observation. Times are seconds."""

    began: float = 0.0  # when the first packet left (monotonic), 0 if nothing was sent
    login_seconds: float = 0.0  # that a login took which worked
    login_waiting: bool = False  # a login is still to be proved: it was not our turn
    slots_full: bool = False  # sessions have taken every slot that is not reserved
    slow_seconds: float = 0.0  # that the slow gauges took, 0 if they were not asked
    slow_complete: bool = False  # they were asked, and there was time for all of them


class Session:
    """One database as one worker sees it."""

    def __init__(
        self,
        address: Address,
        *,
        worker: str,
        deadline: float,
        clock: Callable[[], float],
        database: str = "",
        revision: int = 0,
        logins: LoginLimiter | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Take part in the logins at this address; nothing is opened before the first feel.

        `database`, `worker` and `revision` go into every Observation; its Access tells of a pooler
        alone. `wake` asks for a feel at once: the session was lost, a login's turn has come, or
        others' logins proved something.
        """
        logins = logins or LoginLimiter()
        self._database, self._worker, self._revision = database, worker, revision
        self._secret, self._deadline, self._clock = address.password, deadline, clock
        self._wake = wake
        self._queue = logins.queues.of(address)
        server = self._queue.server
        self._reports = LoginReports(server, self._on_report)
        self._name = NameWatch(address.host, logins.names)
        self._reader = Reader(deadline, clock)
        login = Login(address, worker, logins, server.backoff)
        self._signals = Signals(login, self._reader, self._name, self._reports, deadline, wake)
        self._attempt: Attempt | None = None
        self._closed = False
        self._role_full = False  # the role may have no session beside the kept one
        self._refusal = Outcome(Cause.OK)  # the newest login that was refused
        self._urgency = Urgency.DUE
        self._felt = time.monotonic()  # when the evidence of the last feel was in

    @property
    def neighbours(self) -> int:
        """Return how many sessions of this process are at the same server, this one included."""
        return self._reports.sessions

    async def feel(
        self,
        *,
        fresh: bool,
        slow: bool,
        urgency: Urgency = Urgency.DUE,
        held: Cause | None = None,
        login_deadline: float | None = None,
        pooled: bool = False,
    ) -> tuple[Observation, FeelNotes]:
        """Look at the database once, within the deadline (a login has its own); never raise.

        `fresh` proves a login even where the kept session answers, once it is our turn: who is
        woken feels again. `slow` asks the slow gauges as well. `held`: no login may be tried, for
        this cause. `pooled`: a pooler was between when somebody last looked.
        """
        attempt = Attempt(self._clock, self._deadline, login_deadline or self._deadline)
        attempt.since = self._felt
        self._attempt, self._urgency = attempt, urgency
        if pooled:
            self._reader.pooling = self._reader.pooling.reported(True)
        outcome, readings = await self._look(attempt, urgency if fresh else None, held)
        ended_at = self._conclude(attempt, outcome)
        slow_readings = SlowReadings()
        if slow and outcome.ok:
            slow_readings = await self._signals.ask_slow(attempt)
            readings += slow_readings.readings
        self._signals.end_feel()
        observation = self._observation(attempt, outcome, ended_at, readings)
        return observation, self._notes(attempt, readings, slow_readings)

    async def _look(
        self, attempt: Attempt, urgency: Urgency | None, held: Cause | None
    ) -> tuple[Outcome, Readings]:
        """Return what the fast queries, and a login where one is wanted, prove and read."""
        try:
            if self._closed:
                raise Failed(Cause.SEVERED, "closed by us")
            if held:
                outcome = await self._without_login(attempt, held)
            else:
                outcome = await self._both_signals(attempt, urgency)
            return outcome, self._reader.readings(outcome)
        except Failed as failed:
            return evidence.of_failure(failed), ()
        except Exception:
            log.exception("action=feel_failed")  # a bug of ours is no evidence
            return Outcome(Cause.SEVERED, detail="failed inside feeler"), ()

    def _conclude(self, attempt: Attempt, outcome: Outcome) -> float:
        """Remember what the next feel must know; return when the evidence was in."""
        if attempt.login and outcome.cause in LOCKS:
            # Not the outcome itself, which holds libpq's results: a fleet's would take megabytes.
            self._refusal = Outcome(outcome.cause, detail=outcome.detail, sqlstate=outcome.sqlstate)
        if outcome.ok:
            self._name.all_is_well()
        self._felt = attempt.shared_ended or time.monotonic()
        if attempt.login:
            self._reports.login_counted(self._felt)
        return attempt.evidence_at or self._clock()

    def _observation(
        self, attempt: Attempt, outcome: Outcome, ended_at: float, readings: Readings
    ) -> Observation:
        return Observation(
            database=self._database,
            worker=self._worker,
            revision=self._revision,
            sent_at=attempt.sent_at or ended_at,
            at=ended_at,
            cause=outcome.cause,
            readings=readings,
            access=Access(pooled=self._reader.pooling.present),
            fresh_login=attempt.login and not evidence.is_our_fault(outcome.cause),
            detail=clean(attempt.describe(outcome.detail), self._secret),
            sqlstate=outcome.sqlstate,
            steps=attempt.steps,
            tried=tuple(attempt.tried),
            dns_stale=attempt.dns_stale,
            waited=attempt.waited,
        )

    def _notes(self, attempt: Attempt, readings: Readings, slow: SlowReadings) -> FeelNotes:
        return FeelNotes(
            began=attempt.sent,
            login_seconds=attempt.login_seconds,
            login_waiting=attempt.login_waiting,
            slots_full=gauges.slots_full(readings),
            slow_seconds=slow.seconds,
            slow_complete=slow.complete,
        )

    async def close(self) -> None:
        """End the kept session, and a login that waits; one under way ends with its feel."""
        self._closed = True
        self._reports.close()
        self._queue.leave(self)
        if self._attempt:
            self._attempt.cancel_wait()
        self._signals.close()

    # --- which of the two signals -----------------------------------------------------------------

    async def _both_signals(self, attempt: Attempt, urgency: Urgency | None) -> Outcome:
        """Ask the kept session, and prove a login where one is wanted and it is our turn."""
        kept = self._signals.kept
        if kept is None:
            return await self._signals.log_in(attempt)
        urgency = self._login_wanted(kept, urgency)
        report = self._reports.news(kept.hostaddr)
        if report:
            self._queue.leave(self)  # another session's login counts for ours
        elif urgency is not None and self._is_our_turn(attempt, urgency):
            try:
                return await self._prove_login(attempt, kept)
            finally:
                self._queue.leave(self)
        outcome = await self._signals.ask_kept(attempt, kept)
        if outcome is None:
            # an administrator may have ended it: one login is the evidence
            return await self._signals.log_in(attempt)
        if report and outcome.ok:
            attempt.login = True
            self._reports.rely_on(report)
            return evidence.with_report(outcome, report.failed)
        if attempt.login_waiting and urgency is not Urgency.DUE:
            return evidence.without_login(outcome)
        return outcome

    def _login_wanted(self, kept: Wire, urgency: Urgency | None) -> Urgency | None:
        """Return how urgently to prove a login: also where the kept session is to be replaced."""
        if urgency is not None:
            return urgency
        if kept.needs_replacing:
            return Urgency.DUE
        self._name.refresh(lambda: self._on_lookup(kept))
        return Urgency.DUE if self._name.has_moved(kept.hostaddr) else None

    def _is_our_turn(self, attempt: Attempt, urgency: Urgency) -> bool:
        attempt.login_waiting = not self._queue.enter(self, urgency, self._wake)
        return not attempt.login_waiting

    async def _without_login(self, attempt: Attempt, held: Cause) -> Outcome:
        """Prove that the server lives: what logins are worth is known, and none may be tried."""
        refusal = Outcome(held, detail=self._refusal.detail, sqlstate=self._refusal.sqlstate)
        kept = self._signals.kept
        alive = await self._signals.ask_kept(attempt, kept) if kept else None
        if alive:
            return evidence.under_refusal(alive, refusal)
        await self._signals.check_alive(attempt)
        return refusal

    async def _prove_login(self, attempt: Attempt, kept: Wire) -> Outcome:
        """Prove a login beside the kept session, or in its place where there is no room for both.

        Only the role's limit is remembered: a pool is used up for a moment, and its server may fill
        up meanwhile.
        """
        if not self._role_full:
            outcome = await self._log_in_beside(attempt, kept)
            self._role_full = outcome.cause is Cause.ROLE_FULL
            pool_used_up = outcome.cause is Cause.POOLER_WAITING
            in_the_way = pool_used_up and self._reader.has_room(outcome)
            if not (self._role_full or in_the_way):
                return outcome
        return await self._log_in_instead(attempt, kept)

    async def _log_in_beside(self, attempt: Attempt, kept: Wire) -> Outcome:
        """Log in while the kept session is asked: where that fails, it says what this is worth."""
        attempt.sending()
        kept_attempt = Attempt(self._clock, self._deadline)
        beside = asyncio.create_task(self._signals.ask_kept(kept_attempt, kept))
        try:
            return await self._signals.log_in(attempt)
        except Failed as failed:
            with suppress(Failed):
                outcome = await beside
                if outcome and outcome.ok:
                    attempt.login = not evidence.is_our_fault(failed.cause)
                    self._reports.login_failed(attempt, failed)
                    return evidence.beside_failed_login(outcome, failed)
            raise
        finally:
            beside.cancel()
            await asyncio.wait((beside,))
            if not beside.cancelled():
                beside.exception()  # read, lest the loop complains

    async def _log_in_instead(self, attempt: Attempt, kept: Wire) -> Outcome:
        """Give the kept session up for a login, unless the server is full: we would not get in."""
        attempt.login = False
        attempt.start_part(self._deadline)
        outcome = await self._signals.ask_kept(attempt, kept)
        if outcome is None:
            return await self._signals.log_in(attempt)
        if not outcome.ok or not self._reader.has_room(outcome):
            return evidence.without_login(outcome)
        kept.close()
        # the server counts the session that we gave up until its process has ended
        for pause in SLOT_PAUSES:
            await asyncio.sleep(pause)
            try:
                return await self._signals.log_in(attempt)
            except Failed as failed:
                if failed.cause is not Cause.ROLE_FULL:
                    raise
        return await self._signals.log_in(attempt)

    # --- what happens between two feels -----------------------------------------------------------

    def _on_report(self) -> None:
        """Feel at once what others' logins proved; without a session all would log in at once."""
        known = self._urgency is Urgency.REPEATED  # and the next beat is soon enough
        if self._signals.kept and not known:
            self._wake()

    def _on_lookup(self, kept: Wire) -> None:
        is_kept = kept is self._signals.kept and not self._closed
        if is_kept and self._name.has_moved(kept.hostaddr):
            self._wake()


async def probe(
    address: Address, *, worker: str = "probe", deadline: float = 5.0, ca_dir: Path | None = None
) -> Observation:
    """Feel a database once over a login of its own, slow gauges included, and leave."""
    logins = LoginLimiter(ca_dir=ca_dir)
    session = Session(address, worker=worker, deadline=deadline, clock=time.time, logins=logins)
    try:
        observation, _ = await session.feel(fresh=True, slow=True)
        return observation
    finally:
        await session.close()
