"""Processes of ours die, freeze, are cut off: others take over, no state changes for it."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from monitor.config import read_runtime
from monitor.live import connections, presence
from monitor.live.keys import claim_key, presence_key
from monitor.live.presence import Presence
from monitor.local.machine import command_line, free_port
from monitor.registry.store import open_store
from monitor.registry.transitions import read_transitions
from tests.factories import here
from tests.faults import injecting, replaying
from tests.faults.asserting import assert_unmoved, durable, gaps, taken_over, terms
from tests.faults.conftest import Figures, Row
from tests.faults.groups import new_group
from tests.faults.history import Bounds
from tests.faults.lab import INTERVAL, Lab
from tests.faults.observed import Effect
from tests.faults.watching import Ear
from tests.servers import PostgresServer
from tests.system.cluster import Role
from tests.system.test_up import Up
from tests.waiting import eventually

MIB = 1 << 20
WORKERS_OWN = "worker's databases observed by others after"


async def observed_fleet(lab: Lab, server: PostgresServer, count: int) -> list[str]:
    """Have `count` databases monitored; return them once all are available, and that is history."""
    names = lab.monitor_many(count, server)
    await lab.all_in(names, "available", within=30)
    await eventually(lambda: all(lab.rules(name) == ["first_ok"] for name in names), within=20)
    return names


async def another_leads(lab: Lab, old: Role, within: float = 30) -> float:
    """Wait until another supervisor than `old` has taken the lead; return the seconds."""
    began = time.monotonic()
    await eventually(lambda: lab.leader() not in (None, old), within=within, every=0.05)
    return time.monotonic() - began


async def says(role: Role, words: str, within: float = 30) -> float:
    """Wait until a process has logged these words; return the seconds."""
    began = time.monotonic()
    await eventually(lambda: words in role.text(), within=within)
    return time.monotonic() - began


def rejected(lab: Lab) -> int:
    """Return how many writes Redis has refused."""
    return sum(count for what, count in lab.counters().items() if what.startswith("rejected_"))


# --- workers --------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.row(
    "a worker is killed", "others observe all its databases within 16 s, no state changes"
)
async def test_worker_killed(row: Row) -> None:
    lab = row.make_lab()
    names = await observed_fleet(lab, row.start_postgres(), 9)
    # the first one: what it said is sent once more
    await taken_over(lab, lab.workers()[0], names, row.figure)
    assert_unmoved(lab, names)


@pytest.mark.row(
    "a worker is frozen for 30 s and goes on",
    "others observe all its databases within 16 s; it fences itself before it writes and leaves "
    "what it lost within 2 s; every write that was refused is counted",
)
async def test_worker_frozen(row: Row) -> None:
    lab, server = row.make_lab(), row.start_postgres()
    names = await observed_fleet(lab, server, 9)
    zombie = lab.owner_of(names[0])
    lost, worker = lab.owned_by(zombie, names), lab.id_of(zombie)
    with injecting.frozen(lab, zombie):
        over = time.monotonic() + 30
        seconds = await lab.observed_by_others(lost, zombie, within=30)
        row.figure("observed by others after", seconds, most=16)
        await asyncio.sleep(over - time.monotonic())  # 30 s in all
        assert set(sessions(server, worker)) == set(lost)
    thawed = time.monotonic()
    row.figure("fenced itself after", await says(zombie, "action=self_fenced"), most=0.5)
    await eventually(
        lambda: all(lab.owner(name) == worker for name in sessions(server, worker)), within=20
    )
    row.figure("left what it had lost after", time.monotonic() - thawed, most=2)
    await lab.observed_again(names, within=20)
    before = zombie.text().partition("action=self_fenced")[0]
    assert "action=record_rejected" not in before
    await assert_counted(lab)
    row.figure("late writes that were refused", rejected(lab), "")
    assert_unmoved(lab, names)


def sessions(server: PostgresServer, worker: str) -> list[str]:
    """Return the databases a worker holds connections to."""
    ours = f"application_name = 'feeler/{worker}'"
    rows = server.execute(f"select distinct datname from pg_stat_activity where {ours}")
    return [row[0] for row in rows]


async def assert_counted(lab: Lab) -> None:
    """Fail unless Redis, the workers and their logs agree on what was refused."""

    def told() -> int:
        texts = lab.redis.mget([presence_key(lab.id_of(role)) for role in lab.workers()])
        return sum(one.rejected for one in (presence.decode(text) for text in texts if text))

    logged = sum(role.text().count("action=record_rejected") for role in lab.workers())
    assert rejected(lab) == logged
    await eventually(lambda: told() == logged, within=4)


@pytest.mark.row(
    "a worker's link to Redis dies for 20 s with a record on its way, then everything it sent "
    "arrives",
    "others observe all its databases within 16 s; every late write is refused and counted",
)
async def test_late_writes(row: Row) -> None:
    lab = row.make_lab()
    # the first one's way is tapped: what it said is sent once more
    late, proxy = lab.workers()[0], lab.tap
    names = await observed_fleet(lab, row.start_postgres(), 9)
    await eventually(lambda: lab.owned_by(late, names), within=20)
    lost = lab.owned_by(late, names)
    await lab.observed_again(names, within=15)
    with Ear(lab.redis_url, names) as ear:
        proxy.deaf_from(replaying.CALLED)
        await eventually(lambda: proxy.mode == "deaf", within=15)
        with injecting.cut_off(lab, late, proxy, "redis"):
            over = time.monotonic() + 20
            seconds = await lab.observed_by_others(lost, late, within=30)
            row.figure("observed by others after", seconds, most=16)
            await asyncio.sleep(over - time.monotonic())  # 20 s in all
        await eventually(lambda: rejected(lab), within=10)
        await lab.observed_again(names, within=20)
    row.figure("writes, each by the owner of that moment", ear.records, "")
    assert ear.records
    assert not ear.strangers
    row.figure("late writes that were refused", rejected(lab), "")
    assert_unmoved(lab, names)


@pytest.mark.row(
    "a worker is frozen for 5 s at the worst moment",
    "it keeps its databases; each is observed late once at most",
)
async def test_worker_frozen_shortly(row: Row) -> None:
    lab = row.make_lab()
    names = await observed_fleet(lab, row.start_postgres(), 9)
    slow = lab.owner_of(names[0])
    its, key = lab.owned_by(slow, names), presence_key(lab.id_of(slow))
    await lab.observed_again(names, within=15)
    epochs = {name: lab.hash(name)["epoch"] for name in names}
    full = lab.redis.pttl(key)
    while (left := lab.redis.pttl(key)) <= full:  # it has just been renewed when it rises
        full = left
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.45)  # just before the next time
    began = time.time()
    with injecting.frozen(lab, slow):
        await asyncio.sleep(5)  # the worst moment, 5 s
    await lab.observed_again(its, within=10)
    await lab.observed_again(its, within=10)
    assert {name: lab.hash(name)["epoch"] for name in names} == epochs, "reassigned"
    late = {name: [gap for gap in gaps(lab, name, began) if gap > INTERVAL + 0.5] for name in its}
    row.figure("late observations of a database", max(map(len, late.values())), "", most=1)
    row.figure("longest gap", max(itertools.chain([0.0], *late.values())), most=2 * INTERVAL + 0.5)
    await assert_counted(lab)
    assert_unmoved(lab, names)


@pytest.mark.row(
    "a worker's control group runs out of memory",
    "the kernel kills it; others observe its databases within 16 s",
)
async def test_worker_out_of_memory(row: Row) -> None:
    group = new_group()
    if not group or not group.limit_memory(200 * MIB):
        pytest.skip("needs root and a control group with a memory controller")
    lab = row.make_lab(workers=2)
    victim = lab.launch("worker", group)
    names = await observed_fleet(lab, row.start_postgres(), 9)
    await eventually(lambda: lab.owned_by(victim, names), within=20)
    orphans = lab.owned_by(victim, names)
    with injecting.starved_of_memory(lab, victim, group):
        await eventually(lambda: not victim.alive, within=20)
    seconds = await lab.observed_by_others(orphans, victim, within=30)
    row.figure("observed by others after", seconds, most=16)
    assert victim.process.returncode == -9
    assert group.killed_for_memory() >= 1
    assert_unmoved(lab, names)


@pytest.mark.quick
@pytest.mark.row(
    "another process holds a worker's id",
    "the worker ends within 15 s, others observe its databases within 30 s, no state changes",
)
async def test_worker_meets_its_twin(row: Row) -> None:
    lab = row.make_lab()
    names = await observed_fleet(lab, row.start_postgres(), 9)
    victim = lab.workers()[0]
    orphans = lab.owned_by(victim, names)
    assert orphans
    lab.note("an id is taken", Effect.KILLED, parties=[lab.party(victim)])
    lab.redis.set(claim_key(lab.id_of(victim)), "its twin")
    await eventually(lambda: not victim.alive, within=15)
    assert "action=twin_met" in victim.text()
    seconds = await lab.observed_by_others(orphans, victim, within=30)
    row.figure("observed by others after", seconds, most=30)
    assert_unmoved(lab, names)


@pytest.mark.row(
    "a worker is told to stop",
    "it hands over and ends within 10 s; no gap above the interval + 1 s",
)
async def test_worker_hands_over(row: Row) -> None:
    lab = row.make_lab(workers=2)
    names = await observed_fleet(lab, row.start_postgres(), 4)
    leaving, began = lab.owner_of(names[0]), time.time()
    worker = lab.id_of(leaving)
    assert leaving.terminate(within=10) == 0
    row.figure("ended after", time.time() - began, most=10)
    assert worker not in map(lab.owner, names)
    await eventually(lambda: all(gaps(lab, name, began) for name in names), within=10)
    row.figure("longest gap", max(max(gaps(lab, name, began)) for name in names), most=INTERVAL + 1)


@pytest.mark.quick
@pytest.mark.row("a worker is told to stop while Redis is frozen", "it ends within 10 s")
async def test_worker_stops_without_redis(row: Row) -> None:
    lab = row.make_lab(workers=2)
    names = await observed_fleet(lab, row.start_postgres(), 2)
    leaving = lab.owner_of(names[0])
    with injecting.redis_frozen(lab):
        began = time.monotonic()
        lab.note("worker told to stop", Effect.KILLED, parties=[lab.party(leaving)])
        assert leaving.terminate(within=20) == 0
        row.figure("ended after", time.monotonic() - began, most=10)
    await lab.observed_by_others(names, leaving, within=30)


# --- leaders --------------------------------------------------------------------------------------


@pytest.mark.row(
    "the leader is killed, then a worker",
    "the standby leads within 12 s under the next term; the worker's databases are observed by "
    "others within 16 s",
)
async def test_leader_killed(row: Row) -> None:
    lab = row.make_lab(workers=2, supervisors=2)
    names = await observed_fleet(lab, row.start_postgres(), 6)
    leader, before = lab.leader(), terms(lab)
    injecting.killed(lab, leader)
    row.figure("takeover after", await another_leads(lab, leader), most=12)
    assert terms(lab) == [*before, before[-1] + 1]
    await taken_over(lab, lab.owner_of(names[0]), names, row.figure, WORKERS_OWN)
    assert_unmoved(lab, names)


@pytest.mark.row(
    "the leader is frozen for 30 s and goes on; a worker is killed meanwhile",
    "the standby leads within 12 s; the old leader steps down within 3 s and assigns nothing",
)
async def test_leader_frozen(row: Row) -> None:
    lab = row.make_lab(workers=3, supervisors=2)
    names = await observed_fleet(lab, row.start_postgres(), 6)
    leader, before = lab.leader(), terms(lab)
    with injecting.frozen(lab, leader):
        over = time.monotonic() + 30
        row.figure("takeover after", await another_leads(lab, leader), most=12)
        await taken_over(lab, lab.owner_of(names[0]), names, row.figure, WORKERS_OWN)
        await asyncio.sleep(over - time.monotonic())  # 30 s in all
    assigned = leader.text().count("action=assigned")
    seconds = await says(leader, "action=stepped_down")
    row.figure("the old leader stepped down after", seconds, most=3)
    assert leader.text().count("action=assigned") == assigned
    assert terms(lab) == [*before, before[-1] + 1]
    assert_unmoved(lab, names)


async def leader_and_standby(lab: Lab, **environment: str) -> tuple[Role, Role]:
    """Start a supervisor that leads in an environment of its own, and one that stands by."""
    leader = lab.launch("supervisor", **environment)
    await says(leader, "action=leading")
    return leader, lab.launch("supervisor")


@pytest.mark.row(
    "the leader is cut off Postgres and cannot renew, a standby takes the lead",
    "one leads within 12 s; the loser steps down within 3 s; no two owners under one epoch",
)
async def test_two_leaders(row: Row, database_url: str) -> None:
    lab = row.make_lab(workers=3, supervisors=0)
    proxy = row.start_proxy(urlsplit(database_url).port)
    leader, standby = await leader_and_standby(lab, DATABASE_URL=proxy.url(database_url))
    names = await observed_fleet(lab, row.start_postgres(), 9)
    with injecting.cut_off(lab, leader, proxy, "postgres"):
        injecting.killed(lab, lab.owner_of(names[0]))  # so that both have something to assign
        row.figure("takeover after", await says(standby, "action=leading"), most=12)
        seconds = await says(leader, "action=stepped_down")
        row.figure("the loser stepped down after", seconds, most=3)
        await lab.observed_again(names, within=20)
    assert len(terms(lab)) == 2
    await lab.settle()  # the loser may have taken news of the first light along
    assert_unmoved(lab, names)


@pytest.mark.row(
    "the leader is cut off Redis for 25 s, not Postgres; a worker is killed meanwhile",
    "the standby leads within 20 s; the old leader steps down within 3 s of its return; no two "
    "owners under one epoch",
)
async def test_leader_cut_off_redis(row: Row) -> None:
    lab = row.make_lab(workers=3, supervisors=0)
    proxy = row.start_proxy(urlsplit(lab.redis_url).port)
    leader, standby = await leader_and_standby(lab, REDIS_URL=proxy.url(lab.redis_url))
    names = await observed_fleet(lab, row.start_postgres(), 9)
    victim = lab.owner_of(names[0])
    orphans = lab.owned_by(victim, names)
    with injecting.cut_off(lab, leader, proxy, "redis"):
        over = time.monotonic() + 25
        injecting.killed(lab, victim)
        row.figure("takeover after", await says(standby, "action=leading"), most=20)
        seconds = await lab.observed_by_others(orphans, victim, within=30)
        row.figure("then the worker's databases observed by others", seconds, most=16)
        await asyncio.sleep(max(0.0, over - time.monotonic()))  # 25 s in all
    seconds = await says(leader, "action=stepped_down")
    row.figure("the old leader stepped down after", seconds, most=3)
    assert len(terms(lab)) == 2
    assert_unmoved(lab, names)


@pytest.mark.row(
    "Redis is frozen for everybody for 30 s, two supervisors",
    "no lead changes hands more than once; recording again within 10 s",
)
async def test_nobody_reaches_redis(row: Row) -> None:
    lab = row.make_lab(workers=2, supervisors=2)
    names = await observed_fleet(lab, row.start_postgres(), 6)
    before = len(terms(lab))
    with injecting.redis_frozen(lab):
        await asyncio.sleep(30)  # long past a lease
        assert len(terms(lab)) == before, "somebody took the lead without Redis"
    row.figure("recording again after", await lab.observed_again(names, within=30), most=10)
    await asyncio.sleep(5)  # terms pass now or never
    row.figure("terms that passed", len(terms(lab)) - before, "", most=1)
    # What Redis gave a historian that had hung up is claimed after 10 s.
    await eventually(lambda: all(map(lab.rules, names)), within=30, every=0.2)
    assert_unmoved(lab, names)


# --- everything -----------------------------------------------------------------------------------


async def killed_and_back(lab: Lab, names: Sequence[str], number: int) -> float:
    """SIGKILL everything, every second time Redis too, every sixth time with its memory; return how
    long it took from when the new processes were there."""
    # what is not durable yet when Redis forgets and its worker dies is lost: that is documented
    await lab.settle()
    injecting.all_killed(lab)
    if number % 2:
        with injecting.redis_lost(lab) if number % 6 == 5 else injecting.redis_down(lab):
            pass
    began = time.time()
    for role in [lab.launch(name) for name in ("supervisor", "worker", "worker")]:
        # beside other rows Python takes seconds to start
        await says(role, f"action={role.name}_started")
    started = time.time()
    await lab.observed_again(names, within=60, since=began)
    return time.time() - started


@pytest.mark.timeout(1200)
@pytest.mark.row(
    "everything is killed at once, 30 times in one run; 15 times Redis too, 5 times it comes back "
    "empty",
    "all databases observed within 18 s of the start of the new processes each time, no state "
    "changes",
)
async def test_everything_killed_again_and_again(row: Row) -> None:
    lab, rounds = row.make_lab(workers=2), 30
    names = await observed_fleet(lab, row.start_postgres(), 6)
    took = [await killed_and_back(lab, names, number) for number in range(rounds)]
    print(" ".join(f"{seconds:.1f}" for seconds in took))
    row.figure("longest until all were observed anew", max(took), most=18)
    row.figure("on average", sum(took) / rounds)
    assert_unmoved(lab, names)


@pytest.mark.row(
    "rolling restart of all roles with 60 databases",
    "no gap above the interval + 1 s, each process ends within 10 s, no state changes",
)
async def test_rolling_restart(row: Row) -> None:
    lab = row.make_lab(workers=3, supervisors=2)
    names = await observed_fleet(lab, row.start_postgres(max_connections="200"), 60)
    await lab.observed_again(names, within=15)
    began, ended = time.time(), []
    for old in [*lab.workers(), *lab.supervisors()]:
        new = lab.launch(old.name)
        await says(new, f"action={old.name}_started")
        if old.name == "worker":
            key = presence_key(lab.id_of(new))
            await eventually(lambda key=key: lab.redis.exists(key), within=10)
        stopping = time.monotonic()
        assert old.terminate(within=15) == 0
        ended.append(time.monotonic() - stopping)
    row.figure("slowest end", max(ended), most=10)
    await lab.observed_again(names, within=15)
    row.figure("longest gap", max(max(gaps(lab, name, began)) for name in names), most=INTERVAL + 1)
    assert_unmoved(lab, names)


# --- workers that can only say void ---------------------------------------------------------------

OTHER_KEY = {"FEELER_SECRET_KEYS": "1" * 43 + "="}
BLIND = "no_credentials"


def presence_of(lab: Lab, role: Role) -> Presence | None:
    text = lab.redis.get(presence_key(lab.id_of(role)))
    return presence.decode(text) if text else None


def moves(lab: Lab, name: str) -> int:
    """Return how often a database was given to somebody."""
    return sum(role.text().count(f"action=assigned database={name} ") for role in lab.roles)


async def start_blind(lab: Lab) -> Role:
    """Start a worker whose key opens no address."""
    role = lab.launch("worker", **OTHER_KEY)
    await says(role, "action=worker_started")
    await eventually(lambda: presence_of(lab, role), within=20)
    return role


async def gives_up(lab: Lab, role: Role, within: float = 30) -> float:
    """Wait until a worker says that it can watch nothing, and why; return the seconds."""
    began = time.monotonic()

    def said() -> bool:
        one = presence_of(lab, role)
        return one is not None and not one.able and BLIND in one.given_up

    await eventually(said, within=within)
    return time.monotonic() - began


@pytest.mark.timeout(300)
@pytest.mark.row(
    "a worker with another key is the second observer of a server that is killed, then back; then "
    "it is killed again",
    "the worker gives it up within 10 s, says why and gets nothing more; `available` within 10 s "
    "of the start; then the other one decides alone within 45 s",
)
async def test_blind_observer(row: Row) -> None:
    lab, server = row.make_lab(workers=1, bounds=Bounds(absent=60)), row.start_postgres()
    names = await observed_fleet(lab, server, 1)
    sound, before = lab.owner_of(names[0]), moves(lab, names[0])
    blind = await start_blind(lab)
    with injecting.target_killed(lab, server):
        await lab.all_in(names, "uncertain", within=10)
        row.figure("given up after", await gives_up(lab, blind), most=10)
        await eventually(lambda: lab.owner_of(names[0]) is sound, within=5)
    row.figure("available after", await lab.all_in(names, "available", within=30), most=10)
    with injecting.target_killed(lab, server):
        seconds = await lab.all_in(names, "unavailable", within=60)
        row.figure("then unavailable after", seconds, most=45)
        assert lab.hash(names[0])["rule"] == "single_observer"
    await lab.all_in(names, "available", within=30)
    assert moves(lab, names[0]) - before == 2, "to the blind one and back"


@pytest.mark.timeout(300)
@pytest.mark.row(
    "a worker with another key joins a fleet of twelve",
    "what it was given is observed by the others again within 20 s, and it gets nothing more; no "
    "state changes",
)
async def test_blind_worker_joins(row: Row) -> None:
    lab = row.make_lab(workers=2)
    names = await observed_fleet(lab, row.start_postgres(), 12)
    blind = await start_blind(lab)
    await eventually(lambda: lab.owned_by(blind, names), within=20, every=0.05)
    given = lab.owned_by(blind, names)
    seconds = await lab.observed_by_others(given, blind, within=40)
    row.figure("observed again after", seconds, most=20)
    row.figure("says so after", await gives_up(lab, blind), most=20)
    await asyncio.sleep(3 * INTERVAL)  # a beat of each, and more
    assert lab.owned_by(blind, names) == []
    assert_unmoved(lab, names)


@pytest.mark.timeout(300)
@pytest.mark.row(
    "the only worker with the right key dies, all the others have another one",
    "each says why within 60 s, nothing moves about, no state changes; all are observed within 30 "
    "s of the start of a sound worker",
)
async def test_everybody_blind(row: Row) -> None:
    lab = row.make_lab(workers=1)
    names = await observed_fleet(lab, row.start_postgres(), 4)
    sound = lab.owner_of(names[0])
    blind = [await start_blind(lab), await start_blind(lab)]
    injecting.killed(lab, sound)
    found = max([await gives_up(lab, role, within=60) for role in blind])
    row.figure("all say why after", found, most=60)
    given = set(map(lab.id_of, blind))
    await eventually(lambda: given.issuperset(map(lab.owner, names)), within=30)
    await asyncio.sleep(2 * INTERVAL)  # whatever moves comes to rest
    before = [moves(lab, name) for name in names]
    await asyncio.sleep(4 * INTERVAL)  # nothing moves any more
    assert [moves(lab, name) for name in names] == before
    assert {lab.hash(name)["cause"] for name in names} == {BLIND}
    lab.launch("worker")
    row.figure("observed again after", await lab.observed_again(names, within=60), most=30)
    assert_unmoved(lab, names)


@pytest.mark.timeout(300)
@pytest.mark.row(
    "one worker with room for three of five databases; then a second one comes",
    "three are observed on, the rest read `no_capacity` and the worker says so; all are observed "
    "within 40 s of the second one's start; no state changes",
)
async def test_no_capacity(row: Row) -> None:
    lab = row.make_lab(workers=1, environment={"FEELER_CAPACITY": "3"})
    names = lab.monitor_many(5, row.start_postgres())

    def refused() -> bool:
        causes = sorted(lab.hash(name).get("cause", "") for name in names)
        return causes == ["no_capacity"] * 2 + ["ok"] * 3

    await eventually(lambda: lab.tolerantly(refused), within=30)
    first = lab.owner_of(names[0])
    wanted = {"no_capacity": 2}
    await eventually(lambda: getattr(presence_of(lab, first), "given_up", 0) == wanted, within=30)
    lab.launch("worker")
    row.figure("all observed after", await lab.observed_again(names, within=60), most=40)
    for name in names:
        await durable(lab, name, "first_ok")
    assert_unmoved(lab, names)


# --- feeler up ------------------------------------------------------------------------------------


@pytest.fixture
def start_up(servers_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `feeler up` on one home; what still runs is stopped after the test."""
    home = servers_folder / f"up-{free_port()}"
    home.mkdir(mode=0o711)
    with ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> Up:
            run = Up(home, free_port(), tmp_path / f"up-{free_port()}.log", arguments, environment)
            stack.callback(lambda: run.process.poll() is None and run.stop())
            return run

        yield start


