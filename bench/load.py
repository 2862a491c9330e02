"""A load of GET requests over kept connections, as a process of its own: prints what came of it.

`python -m bench.load PORT CONNECTIONS SECONDS TOKEN PATH...`
"""

import asyncio
import json
import random
import sys
import time

import uvloop


class Client(asyncio.Protocol):
    """One connection that asks, waits for the answer, and asks again."""

    def __init__(self, requests: list[bytes], seconds: list[float], statuses: dict[str, int]):
        self._requests, self._seconds, self._statuses = requests, seconds, statuses
        self._buffer = b""
        self._missing = 0  # bytes of the body that have not come yet; -1: of the head, too
        self._began = 0.0
        self.stopped = False

    def connection_made(self, transport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._missing, self._buffer, self._began = -1, b"", time.perf_counter()
        self._transport.write(random.choice(self._requests))

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._buffer += data
            head, found, body = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._missing = _length(head) - len(body)
            self._count(head)
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            self._seconds.append(time.perf_counter() - self._began)
            if not self.stopped:
                self._ask()

    def _count(self, head: bytes) -> None:
        status = head[9:12].decode()
        self._statuses[status] = self._statuses.get(status, 0) + 1


def _length(head: bytes) -> int:
    start = head.lower().index(b"content-length:") + len(b"content-length:")
    return int(head[start : start + 20].split(b"\r", 1)[0])


async def load(
    port: int, connections: int, seconds: float, token: str, paths: list[str]
) -> dict[str, object]:
    """Ask for these paths at random for so long; return rate, latencies in ms and statuses."""
    # Not a loopback name: the token is asked for.
    head = f"HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer {token}\r\n\r\n"
    requests = [f"GET {path} {head}".encode() for path in paths]
    took: list[float] = []
    statuses: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(requests, took, statuses), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.sleep(seconds)
    for client in clients:
        client.stopped = True
    took.sort()
    return {
        "rate": len(took) / seconds,
        "p50": took[len(took) // 2] * 1000,
        "p99": took[int(len(took) * 0.99)] * 1000,
        "statuses": statuses,
    }


def main() -> None:
    port, connections, seconds, token, *paths = sys.argv[1:]
    found = uvloop.run(load(int(port), int(connections), float(seconds), token, paths))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
