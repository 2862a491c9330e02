"""Proof that a server lives, got without saying who we are: no account is locked.

For this package alone. The question is GSSENCRequest, one byte answers it. Asked for TLS instead,
servers that have it note in their log that we left; so only whoever closes without a byte is asked
that, on a new connection. Some poolers close on a question they do not know.
"""

import asyncio
import socket
import struct

from monitor.core.cause import Cause, cause_of_sqlstate
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed, cause_of_errno, sqlstate_of_packet

_GSS_REQUEST = struct.pack("!ii", 8, 80877104)
_TLS_REQUEST = struct.pack("!ii", 8, 80877103)
_ANSWERS = {_GSS_REQUEST: (b"G", b"N"), _TLS_REQUEST: (b"S", b"N")}
_LONGEST = 1024  # bytes read of an answer
_SAID_TO_ALL = (Cause.STARTING, Cause.REFUSING)


class LivenessCheck:
    """From TCP to the first answer; stands where a Handshake stands."""

    def __init__(self, hostaddr: str, attempt: Attempt) -> None:
        self._attempt, self._socket = attempt, _opened(hostaddr)
        self._place = hostaddr, 0

    async def connect(self, until: float, place: tuple[str, int]) -> None:
        """Reach the host; raise Failed by errno."""
        try:
            async with asyncio.timeout_at(until):
                await self._connect(place)
        except TimeoutError:
            raise self._attempt.expired() from None

    async def log_in(self) -> None:
        """Return when a Postgres answers that takes sessions, whoever we are; else raise Failed."""
        request, answer = _GSS_REQUEST, await self._ask(_GSS_REQUEST)
        if not answer:
            self._socket.close()
            self._socket = _opened(self._place[0])
            await self._connect(self._place)
            request, answer = _TLS_REQUEST, await self._ask(_TLS_REQUEST)
        _check(request, answer)

    async def _connect(self, place: tuple[str, int]) -> None:
        self._place = place
        try:
            await asyncio.get_running_loop().sock_connect(self._socket, place)
        except OSError as exc:
            raise _failed(exc) from None

    async def _ask(self, request: bytes) -> bytes:
        """Return the answer, nothing where the connection ends without one."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._socket, request)
            return await loop.sock_recv(self._socket, _LONGEST)
        except ConnectionError:
            return b""
        except OSError as exc:
            raise _failed(exc) from None

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def _check(request: bytes, answer: bytes) -> None:
    """Raise Failed unless the answer proves that the server takes sessions."""
    first = answer[:1]
    if not first:
        raise Failed(Cause.RESET, "the server ended the connection at the door")
    if first == b"E":  # a server too old to know the question says so, too
        code = sqlstate_of_packet(answer)
        cause = cause_of_sqlstate(code)
        if cause in _SAID_TO_ALL:
            raise Failed(cause, sqlstate=code)
    elif first not in _ANSWERS[request]:
        raise Failed(Cause.RESET, "no Postgres")


def _opened(hostaddr: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in hostaddr else socket.AF_INET
    try:
        opened = socket.socket(family)
    except OSError as exc:
        raise Failed(cause_of_errno(exc.errno or 0), "no descriptor left") from None
    opened.setblocking(False)
    return opened


def _failed(exc: OSError) -> Failed:
    return Failed(cause_of_errno(exc.errno or 0), "the connection ended at the door")
