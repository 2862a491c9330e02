"""The two signals of one database: a session that is kept, and a login beside or instead of it.

For this package alone. Behind a pooler silence may be a wait, and a name may have moved: each
signal says so by its cause.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from monitor.core.cause import Cause
from monitor.feeler import evidence
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed
from monitor.feeler.evidence import Outcome
from monitor.feeler.keeping import Keeping
from monitor.feeler.login import Login, check_liveness, open_connection
from monitor.feeler.name_watch import NameWatch
from monitor.feeler.pooler import may_be_waiting
from monitor.feeler.reader import Reader, SlowReadings
from monitor.feeler.servers import LoginReports
from monitor.feeler.wire import Wire

T = TypeVar("T")


class Signals:
    """At most one kept connection, and one more while somebody logs in; `deadline` in seconds."""

    def __init__(
        self,
        login: Login,
        reader: Reader,
        name: NameWatch,
        reports: LoginReports,
        deadline: float,
        on_lost: Callable[[], None],
    ) -> None:
        self._login, self._reader, self._name, self._reports = login, reader, name, reports
        self._deadline, self._on_lost = deadline, on_lost
        self._keeping = Keeping()
        self._wire: Wire | None = None
        self._stuck_call: asyncio.Future[object] | None = None
        self._closed = False

    @property
    def kept(self) -> Wire | None:
        """Return the kept session, None where there is none or it has ended."""
        wire = self._wire
        return None if wire is None or wire.closed else wire

    def close(self) -> None:
        """End the kept session, and keep none any more."""
        self._closed = True
        if self._wire:
            self._wire.close()

    def end_feel(self) -> None:
        """Keep no session where none lasts."""
        if self._wire and not self._keeping.may_keep(time.monotonic()):
            self._wire.close()

    async def ask_kept(self, attempt: Attempt, kept: Wire) -> Outcome | None:
        """Ask the kept session; None where it ended meanwhile, which is no evidence."""
        try:
            return await self._minding_pooler(attempt, self._ask_within(attempt, kept))
        except Failed as failed:
            if not failed.lost:
                raise
            return None

    async def _ask_within(self, attempt: Attempt, kept: Wire) -> Outcome:
        attempt.sending()
        attempt.tried[:] = [kept.hostaddr]
        try:
            async with asyncio.timeout_at(attempt.until):
                with attempt.step("query"):
                    return await self._reader.ask(kept)
        except TimeoutError:
            raise attempt.expired() from None

    async def log_in(self, attempt: Attempt) -> Outcome:
        """Log in, ask, and keep the new session instead of the old one; raise Failed."""
        way = self._minding_pooler(attempt, self._log_in_and_ask(attempt))
        return await self._minding_name(attempt, way)

    async def check_alive(self, attempt: Attempt) -> None:
        """Return when the server answers without a login; raise Failed."""
        await self._minding_name(attempt, check_liveness(self._login, attempt))

    async def _log_in_and_ask(self, attempt: Attempt) -> Outcome:
        if self._stuck_call and not self._stuck_call.done():
            detail = "a thread still computes what the server asked of a former login"
            raise Failed(Cause.SEVERED, detail)
        attempt.login, wire = True, None
        self._reports.login_begins()
        attempt.start_part(attempt.login_deadline)
        try:
            wire = await self._connect(attempt)
            attempt.start_part(self._deadline)
            async with asyncio.timeout_at(attempt.until):
                with attempt.step("query"):
                    await self._reader.set_up(wire)
                    outcome = await self._reader.ask(wire)
            self._keep(wire)
            wire = None
        except TimeoutError:
            raise attempt.expired() from None
        finally:
            self._stuck_call = attempt.stuck_call or self._stuck_call
            if wire:
                wire.close()
        return outcome

    async def _connect(self, attempt: Attempt) -> Wire:
        async with asyncio.timeout_at(attempt.until) as timeout:
            # beside a kept session no wait may move the end: the beat must not come late
            attempt.timeout = None if self.kept else timeout
            pgconn = await open_connection(self._login, attempt)
            wire = Wire(pgconn, self._on_wire_lost)
        self._reports.login_worked(wire.hostaddr)
        attempt.login_seconds = time.monotonic() - attempt.began - attempt.own_delay
        return wire

    def _keep(self, wire: Wire) -> None:
        if self._closed:
            wire.close()
            raise Failed(Cause.SEVERED, "closed by us")
        if self._wire:
            self._wire.close()
        self._wire = wire

    async def ask_slow(self, attempt: Attempt) -> SlowReadings:
        """Ask the slow gauges of the kept session while the attempt has time."""
        assert self._wire
        slow = await self._reader.ask_slow(self._wire, attempt.until)
        if slow.lost:
            self._on_wire_lost()
        return slow

    async def _minding_pooler(self, attempt: Attempt, way: Awaitable[Outcome]) -> Outcome:
        """Go this way; what does not come is only waited for behind a pooler that lives."""
        try:
            return await way
        except Failed as failed:
            if failed.lost and not attempt.login:
                raise  # a login follows, and that is the evidence
            entered = attempt.stage == "query"
            if not (self._reader.pooling.present and may_be_waiting(failed, entered=entered)):
                raise
            waiting = Failed(Cause.POOLER_WAITING, failed.detail, sqlstate=failed.sqlstate)
        if not (attempt.answered or waiting.sqlstate):
            attempt.start_part(self._deadline)
            await self.check_alive(attempt)
        raise waiting

    async def _minding_name(self, attempt: Attempt, way: Awaitable[T]) -> T:
        """Go this way; a database whose name leads elsewhere by now was not proved down."""
        try:
            return await way
        except Failed as failed:
            if evidence.is_negative(failed.cause) and attempt.tried:
                await self._name.check_negative(attempt, failed)
            raise

    def _on_wire_lost(self) -> None:
        """Tell of a kept session that ended by itself, but for one in a row of many."""
        is_lost = self._wire is not None and self._wire.closed
        if not self._closed and is_lost and self._keeping.session_ended(time.monotonic()):
            self._on_lost()
