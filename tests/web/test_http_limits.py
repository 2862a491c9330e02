"""What the door takes before a request is whole: seen from the other end of real connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
import uvicorn
from fastapi import FastAPI, Request

from monitor.config import Settings
from monitor.core.chunks import chunks
from monitor.web import problems
from monitor.web.http_limits import MAX_HEAD, BoundedProtocol, ConnectionLimits
from monitor.web.security import MAX_BODY, Guard

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /thing HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789abcdef\r\n"
HALF = b"GET /livez HTTP/1.1\r\nHost: local"
PATIENCE = 20.0  # seconds


class Peer:
    """One connection to the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def pour(self, what: bytes, times: int, pause: float = 0.0) -> None:
        """Say something over and over, until the door hangs up."""
        async with asyncio.timeout(PATIENCE):
            for _ in range(times):
                await self.say(what)
                await asyncio.sleep(pause)

    async def status(self) -> int:
        """Return the status of the next answer; 0 where there is none any more."""
        async with asyncio.timeout(PATIENCE):
            try:
                line = await self.reader.readline()
                head = await self.reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await self.reader.readexactly(int(length or 0))
            except (ConnectionError, asyncio.IncompleteReadError):
                return 0
        return int(line.split()[1])

    async def gone(self) -> None:
        """Wait until the door has hung up."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self.reader.read(65_536):
                    pass
            except ConnectionError:
                return


class Door:
    """A small app behind the guard, served for real, with time limits of its own."""

    def __init__(self, app: FastAPI, limits: ConnectionLimits, seconds: float) -> None:
        self.app = app
        protocol = type(
            "Patient",
            (BoundedProtocol,),
            {"head_seconds": seconds, "body_seconds": seconds, "limits": limits},
        )
        options = {"ws": "none", "log_config": None, "lifespan": "off", "timeout_keep_alive": 600}
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol, **options))
        self.stack = AsyncExitStack()

    async def peer(self, say: bytes = b"") -> Peer:
        port = self.server.servers[0].sockets[0].getsockname()[1]
        peer = Peer(*await asyncio.open_connection("127.0.0.1", port))
        self.stack.callback(peer.writer.close)
        await peer.say(say)
        return peer


OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]


@pytest.fixture
def open_door(tmp_path) -> OpenDoor:
    app = FastAPI()
    app.state.bodies = []

    @app.get("/livez")
    async def livez() -> str:
        return "here"

    @app.get("/slow")
    async def slow(seconds: float = 1.5) -> str:
        await asyncio.sleep(seconds)
        return "late"

    @app.post("/thing")
    async def thing(request: Request) -> int:
        app.state.bodies.append(await request.body())
        return 1

    problems.install(app)
    app.add_middleware(Guard, settings=Settings(home=tmp_path, token="0123456789abcdef"))

    @asynccontextmanager
    async def opened(
        most: int = 1000, each: int = 1000, seconds: float = 0.5
    ) -> AsyncIterator[Door]:
        door = Door(app, ConnectionLimits(most, each), seconds)
        serving = asyncio.create_task(door.server.serve())
        while not door.server.started:
            await asyncio.sleep(0.01)
        async with door.stack:
            yield door
        door.server.should_exit = True
        await serving

    return opened


async def test_an_endless_header_is_cut_off_at_once(open_door):
    async with open_door() as door:
        began = time.monotonic()
        peer = await door.peer(b"GET /livez HTTP/1.1\r\nX-Long: ")
        with pytest.raises(ConnectionError):
            await peer.pour(b"x" * 65_536, 2_000)
        assert time.monotonic() - began < 3
        assert await (await door.peer(GET)).status() == 200


@pytest.mark.parametrize("endless", [b"x" * 1000, b"\r\n" * 500, b"X-A: b\r\n" * 100])
async def test_too_large_a_head_is_told_so(open_door, endless):
    begin = b"" if endless.startswith(b"\r") else b"GET / HTTP/1.1\r\nX-B: "
    async with open_door() as door:
        peer = await door.peer(begin)
        for _ in range(MAX_HEAD // len(endless) + 1):
            await peer.say(endless)
        assert await peer.status() == 431


async def test_a_head_of_usual_size_is_served_however_it_comes(open_door):
    async with open_door() as door:
        head = GET.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n")
        for step in (7_000, len(head)):
            peer = await door.peer()
            for piece in chunks(head, step):
                await peer.say(piece)
            assert await peer.status() == 200


@pytest.mark.parametrize("said", [b"", b"G", HALF, POST, GET + b"GET"])
async def test_half_a_request_ends_in_time(open_door, said):
    async with open_door() as door:
        peer = await door.peer(said)
        if said.startswith(GET):
            assert await peer.status() == 200
        assert await peer.status() == 408
        await peer.gone()


async def test_a_byte_now_and_then_buys_no_time(open_door):
    async with open_door() as door:
        peer = await door.peer(HALF)
        with pytest.raises(ConnectionError):
            await peer.pour(b"x", 1_000, pause=0.1)


async def test_half_a_body_ends_in_time_and_reaches_nobody(open_door):
    async with open_door() as door:
        peer = await door.peer(POST + b"Content-Length: 20\r\n\r\n" + b"{}")
        assert await peer.status() == 408
        await peer.gone()
        assert await (await door.peer(GET)).status() == 200
        assert door.app.state.bodies == []


async def test_a_body_nobody_wants_is_not_taken_for_ever(open_door):
    async with open_door() as door:
        chunked = b"Transfer-Encoding: chunked\r\n\r\n"
        peer = await door.peer(GET.replace(b"\r\n\r\n", b"\r\n" + chunked))
        with pytest.raises(ConnectionError):
            await peer.pour(b"4000\r\n" + b"x" * 0x4000 + b"\r\n", 10_000)


async def test_who_was_answered_before_the_body_was_through_does_not_stay_for_ever(open_door):
    async with open_door() as door:
        peer = await door.peer(
            b"POST /thing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
        )
        assert await peer.status() == 401
        await peer.say(b"12345")
        await peer.gone()


async def test_large_bodies_and_requests_in_a_row_are_served(open_door):
    async with open_door() as door:
        post = POST + b"Content-Length: %d\r\n\r\n" % MAX_BODY + b"x" * MAX_BODY
        peer = await door.peer(post + GET + post + GET)
        assert [await peer.status() for _ in range(4)] == [200] * 4
        assert [len(body) for body in door.app.state.bodies] == [MAX_BODY] * 2


@pytest.mark.parametrize("half", [HALF, POST + b"Content-Length: 20\r\n\r\n"])
@pytest.mark.parametrize("before", [1, 2])
async def test_half_a_request_waits_for_the_answers_before_it(open_door, before, half):
    slow = GET.replace(b"/livez", b"/slow?seconds=0.5")  # for longer than a request may be half
    async with open_door(seconds=0.2) as door:
        peer = await door.peer(slow * before + half)
        assert [await peer.status() for _ in range(before)] == [200] * before
        assert await peer.status() == 408


async def test_crowds_of_half_requests_make_room_for_whole_ones(open_door):
    async with open_door(each=10, seconds=600) as door:
        crowd = [await door.peer(HALF) for _ in range(40)]
        assert [await peer.status() for peer in crowd[:30]] == [408] * 30
        assert await (await door.peer(GET)).status() == 200
        await crowd[-1].say(GET.removeprefix(HALF))  # the youngest may still become whole
        assert await crowd[-1].status() == 200


async def test_proxies_keep_as_many_connections_as_they_like(open_door):
    async with open_door(each=10, seconds=600) as door:
        peers = [await door.peer(GET) for _ in range(40)]
        for _ in range(3):
            assert [await peer.status() for peer in peers] == [200] * 40
            for peer in peers:
                await peer.say(GET)


@pytest.mark.parametrize("said", [HALF, GET])
async def test_descriptors_are_kept_for_newcomers(open_door, said):
    slow = GET.replace(b"/livez", b"/slow")
    async with open_door(most=10, seconds=600) as door:
        busy = [await door.peer(slow) for _ in range(3)]
        crowd = [await door.peer(said) for _ in range(20)]
        for peer in crowd[:13]:
            await peer.gone()
        assert await (await door.peer(GET)).status() == 200
        assert [await peer.status() for peer in busy] == [200] * 3
