"""A TCP proxy between us and a server that hurts connections on command.

It runs in a thread of its own, so sync and async tests use it alike, and a test that blocks does
not block the wire.
"""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Literal
from urllib.parse import urlsplit

from monitor.local.machine import HOST
from tests.servers import reserve_port

Mode = Literal["pass", "deaf", "frozen", "refuse", "reset"]
Arrivals = asyncio.Queue[tuple[float, bytes]]  # when a chunk came, and the chunk; b"" at the end
Rewrite = Callable[
    [bytes, bytes], bytes
]  # what was asked, a chunk of the reply -> the chunk to send on
PROTOCOLS = {0x0003_0000, 0x0003_0002}  # StartupMessage 3.0 and 3.2
ENCRYPTION_REQUESTS = {80877103, 80877104}  # SSLRequest, GSSENCRequest
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST
CHUNK = 65536
CHUNKS = 64  # read ahead of what may pass
TIME_ASKED = b"*1\r\n$4\r\nTIME\r\n"
TIME_TOLD = re.compile(rb"\*2\r\n\$10\r\n(\d{10})(\r\n\$\d\r\n\d{1,6}\r\n)")


def shift_time(seconds: int) -> Rewrite:
    """Return the rewriting that shifts the replies to TIME, asked by itself, and no others."""

    def rewrite(asked: bytes, reply: bytes) -> bytes:
        told = TIME_TOLD.fullmatch(reply) if asked.upper() == TIME_ASKED else None
        return b"*2\r\n$10\r\n%d%s" % (int(told[1]) + seconds, told[2]) if told else reply

    return rewrite


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    application_name: str = ""
    losing_reply: bool = False
    asked: bytes = b""  # the requests since the last reply
    answered: bool = False  # a reply to them has begun
    replied: int = 0  # bytes of replies since `cut_after`
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    upstream: asyncio.StreamWriter | None = None

    def sever(self, *, reset: bool) -> None:
        """End both sides: with FIN, or with RST."""
        for writer in filter(None, (self.writer, self.upstream)):
            if reset and (sock := writer.get_extra_info("socket")) and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort() if reset else writer.close()


