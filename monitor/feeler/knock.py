"""Proof that a server lives, got without saying who we are: no account is locked. For this package alone.

The question is GSSENCRequest, one byte answers it. Asked for TLS instead, servers that have it note that we left.
"""

import asyncio
import socket
import struct

from monitor.core.cause import Cause, cause_of_sqlstate
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed, cause_of_errno, sqlstate_of_packet

_REQUEST = struct.pack("!ii", 8, 80877104)
_LONGEST = 1024  # bytes read of an answer
_TOLD_TO_ALL = (Cause.STARTING, Cause.REFUSING)


class Knock:
    """From TCP to the first answer; goes where a Handshake goes."""

    def __init__(self, hostaddr: str, attempt: Attempt) -> None:
        self._attempt = attempt
        try:
            self._socket = socket.socket(socket.AF_INET6 if ":" in hostaddr else socket.AF_INET)
        except OSError as exc:
            raise Failed(cause_of_errno(exc.errno or 0), "no descriptor left") from None
        self._socket.setblocking(False)

    async def connect(self, until: float, place: tuple[str, int]) -> None:
        """Reach the host; raise Failed by errno."""
        try:
            async with asyncio.timeout_at(until):
                await asyncio.get_running_loop().sock_connect(self._socket, place)
        except TimeoutError:
            raise self._attempt.expired() from None
        except OSError as exc:
            raise _failed(exc) from None

    async def log_in(self) -> None:
        """Return when the server answers; raise Failed where that is no Postgres, or it lets nobody in."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._socket, _REQUEST)
            answer = await loop.sock_recv(self._socket, _LONGEST)
        except OSError as exc:
            raise _failed(exc) from None
        if answer[:1] == b"E":  # a server too old to know the question says so, too
            if (cause := cause_of_sqlstate(code := sqlstate_of_packet(answer))) in _TOLD_TO_ALL:
                raise Failed(cause, sqlstate=code)
        elif answer[:1] not in (b"G", b"N"):
            raise Failed(Cause.RESET, "no Postgres" if answer else "the server ended the connection at the door")

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def _failed(exc: OSError) -> Failed:
    return Failed(cause_of_errno(exc.errno or 0), "the connection ended at the door")
