"""Strangers at the door of the web must not keep others from their answers."""

import asyncio
import contextlib
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from tests.faults import injecting
from tests.faults.conftest import Figures, Row
from tests.faults.visiting import Visitor, visited
from tests.servers import PostgresServer
from tests.waiting import eventually

HALVES = 2_000

# One header of 150 MB, then as many bodies that never come, then half requests: each until the door
# hangs up.
STRANGERS = f"""
import socket, sys, time
port = int(sys.argv[1])

def call(text):
    peer = socket.create_connection(("127.0.0.1", port), timeout=60)
    peer.sendall(text)
    return peer

def poured(peer, piece, times):
    try:
        for _ in range(times):
            peer.sendall(piece)
        peer.recv(1)
    except OSError:
        pass

poured(call(b"GET /livez HTTP/1.1\\r\\nX-Long: "), b"x" * 65536, 150 * 16)
began = time.monotonic()
post = b"POST /api/v1/databases HTTP/1.1\\r\\nHost: localhost\\r\\n"
post += b"Authorization: Bearer token-for-tests\\r\\n"
peers = [call(post + b"Content-Length: 100\\r\\n\\r\\n{{") for _ in range(20)]
peers += [call(b"GET /livez HTTP/1.1\\r\\nHost: local") for _ in range({HALVES})]
for peer in peers:
    poured(peer, b"", 0)
print(time.monotonic() - began)
"""


@pytest.mark.row(
    "strangers send the web an endless header, bodies that never come and 2,000 half requests",
    "others get each answer <= 2 s, with no worker's beat disturbed; the strangers are cut off <= "
    "15 s",
)
@pytest.mark.timeout(180)
async def test_strangers(row: Row, postgres_server: PostgresServer) -> None:
    lab = row.make_lab(workers=2)
    names = lab.monitor_many(3, postgres_server)
    visitor = await visited(lab, names)
    with visitor.visiting():
        await attack(visitor, row.figure)
    visitor.demand(row.figure)
    assert await lab.all_in(names, "available", within=5) < 5


async def attack(visitor: Visitor, figure: Figures) -> None:
    """Let the strangers do their worst, in a process of their own."""
    port = str(urlsplit(str(visitor.client.base_url)).port)
    argv = [sys.executable, "-c", STRANGERS, port]
    with contextlib.ExitStack() as stack:
        started = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        process = stack.enter_context(started)
        stack.callback(process.kill)
        began = time.monotonic()
        said, _ = await asyncio.to_thread(process.communicate, timeout=90)
        figure("the strangers gave up after", time.monotonic() - began)
        figure("the last half request was ended after", float(said), most=15)


@pytest.mark.row(
    "every worker and every supervisor is killed",
    "the web answers throughout; /readyz and the list say <= 30 s that nobody watches, leads or "
    "observes, and <= 30 s after others were started that all is well",
)
@pytest.mark.timeout(180)
async def test_nobody_watches(row: Row, postgres_server: PostgresServer) -> None:
    lab = row.make_lab(workers=2)
    names = lab.monitor_many(3, postgres_server)
    visitor = await visited(lab, names)
    await eventually(lambda: troubled(visitor) == set(), within=30, every=0.2)
    with visitor.visiting():
        for role in (*lab.workers(), *lab.supervisors()):
            injecting.killed(lab, role)
        began = time.monotonic()
        for trouble in ("workers", "observations", "supervisor"):
            await eventually(
                lambda trouble=trouble: trouble in troubled(visitor), within=60, every=0.2
            )
            row.figure(f"/readyz says so of {trouble} after", time.monotonic() - began, most=30)
        page = visitor.client.get("/last_observation").json()
        assert len(page["meta"]["trouble"]) == 2
        assert [one["observation"]["stale"] for one in page["data"]] == [True] * 3
        for role in ("supervisor", "worker", "worker"):
            lab.launch(role)
        began = time.monotonic()
        await eventually(lambda: troubled(visitor) == set(), within=60, every=0.2)
        row.figure("all is well after", time.monotonic() - began, most=30)
    visitor.demand(row.figure)


def troubled(visitor: Visitor) -> set[str]:
    """Return the checks of /readyz that do not pass."""
    checks = visitor.client.get("/readyz").json()["checks"]
    return {name for name, check in checks.items() if check["status"] != "pass"}
