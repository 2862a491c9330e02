"""Watched servers die, freeze, start slowly, lock us out: each state is true, and soon."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from monitor.core.database import DatabaseStatus
from monitor.core.policy import Policy
from monitor.live.keys import reason_key, target_key
from monitor.local.machine import own
from monitor.registry import fleet
from tests.faults import injecting
from tests.faults.asserting import durable, longest_probe
from tests.faults.conftest import Row
from tests.faults.history import Bounds, lateness
from tests.faults.lab import INTERVAL, Lab
from tests.faults.observed import Effect, History
from tests.faults.resolving import Asking, Resolver
from tests.feeler.certificates import DAY, Authority
from tests.fixtures import StartPostgres
from tests.servers import PostgresServer
from tests.system.targets import OUR_SESSIONS
from tests.waiting import eventually

GRACE = 0.1  # seconds a probe may end after its deadline
DEADLINE = 2.0
USER, PASSWORD, OTHER = "visitor", "first-word-of-visitor", "second-word-of-visitor"
SLOTS = "12"


async def up(lab: Lab, *names: str) -> None:
    await lab.all_in(names, "available", within=30)


async def probed(lab: Lab, name: str) -> None:
    """Wait until a probe that is sent from now on has been recorded."""
    since = time.time()
    await eventually(lambda: float(lab.hash(name)["sent_at"]) > since, within=15)


def sessions(server: PostgresServer, dbname: str = "postgres") -> int:
    ours = f"{OUR_SESSIONS} and datname = '{dbname}'"
    [[count]] = server.execute(f"select count(*) from pg_stat_activity where {ours}")
    return int(count)


def write(path: Path, text: str = "") -> None:
    """Write a file for the server's own user."""
    path.write_text(text)
    own(path)


# --- down -----------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.row(
    "the postmaster of a server SIGKILLed, or all its processes",
    "`uncertain` within 2 s, `unavailable` within 10 s by two observers, on evidence newer than "
    "the kill; `available` within 7 s of the start; its neighbours untouched",
)
@pytest.mark.parametrize("how", ["kill_postmaster", "kill_all"])
async def test_killed(how: str, row: Row) -> None:
    lab, server = row.make_lab(), row.start_postgres()
    lab.monitor("orders", server)
    lab.monitor("ledger", row.start_postgres())
    await up(lab, "orders", "ledger")
    killed = time.time()
    with injecting.target_killed(lab, server, getattr(PostgresServer, how)):
        await lab.all_in(["orders"], "unavailable", within=20)
        started = time.time()
    await lab.all_in(["orders"], "available", within=20)
    row.figure("available after", time.time() - started, most=7)
    row.figure("uncertain after", lab.eye.first("orders", state="uncertain") - killed, most=2)
    row.figure("unavailable after", lab.eye.first("orders", state="unavailable") - killed, most=10)
    back = "recovered", "reopened"
    await eventually(lambda: lab.rules("orders")[-1] in back, within=15, every=0.2)
    told = [row.transition for row in lab.transitions("orders")]
    rules = [one.rule for one in told]
    assert rules[:3] == ["first_ok", "doubt", "confirm_absent"]
    assert rules[3:] in (["recovered"], ["answered", "reopened"])
    assert len(set(told[2].observers)) == 2
    assert all(seen.sent_at > killed - GRACE for seen in told[2].evidence)
    assert lab.rules("ledger") == ["first_ok"]


@pytest.mark.quick
@pytest.mark.row(
    "a server killed while there is one worker only, twice",
    "`unavailable` by the rule `single_observer`: not before the worker was the only one for 30 "
    "s, within 10 s from then on",
)
async def test_killed_with_one_worker(row: Row) -> None:
    lab, server = row.make_lab(workers=1, bounds=Bounds(absent=45)), row.start_postgres()
    lab.monitor("orders", server)
    await up(lab, "orders")
    with injecting.target_killed(lab, server):
        await lab.all_in(["orders"], "unavailable", within=60)
    row.figure("unavailable after the worker's start", time.time() - lab.began, most=45)
    await up(lab, "orders")
    with injecting.target_killed(lab, server):
        row.figure("then after", await lab.all_in(["orders"], "unavailable", within=20), most=10)
    await up(lab, "orders")
    told = [row.transition for row in lab.transitions("orders")]
    alone = [one.at for one in told if one.rule == "single_observer"]
    assert len(alone) == 2
    assert alone[0] - lab.began >= 30


