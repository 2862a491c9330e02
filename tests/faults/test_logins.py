"""Logins that stop while the kept session lives: known soon, told right, no storm."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from monitor.core.policy import Policy
from monitor.live.keys import REQUESTS
from monitor.registry import fleet
from tests.faults import injecting
from tests.faults.asserting import durable
from tests.faults.conftest import Row
from tests.faults.history import Bounds
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.feeler.certificates import Authority
from tests.feeler.hostile import Asking, Hostile
from tests.servers import PostgresServer
from tests.system.targets import OUR_SESSIONS
from tests.waiting import eventually

USER, PASSWORD, OTHER = "visitor", "first-word-of-visitor", "second-word-of-visitor"


@contextmanager
def altered(words: str, during: str, after: str, server: PostgresServer) -> Iterator[None]:
    server.execute(f"alter {words} {during}")
    try:
        yield
    finally:
        server.execute(f"alter {words} {after}")


password_changed = partial(altered, f"role {USER} password", f"'{OTHER}'", f"'{PASSWORD}'")
connections_disallowed = partial(altered, "database orders allow_connections", "false", "true")


def first_failed_proof(lab: Lab, name: str, since: float) -> float:
    """Return when an observation first says what a login beside the kept session told."""
    return next(
        float(sight.fields["observed_at"])
        for sight in lab.eye.sights[name]
        if sight.at > since and sight.fields.get("cause") not in (None, "ok")
    )


@pytest.mark.timeout(300)
@pytest.mark.row(
    "logins that stop working while our kept session lives: the postmaster alone frozen, the "
    "password changed, the database closed to new connections",
    "`refusing` or `locked_out` within 75 s, and within 10 s of the first failed proof; never "
    "`uncertain` or `unavailable`; `available` again within 10 s of a look asked for once logins "
    "work",
)
@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (PostgresServer.postmaster_frozen, "refusing"),
        (password_changed, "locked_out"),
        (connections_disallowed, "locked_out"),
    ],
    ids=["frozen", "password", "closed"],
)
async def test_logins_stop(
    fault: Callable[[PostgresServer], AbstractContextManager[None]], state: str, row: Row
) -> None:
    lab, server = row.make_lab(workers=2, bounds=Bounds(settled=90)), row.start_postgres()
    server.execute(f"create role {USER} login password '{PASSWORD}'")
    server.execute("create database orders")
    lab.monitor("orders", server, dbname="orders", user=USER, password=PASSWORD)
    await lab.all_in(["orders"], "available", within=30)
    began = time.time()
    with lab.fault("logins stop", Effect.SPEAKS, ["orders"]), fault(server):
        await lab.all_in(["orders"], state, within=100)
        known = float(lab.hash("orders")["since"])
        row.figure(f"{state} after", known - began, most=75)
        found = known - first_failed_proof(lab, "orders", began)
        row.figure("after the first failed proof", found, most=10)
    ended = time.time()
    lab.redis.xadd(REQUESTS, {"kind": "observe", "database": "orders"})
    await lab.all_in(["orders"], "available", within=60)
    row.figure("available after", time.time() - ended, most=10)
    await durable(lab, "orders", "first_ok", "answered", "reopened")


def sessions(server: PostgresServer, age: str) -> tuple[int, int]:
    """Return how many sessions we have at a server, and how many of them are older than this."""
    [(count, old)] = server.execute(
        f"select count(*), count(*) filter (where backend_start < now() - interval '{age}') "
        f"from pg_stat_activity where {OUR_SESSIONS}"
    )
    return count, old


@pytest.mark.row(
    "4 databases of one role and server, its CONNECTION LIMIT as README says, then without room "
    "for a login beside them, then lower than their number",
    "no transition while logins are proved, with the lower limit neither; `refusing` with cause "
    "`role_full` for those without a session only",
)
async def test_connection_limit(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    fleet.put_policy(lab.store, Policy(login_interval=2.0))
    server.execute(f"create role {USER} login password '{PASSWORD}' connection limit 6")
    names = [f"db-{number}" for number in range(4)]
    for name in names:
        server.execute(f'create database "{name}"')
        lab.monitor(name, server, dbname=name, user=USER, password=PASSWORD)
    await lab.all_in(names, "available", within=30)
    await asyncio.sleep(20)  # several proofs
    # One look may see a login that is being proved beside the kept session ...
    await eventually(lambda: sessions(server, "14 s") == (4, 0), within=5)
    server.execute(f"alter role {USER} connection limit 4")
    await asyncio.sleep(20)  # several more, under the limit
    # ... or miss a session that has just given way to one.
    await eventually(lambda: sessions(server, "14 s") == (4, 0), within=5)
    assert all(lab.rules(name) == ["first_ok"] for name in names)
    with lab.fault("role full", Effect.SPEAKS, names):
        server.execute(f"alter role {USER} connection limit 2")
        injecting.sessions_ended(lab, server)
        await eventually(lambda: [*map(lab.state, names)].count("refusing") == 2, within=20)
        refused = [name for name in names if lab.state(name) == "refusing"]
        assert {lab.hash(name)["cause"] for name in refused} == {"role_full"}
        server.execute(f"alter role {USER} connection limit 6")
    await lab.all_in(names, "available", within=20)


@pytest.mark.row(
    "a server 0.4 s away, its owner killed; then its answers drip in",
    "`available` within 20 s of being added, no transition when it moves; `unavailable` while it "
    "drips",
)
async def test_far_away(row: Row) -> None:
    far = Bounds(deadline=5.0, silent=30)
    lab, server = row.make_lab(workers=2, bounds=far), row.start_postgres()
    proxy = row.start_proxy(server.port)
    proxy.delay = 0.2  # paid both ways
    began = time.time()
    lab.monitor("orders", server, url=proxy.url(server.url()))
    await lab.all_in(["orders"], "available", within=30)
    row.figure("available after", time.time() - began, most=20)
    injecting.killed(lab, lab.owner_of("orders"))
    lab.launch("worker")
    await lab.observed_again(["orders"], within=30, since=time.time() + 10)
    assert lab.rules("orders") == ["first_ok"]
    assert float(lab.hash("orders")["login_usual"]) > 1
    with lab.fault("answers drip", Effect.SILENT, ["orders"]):
        proxy.drip = 0.5
        proxy.sever()
        seconds = await lab.all_in(["orders"], "unavailable", within=60)
        row.figure("unavailable after", seconds, most=30)
        proxy.drip = 0.0
    await lab.all_in(["orders"], "available", within=40)


@pytest.mark.row(
    "AccessExclusiveLock held on pg_class while our session is gone",
    "`refusing` (cause `login_failing`) within 10 s, never `uncertain` or `unavailable`; "
    "`available` within 10 s",
)
async def test_catalog_locked(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    lab.monitor("orders", server)
    await lab.all_in(["orders"], "available", within=30)
    fault = lab.fault("catalog locked", Effect.SPEAKS, ["orders"])
    with fault, psycopg.connect(server.url()) as blocker:
        blocker.execute("lock table pg_catalog.pg_class in access exclusive mode")
        ended = f"select pg_terminate_backend(pid) from pg_stat_activity where {OUR_SESSIONS}"
        blocker.execute(ended.encode())
        row.figure("refusing after", await lab.all_in(["orders"], "refusing", within=30), most=10)
        assert lab.hash("orders")["cause"] == "login_failing"
    row.figure("available after", await lab.all_in(["orders"], "available", within=30), most=10)
    await durable(lab, "orders", "first_ok", "answered", "reopened")


@pytest.mark.row(
    "idle_session_timeout of 2 s",
    "`available`, observed every 5 s; after the first sessions that ended no more than one login "
    "a beat",
)
async def test_idle_sessions_ended(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres(log_connections="on")
    server.execute(f"create role {USER} login password '{PASSWORD}'")
    server.execute(f"alter role {USER} set idle_session_timeout = '2s'")
    lab.monitor("orders", server, user=USER, password=PASSWORD)
    await lab.all_in(["orders"], "available", within=30)
    await asyncio.sleep(10)  # the first sessions end
    before = server.log.read_text().count(f"connection authorized: user={USER}")
    await asyncio.sleep(30)  # as long as the figure says
    logins = server.log.read_text().count(f"connection authorized: user={USER}") - before
    row.figure("logins in 30 s", logins, "", most=7)
    await lab.observed_again(["orders"], within=6)
    assert lab.rules("orders") == ["first_ok"]


@pytest.fixture(params=["plain", "tls"])
def asking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Asking, str]]:
    """A server that asks for the password in clear, and its address. Ask for it before the lab."""
    tls = Authority("nobody's").context("localhost", tmp_path) if request.param == "tls" else None
    behaving = Asking("a-word-in-clear", tls)
    with Hostile(behaving) as server:
        mode = "require" if tls else "prefer"
        place = f"u:{behaving.secret}@127.0.0.1:{server.port}/db"
        yield behaving, f"postgresql://{place}?sslmode={mode}"


@pytest.mark.tls
@pytest.mark.timeout(180)
@pytest.mark.row(
    "a server that asks for the password in clear: plainly (sslmode=prefer), over TLS that proves "
    "nothing (require)",
    "it never gets it, as seen on its side of the wire; `locked_out`, cause `cleartext_refused`, "
    "<= 15 s after it was registered; with `allow_cleartext=1` it gets it and is available <= 15 "
    "s after the change",
)
async def test_password_in_clear(asking: tuple[Asking, str], row: Row) -> None:
    (server, url), lab = asking, row.make_lab(workers=2)
    lab.note("asks for the password in clear", Effect.SPEAKS, ["orders"])
    began = time.time()
    lab.monitor("orders", None, url)
    await lab.all_in(["orders"], "locked_out", within=60)
    row.figure("locked_out after", time.time() - began, most=15)
    assert lab.hash("orders")["cause"] == "cleartext_refused"
    await eventually(lambda: server.asked > 1, within=60)
    assert not server.told
    changed = time.time()
    fleet.change(lab.store, "orders", ciphertext=lab.box.seal("orders", f"{url}&allow_cleartext=1"))
    await lab.all_in(["orders"], "available", within=60)
    row.figure("available after it was allowed", time.time() - changed, most=15)
    assert set(server.told) == {server.secret.encode() + b"\0"}
