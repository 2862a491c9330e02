"""One database, felt: a kept connection, fresh logins beside it, and what the two prove together.

Workers and the CLI import `Session`, `Feeling` and `probe`. Feels of one session follow one
another, never overlap.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from monitor.core.cause import EVIDENCE, LOCKS, Cause, Evidence, cause_of_sqlstate
from monitor.core.database import Address
from monitor.core.observation import Reading, ReadingStatus, Value
from monitor.feeler import gauges, questions
from monitor.feeler.answers import Answer, Answers, aborted, judge, only_row, sqlstate, words
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed, cause_beside_kept, clean, is_kept_waiting
from monitor.feeler.gauges import Query
from monitor.feeler.login import Entrance, LoginLimiter, knock, log_in
from monitor.feeler.proofs import Told, Urgency
from monitor.feeler.turns import SHARED
from monitor.feeler.wire import Unit, Wire

log = logging.getLogger("feeler.session")

STATEMENT_SHARE = (
    0.75  # of the deadline: the server gives a statement up before we give the server up
)
MARGIN_SHARE = 0.1  # of the deadline: a slow statement starts only when it can end in time
FREED = (
    0.05,
    0.25,
)  # seconds a server gets to end a session that was given up, before a login and the next
PATIENCE = 0.4  # seconds, half of which a negative waits for the newest answer for its name
BRIEF, WITHIN = (
    3,
    30.0,
)  # so many kept sessions that end by themselves within so many seconds: we keep none ...
KEEP_AGAIN = 600.0  # ... for so many seconds
LARGEST_PID = 1 << 22  # that a Linux gives; poolers make numbers up
# seconds between two calls of on_lost: a server that ends every session gets no storm of logins
QUIET = 1.0
_POOLED = {
    "26000",
    "42P05",
}  # our prepared statement is unknown, or another's: somebody shares connections


@dataclass(frozen=True, slots=True)
class Feeling:
    """What one feel proved. `at` is when the evidence was in; the slow tier may have gone on after
    it.
    """

    cause: Cause
    sent_at: float
    at: float
    readings: tuple[Reading, ...] = ()
    fresh_login: bool = False  # a login is part of the evidence
    detail: str = ""
    steps: Mapping[str, float] = field(default_factory=dict)  # milliseconds
    login_seconds: float = 0.0  # that a login took which worked
    waiting: bool = False  # a login is still to be proved: it was not our turn
    slots_full: bool = False
    slow_cost: float = 0.0  # seconds the slow tier took, 0 if it was not asked
    slow_whole: bool = False  # it was asked, and there was time for all of it
    began: float = 0.0  # `sent_at` by the event loop's clock, 0 if nothing was sent
    waited: float = (
        0.0  # seconds its login waited for its turn at the address: the cadence stretches
    )
    tried: tuple[str, ...] = ()  # the addresses it is about
    dns_stale: bool = False  # the last ones known, for the name did not resolve
    pooled: bool = False  # a pooler is between: logins and sessions may be the pooler's word
    sqlstate: str = ""  # of the error that `detail` tells


class Session:
    """At most one kept connection, and one more while a login is proved."""

    def __init__(
        self,
        address: Address,
        *,
        worker: str,
        deadline: float,
        clock: Callable[[], float],
        logins: LoginLimiter | None = None,
        ca_dir: Path | None = None,
        on_lost: Callable[[], None] = lambda: None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._entrance = Entrance(address, worker, ca_dir)
        self._deadline, self._clock, self._on_lost = deadline, clock, on_lost
        self._logins, self._on_turn = logins or LoginLimiter(), on_turn
        self._door = self._logins.doors.of(address)
        self._door.server.sessions[self] = self._on_told
        self._wire: Wire | None = None
        self._attempt: Attempt | None = None
        self._closed = self._pooled = False
        self._shared = (
            False  # a statement of ours vanished: whatever process ids say, there is a pooler
        )
        self._stuck: asyncio.Future[object] | None = None
        self._counters: gauges.Counters | None = None
        self._next_slow = 0
        self._ended: deque[float] = deque(maxlen=BRIEF)  # when kept sessions ended by themselves
        self._keep_again = 0.0
        self._crowded = False  # the role may have no session beside the kept one
        self._refusal = "", ""  # words and SQLSTATE of the newest login that was refused
        self._login_deadline = deadline
        self._told = -QUIET
        self._urgency, self._hearsay = (
            Urgency.DUE,
            False,
        )  # the newest word on logins was another database's
        self._seen = self._proved = time.monotonic()  # when the last feel, the last login ended
        self._left: set[str] = (
            set()
        )  # addresses the name left while they were tried, since the last ok

    @property
    def neighbours(self) -> int:
        """Return how many sessions of this process are at the same server, this one included."""
        return len(self._door.server.sessions)

    async def feel(
        self,
        *,
        fresh: bool,
        slow: bool,
        urgency: Urgency = Urgency.DUE,
        held: Cause | None = None,
        login_deadline: float | None = None,
        pooled: bool = False,
    ) -> Feeling:
        """Look at the database once, within the deadline (a login has its own); every failure is a
        Feeling too.

        `fresh` proves a login even where the kept session answers, once it is our turn: who is
        woken by `on_turn` feels again. `slow` asks the dear gauges as well. `held`: no login may be
        tried, for this cause. `pooled`: a pooler was between when somebody last looked.
        """
        attempt = self._attempt = Attempt(self._clock, self._deadline, since=self._seen)
        self._login_deadline, self._urgency = login_deadline or self._deadline, urgency
        self._pooled |= pooled
        answers, found = await self._look(attempt, urgency if fresh else None, held)
        at = self._conclude(attempt, answers)
        cost, whole = 0.0, False
        if slow and answers.cause is Cause.OK:
            more, cost, whole = await self._slow_tier(attempt)
            found += more
        self._keep_or_leave()
        feeling = self._feeling(attempt, answers, at)
        full = gauges.slots_full(found)
        return replace(feeling, readings=found, slots_full=full, slow_cost=cost, slow_whole=whole)

    async def _look(
        self, attempt: Attempt, urgency: Urgency | None, held: Cause | None
    ) -> tuple[Answers, tuple[Reading, ...]]:
        """Return what the fast queries, and a login where one is wanted, prove and read."""
        try:
            if self._closed:
                raise Failed(Cause.SEVERED, "closed by us")
            way = self._without_login(attempt, held) if held else self._evidence(attempt, urgency)
            answers = await way
            return answers, self._readings(answers)
        except Failed as failed:
            return Answers(failed.cause, 0, detail=failed.detail, sqlstate=failed.sqlstate), ()
        except Exception:
            log.exception("action=feel_failed")  # a bug of ours is no evidence
            return Answers(Cause.SEVERED, 0, detail="failed inside feeler"), ()

    def _conclude(self, attempt: Attempt, answers: Answers) -> float:
        """Remember what the next feel must know; return when the evidence was in."""
        if attempt.login and answers.cause in LOCKS:
            self._refusal = answers.detail, answers.sqlstate
        if answers.cause is Cause.OK:
            self._left.clear()
        self._seen = attempt.heard or time.monotonic()
        if attempt.login:
            self._proved = self._seen
        return attempt.heard_at or self._clock()

    def _feeling(self, attempt: Attempt, answers: Answers, at: float) -> Feeling:
        return Feeling(
            cause=answers.cause,
            sent_at=attempt.sent_at or at,
            at=at,
            fresh_login=attempt.login and EVIDENCE[answers.cause] is not Evidence.OUR_FAULT,
            detail=clean(attempt.told(answers.detail), self._entrance.address.password),
            tried=tuple(attempt.tried),
            dns_stale=attempt.dns_stale,
            steps=attempt.steps,
            login_seconds=attempt.login_seconds,
            waiting=attempt.waiting,
            began=attempt.sent,
            waited=attempt.waited,
            pooled=self._pooled,
            sqlstate=answers.sqlstate,
        )

    async def close(self) -> None:
        """End the kept connection; a login under way ends with its feel, one that waits for its
        turn ends now.
        """
        self._closed = True
        self._door.server.sessions.pop(self, None)
        self._door.give_back(self)
        if self._attempt:
            self._attempt.give_up()
        if self._wire:
            self._wire.close()

    async def _evidence(self, attempt: Attempt, urgency: Urgency | None) -> Answers:
        kept = self._wire
        if kept is None or kept.closed:
            return await self._enter(attempt)
        if urgency is None and (kept.worn or self._has_moved(kept)):
            urgency = Urgency.DUE
        told = self._door.server.told(kept.hostaddr, self._proved)
        entered = self._door.server.entered_since(self._proved, kept.hostaddr)
        over = self._hearsay and entered  # for all who were told
        if told or over:
            self._door.give_back(self)
        elif urgency is not None and self._is_our_turn(attempt, urgency):
            try:
                return await self._prove(attempt, kept)
            finally:
                self._door.give_back(self)
        try:
            answers = await self._ask_kept(attempt, kept)
        except Failed as failed:
            if not failed.lost:
                raise
            return await self._enter(
                attempt
            )  # an administrator may have ended it: one login is the evidence
        if (told or over) and answers.cause is Cause.OK:
            attempt.login, self._hearsay = (
                True,
                bool(told),
            )  # another database's login, that speaks for all
            return _beside(answers, told) if told else answers
        unproved = attempt.waiting and urgency is not Urgency.DUE and answers.cause is Cause.OK
        return replace(answers, cause=Cause.LOGIN_NOT_PROVED) if unproved else answers

    async def _without_login(self, attempt: Attempt, held: Cause) -> Answers:
        """Prove that the server lives; what logins are worth is known, and they may not be tried
        again yet.
        """
        detail, code = self._refusal
        if self._wire and not self._wire.closed:
            try:
                answers = await self._ask_kept(attempt, self._wire)
                lives = answers.cause is Cause.OK
                return (
                    replace(answers, cause=held, detail=detail, sqlstate=code) if lives else answers
                )
            except Failed as failed:
                if not failed.lost:
                    raise
        await self._excusing(attempt, self._knock(attempt))
        return Answers(held, 0, detail=detail, sqlstate=code)

    async def _knock(self, attempt: Attempt) -> Answers:
        try:
            async with asyncio.timeout_at(attempt.until) as attempt.timeout:
                await knock(self._entrance, attempt, self._logins)
        except TimeoutError:
            raise attempt.expired() from None
        return Answers(Cause.OK, 0)

    def _is_our_turn(self, attempt: Attempt, urgency: Urgency) -> bool:
        attempt.waiting = not self._door.take(self, urgency, self._on_turn)
        return not attempt.waiting

    def _has_moved(self, kept: Wire) -> bool:
        """Say whether the name leads elsewhere by now, and have it looked up again from time to
        time.
        """
        names, host = self._logins.names, self._entrance.address.host
        if lookup := names.refresh(host):
            lookup.add_done_callback(lambda _: self._mind_name(kept))
        return not names.leads_to(host, kept.hostaddr)

    def _mind_name(self, kept: Wire) -> None:
        moved = not self._logins.names.leads_to(self._entrance.address.host, kept.hostaddr)
        if moved and kept is self._wire and not kept.closed and not self._closed:
            self._on_lost()

    async def _ask_kept(self, attempt: Attempt, kept: Wire) -> Answers:
        return await self._minding_pooler(attempt, self._ask_within(attempt, kept))

    async def _ask_within(self, attempt: Attempt, kept: Wire) -> Answers:
        attempt.sending()
        attempt.tried[:] = [kept.hostaddr]
        try:
            async with asyncio.timeout_at(attempt.until):
                with attempt.step("query"):
                    return await self._ask(kept)
        except TimeoutError:
            raise attempt.expired() from None

    async def _enter(self, attempt: Attempt) -> Answers:
        """Log in, ask, and keep the new connection."""
        return await self._excusing(attempt, self._minding_pooler(attempt, self._log_in(attempt)))

    async def _minding_pooler(self, attempt: Attempt, way: Awaitable[Answers]) -> Answers:
        """Go this way; what does not come is only waited for behind a pooler that lives."""
        try:
            return await way
        except Failed as failed:
            again = failed.lost and not attempt.login  # a login follows, and that is the evidence
            if again or not (
                self._pooled and is_kept_waiting(failed, entered=attempt.stage == "query")
            ):
                raise
            waiting = Failed(Cause.POOLER_WAITING, failed.detail, sqlstate=failed.sqlstate)
        if not (attempt.answered or waiting.sqlstate):
            attempt.allow(self._deadline)
            await self._excusing(attempt, self._knock(attempt))
        raise waiting

    async def _excusing(self, attempt: Attempt, way: Awaitable[Answers]) -> Answers:
        """Go this way; a database whose name leads elsewhere by now was not proved down."""
        try:
            return await way
        except Failed as failed:
            if EVIDENCE[failed.cause] in (Evidence.ABSENT, Evidence.SILENT) and attempt.tried:
                await self._excuse(attempt, failed)
            raise

    async def _excuse(self, attempt: Attempt, failed: Failed) -> None:
        """Raise what a negative is worth where the name does not resolve, or has left the addresses
        tried.

        Each is excused once until all is well again: some names lead elsewhere with every answer.
        """
        attempt.heard_at = attempt.heard_at or self._clock()
        if attempt.dns_stale:
            raise Failed(
                Cause.DNS,
                f"the name does not resolve; where it led: {failed.cause} {failed.detail}",
            )
        names, host, tried = self._logins.names, self._entrance.address.host, set(attempt.tried)
        with suppress(Failed):
            await names.resolve(host, time.monotonic() + PATIENCE)
        if tried <= self._left or any(names.leads_to(host, address) for address in tried):
            return
        self._left |= tried
        raise Failed(
            Cause.NAME_MOVED, f"the name leads elsewhere by now; {failed.cause} {failed.detail}"
        )

    async def _log_in(self, attempt: Attempt) -> Answers:
        if self._stuck and not self._stuck.done():
            raise Failed(
                Cause.SEVERED, "a thread still computes what the server asked of a former login"
            )
        attempt.login, self._hearsay, wire = True, False, None
        attempt.allow(self._login_deadline)
        try:
            async with asyncio.timeout_at(attempt.until) as timeout:
                attempt.timeout = timeout if self._wire is None or self._wire.closed else None
                wire = Wire(await log_in(self._entrance, attempt, self._logins), self._wire_lost)
            self._door.server.entered(wire.hostaddr)
            attempt.login_seconds = time.monotonic() - attempt.began - attempt.own
            attempt.allow(self._deadline)
            async with asyncio.timeout_at(attempt.until):
                with attempt.step("query"):
                    await self._set_up(wire)
                    answers = await self._ask(wire)
            self._keep(wire)
            wire = None
        except TimeoutError:
            raise attempt.expired() from None
        finally:
            self._stuck = attempt.stuck or self._stuck
            if wire:
                wire.close()
        return answers

    async def _prove(self, attempt: Attempt, kept: Wire) -> Answers:
        """Prove a login beside the kept session, or in its place where role or pool may have no
        session more.

        Only the role's limit is remembered: a pool is used up for a moment, and its server may fill
        up meanwhile.
        """
        if not self._crowded:
            answers = await self._enter_beside(attempt, kept)
            self._crowded = answers.cause is Cause.ROLE_FULL
            in_the_way = answers.cause is Cause.POOLER_WAITING and self._has_room(answers)
            if not (self._crowded or in_the_way):
                return answers
        return await self._enter_instead(attempt, kept)

    async def _enter_instead(self, attempt: Attempt, kept: Wire) -> Answers:
        """Give the kept session up and log in, unless the server is full: it would let nobody in
        again.
        """
        attempt.login = False
        attempt.allow(self._deadline)
        try:
            answers = await self._ask_kept(attempt, kept)
        except Failed as failed:
            if not failed.lost:
                raise
            return await self._enter(attempt)
        if answers.cause is not Cause.OK or not self._has_room(answers):
            return (
                replace(answers, cause=Cause.LOGIN_NOT_PROVED)
                if answers.cause is Cause.OK
                else answers
            )
        kept.close()
        for pause in FREED:
            await asyncio.sleep(pause)
            try:
                return await self._enter(attempt)
            except Failed as failed:
                if failed.cause is not Cause.ROLE_FULL:
                    raise
        return await self._enter(attempt)

    def _has_room(self, answers: Answers) -> bool:
        found = (answer for answer in answers.answers if "connections" in answer.query.families)
        return gauges.has_room(
            [reading for answer in found for reading in self._read(answer, self._clock())]
        )

    async def _enter_beside(self, attempt: Attempt, kept: Wire) -> Answers:
        """Prove a login; when it fails, the kept session, asked at the same time, says what that is
        worth.
        """
        attempt.sending()
        beside = asyncio.create_task(self._ask_kept(Attempt(self._clock, self._deadline), kept))
        try:
            return await self._enter(attempt)
        except Failed as failed:
            with suppress(Failed):
                answers = await beside
                if answers.cause is Cause.OK:
                    attempt.login = EVIDENCE[failed.cause] is not Evidence.OUR_FAULT
                    self._tell(attempt, failed)
                    return _beside(answers, failed)
            raise
        finally:
            beside.cancel()
            await asyncio.wait((beside,))
            if not beside.cancelled():
                beside.exception()

    def _tell(self, attempt: Attempt, failed: Failed) -> None:
        """Let those who keep sessions at this address know what it says to whoever comes, and
        nothing else.
        """
        server = self._door.server
        if attempt.heard:
            return  # another login found it out, and one finding counts once
        if failed.cause in SHARED or (failed.cause is Cause.HUNG and not attempt.answered):
            server.failed(self, Told(failed, attempt.tried[-1], attempt.sent))
        elif EVIDENCE[failed.cause] is Evidence.ALIVE:
            server.answered(attempt.tried[-1])

    def _on_told(self) -> None:
        known = self._urgency is Urgency.REPEATED  # and the next beat is soon enough
        if (
            self._wire and not self._wire.closed and not known
        ):  # else it would log in, and all of them at once
            self._on_turn()

    def _keep(self, wire: Wire) -> None:
        if self._closed:
            wire.close()
            raise Failed(Cause.SEVERED, "closed by us")
        if self._wire:
            self._wire.close()
        self._wire = wire

    async def _set_up(self, wire: Wire) -> None:
        """Pin the session's settings, in one round trip, unless a pooler shares it."""
        if not self._shared:
            self._pooled |= not 0 < wire.backend_pid <= LARGEST_PID
            (result,) = await wire.ask(
                [questions.set_up(self._deadline * STATEMENT_SHARE, wire.backend_pid)]
            )
            if code := sqlstate(result):
                raise Failed(cause_of_sqlstate(code), words(result), sqlstate=code)
            self._pooled = result.ntuples == 1 and result.get_value(0, 0) == b"t"
        wire.pooled = self._pooled
        if not wire.pooled:
            wire.pipeline(True)

    async def _ask(self, wire: Wire) -> Answers:
        fast = gauges.queries(wire.server_version, slow=False)
        together = not (wire.apart or wire.pooled)
        results = await wire.ask([self._unit(wire, query) for query in fast], together=together)
        answers = tuple(
            Answer(query, sqlstate(result), result)
            for query, result in zip(fast, results, strict=True)
        )
        if not wire.pooled and any(answer.code in _POOLED for answer in answers):
            self._shared = self._pooled = wire.pooled = True
            wire.pipeline(False)
            return await self._ask(wire)
        if aborted(results):
            wire.apart = True
            return await self._ask(wire)
        wire.prepared.update(answer.query.name for answer in answers if not answer.code)
        return judge(answers, wire.server_version)

    def _unit(self, wire: Wire, query: Query) -> Unit:
        if wire.pooled:
            return questions.run_through_pooler(query, self._deadline * STATEMENT_SHARE)
        return questions.run(query, prepared=query.name in wire.prepared)

    def _readings(self, answers: Answers) -> tuple[Reading, ...]:
        at = self._clock()
        if not answers.server_version:
            return ()  # nobody was asked
        found = [reading for answer in answers.answers for reading in self._read(answer, at)]
        found.extend(gauges.unsupported(answers.server_version, at, slow=False))
        return tuple(found)

    def _read(self, answer: Answer, at: float) -> tuple[Reading, ...]:
        query = answer.query
        if answer.code:
            return gauges.failed(query, at, gauges.status_of_sqlstate(answer.code), answer.code)
        try:
            row = only_row(answer.result)
            rates: dict[str, Value] = {}
            if "database" in query.families:
                now = gauges.counters(row, time.monotonic())
                rates, self._counters = gauges.rates(self._counters, now), now
            return gauges.readings(query, row, at, rates)
        except ValueError:  # the server lies about its types
            return gauges.failed(query, at, ReadingStatus.ERROR)

    async def _slow_tier(self, attempt: Attempt) -> tuple[tuple[Reading, ...], float, bool]:
        """Ask the dear gauges one by one while there is time for one more, beginning where the last
        feel ended.
        """
        began, whole = time.monotonic(), True
        found: list[Reading] = []
        wire = self._wire
        assert wire
        tier = gauges.queries(wire.server_version, slow=True)
        for query in (*tier[self._next_slow :], *tier[: self._next_slow]):
            if (
                time.monotonic() + self._deadline * (STATEMENT_SHARE + MARGIN_SHARE) > attempt.until
                or wire.closed
            ):
                whole = False
                break
            self._next_slow = (tier.index(query) + 1) % len(tier)
            found.extend(await self._ask_slowly(attempt, wire, query))
        found.extend(gauges.unsupported(wire.server_version, self._clock(), slow=True))
        return tuple(found), time.monotonic() - began, whole

    async def _ask_slowly(self, attempt: Attempt, wire: Wire, query: Query) -> tuple[Reading, ...]:
        try:
            async with asyncio.timeout_at(attempt.until):
                (result,) = await wire.ask([self._unit(wire, query)])
            return self._read(Answer(query, sqlstate(result), result), self._clock())
        except TimeoutError:
            return gauges.failed(query, self._clock(), ReadingStatus.TIMED_OUT)
        except Failed as failed:
            if failed.lost:
                self._wire_lost()
            return gauges.failed(query, self._clock(), ReadingStatus.ERROR)

    def _wire_lost(self) -> None:
        now = time.monotonic()
        if self._closed or not (self._wire and self._wire.closed):
            return
        self._ended.append(now)
        if len(self._ended) == BRIEF and now - self._ended[0] < WITHIN:
            self._keep_again = now + KEEP_AGAIN
        elif now - self._told >= QUIET:
            self._told = now
            self._on_lost()

    def _keep_or_leave(self) -> None:
        """Keep no session where none lasts (idle_session_timeout, a proxy): the next beat logs in,
        at its own time.
        """
        if self._wire and time.monotonic() < self._keep_again:
            self._wire.close()


def _beside(answers: Answers, failed: Failed) -> Answers:
    """Return what it is worth that a login failed and the kept session answered."""
    return replace(
        answers,
        cause=cause_beside_kept(failed.cause),
        detail=failed.detail,
        sqlstate=failed.sqlstate,
    )


async def probe(
    address: Address, *, worker: str = "probe", deadline: float = 5.0, ca_dir: Path | None = None
) -> Feeling:
    """Feel a database once over a login of its own, dear gauges included, and leave."""
    session = Session(address, worker=worker, deadline=deadline, clock=time.time, ca_dir=ca_dir)
    try:
        return await session.feel(fresh=True, slow=True)
    finally:
        await session.close()
