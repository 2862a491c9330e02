"""A logged-in connection driven by the event loop: nothing here ever waits inside libpq.

For this package alone.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from monitor.core.cause import Cause, cause_of_sqlstate
from monitor.feeler import sockets
from monitor.feeler.answers import error_text, sqlstate
from monitor.feeler.causes import Failed, clean

# Bytes one exchange may take in; what we ask for is a thousand. Beyond 32 KB of one message libpq
# reads for as long as the peer keeps up, and its work on a flood of reported settings grows with
# the square of it: stay well below.
BYTE_BUDGET = 16_384
# Bytes after which a connection is replaced: libpq keeps what a server makes it keep.
LIFETIME_BUDGET = 8_388_608

Send = Callable[[PGconn], None]
Unit = Sequence[Send]  # messages that stand or fall together and have one outcome

_DONE = {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK}
_ANSWERS = {*_DONE, pq.ExecStatus.PIPELINE_ABORTED}
_FATAL = (b"FATAL", b"PANIC")


class Wire:
    """One connection. `on_lost` is called when it ends while nobody is asking."""

    def __init__(self, pgconn: PGconn, on_lost: Callable[[], None]) -> None:
        pgconn.nonblocking = 1
        self._pgconn, self._on_lost = pgconn, on_lost
        self._hostaddr = pgconn.hostaddr.decode()
        self._loop = asyncio.get_running_loop()
        self._fd = pgconn.socket  # kept: libpq forgets it when the connection ends
        self._socket = socket.socket(fileno=self._fd)
        self._waiter: asyncio.Future[None] | None = None
        self._allowed = sockets.bytes_received(self._socket) + BYTE_BUDGET
        self.closed = False
        self.pooled = False
        self.one_by_one = False  # a statement failed here: ask each by itself
        self.prepared: set[str] = set()  # names of statements
        self._loop.add_reader(self._fd, self._on_readable)

    @property
    def server_version(self) -> int:
        return self._pgconn.server_version

    @property
    def hostaddr(self) -> str:
        """Return the address it was made to."""
        return self._hostaddr

    @property
    def backend_pid(self) -> int:
        return self._pgconn.backend_pid

    @property
    def needs_replacing(self) -> bool:
        """Say whether it took in so much that a login should replace it."""
        if self.closed:
            return False
        return sockets.bytes_received(self._socket) > LIFETIME_BUDGET

    def pipeline(self, on: bool) -> None:
        """Send the units of one `ask` in one go from now on, or no longer."""
        if on:
            self._pgconn.enter_pipeline_mode()
        else:
            self._pgconn.exit_pipeline_mode()

    async def ask(self, units: Sequence[Unit], *, together: bool = False) -> list[PGresult]:
        """Return one result for each unit: its error, else its last answer.

        Any other ending closes the wire and raises Failed. Together the units cost one packet each
        way, and an error leaves those after it PIPELINE_ABORTED.
        """
        if self.closed:
            raise Failed(Cause.RESET, "the connection is closed", lost=True)
        self._waiter = self._loop.create_future()
        self._allowed = sockets.bytes_received(self._socket) + BYTE_BUDGET
        try:
            if together:
                results = await self._ask_together(units)
            else:
                results = await self._ask_one_by_one(units)
            self._waiter = None
            return results
        except psycopg.Error as exc:
            raise Failed(Cause.RESET, clean(str(exc)), lost=True) from None
        finally:
            # unfinished: what comes next would answer an older question
            if self._waiter is not None:
                self._waiter = None
                self.close()

    async def _ask_together(self, units: Sequence[Unit]) -> list[PGresult]:
        messages: list[Send] = []
        for unit in units:
            messages.extend(unit)
        self._send([*messages, pq.PGconn.pipeline_sync])
        results = [await self._outcome(unit) for unit in units]
        await self._sync()
        return results

    async def _ask_one_by_one(self, units: Sequence[Unit]) -> list[PGresult]:
        results = []
        pipelined = self._pgconn.pipeline_status != pq.PipelineStatus.OFF
        for unit in units:
            self._send([*unit, pq.PGconn.pipeline_sync] if pipelined else unit)
            results.append(await self._outcome(unit))
            if pipelined:
                await self._sync()
        return results

    def _send(self, messages: Unit) -> None:
        for send in messages:
            send(self._pgconn)
        if self._pgconn.flush():
            # Our questions are a few kilobytes: a peer that does not take them hardly answers.
            self._loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._fd)
        except psycopg.Error:
            self._loop.remove_writer(self._fd)

    async def _outcome(self, unit: Unit) -> PGresult:
        """Read the results of every message of a unit; a None ends each message's."""
        outcome: PGresult | None = None
        pgconn = self._pgconn
        for _ in unit:
            result: PGresult | None = None
            while pgconn.is_busy():
                await self._input()
            while result := pgconn.get_result():
                outcome = self._newer(outcome, result)
                while pgconn.is_busy():
                    await self._input()
        if outcome is None:
            raise Failed(Cause.SERVER_ERROR, "the server answered nothing")
        return outcome

    async def _sync(self) -> None:
        while self._pgconn.is_busy():
            await self._input()
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.PIPELINE_SYNC:
            raise Failed(Cause.SERVER_ERROR, "the server answered out of turn")

    def _newer(self, outcome: PGresult | None, result: PGresult) -> PGresult:
        """Return a unit's outcome so far: its first error, else its last answer.

        Raise Failed at the session's end.
        """
        if result.status == pq.ExecStatus.FATAL_ERROR:
            severity = _severity(result)
            if severity in _FATAL or self._pgconn.status == pq.ConnStatus.BAD:
                raise _end_of_session(result, severity)
        elif result.status not in _ANSWERS:
            raise Failed(Cause.SERVER_ERROR, "the server answered out of turn")
        failed = outcome is not None and outcome.status not in _DONE
        return outcome if outcome and failed else result

    async def _input(self) -> None:
        assert self._waiter is not None
        if not self._ended():
            await self._waiter
            self._waiter = self._loop.create_future()
        if sockets.bytes_received(self._socket) > self._allowed:
            raise Failed(Cause.BYTE_BUDGET, f"more than {BYTE_BUDGET} bytes")
        self._take_in()

    def _ended(self) -> bool:
        """Say whether the peer's end is next to be read.

        libuv tells of a reset once, maybe with the data before it: so look, before waiting.
        """
        return sockets.peek(self._socket, 1) is None

    def _take_in(self) -> None:
        self._pgconn.consume_input()
        while self._pgconn.notifies():
            continue  # we listen to nothing; kept, they would fill our memory

    def _on_readable(self) -> None:
        if self._waiter is None:
            self._on_idle_input()
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _on_idle_input(self) -> None:
        """Tell the end from mere news, such as a changed setting.

        A farewell (57P01) comes before the FIN.
        """
        ended = sockets.bytes_received(self._socket) > self._allowed
        try:
            if not ended:
                self._take_in()
                self._pgconn.is_busy()  # parses
                ended = self._pgconn.status == pq.ConnStatus.BAD or self._ended()
        except psycopg.Error:
            ended = True
        if ended:
            self.close()
            self._on_lost()

    def close(self) -> None:
        """End the connection now; whoever waits for an answer learns that we severed it."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._socket.detach()  # libpq closes it
        self._pgconn.finish()
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(Failed(Cause.SEVERED, "closed by us"))
        self._waiter = None


def _end_of_session(result: PGresult, severity: bytes | None) -> Failed:
    """Return how a session ended by this error; libpq's own text for a FIN has no severity."""
    code = sqlstate(result) if severity else ""
    cause = cause_of_sqlstate(code) if code else Cause.RESET
    return Failed(cause, error_text(result), lost=True, sqlstate=code)


def _severity(result: PGresult) -> bytes | None:
    """Return an error's severity; poolers name it only in the field that servers translate."""
    for field in (pq.DiagnosticField.SEVERITY_NONLOCALIZED, pq.DiagnosticField.SEVERITY):
        severity = result.error_field(field)
        if severity:
            return severity
    return None
