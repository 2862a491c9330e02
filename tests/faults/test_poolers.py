"""Databases behind a pgbouncer: its death is an outage, its waits are waits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.faults import injecting
from tests.faults.asserting import NEVER
from tests.faults.conftest import Row
from tests.faults.history import Bounds
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.poolers import PgBouncer
from tests.servers import PostgresServer
from tests.waiting import eventually

Pooled = tuple[Lab, PostgresServer, PgBouncer]

# a probe that hangs is followed by a knock, with a deadline of its own
KNOCKS = Bounds(deadline=4.0)


async def pooled(row: Row, workers: int = 2, query: str = "", **settings: str) -> Pooled:
    """Have a database behind a pgbouncer watched until it is available."""
    lab, server = row.make_lab(workers=workers, bounds=KNOCKS), row.start_postgres()
    bouncer = row.start_pgbouncer(server, **settings)
    lab.monitor("orders", server, url=bouncer.url() + query)
    await lab.all_in(["orders"], "available", within=30)
    return lab, server, bouncer


async def waits(lab: Lab, within: float) -> float:
    """Wait until it is told that the pooler keeps us waiting; return the seconds."""
    took = await lab.all_in(["orders"], "refusing", within=within)
    assert lab.hash("orders")["cause"] == "pooler_waiting"
    return took


@contextmanager
def used_up(lab: Lab, bouncer: PgBouncer) -> Iterator[None]:
    """Hold the pool's one connection in a transaction."""
    fault = lab.fault("pool used up", Effect.SPEAKS, ["orders"])
    with fault, psycopg.connect(bouncer.url()) as hog:
        hog.execute("select 1")
        yield


@pytest.mark.row(
    "the pool of a pgbouncer used up by somebody's transaction for 30 s",
    "`refusing` (cause `pooler_waiting`) within 15 s, never `unavailable`; `available` within 10 s",
)
async def test_pool_used_up(row: Row) -> None:
    lab, _, bouncer = await pooled(row)
    with used_up(lab, bouncer):
        began = time.time()
        row.figure("refusing after", await waits(lab, within=30), most=15)
        await lab.observed_again(["orders"], within=60, since=began + 30)
        assert lab.state("orders") == "refusing"
    row.figure("available after", await lab.all_in(["orders"], "available", within=30), most=10)
    told = ["answered", "reopened"]
    await eventually(lambda: lab.rules("orders")[-2:] == told, within=15, every=0.2)
    assert NEVER.isdisjoint(lab.rules("orders"))


@pytest.mark.row(
    "the server behind a pgbouncer killed, the pooler lives",
    "`refusing` (cause `pooler_waiting`) within 15 s, never `available`; `available` within 20 s "
    "of its restart",
)
async def test_server_behind_killed(row: Row) -> None:
    lab, server, _ = await pooled(row, server_login_retry="5")
    with lab.fault("server behind the pooler killed", Effect.SPEAKS, ["orders"]):
        server.kill_all()
        row.figure("refusing after", await waits(lab, within=30), most=15)
        await lab.observed_again(["orders"], within=30, since=time.time() + 10)
        assert lab.state("orders") == "refusing"
        server.start()
    row.figure("available after", await lab.all_in(["orders"], "available", within=40), most=20)


@pytest.mark.row(
    "a pgbouncer killed, then started again",
    "`unavailable` within 12 s by two workers; `available` within 10 s",
)
async def test_pooler_killed(row: Row) -> None:
    lab, _, bouncer = await pooled(row)
    with lab.fault("pooler killed", Effect.ABSENT, ["orders"]):
        bouncer.kill()
        seconds = await lab.all_in(["orders"], "unavailable", within=30)
        row.figure("unavailable after", seconds, most=12)
        bouncer.start()
    row.figure("available after", await lab.all_in(["orders"], "available", within=30), most=10)
    await eventually(lambda: "confirm_absent" in lab.rules("orders"), within=15, every=0.2)


@pytest.mark.row(
    "logins wait without a word in a pgbouncer that was restarted before a server that hangs; "
    "their worker killed",
    "`refusing` (cause `pooler_waiting`), the next worker says so too; never `unavailable`; "
    "`available` within 20 s",
)
async def test_next_worker_knows_the_pooler(row: Row) -> None:
    patient = {"server_connect_timeout": "600", "client_login_timeout": "0"}
    settings = {"auth_type": "trust", "server_login_retry": "1"} | patient
    lab, server, bouncer = await pooled(row, 3, "?sslmode=disable", **settings)
    with lab.fault("server behind the pooler frozen", Effect.SPEAKS, ["orders"]):
        server.freeze()
        with lab.fault("pooler restarted", Effect.ABSENT, ["orders"]):
            bouncer.kill()
            bouncer.start()
        await waits(lab, within=30)
        owner = lab.owner_of("orders")
        injecting.killed(lab, owner)
        seconds = await lab.observed_by_others(["orders"], owner, within=60)
        row.figure("told by another worker after", seconds)
        await lab.observed_again(["orders"], within=60, since=time.time() + 20)
        assert (lab.state("orders"), lab.hash("orders")["cause"]) == ("refusing", "pooler_waiting")
        assert NEVER.isdisjoint(lab.rules("orders"))
        server.thaw()
    row.figure("available after", await lab.all_in(["orders"], "available", within=40), most=20)


@pytest.mark.row(
    "the worker of a database killed while its pool is used up",
    "the next worker says `refusing` (cause `pooler_waiting`), never `unavailable`; `available` "
    "within 10 s",
)
async def test_worker_killed_while_the_pool_is_used_up(row: Row) -> None:
    lab, _, bouncer = await pooled(row, workers=3)
    with used_up(lab, bouncer):
        await waits(lab, within=30)
        owner = lab.owner_of("orders")
        injecting.killed(lab, owner)
        await lab.observed_by_others(["orders"], owner, within=60)
        await lab.observed_again(["orders"], within=60, since=time.time() + 15)
        assert (lab.state("orders"), lab.hash("orders")["cause"]) == ("refusing", "pooler_waiting")
    row.figure("available after", await lab.all_in(["orders"], "available", within=30), most=10)
    assert NEVER.isdisjoint(lab.rules("orders"))
