"""One connection attempt to one address, driven by the event loop.

Only steps that answer the server run in a thread: it chooses how long they compute. For this
package alone.
"""

import asyncio
import errno
import socket
from dataclasses import replace
from functools import partial
from time import monotonic

from psycopg import pq
from psycopg.pq.abc import PGconn

from monitor.core.cause import Cause, cause_of_sqlstate
from monitor.feeler import libpq, sockets
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import (
    Failed,
    GivenUp,
    cause_of_errno,
    cause_of_handshake,
    clean,
    own_shortage,
    routine_of_message,
    sqlstate_of_message,
    sqlstate_of_packet,
)
from monitor.feeler.threads import Threads

# Bytes a login may take in: certificates are some thousand, the rest some hundred.
BYTE_BUDGET = 65_536
BUDGET_EVERY = 0.01  # seconds between two looks at what a step in a thread takes in
# Steps that compute nothing a server could make long.
_CHEAP = {pq.ConnStatus.STARTED, pq.ConnStatus.MADE}
_READING, _OK = pq.PollingStatus.READING, pq.PollingStatus.OK


class Handshake:
    """From TCP to ReadyForQuery. Whoever runs it closes it, unless it gave the connection away."""

    def __init__(self, conninfo: bytes, secret: str, attempt: Attempt, threads: Threads) -> None:
        self._attempt, self._threads, self._secret = attempt, threads, secret
        self._pgconn: PGconn | None = pq.PGconn.connect_start(conninfo)
        libpq.be_verbose(self._pgconn)
        # a copy of libpq's, which closes its own as it likes
        self._socket: socket.socket | None = None
        self._job: asyncio.Future[int] | None = None
        self.connected = False

    async def connect(self, until: float, place: tuple[str, int]) -> None:
        """Reach the host; raise Failed by errno."""
        if self._conn.status == pq.ConnStatus.BAD:
            raise _refused_here(place, clean(self._conn.error_message, self._secret))
        try:
            async with asyncio.timeout_at(until):
                await self._step(pq.PollingStatus.WRITING)
        except TimeoutError:
            raise self._attempt.expired() from None
        self.connected = True

    async def log_in(self) -> PGconn:
        """Say who we are and prove it; give the connection away."""
        polled = pq.PollingStatus.WRITING
        while polled != _OK:
            polled = await self._step(polled)
            self._mind_second_try()
        pgconn, self._pgconn = self._conn, None
        return pgconn

    @property
    def _conn(self) -> PGconn:
        assert self._pgconn is not None
        return self._pgconn

    async def _step(self, wanted: pq.PollingStatus) -> pq.PollingStatus:
        """Wait for the socket, let libpq take one step, return what it wants next."""
        sock = self._follow()
        await _ready(sock, reading=wanted == _READING)
        status, seen = self._conn.status, self._look(sock, reading=wanted == _READING)
        if status in _CHEAP:
            polled = libpq.poll(self._conn)
        else:
            polled = await self._poll_in_thread(sock)
        if polled == pq.PollingStatus.FAILED:
            raise self._given_up(sock, seen)
        self._note(sock, status, seen)
        return pq.PollingStatus(polled)

    def _note(self, sock: socket.socket, status: int, seen: GivenUp) -> None:
        """Note that the server speaks, and whether it has asked for our proof.

        AuthenticationOk comes with what follows it, so a server that hangs then never sends it.
        """
        attempt = self._attempt
        attempt.last_reply = monotonic()
        attempt.answered |= bool(seen.heard)
        replied = sockets.bytes_sent(sock) > seen.sent_before
        if status == pq.ConnStatus.AWAITING_RESPONSE and replied:
            attempt.proof_requested = True

    def _mind_second_try(self) -> None:
        """Raise what the server said through TLS, when libpq begins anew without.

        Two failed logins lock a role sooner. 28000 alone may be about TLS itself: pg_hba.conf may
        want none.
        """
        if self._conn.status != pq.ConnStatus.STARTED:
            return
        message = self._conn.error_message.decode("utf-8", "replace")
        code, text = sqlstate_of_message(message)
        if code in ("", "28000"):
            return
        cause = cause_of_sqlstate(code, routine_of_message(message))
        raise Failed(cause, clean(text, self._secret), sqlstate=code)

    def _follow(self) -> socket.socket:
        """Copy libpq's socket anew: a second try (without TLS) may reuse the number."""
        if self._socket:
            self._socket.close()
        try:
            self._socket = socket.fromfd(self._conn.socket, socket.AF_INET, socket.SOCK_STREAM)
        except OSError as exc:
            raise Failed(cause_of_errno(exc.errno or 0), "no descriptor left") from None
        return self._socket

    def _look(self, sock: socket.socket, *, reading: bool) -> GivenUp:
        """Note what can be seen before libpq takes its step; raise Failed where it is in vain."""
        if self._conn.status == pq.ConnStatus.STARTED:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                detail = errno.errorcode.get(number, str(number))
                raise Failed(cause_of_errno(number), detail)
            sockets.clamp(sock)
        heard = sockets.peek(sock) if reading else b""
        if heard is None:
            raise Failed(Cause.RESET, "the server ended the connection in the handshake")
        self._check_budget(sock)
        return GivenUp(
            heard=heard,
            encrypting=self._conn.status == pq.ConnStatus.SSL_STARTUP,
            encrypted=bool(self._conn.ssl_in_use),
            sent_before=sockets.bytes_sent(sock),
        )

    async def _poll_in_thread(self, sock: socket.socket) -> int:
        with self._attempt.counting_as_ours():
            self._job = await self._threads.start(partial(libpq.poll, self._conn))
            while True:
                done, _ = await asyncio.wait((self._job,), timeout=BUDGET_EVERY)
                if done:
                    break
                self._check_budget(sock)
        return self._job.result()

    def _check_budget(self, sock: socket.socket) -> None:
        if sockets.bytes_received(sock) > BYTE_BUDGET:
            raise Failed(Cause.BYTE_BUDGET, f"more than {BYTE_BUDGET} bytes before a login")

    def _given_up(self, sock: socket.socket, seen: GivenUp) -> Failed:
        message = self._conn.error_message.decode("utf-8", "replace")
        code, text = sqlstate_of_message(message)
        code = code or ("" if seen.encrypted else sqlstate_of_packet(seen.heard))
        cause = cause_of_handshake(
            replace(seen, message=message),
            sqlstate=code,
            routine=routine_of_message(message),
            sent=sockets.bytes_sent(sock) > seen.sent_before,
            ended=sockets.peek(sock) is None,
            needs_password=bool(self._conn.needs_password),
        )
        return Failed(cause, clean(text, self._secret), sqlstate=code)

    def close(self) -> "asyncio.Future[int] | None":
        """End what was not given away; return the call that a thread is still in, if any."""
        if self._socket:
            if self._pgconn:
                sockets.sever(self._socket)
            self._socket.close()
        pgconn, self._pgconn = self._pgconn, None
        if pgconn and self._job and not self._job.done():
            self._job.add_done_callback(partial(_finish, pgconn))
            return self._job
        if pgconn:
            pgconn.finish()
        return None


def _finish(pgconn: PGconn, job: "asyncio.Future[int]") -> None:
    if not job.cancelled():
        job.exception()  # read, lest the loop complains
    pgconn.finish()


async def _ready(sock: socket.socket, *, reading: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def on_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = loop.add_writer, loop.remove_writer
    if reading:
        add, remove = loop.add_reader, loop.remove_reader
    add(sock.fileno(), on_ready)
    try:
        await ready
    finally:
        remove(sock.fileno())


def _refused_here(place: tuple[str, int], detail: str) -> Failed:
    """Name why a connect failed at once, with no packet sent: by asking the kernel again.

    libpq keeps the errno to itself.
    """
    if shortage := own_shortage():
        return Failed(shortage, detail)
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with socket.socket(family) as again:
        again.setblocking(False)
        number = again.connect_ex(place)
    if number in (0, errno.EINPROGRESS):
        return Failed(Cause.SEVERED, detail)
    return Failed(cause_of_errno(number), detail)