@pytest.mark.row(
    "a server with 60 databases SIGKILLed, two workers",
    "all `available` within 10 s of the start: their logins do not hinder one another",
)
async def test_killed_with_many_databases(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres(max_connections="150")
    names = [f"db-{number:02}" for number in range(60)]
    for name in names:
        lab.monitor(name, server)
    await up(lab, *names)
    with injecting.target_killed(lab, server):
        seconds = await lab.all_in(names, "unavailable", within=20)
        row.figure("all unavailable after", seconds, most=12)
    row.figure("all available after", await lab.all_in(names, "available", within=60), most=10)


@pytest.mark.timeout(400)
@pytest.mark.row(
    "a server killed eight times in ten minutes, with two workers and with three: four times it "
    "is back at once, then four times it stays away",
    "each of the last four is `unavailable` within 10 s by two observers",
)
@pytest.mark.parametrize("workers", [2, 3])
async def test_killed_again_and_again(workers: int, row: Row) -> None:
    lab, server = row.make_lab(workers=workers), row.start_postgres()
    lab.monitor("orders", server)
    await up(lab, "orders")
    for _ in range(4):
        with injecting.target_killed(lab, server):
            await lab.all_in(["orders"], "uncertain", within=10)
        await up(lab, "orders")
    took = []
    for _ in range(4):
        with injecting.target_killed(lab, server):
            took.append(await lab.all_in(["orders"], "unavailable", within=30))
        await up(lab, "orders")
    row.figure("unavailable after", max(took), most=10)
    await eventually(lambda: lab.rules("orders").count("confirm_absent") == 4, within=15, every=0.2)


@pytest.mark.row(
    "every process of a server SIGSTOPped: it accepts connections and never answers",
    "`unavailable` within 17 s; every probe over 0.1 s after its deadline of 2 s; no other "
    "database observed more than 1 s late; `available` within 7 s of the thaw",
)
async def test_frozen(row: Row) -> None:
    lab, server = row.make_lab(), row.start_postgres()
    lab.monitor("frozen", server)
    others = lab.monitor_many(3, row.start_postgres(), prefix="calm")
    await up(lab, "frozen", *others)
    began = time.time()
    with injecting.target_frozen(lab, server):
        await lab.all_in(["frozen"], "unavailable", within=30)
    thawed = time.time()
    await lab.all_in(["frozen"], "available", within=20)
    row.figure("available after", time.time() - thawed, most=7)
    row.figure("unavailable after", lab.eye.first("frozen", state="unavailable") - began, most=17)
    row.figure("longest probe", longest_probe(lab, ["frozen"]), most=DEADLINE + GRACE)
    seen = History(lab.began, time.time(), sights=lab.eye.sights)
    row.figure("others late by", max(lateness(seen, others, (began, time.time()))), most=1)
    told = await durable(lab, "frozen", "first_ok", "doubt", "confirm_silent", "recovered")
    assert all(seen.sent_at > began - GRACE for seen in told[2].evidence)
    assert all(lab.rules(name) == ["first_ok"] for name in others)


@pytest.mark.row(
    "a server killed and back within a second, ten times in a row",
    "never `unavailable`; `available` within 7 s of the last start; the chain of transitions is "
    "whole",
)
async def test_restarted(row: Row) -> None:
    lab, server = row.make_lab(), row.start_postgres()
    lab.monitor("orders", server)
    await up(lab, "orders")
    longest = 0.0
    for number in range(10):
        killed = time.monotonic()
        with injecting.target_killed(lab, server):
            await asyncio.sleep(0.09 * number)  # against the rhythm of probes
        last = time.time()
        longest = max(longest, time.monotonic() - killed)
        await asyncio.sleep(1.1 + 0.25 * (number % 5))  # against the rhythm of probes, 1 s
    await lab.all_in(["orders"], "available", within=20)
    row.figure("available after", time.time() - last, most=7)
    row.figure("longest away", longest)
    row.figure("transitions", len(lab.rules("orders")), "")
    assert "unavailable" not in lab.eye.states("orders") or longest > Policy().absent_seconds


@pytest.mark.row(
    "400 databases at one address that refuses, takes no connection, or takes them and says "
    "nothing, two workers",
    "all `unavailable` within 60 s, by two observers each",
)
@pytest.mark.parametrize("how", ["refusing", "dropping", "mute"])
async def test_many_at_one_address(how: str, row: Row, request: pytest.FixtureRequest) -> None:
    port = 1 if how == "refusing" else request.getfixturevalue(how)
    wide = Bounds(absent=60, silent=60)
    lab, server = row.make_lab(workers=2, bounds=wide), row.start_postgres()
    names = [f"db-{number:03}" for number in range(400)]
    began = time.time()
    lab.note(how, Effect.ABSENT if how == "refusing" else Effect.SILENT, names)
    url = server.url().replace(f":{server.port}/", f":{port}/")
    for name in names:
        lab.monitor(name, server, url=url)
    await lab.all_in(names, "unavailable", within=90)
    row.figure(f"{how}: all unavailable after", time.time() - began, most=60)
    await lab.settle()
    for name in names:
        assert len(lab.transitions(name)[-1].transition.observers) == 2


@pytest.mark.row(
    "a host name that does not resolve, from the start",
    "`unavailable` on the word of two workers, cause `dns`; other databases untouched",
)
async def test_unknown_name(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    began = time.time()
    lab.note("no such name", Effect.SILENT, ["nowhere"])
    lab.monitor("nowhere", server, url=server.url().replace("127.0.0.1", "nowhere.invalid"))
    lab.monitor("orders", server)
    await up(lab, "orders")
    await lab.all_in(["nowhere"], "unavailable", within=40)
    row.figure("unavailable after", time.time() - began)
    assert lab.hash("nowhere")["cause"] == "dns"
    told = await durable(lab, "nowhere", "doubt", "confirm_silent")
    assert len(set(told[-1].observers)) == 2
    assert lab.rules("orders") == ["first_ok"]


@pytest.mark.row(
    "the name server forgets a name, or answers nothing, for 40 s, and the kept session ends "
    "meanwhile",
    "the address that was known goes on being used: logged in again within the same beat, no "
    "transition",
)
@pytest.mark.parametrize("how", ["gone", "mute"])
@pytest.mark.skipif(os.geteuid() != 0, reason="its own name server and mounts need root")
async def test_name_stops_resolving(how: str, row: Row, tmp_path: Path) -> None:
    host = "orders.test"
    with Resolver() as resolver:
        resolver.known[host] = "127.0.0.1"
        lab, server = row.make_lab(workers=0), row.start_postgres()
        for number in range(2):
            lab.launch("worker", Asking(resolver, tmp_path / f"resolv-{number}"))
        lab.monitor("orders", server, url=server.url().replace("127.0.0.1", host))
        await up(lab, "orders")
        with lab.fault(f"name server {how}", Effect.HARMLESS, ["orders"]):
            resolver.known.clear()
            resolver.mute = how == "mute"
            asked = resolver.asked
            await asyncio.sleep(40)  # an answer is used for 30 s before anybody asks again
            assert injecting.sessions_ended(lab, server) == 1
            seconds = await lab.observed_again(["orders"], within=10)
            row.figure("observed again after", seconds, most=2)
            assert resolver.asked > asked
            assert sessions(server) == 1
        assert lab.rules("orders") == ["first_ok"]


# --- alive, but -----------------------------------------------------------------------------------


@pytest.mark.row(
    "a server that crashed and is in recovery for 25 s (57P03)",
    "`starting` within 7 s, `starting` until it is open, never `unavailable`; `available` within "
    "7 s after",
)
async def test_recovering(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres(wal_level="replica")
    lab.monitor("crashed", server)
    await up(lab, "crashed")
    crashed = time.time()
    with injecting.target_recovering(lab, server):
        await lab.all_in(["crashed"], "starting", within=20)
        row.figure("starting after", time.time() - crashed, most=7)
        await asyncio.sleep(25)  # a recovery takes so long
        assert lab.state("crashed") == "starting"
    opened = time.time()
    await lab.all_in(["crashed"], "available", within=20)
    row.figure("available after", time.time() - opened, most=7)
    await eventually(lambda: lab.rules("crashed")[-1] == "reopened", within=15, every=0.2)
    states = [row.transition.target for row in lab.transitions("crashed")]
    assert states[-2:] == ["starting", "available"]
    assert set(states) <= {"available", "uncertain", "starting"}


@pytest.mark.quick
@pytest.mark.row(
    "max_connections reached",
    "`refusing` within 7 s, never `unavailable` or `uncertain`; `available` within 7 s of the "
    "first free slot; watched as a superuser, who has slots of his own, it stays `available`, "
    "felt no more often than ever",
)
async def test_full(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres(max_connections=SLOTS)
    server.execute(f"create role {USER} login password '{PASSWORD}'")
    lab.monitor("full", server, user=USER, password=PASSWORD)
    lab.monitor("privileged", server)
    await up(lab, "full", "privileged")
    with injecting.target_full(lab, server, USER, PASSWORD):
        filled = time.time()
        await lab.all_in(["full"], "refusing", within=30)
        row.figure("refusing after", time.time() - filled, most=7)
        before = int(lab.hash("privileged")["number"])
        await asyncio.sleep(2 * INTERVAL)  # two beats
        found = int(lab.hash("privileged")["number"]) - before
        row.figure("superuser's beats in 10 s", found, "", most=3)
    freed = time.time()
    await lab.all_in(["full"], "available", within=20)
    row.figure("available after", time.time() - freed, most=7)
    await durable(lab, "full", "first_ok", "answered", "reopened")
    assert lab.rules("privileged") == ["first_ok"]


@pytest.mark.timeout(300)
@pytest.mark.row(
    "a password rotated, and our sessions ended; the worker that found out killed",
    "`locked_out` within 7 s, never `unavailable`; 3 logins in the server's log by the next 80 s, "
    "whoever is the owner, though the database is observed all along; `available` within 30 s of "
    "the new password in the registry",
)
@pytest.mark.parametrize(
    "tls", [False, pytest.param(True, marks=pytest.mark.tls)], ids=["plain", "TLS"]
)
async def test_password_rotated(tls: bool, row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    if tls:
        encrypt(server, Authority("feeler test CA"))
    server.execute(f"create role {USER} login password '{PASSWORD}'")
    lab.monitor("orders", server, user=USER, password=PASSWORD)
    await up(lab, "orders")
    with lab.fault("password rotated", Effect.SPEAKS, ["orders"]):
        server.execute(f"alter role {USER} password '{OTHER}'")
        assert injecting.sessions_ended(lab, server) == 1
        ended = time.time()
        await lab.all_in(["orders"], "locked_out", within=20)
        row.figure("locked out after", time.time() - ended, most=7)
        await asyncio.sleep(3)  # no third login
        assert refused_logins(server) == 2
        injecting.killed(lab, lab.owner_of("orders"))
        lab.launch("worker")
        await lab.observed_again(["orders"], within=30, since=time.time() + 10)
        await asyncio.sleep(ended + 80 - time.time())  # 80 s in all
        row.figure("logins in 80 s", refused_logins(server), "", most=3)
        assert refused_logins(server) == 3
        await lab.observed_again(["orders"], within=3)
        row.figure("longest probe", longest_probe(lab, ["orders"]), most=DEADLINE)
        lab.secrets.add(OTHER)
        new = lab.box.seal("orders", server.url(user=USER, password=OTHER))
        given = time.time()
        fleet.change(lab.store, "orders", ciphertext=new)
        await lab.all_in(["orders"], "available", within=40)
        row.figure("available after", time.time() - given, most=30)
    await durable(lab, "orders", "first_ok", "answered", "reopened")


def refused_logins(server: PostgresServer) -> int:
    """Return how many logins a server has turned down for their password."""
    return server.log.read_text().count("FATAL:  password authentication failed")


@pytest.mark.quick
@pytest.mark.row(
    "a wrong password, a role that may not log in, a missing database, a closed one, an address "
    "pg_hba rejects",
    "each `locked_out` with a cause of its own, never `unavailable` or `uncertain`; the SQLSTATE "
    "stays visible; observed all along, and no more than one login each in 20 s",
)
async def test_shut_out(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    for role in (USER, "rejected"):
        server.execute(f"create role {role} login password '{PASSWORD}'")
    server.execute(f"create role outsider nologin password '{PASSWORD}'")
    server.execute("create database closed allow_connections false")
    rules = server.data / "pg_hba.conf"
    write(rules, f"host all rejected 127.0.0.1/32 reject\n{rules.read_text()}")
    server.execute("select pg_reload_conf()")
    ways = {
        "wrong-password": {"user": USER, "password": OTHER},
        "nologin": {"user": "outsider", "password": PASSWORD},
        "missing": {"dbname": "nowhere", "user": USER, "password": PASSWORD},
        "closed": {"dbname": "closed", "user": USER, "password": PASSWORD},
        "rejected": {"user": "rejected", "password": PASSWORD},
    }
    lab.note("shut out", Effect.SPEAKS, ways)
    began = time.time()
    lab.monitor("good", server, user=USER, password=PASSWORD)
    for name, way in ways.items():
        lab.monitor(name, server, **way)
    await lab.all_in(list(ways), "locked_out", within=30)
    row.figure("all locked out after", time.time() - began)
    await up(lab, "good")
    for name in ways:
        assert await durable(lab, name, "answered")
    causes = [lab.hash(name)["cause"] for name in ways]
    assert causes == ["wrong_password", "not_admitted", "no_database", "closed", "no_entry"]
    said = {name: json.loads(lab.redis.get(reason_key(name)))["sqlstate"] for name in ways}
    assert list(said.values()) == ["28P01", "28000", "3D000", "55000", "28000"]
    assert lab.rules("good") == ["first_ok"]
    before = server.log.read_text().count("FATAL: ")
    await asyncio.sleep(20)  # as long as the figure says
    await lab.observed_again(list(ways), within=5)
    found = server.log.read_text().count("FATAL: ") - before
    row.figure("logins refused in 20 s", found, "", most=len(ways))


@pytest.mark.row(
    "the TLS certificate of a server expired, or is of another host (sslmode=verify-full)",
    "`locked_out` within 7 s of the first new login, never `unavailable`; `available` within 40 s "
    "of a good one: it is looked for every 30 s",
)
@pytest.mark.parametrize("how", ["expired", "another host"])
@pytest.mark.tls
async def test_certificate(how: str, row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    authority = Authority("feeler test CA")
    encrypt(server, authority)
    (lab.home / "ca").mkdir()
    authority.write(lab.home / "ca" / "ours.pem")
    url = server.url().replace("127.0.0.1", "localhost")
    lab.monitor("orders", server, url=f"{url}?sslmode=verify-full&sslrootcert=ours.pem")
    await up(lab, "orders")
    with lab.fault(f"certificate {how}", Effect.SPEAKS, ["orders"]):
        renew(server, authority, *(("localhost", -DAY) if how == "expired" else ("elsewhere", DAY)))
        server.execute("select pg_reload_conf()")
        assert injecting.sessions_ended(lab, server) == 1
        ended = time.time()
        await lab.all_in(["orders"], "locked_out", within=20)
        row.figure("locked out after", time.time() - ended, most=7)
        assert lab.hash("orders")["cause"] == "untrusted"
        renew(server, authority)
        server.execute("select pg_reload_conf()")
        renewed = time.time()
        await lab.all_in(["orders"], "available", within=50)
        row.figure("available after", time.time() - renewed, most=40)
    await durable(lab, "orders", "first_ok", "answered", "reopened")


def encrypt(server: PostgresServer, authority: Authority) -> None:
    """Have a server offer TLS."""
    renew(server, authority)
    try:
        server.execute("alter system set ssl = on")
    except psycopg.errors.InvalidParameterValue:
        pytest.skip("this PostgreSQL is built without TLS")
    server.execute("select pg_reload_conf()")


def renew(
    server: PostgresServer, authority: Authority, host: str = "localhost", life: timedelta = DAY
) -> None:
    authority.issue(host, server.data, life)
    own(server.data / "server.crt")
    own(server.data / "server.key")


@pytest.mark.quick
@pytest.mark.row(
    "one of two databases of a server dropped (DROP DATABASE ... WITH (FORCE))",
    "`locked_out` within 7 s for that one; no transition of the other",
)
async def test_dropped_database(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    gone, stays = lab.monitor_many(2, server)
    await up(lab, gone, stays)
    lab.note("database dropped", Effect.SPEAKS, [gone])
    server.execute(f'drop database "{gone}" with (force)')
    dropped = time.time()
    await lab.all_in([gone], "locked_out", within=20)
    row.figure("locked out after", time.time() - dropped, most=7)
    await durable(lab, gone, "first_ok", "answered")
    await lab.observed_again([stays], within=10)
    assert lab.rules(stays) == ["first_ok"]


# --- nothing is wrong -----------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.row(
    "our session ended by an administrator (pg_terminate_backend)",
    "observed again within 2 s over one new session; no transition",
)
async def test_session_ended(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    lab.monitor("orders", server)
    await up(lab, "orders")
    for _ in range(2):
        assert injecting.sessions_ended(lab, server) == 1
        row.figure("observed again after", await lab.observed_again(["orders"], within=10), most=2)
        await eventually(lambda: sessions(server) == 1, within=2)
        # the next regular one
        await lab.observed_again(["orders"], within=10, since=time.time() + 2)
    assert lab.rules("orders") == ["first_ok"]


@pytest.mark.quick
@pytest.mark.row(
    "a standby promoted, and demoted by a restart",
    "its role changes within 7 s both times; the promotion is no transition, and nothing happens "
    "to the primary",
)
async def test_promoted(primary: PostgresServer, standby: PostgresServer, row: Row) -> None:
    lab = row.make_lab(workers=2)
    lab.monitor("primary", primary)
    lab.monitor("standby", standby)
    await up(lab, "primary", "standby")
    assert lab.hash("primary")["role"] == "primary"
    assert lab.hash("standby")["role"] == "standby"
    await eventually(lambda: primary.execute("select 1 from pg_stat_replication"), within=10)
    with lab.fault("promoted", Effect.HARMLESS, ["standby"]):
        assert standby.execute("select pg_promote()") == [(True,)]
    promoted = time.time()
    await eventually(lambda: lab.hash("standby")["role"] == "primary", within=15)
    row.figure("primary after", time.time() - promoted, most=7)
    assert lab.rules("standby") == ["first_ok"]
    with injecting.target_killed(lab, standby):
        write(standby.data / "standby.signal")
    demoted = time.time()
    await eventually(lambda: lab.hash("standby")["role"] == "standby", within=15)
    row.figure("standby again after", time.time() - demoted, most=7)
    await up(lab, "standby")
    assert lab.rules("primary") == ["first_ok"]


@pytest.fixture
def primary(start_postgres: StartPostgres) -> PostgresServer:
    return start_postgres(wal_level="replica", max_wal_senders="4")


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A standby made of the files of the primary, which stops for a moment."""
    primary.process.send_signal(signal.SIGINT)
    primary.process.wait()
    folder = primary.folder.with_name(f"{primary.folder.name}-standby")
    standby = PostgresServer(
        folder, template=primary.folder, binaries=primary.binaries, settings=primary.settings
    )
    standby.prepare()
    way = f"host={primary.host} port={primary.port} user={primary.user} password={primary.password}"
    with (standby.data / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"primary_conninfo = '{way}'\n")
    write(standby.data / "standby.signal")
    primary.start()
    standby.start()
    yield standby
    standby.stop()
    shutil.rmtree(folder, ignore_errors=True)


NEVER = 86_400.0  # seconds: no login comes due while a row looks


@contextmanager
def tables_locked(lab: Lab, server: PostgresServer, effect: Effect) -> Iterator[None]:
    fault = lab.fault("tables locked", effect, ["orders"])
    with fault, psycopg.connect(server.url()) as blocker:
        blocker.execute("lock table parcels in access exclusive mode")
        blocker.execute("lock table pg_catalog.pg_class in access exclusive mode")
        yield


async def watched_with(row: Row, policy: Policy) -> tuple[Lab, PostgresServer]:
    """Have a database with a table watched under this policy."""
    lab, server = row.make_lab(workers=2), row.start_postgres()
    fleet.put_policy(lab.store, policy)
    server.execute("create table parcels (number int)")
    lab.monitor("orders", server)
    await up(lab, "orders")
    return lab, server


@pytest.mark.row(
    "AccessExclusiveLock held on a user table and on pg_class",
    "`available` all the time; gauges that need the lock are `timed_out`; no probe takes longer "
    "than 0.5 s",
)
async def test_locked_tables(row: Row) -> None:
    lab, server = await watched_with(row, Policy(slow_interval=1.0, login_interval=NEVER))
    with tables_locked(lab, server, Effect.HARMLESS):
        since = time.time()
        statuses = set()
        while time.time() < since + 20:
            await lab.observed_again(["orders"], within=10)
            fields = lab.hash("orders").items()
            statuses |= {text.split()[0] for name, text in fields if name.startswith("family:")}
    row.figure("longest probe", longest_probe(lab, ["orders"]), most=0.5)
    assert statuses == {"ok", "timed_out"}
    assert lab.rules("orders") == ["first_ok"]


@pytest.mark.row(
    "AccessExclusiveLock held on pg_class while a login comes due",
    "`refusing` (login_failing) within 15 s: whoever is not in, cannot get in; `available` within "
    "7 s of its end",
)
async def test_locked_catalog(row: Row) -> None:
    lab, server = await watched_with(row, Policy(login_interval=5.0))
    with tables_locked(lab, server, Effect.SPEAKS):
        seconds = await lab.all_in(["orders"], "refusing", within=30)
        row.figure("refusing after", seconds, most=15)
        assert lab.hash("orders")["cause"] == "login_failing"
    seconds = await lab.all_in(["orders"], "available", within=20)
    row.figure("available after", seconds, most=7)
    await durable(lab, "orders", "first_ok", "answered", "reopened")


@pytest.mark.row(
    "every answer of a server 0.3 s, 1.5 s, 0.8 s and 1.5 s late, each for a probe at least",
    "no transition; observed on time all along",
)
async def test_slow(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    proxy = row.start_proxy(server.port)
    lab.monitor("orders", server, url=proxy.url(server.url()))
    await up(lab, "orders")
    began = time.time()
    for seconds in (0.3, 1.5, 0.8, 1.5):
        with injecting.target_slow(lab, proxy, seconds, ["orders"]):
            await probed(lab, "orders")
    seen = History(lab.began, time.time(), sights=lab.eye.sights)
    row.figure("late by", max(lateness(seen, ["orders"], (began, time.time()))), most=2)
    row.figure("longest probe", longest_probe(lab, ["orders"]), most=DEADLINE)
    assert longest_probe(lab, ["orders"]) > 1.4
    assert lab.rules("orders") == ["first_ok"]


# --- elsewhere ------------------------------------------------------------------------------------


@pytest.mark.row(
    "the address of a database changed to another server while its owner and both servers are "
    "well; then the old one dies",
    "watched at the new address <= 15 s, no session at the old one; no state changes, then or "
    "when it dies",
)
async def test_address_changed_in_peace(row: Row) -> None:
    lab, old, new = row.make_lab(), row.start_postgres(), row.start_postgres()
    lab.monitor("orders", old)
    await up(lab, "orders")
    owner, changed = lab.owner("orders"), time.time()
    lab.move("orders", new)
    await eventually(lambda: sessions(new) and not sessions(old), within=30, every=0.05)
    row.figure("watched at the new address after", time.time() - changed, most=15)
    await lab.observed_again(["orders"], within=15)
    old.kill_all()
    await lab.observed_again(["orders"], within=15, since=time.time() + 6)  # more than an interval
    assert lab.rules("orders") == ["first_ok"]
    assert lab.owner("orders") == owner


@pytest.mark.row(
    "the address of a database changed to another server: the old one is dead, its owner killed "
    "or Redis frozen then",
    "`available` at the new address within 25 s of the change, on sessions there; none at the old "
    "one, though it lives again",
)
@pytest.mark.parametrize("how", ["owner killed", "Redis frozen"])
async def test_address_changed(how: str, row: Row) -> None:
    lab, old, new = row.make_lab(), row.start_postgres(), row.start_postgres()
    lab.monitor("orders", old)
    lab.monitor("ledger", row.start_postgres())
    await up(lab, "orders", "ledger")
    owner = lab.owner_of("orders")
    published = lab.redis.hget(target_key("orders"), "revision")

    def is_published() -> bool:
        return lab.redis.hget(target_key("orders"), "revision") != published

    with lab.fault("killed, its database not moved yet", Effect.ABSENT, ["orders"]):
        old.kill_all()
        await lab.all_in(["orders"], "uncertain", within=10)
        changed = time.time()
        if how == "Redis frozen":
            with injecting.redis_frozen(lab):
                lab.move("orders", new)
                await asyncio.sleep(5)  # the owner learns nothing
        else:
            injecting.killed(lab, owner)
            lab.move("orders", new)
        await eventually(lambda: lab.tolerantly(is_published), within=20)
    await lab.all_in(["orders"], "available", within=30)
    row.figure("available at the new address after", time.time() - changed, most=25)
    assert sessions(new)
    old.start()
    await asyncio.sleep(6)  # more than an interval
    assert sessions(old) == 0
    assert lab.rules("ledger") == ["first_ok"]


# --- no longer asked for --------------------------------------------------------------------------


@pytest.mark.row(
    "a database removed from the registry and one paused, both down, Redis frozen meanwhile",
    "both released within 15 s of the thaw; no transition after, whatever the servers do; each "
    "goes on with its own story, `available` within 15 s of being added again or resumed",
)
async def test_no_longer_watched(row: Row) -> None:
    lab, server, other = row.make_lab(workers=2), row.start_postgres(), row.start_postgres()
    lab.monitor("gone", server)
    lab.monitor("paused", other)
    await up(lab, "gone", "paused")

    def released() -> bool:
        return not lab.hash("gone") and not lab.owner("paused")

    down = time.time()
    server.kill_all()
    with injecting.target_killed(lab, other):
        await lab.all_in(["gone", "paused"], "unavailable", within=30)
        with injecting.redis_frozen(lab):
            lab.retire("gone")
            fleet.set_status(lab.store, "paused", DatabaseStatus.PAUSED)
            await asyncio.sleep(7)  # more than an interval
        thawed = time.time()
        await eventually(lambda: lab.tolerantly(released), within=30)
        row.figure("released after", time.time() - thawed, most=15)
    server.start()
    lab.note("down when it was removed", Effect.ABSENT, ["gone"], began=down, ended=time.time())
    # What the frozen Redis had handed out to a historian is claimed after a while.
    await eventually(
        lambda: all(lab.rules(name)[-1:] == ["confirm_absent"] for name in ("gone", "paused")),
        within=30,
    )
    before = {name: lab.rules(name) for name in ("gone", "paused")}
    assert all(rules == ["first_ok", "doubt", "confirm_absent"] for rules in before.values())
    await asyncio.sleep(6)  # more than an interval
    assert not lab.hash("gone")
    assert lab.state("paused") == "unavailable"
    assert sessions(server) == sessions(other) == 0
    resumed = time.time()
    fleet.set_status(lab.store, "paused", DatabaseStatus.ACTIVE)
    await lab.all_in(["paused"], "available", within=30)
    row.figure("available after", time.time() - resumed, most=15)
    assert {name: lab.rules(name)[:3] for name in before} == before
    await durable(lab, "paused", *before["paused"], "recovered")
    added = time.time()
    lab.monitor_again("gone")
    await lab.all_in(["gone"], "available", within=30)
    row.figure("available after it was added again", time.time() - added, most=15)
    await durable(lab, "gone", *before["gone"], "recovered")
