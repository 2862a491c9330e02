"""Host names that lead elsewhere: a failover by DNS is followed, and calls nothing down."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.conftest import MakeLab, Row
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.faults.resolving import Asking, Resolver
from tests.fixtures import StartPostgres
from tests.proxy import Proxy
from tests.servers import PostgresServer
from tests.system.targets import OUR_SESSIONS
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="its own name server and mounts need root"
)
HOST, OLD, NEW = "orders.test", "127.0.0.1", "127.0.0.2"


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    with Resolver() as resolver:
        resolver.known[HOST] = OLD
        yield resolver


def named(make_lab: MakeLab, resolver: Resolver, home: Path, server: PostgresServer) -> Lab:
    """Return a lab of two workers with one database by its name."""
    lab = make_lab(workers=0)
    for number in range(2):
        lab.launch("worker", Asking(resolver, home / f"resolv-{number}"))
    lab.monitor("orders", server, url=server.url().replace(OLD, HOST))
    return lab


@pytest.fixture
def new_host(start_postgres: StartPostgres) -> Iterator[Callable[[int], PostgresServer]]:
    """Start a well server of the same password at the same port of another host."""
    with ExitStack() as stack:

        def start(port: int) -> PostgresServer:
            server = start_postgres()
            proxy = Proxy(server.port)
            proxy.host, proxy.port = NEW, port
            stack.callback(proxy.start().stop)
            return server

        yield start


@pytest.mark.row(
    "a server is killed, or freezes, and its name leads to a well host while that is in doubt",
    "never `unavailable`; `available` <= 8 s after the name changed",
)
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_name_that_leaves_a_dead_host(
    how: str,
    resolver: Resolver,
    new_host: Callable[[int], PostgresServer],
    row: Row,
    tmp_path: Path,
) -> None:
    old = row.start_postgres()
    new = new_host(old.port)
    lab = named(row.make_lab, resolver, tmp_path, old)
    await lab.all_in(["orders"], "available", within=30)
    with lab.fault(
        f"old host {how}", Effect.ABSENT if how == "killed" else Effect.SILENT, ["orders"]
    ):
        old.kill_all() if how == "killed" else old.freeze()
        await lab.all_in(["orders"], "uncertain", within=15)
        await asyncio.sleep(0 if how == "killed" else 4)  # a frozen host costs probes
        resolver.known[HOST] = NEW
    moved = time.time()
    await lab.all_in(["orders"], "available", within=20)
    row.figure(f"{how}: available after", time.time() - moved, most=8)
    assert sessions(new) == 1
    await lab.settle()
    assert set(lab.rules("orders")) == {"first_ok", "doubt", "false_alarm"}


@pytest.mark.row(
    "a name leads to another host, and the old one lives on as a standby",
    "watched at the new one <= 40 s after, no transition",
)
async def test_a_name_that_leaves_a_living_host(
    resolver: Resolver, new_host: Callable[[int], PostgresServer], row: Row, tmp_path: Path
) -> None:
    old = row.start_postgres()
    new = new_host(old.port)
    lab = named(row.make_lab, resolver, tmp_path, old)
    await lab.all_in(["orders"], "available", within=30)
    assert sessions(old) == 1
    resolver.known[HOST] = NEW
    moved = time.time()
    await eventually(lambda: (sessions(old), sessions(new)) == (0, 1), within=60, every=0.2)
    row.figure("moved after", time.time() - moved, most=40)
    assert lab.rules("orders") == ["first_ok"]


def sessions(server: PostgresServer) -> int:
    return int(server.execute(f"select count(*) from pg_stat_activity where {OUR_SESSIONS}")[0][0])
