"""Proof that a server lives, got without saying who we are: no account is locked. For this package
alone.

The question is GSSENCRequest, one byte answers it. Asked for TLS instead, servers that have it note
that we left: only whoever closes without a byte is asked so, on a new connection. Some poolers do
that to a question they do not know.
"""

import asyncio
import socket
import struct

from monitor.core.cause import Cause, cause_of_sqlstate
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed, cause_of_errno, sqlstate_of_packet

_GSS, _TLS = struct.pack("!ii", 8, 80877104), struct.pack("!ii", 8, 80877103)
_ANSWERS = {_GSS: (b"G", b"N"), _TLS: (b"S", b"N")}
_LONGEST = 1024  # bytes read of an answer
_TOLD_TO_ALL = (Cause.STARTING, Cause.REFUSING)


class Knock:
    """From TCP to the first answer; goes where a Handshake goes."""

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
        """Return when the server answers; raise Failed where that is no Postgres, or it lets nobody
        in.
        """
        request, answer = _GSS, await self._ask(_GSS)
        if not answer:
            self._socket.close()
            self._socket = _opened(self._place[0])
            await self._connect(self._place)
            request, answer = _TLS, await self._ask(_TLS)
        if answer[:1] == b"E":  # a server too old to know the question says so, too
            if (cause := cause_of_sqlstate(code := sqlstate_of_packet(answer))) in _TOLD_TO_ALL:
                raise Failed(cause, sqlstate=code)
        elif answer[:1] not in _ANSWERS[request]:
            raise Failed(
                Cause.RESET,
                "no Postgres" if answer else "the server ended the connection at the door",
            )

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


def _opened(hostaddr: str) -> socket.socket:
    try:
        opened = socket.socket(socket.AF_INET6 if ":" in hostaddr else socket.AF_INET)
    except OSError as exc:
        raise Failed(cause_of_errno(exc.errno or 0), "no descriptor left") from None
    opened.setblocking(False)
    return opened


def _failed(exc: OSError) -> Failed:
    return Failed(cause_of_errno(exc.errno or 0), "the connection ended at the door")