class Proxy:
    """Relay a loopback port to a server: `mode` holds for open connections too.

    deaf: connections are accepted and held; what was sent meanwhile arrives once the mode is pass
    again, as after a network that was cut. frozen: open connections are held the same, but nobody
    accepts new ones, as with a stopped process: the kernel answers connects until the backlog is
    full, then they time out. refuse: the port is closed and open connections end with FIN. reset:
    everything ends with RST.

    `delay`: seconds each chunk arrives later, both ways. `drip`: seconds between two bytes of
    replies.
    """

    def __init__(self, port: int, host: str = HOST, *, tls: bool = False) -> None:
        self.target, self.tls = (host, port), tls
        self.host, self.port = HOST, reserve_port()
        self.accepted, self.lost_replies = 0, 0
        self.delay, self.drip = 0.0, 0.0
        self._mode: Mode = "pass"
        self._deaf_to: set[str] = set()
        self._deaf_from: bytes | None = None
        self._losing: bytes | None = None
        self._cut: tuple[int, bool] | None = None
        self._capturing, self._wanted, self._captured = b"", 0, list[bytes]()
        self._rewrite: Rewrite | None = None
        self._links: set[Link] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None

    def start(self) -> "Proxy":
        """Listen; `port` is the proxy's."""
        self._thread.start()
        self._call(self._turn("pass"))
        return self

    def stop(self) -> None:
        """Close everything."""
        self._call(self._close(reset=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, url: str) -> str:
        """Return this address of the server, led through the proxy."""
        parts = urlsplit(url)
        return parts._replace(
            netloc=f"{parts.netloc.rpartition('@')[0]}@{self.host}:{self.port}"
        ).geturl()

    @property
    def mode(self) -> Mode:
        """What happens to connections, those open now included."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._call(self._turn(mode))

    def deaf_from(self, containing: bytes) -> None:
        """Turn deaf at the next chunk with these bytes: it is held, as all that comes later."""
        self._call(self._change(lambda value: setattr(self, "_deaf_from", value), containing))

    def deaf_to(self, application_name: str) -> None:
        """Hold the PostgreSQL connections of this application (a shell pattern), open ones too."""
        self._call(self._change(self._deaf_to.add, application_name))

    def hear(self, application_name: str) -> None:
        """Take a `deaf_to` back."""
        self._call(self._change(self._deaf_to.discard, application_name))

    def drop_next_reply(self, containing: bytes = b"") -> None:
        """Let the next request with these bytes pass, lose its reply, reset the connection."""
        self._call(self._change(lambda losing: setattr(self, "_losing", losing), containing))

    def cut_after(self, count: int | None, *, reset: bool = False) -> None:
        """Let each connection have so many more bytes of replies, then silence, or a reset."""
        self._call(self._change(self._cut_all, None if count is None else (count, reset)))

    def capture(self, containing: bytes, count: int = 1) -> None:
        """Keep the next requests with these bytes, each whole, in `captured`."""
        self._call(self._change(self._start_capture, (containing, count)))

    @property
    def captured(self) -> list[bytes]:
        """The requests caught since the last `capture`."""
        return list(self._captured)

    def rewrite_replies(self, rewrite: Rewrite | None) -> None:
        """Pass each chunk of a reply through a function, with what was asked; None: no longer."""
        self._call(self._change(lambda value: setattr(self, "_rewrite", value), rewrite))

    def retarget(self, port: int) -> None:
        """Lead new connections to another server, reset the open ones: an address that moves."""
        self._call(self._change(self._move, port))

    def sever(self, *, reset: bool = True) -> None:
        """End the connections that are open now; new ones are welcome."""
        self._call(self._change(self._sever_all, reset))

    def _call(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def _change(self, change: Any, argument: Any) -> None:
        change(argument)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _turn(self, mode: Mode) -> None:
        await self._change(lambda value: setattr(self, "_mode", value), mode)
        if mode in ("refuse", "reset"):
            await self._close(reset=mode == "reset")
        if mode == "frozen":
            self._stop_accepting()
        elif mode != "refuse" and not self._server:
            self._listener = self._listener or socket.create_server((self.host, self.port))
            self._server = await asyncio.start_server(self._accept, sock=self._listener.dup())

    def _stop_accepting(self) -> None:
        """Leave new connections to the kernel's backlog."""
        if self._server:
            self._server.close()
            self._server = None

    async def _close(self, *, reset: bool) -> None:
        self._stop_accepting()
        if self._listener:
            self._listener.close()
            self._listener = None
        links = list(self._links)
        self._sever_all(reset)
        tasks = [task for link in links for task in link.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _sever_all(self, reset: bool) -> None:
        for link in list(self._links):
            link.sever(reset=reset)

    def _cut_all(self, cut: tuple[int, bool] | None) -> None:
        self._cut = cut
        for link in self._links:
            link.replied = 0

    def _start_capture(self, wanted: tuple[bytes, int]) -> None:
        self._capturing, self._wanted = wanted
        self._captured.clear()

    def _move(self, port: int) -> None:
        self.target = (self.target[0], port)
        self._sever_all(True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = Link(reader, writer)
        if self._mode == "reset":
            link.sever(reset=True)
            return
        self._links.add(link)
        link.tasks.append(asyncio.current_task())
        try:
            await self._relay(link)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            link.sever(reset=True)
        finally:
            self._links.discard(link)
            link.sever(reset=False)

    async def _relay(self, link: Link) -> None:
        first = b"" if self.tls else await self._greeting(link)
        await self._pass(link)
        answers, link.upstream = await asyncio.open_connection(*self.target)
        if link.writer.is_closing():
            return  # severed meanwhile
        requests: Arrivals = asyncio.Queue(CHUNKS)
        replies: Arrivals = asyncio.Queue(CHUNKS)
        if first:
            requests.put_nowait((self._loop.time() - self.delay, first))
        halves = [self._requests(link, requests), self._replies(link, replies)]
        works = [asyncio.create_task(half) for half in halves]
        pumps = [
            asyncio.create_task(_pump(link.reader, requests)),
            asyncio.create_task(_pump(answers, replies)),
        ]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*works, *pumps):
                task.cancel()
            await asyncio.gather(*works, *pumps, return_exceptions=True)

    async def _greeting(self, link: Link) -> bytes:
        """Read a client's first words; note PostgreSQL's application, refusing to encrypt."""
        first = await link.reader.read(CHUNK)
        await self._pass(link, self._loop.time())
        while len(first) == 8 and int.from_bytes(first[4:]) in ENCRYPTION_REQUESTS:
            link.writer.write(b"N")
            first = await link.reader.read(CHUNK)
            await self._pass(link, self._loop.time())
        if len(first) > 8 and int.from_bytes(first[4:8]) in PROTOCOLS:
            words = first[8:].rstrip(b"\0").split(b"\0")
            link.application_name = (
                dict(zip(words[::2], words[1::2], strict=False))
                .get(b"application_name", b"")
                .decode()
            )
        return first

    async def _requests(self, link: Link, arrivals: Arrivals) -> None:
        while chunk := await self._next(link, arrivals):
            link.asked = chunk if link.answered else link.asked + chunk
            link.answered = False
            if self._losing is not None and self._losing in link.asked:
                link.losing_reply, self._losing = True, None
            link.upstream.write(chunk)
            await link.upstream.drain()

    async def _replies(self, link: Link, arrivals: Arrivals) -> None:
        while chunk := await self._next(link, arrivals):
            if self._wanted and not link.answered and self._capturing in link.asked:
                self._captured.append(link.asked)
                self._wanted -= 1
            link.answered = True
            if link.losing_reply:
                self.lost_replies += 1
                link.sever(reset=True)
                return
            if self._rewrite:
                chunk = self._rewrite(link.asked, chunk)
            await self._reply(link, chunk)

    async def _reply(self, link: Link, chunk: bytes) -> None:
        """Write a chunk of a reply: all of it, byte by byte, or up to the cut."""
        while chunk:
            left = self._cut[0] - link.replied if self._cut else len(chunk)
            if left <= 0:
                if self._cut[1]:
                    link.sever(reset=True)
                await asyncio.Event().wait()  # until the client leaves
            part = chunk[: min(left, 1 if self.drip else left)]
            chunk = chunk[len(part) :]
            link.replied += len(part)
            link.writer.write(part)
            await link.writer.drain()
            await asyncio.sleep(self.drip)

    async def _next(self, link: Link, arrivals: Arrivals) -> bytes:
        """Return the next chunk when it may pass; b'' at the end."""
        arrived, chunk = await arrivals.get()
        if self._deaf_from and self._deaf_from in chunk:
            self._mode, self._deaf_from = "deaf", None
        await self._pass(link, arrived)
        return chunk

    async def _pass(self, link: Link, arrived: float = 0.0) -> None:
        """Return when this connection may speak, and the delay since `arrived` is over."""
        await asyncio.sleep(max(0.0, arrived + self.delay - self._loop.time()))
        while self._mode in ("deaf", "frozen") or any(
            fnmatch(link.application_name, name) for name in self._deaf_to
        ):
            await self._changed.wait()


async def _pump(reader: asyncio.StreamReader, arrivals: Arrivals) -> None:
    """Note when each chunk arrived; b'' tells the end."""
    loop, chunk = asyncio.get_running_loop(), b"the first"
    while chunk:
        try:
            chunk = await reader.read(CHUNK)
        except OSError:
            chunk = b""
        await arrivals.put((loop.time(), chunk))
