"""How long and how large a request may be before it is one, and how many may be unfinished.

Strangers get this far without a token, so nothing here costs more than a little memory. Imported by
app.py alone.
"""

import asyncio
import logging
import resource
from collections import Counter
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from monitor.core.chunks import chunks
from monitor.web.security import MAX_BODY

MAX_HEAD = 32_768  # bytes of request line and headers
# Bytes of a request: a body too large gets its answer before the line is cut.
MAX_REQUEST = MAX_HEAD + 4 * MAX_BODY
# Bytes parsed at once: the parser joins a header that comes in parts again and again.
PIECE = 16_384
UNFINISHED_MOST = 200  # unfinished requests of one address
CONNECTIONS_MOST = 10_000
RESERVED = 128  # descriptors for our stores and files
LOG_EVERY = 10.0  # seconds between two lines of the log about connections we ended
TOO_LARGE = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
_log = logging.getLogger("feeler.web")


class ConnectionLimits:
    """The connections of this process; those without a whole request make room for others.

    The oldest goes first: an honest request is whole within milliseconds, whoever else crowds its
    address.
    """

    def __init__(self, most: int, unfinished_most: int = UNFINISHED_MOST) -> None:
        self._most, self._unfinished_most = most, unfinished_most
        # Dicts as sets that know their order, oldest first.
        self._present: dict[BoundedProtocol, None] = {}
        self._unfinished: dict[BoundedProtocol, None] = {}
        self._of_address: dict[str, dict[BoundedProtocol, None]] = {}
        self._ended: Counter[str] = Counter()
        self._logged_at = -LOG_EVERY

    def enter(self, one: "BoundedProtocol") -> None:
        """Take a connection in; where there is no room, one that waits for its client has to go."""
        self._present[one] = None
        self.begin(one)
        if len(self._present) > self._most:
            oldest = next(iter(self._unfinished))
            if oldest is one:
                idle = (other for other in self._present if other.is_idle)
                oldest = next(idle, one)
            oldest.end(HTTPStatus.SERVICE_UNAVAILABLE, "crowded")

    def begin(self, one: "BoundedProtocol") -> None:
        """Count a request that has begun and is not whole."""
        self._unfinished[one] = None
        neighbours = self._of_address.setdefault(one.address, {})
        neighbours[one] = None
        if len(neighbours) > self._unfinished_most:
            oldest = next(iter(neighbours))
            oldest.end(HTTPStatus.REQUEST_TIMEOUT, "crowded_address")

    def finish(self, one: "BoundedProtocol") -> None:
        """Count it no longer: it is whole, or over."""
        self._unfinished.pop(one, None)
        if neighbours := self._of_address.get(one.address):
            neighbours.pop(one, None)
            if not neighbours:
                del self._of_address[one.address]

    def leave(self, one: "BoundedProtocol") -> None:
        """Forget a connection."""
        self.finish(one)
        self._present.pop(one, None)

    def note(self, reason: str, now: float) -> None:
        """Count a connection we ended, and log all of them now and then."""
        self._ended[reason] += 1
        if now - self._logged_at >= LOG_EVERY:
            counts = " ".join(f"{name}={count}" for name, count in sorted(self._ended.items()))
            _log.warning("action=connections_ended %s", counts)
            self._ended.clear()
            self._logged_at = now


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds on what it takes before a request is whole."""

    limits: ClassVar[ConnectionLimits]
    # From the connection, or the first byte of a later request, to the end of the headers.
    head_seconds = 10.0
    body_seconds = 10.0  # from there to the end of the body
    address = ""
    _timer: asyncio.TimerHandle | None = None  # runs while a request is not whole
    _in_body = False
    _size = 0  # bytes of the request that is not whole

    @property
    def is_idle(self) -> bool:
        """Say whether it has been answered and nothing more has come."""
        return self._timer is None and self.cycle is not None and self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.address = _client_of(self.client[0] if self.client else "")
        self._wait(self.head_seconds)
        self.limits.enter(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, in pieces, until it is too much."""
        for piece in chunks(data, PIECE):
            if self.transport.is_closing():
                return
            self._begin()
            self._size += len(piece)
            super().data_received(piece)
            if self._size > (MAX_REQUEST if self._in_body else MAX_HEAD):
                self.end(TOO_LARGE[self._in_body], "too_large")

    def on_message_begin(self) -> None:
        """Note that a request begins, perhaps right behind another one."""
        super().on_message_begin()
        self._begin()

    def on_headers_complete(self) -> None:
        """Begin to wait for the body."""
        self._in_body = True
        self._wait(self.body_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait no longer: the request is whole."""
        self._stop()
        self.limits.finish(self)
        self._in_body, self._size = False, 0
        super().on_message_complete()
        # Answered before its body was through: uvicorn waits for ever now.
        if self.cycle.response_complete:
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop()
        self.limits.leave(self)
        super().connection_lost(exc)

    def end(self, status: HTTPStatus, reason: str) -> None:
        """Hang up, and say why to who waits for an answer."""
        waiting = self._timer is not None and not self._is_answering()
        self._stop()
        self.limits.leave(self)
        if self.transport.is_closing():
            return
        if waiting:
            line = f"HTTP/1.1 {status.value} {status.phrase}"
            headers = "connection: close\r\ncontent-length: 0"
            self.transport.write(f"{line}\r\n{headers}\r\n\r\n".encode())
        self.transport.close()
        self.limits.note(reason, self.loop.time())

    def _is_answering(self) -> bool:
        """Say whether what we write would fall into an answer, or into the place of another."""
        return self._is_behind_another() or (self._in_body and self.cycle.response_started)

    def _is_behind_another(self) -> bool:
        """Say whether an earlier request of this connection is not answered yet."""
        if self._in_body:
            return bool(self.pipeline)
        return self.cycle is not None and not self.cycle.response_complete

    def _begin(self) -> None:
        if self._timer is None:
            self._wait(self.head_seconds)
            self.limits.begin(self)

    def _wait(self, seconds: float) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, self._expire, seconds)

    def _expire(self, seconds: float) -> None:
        # It is we who do not read, or an answer is under way that hanging up would cut off.
        if self.flow.read_paused or self._is_behind_another():
            self._wait(seconds)
        else:
            self.end(HTTPStatus.REQUEST_TIMEOUT, "too_slow")

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def bounded_protocol() -> type[BoundedProtocol]:
    """Return the protocol of a server that leaves this process enough descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = CONNECTIONS_MOST
    if limit != resource.RLIM_INFINITY:
        most = min(most, max(limit // 2, limit - RESERVED))
    return type("ServerProtocol", (BoundedProtocol,), {"limits": ConnectionLimits(most)})


@lru_cache(maxsize=1024)
def _client_of(host: str) -> str:
    """Return what counts as one address: an IPv6 client has 2**64 of its own."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or int(address) >> 64)
    return str(address)