@pytest.mark.row(
    "`feeler up` is killed and started again",
    "all its processes end within 1 s; the history goes on unbroken",
)
async def test_up_killed(
    start_up: Callable[..., Up], postgres_server: PostgresServer, figure: Figures
) -> None:
    observed = r"first observation \S+ s after the start: orders is available"
    run = start_up(f"orders={postgres_server.url()}")
    await run.says(observed, within=60)
    rows = await eventually(lambda: written(run, "orders"), within=10)
    family = run.family()
    assert len(family) > 6  # two stores with their children, four roles
    run.process.kill()
    run.process.wait()
    killed = time.monotonic()
    await eventually(lambda: not any(command_line(pid) for pid in family), within=10)
    figure("all its processes ended after", time.monotonic() - killed, most=1)
    again = start_up()
    await again.says(r"first observation \S+ s after the start", within=60)
    assert [row.transition.rule for row in rows] == ["first_ok"]
    assert written(again, "orders") == rows


def written(run: Up, name: str) -> list[Any]:
    """Return the durable transitions of a database."""
    store = open_store(read_runtime(run.home)["DATABASE_URL"])
    try:
        return list(read_transitions(store, name, limit=100))
    finally:
        store.close()


@pytest.mark.row(
    "under `feeler up` a worker dies at once, again and again",
    "at most 5 restarts a minute in the long run",
)
async def test_crash_loop(start_up: Callable[..., Up], tmp_path: Path, figure: Figures) -> None:
    procfile, births = tmp_path / "Procfile", tmp_path / "births"
    worker = f"sh -c 'date +%s.%N >> {births}; exit 1'"
    procfile.write_text(f"release: feeler migrate\nweb: sleep 600\nworker: {worker}\n")
    run = start_up("--workers", "1", FEELER_PROCFILE=str(procfile))
    await eventually(births.exists, within=30)
    began = time.time()
    await asyncio.sleep(100)  # the first minute, and backing off
    moments = [float(line) - began for line in births.read_text().splitlines()]
    figure("restarts in the first minute", sum(0 < moment <= 60 for moment in moments), "")
    figure("restarts in a later minute", sum(40 < moment <= 100 for moment in moments), "", most=5)
    assert run.process.poll() is None


@pytest.mark.row(
    "a worker that is there, has room and watches nothing of what it is given; two others",
    "all of it is watched by others <= 45 s, and the worker gets nothing more meanwhile",
)
async def test_a_worker_in_name_only(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    await observed_fleet(lab, server, 4)
    idle = "idle-000001"
    pretence = asyncio.create_task(pretend(lab, idle))
    await eventually(lambda: lab.redis.exists(presence_key(idle)), within=5)
    names, since = lab.monitor_many(6, server, prefix="late"), time.monotonic()
    await eventually(lambda: any(lab.owner(name) == idle for name in names), within=20, every=0.05)
    await lab.all_in(names, "available", within=90)
    row.figure("watched by others after", time.monotonic() - since, most=45)
    assert not [name for name in lab.targets if lab.owner(name) == idle]
    pretence.cancel()


async def pretend(lab: Lab, worker: str) -> None:
    """Announce a worker that does nothing else."""
    live = connections.connect(lab.redis_url)
    try:
        while True:
            now = await connections.now(live)
            await presence.announce(live, here(worker, now))
            await asyncio.sleep(1)  # within its presence of 7 s
    finally:
        await connections.close(live)
