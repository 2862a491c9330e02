"""A TCP proxy between us and a server that hurts connections on command.

It runs in a thread of its own, so sync and async tests use it alike, and a test that blocks does not block the wire.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Literal
from urllib.parse import urlsplit

from monitor.programs import HOST, free_port

Mode = Literal["pass", "deaf", "refuse", "reset"]
PROTOCOLS = {0x0003_0000, 0x0003_0002}  # StartupMessage 3.0 and 3.2
ENCRYPTION_REQUESTS = {80877103, 80877104}  # SSLRequest, GSSENCRequest
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST
CHUNK = 65536


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    application_name: str = ""
    losing_reply: bool = False
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    upstream: asyncio.StreamWriter | None = None

    def sever(self, *, reset: bool) -> None:
        """End both sides: with FIN, or with RST."""
        for writer in filter(None, (self.writer, self.upstream)):
            if reset and (sock := writer.get_extra_info("socket")) and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort() if reset else writer.close()


class Proxy:
    """Relay a loopback port to a server: `mode` is pass, deaf, refuse or reset and holds for open connections too.

    deaf: connections are accepted and held; what was sent meanwhile arrives once the mode is pass again, as after a
    network that was cut. refuse: the port is closed and open connections end with FIN. reset: everything ends with RST.
    """

    def __init__(self, port: int, host: str = HOST, *, tls: bool = False) -> None:
        self.target, self.tls = (host, port), tls
        self.host, self.port = HOST, free_port()
        self.accepted, self.lost_replies = 0, 0
        self._mode: Mode = "pass"
        self._deaf_to: set[str] = set()
        self._losing: bytes | None = None
        self._links: set[Link] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def start(self) -> "Proxy":
        """Listen; `port` is the proxy's."""
        self._thread.start()
        self._call(self._listen())
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
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{self.host}:{self.port}").geturl()

    @property
    def mode(self) -> Mode:
        """What happens to connections, those open now included."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._call(self._turn(mode))

    def deaf_to(self, application_name: str) -> None:
        """Hold the PostgreSQL connections of this application (a shell pattern), open ones too."""
        self._call(self._change(self._deaf_to.add, application_name))

    def hear(self, application_name: str) -> None:
        """Take a `deaf_to` back."""
        self._call(self._change(self._deaf_to.discard, application_name))

    def drop_next_reply(self, containing: bytes = b"") -> None:
        """Let the next request that contains these bytes reach the server, lose its reply and reset the connection."""
        self._call(self._change(lambda losing: setattr(self, "_losing", losing), containing))

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
        if mode != "refuse" and not self._server:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port)

    async def _close(self, *, reset: bool) -> None:
        if self._server:
            self._server.close()
            self._server = None
        links = list(self._links)
        self._sever_all(reset)
        tasks = [task for link in links for task in link.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _sever_all(self, reset: bool) -> None:
        for link in list(self._links):
            link.sever(reset=reset)

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
        link.upstream.write(first)
        halves = [asyncio.create_task(self._requests(link)), asyncio.create_task(self._replies(link, answers))]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)

    async def _greeting(self, link: Link) -> bytes:
        """Read a client's first words; note the application when they are PostgreSQL's, refusing to encrypt."""
        first = await link.reader.read(CHUNK)
        while len(first) == 8 and int.from_bytes(first[4:]) in ENCRYPTION_REQUESTS:
            await self._pass(link)
            link.writer.write(b"N")
            first = await link.reader.read(CHUNK)
        if len(first) > 8 and int.from_bytes(first[4:8]) in PROTOCOLS:
            words = first[8:].rstrip(b"\0").split(b"\0")
            link.application_name = (
                dict(zip(words[::2], words[1::2], strict=False)).get(b"application_name", b"").decode()
            )
        return first

    async def _requests(self, link: Link) -> None:
        while chunk := await link.reader.read(CHUNK):
            await self._pass(link)
            if self._losing is not None and self._losing in chunk:
                link.losing_reply, self._losing = True, None
            link.upstream.write(chunk)
            await link.upstream.drain()
        await self._pass(link)

    async def _replies(self, link: Link, answers: asyncio.StreamReader) -> None:
        while chunk := await answers.read(CHUNK):
            await self._pass(link)
            if link.losing_reply:
                self.lost_replies += 1
                link.sever(reset=True)
                return
            link.writer.write(chunk)
            await link.writer.drain()
        await self._pass(link)

    async def _pass(self, link: Link) -> None:
        """Return when this connection may speak."""
        while self._mode == "deaf" or any(fnmatch(link.application_name, name) for name in self._deaf_to):
            await self._changed.wait()
