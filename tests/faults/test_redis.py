"""Redis forgets, freezes, goes away: feeling never stops, nothing is invented, lost or doubled."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from monitor.core.errors import StoreUnavailable
from monitor.core.status import Epoch
from monitor.live import connections
from monitor.live.keys import LED, partition_key
from tests.faults import injecting
from tests.faults.asserting import TAKEN_OVER
from tests.faults.conftest import Figures, Row
from tests.faults.injecting import RedisPair
from tests.faults.lab import INTERVAL, Lab
from tests.faults.visiting import visited
from tests.fixtures import StartPostgres, StartProxy, StartRedis
from tests.live.test_connections import BLOCKING, CALLS
from tests.proxy import Proxy
from tests.servers import PostgresServer, RedisServer
from tests.system.cluster import Role
from tests.waiting import again_and_again, eventually

BACK = 10.0  # seconds until everything is recorded again, and until what happened is told
CARRIES = b"\r\ntransition\r\n"  # stands in records that change a state, and in no other request
FELT = "application_name like 'feeler/%'"


class Felt:
    """When each database of a server was felt, by the server's own word."""

    def __init__(self, server: PostgresServer) -> None:
        self._connection = psycopg.connect(server.superuser_url(), autocommit=True)
        self.moments: dict[str, list[float]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look on as long as the block lasts."""
        with self._connection, again_and_again(self._look, every=0.1):
            yield

    def longest_pause(self) -> float:
        """Return the most seconds between two feels of one database, or since the last."""
        now = time.time()
        pairs = (pairwise([*felt, now]) for felt in self.moments.values())
        return max(after - before for before, after in chain.from_iterable(pairs))

    def _look(self) -> None:
        query = (
            "select datname, extract(epoch from max(query_start)) from pg_stat_activity "
            f"where {FELT} group by 1"
        )
        for name, moment in self._connection.execute(query.encode()):
            felt = self.moments.setdefault(name, [])
            if float(moment) not in felt[-1:]:
                felt.append(float(moment))


@contextmanager
def felt_throughout(figure: Figures, server: PostgresServer, count: int) -> Iterator[None]:
    """Demand that all databases of a server are felt on and on, whatever becomes of Redis."""
    felt = Felt(server)
    with felt.watching():
        yield
        assert len(felt.moments) == count
        figure("longest pause between two feels", felt.longest_pause(), most=INTERVAL + 1)


@dataclass
class Fleet:
    """A lab that is well: six databases of a server that lives, two of one about to die."""

    lab: Lab
    names: list[str]
    living: PostgresServer
    doomed: list[str]
    mortal: PostgresServer

    @property
    def all(self) -> list[str]:
        return self.names + self.doomed

    def places(self) -> dict[str, tuple[str, str]]:
        """Return owner and epoch of each database."""
        rows = {name: self.lab.hash(name) for name in self.all}
        return {name: (row["owner"], row["epoch"]) for name, row in rows.items()}

    async def recording_again(self, figure: Figures, since: float) -> None:
        """Demand that every database is recorded anew soon after `since`."""
        seconds = await self.lab.observed_again(self.all, within=40, since=since)
        figure("recording again after", seconds, most=BACK)

    async def told(self, figure: Figures, since: float) -> None:
        """Demand that all accepted is durable soon after `since`, and that the cache agrees."""
        await self.lab.settle()
        figure("caught up after", time.time() - since, most=BACK)


async def fleet_of(lab: Lab, start_postgres: StartPostgres) -> Fleet:
    """Return a fleet whose first observations are durable."""
    living, mortal = start_postgres(), start_postgres()
    names, doomed = lab.monitor_many(6, living), lab.monitor_many(2, mortal, "doomed")
    fleet = Fleet(lab, names, living, doomed, mortal)
    await lab.all_in(fleet.all, "available", within=30)
    await lab.settle()
    return fleet


def assert_epochs_are_new(fleet: Fleet, before: dict[str, tuple[str, str]]) -> None:
    """Every database goes on under an epoch above all that were ever given."""
    highest = max(Epoch.parse(epoch) for _, epoch in before.values())
    assert all(Epoch.parse(epoch) > highest for _, epoch in fleet.places().values())


async def remembered(fleet: Fleet, figure: Figures, lose: Callable[[], object]) -> float:
    """Let Redis lose what it knows: the doomed stay unavailable, all goes on under new epochs."""
    before = fleet.places()
    lose()
    lost = time.time()
    await fleet.recording_again(figure, lost)
    assert {fleet.lab.state(name) for name in fleet.doomed} == {"unavailable"}
    assert_epochs_are_new(fleet, before)
    return lost


def over_at_once(fault: AbstractContextManager[None]) -> None:
    """Undo a fault as soon as it is there."""
    with fault:
        pass


async def back_to_life(fleet: Fleet, rules: list[str]) -> None:
    """The server that died is back: the doomed are available, by these rules in this order."""
    await fleet.lab.all_in(fleet.doomed, "available", within=20)
    await fleet.lab.settle()
    for name in fleet.doomed:
        found = fleet.lab.rules(name)
        assert found[: len(rules)] == rules
        assert found[len(rules) :] in (["recovered"], ["answered", "reopened"])
    for name in fleet.names:
        assert fleet.lab.rules(name) == ["first_ok"]


CRASH = ["first_ok", "doubt", "confirm_absent"]

# --- memory lost ----------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.row(
    "FLUSHALL while a database is unavailable",
    "it stays unavailable; recording again within 10 s under new epochs; no transition but those "
    "of the crash",
)
async def test_flushed_while_one_is_unavailable(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    with felt_throughout(row.figure, fleet.living, 6), injecting.target_killed(lab, fleet.mortal):
        await lab.all_in(fleet.doomed, "unavailable", within=20)
        await remembered(fleet, row.figure, lambda: injecting.flushed(lab))
        await asyncio.sleep(INTERVAL)  # one more beat of each
    await back_to_life(fleet, CRASH)


@pytest.mark.quick
@pytest.mark.row(
    "Redis killed, restarted empty",
    "feeling goes on; workers are there again and recording within 10 s, under new epochs; no "
    "transition",
)
async def test_killed_and_empty(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    before = fleet.places()
    with felt_throughout(row.figure, fleet.living, 6):
        with injecting.redis_lost(lab):
            await asyncio.sleep(1)  # noticed by all
        back = time.time()
        await eventually(lambda: len(lab.redis.keys("feeler:presence:*")) == 2, within=40)
        row.figure("workers are there again after", time.time() - back, most=BACK)
        await fleet.recording_again(row.figure, back)
    assert_epochs_are_new(fleet, before)


@pytest.mark.row(
    "Redis killed, restarted empty while a database is unavailable",
    "it stays unavailable; recording again within 10 s; no transition but those of the crash",
)
async def test_killed_and_empty_while_one_is_unavailable(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    with injecting.target_killed(lab, fleet.mortal):
        await lab.all_in(fleet.doomed, "unavailable", within=20)
        await remembered(fleet, row.figure, lambda: over_at_once(injecting.redis_lost(lab)))
    await back_to_life(fleet, CRASH)


@pytest.mark.quick
@pytest.mark.row(
    "a database dies while Redis is away; Redis comes back empty",
    "the doubt is of the moment of the crash (within 3 s) and is told afterwards, in order: "
    "doubt, unavailable",
)
async def test_a_crash_while_redis_is_away(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    with ExitStack() as crash:
        with injecting.redis_lost(lab):
            crashed = time.time()
            crash.enter_context(injecting.target_killed(lab, fleet.mortal))
            await asyncio.sleep(3)  # the doubt falls here
        await lab.all_in(fleet.doomed, "unavailable", within=25)
        await lab.settle()
        for name in fleet.doomed:
            rows = lab.transitions(name)
            assert [row.transition.rule for row in rows] == CRASH
            row.figure("doubted after", rows[1].transition.at - crashed, most=3)
    await back_to_life(fleet, CRASH)


@pytest.mark.quick
@pytest.mark.row(
    "Redis restarted from a copy of its disk older than transitions and epochs",
    "like a lost memory: recording again within 10 s, states and history stay, epochs are above "
    "those forgotten",
)
async def test_restarted_from_an_older_copy(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    copy = injecting.redis_copied(lab)
    injecting.flushed(lab)  # for new epochs
    await lab.observed_again(fleet.all, within=20)
    with injecting.target_killed(lab, fleet.mortal):
        await lab.all_in(fleet.doomed, "unavailable", within=20)
        set_back = injecting.redis_set_back(lab, copy)
        with felt_throughout(row.figure, fleet.living, 6):
            await remembered(fleet, row.figure, lambda: over_at_once(set_back))
    await back_to_life(fleet, CRASH)


# --- away -----------------------------------------------------------------------------------------


async def slowest_call(server: RedisServer) -> float:
    """Ask a Redis that does not answer all there is; return the seconds of the slowest."""
    live, slowest = connections.connect(server.url), 0.0
    try:
        for call in (call for call in CALLS if call not in BLOCKING):
            asked = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await CALLS[call](live)
            slowest = max(slowest, time.monotonic() - asked)
    finally:
        await connections.close(live)
    return slowest


@pytest.mark.row(
    "Redis frozen for 30 s: it accepts and never answers",
    "every call ends within 2.2 s; feeling goes on; recording again within 10 s, no database moves",
)
async def test_frozen(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    before = fleet.places()
    with felt_throughout(row.figure, fleet.living, 6), injecting.redis_frozen(lab):
        until = time.monotonic() + 30
        row.figure("slowest call", await slowest_call(lab.server), most=2.2)
        await asyncio.sleep(until - time.monotonic())  # 30 s in all
    back = time.time()
    await fleet.recording_again(row.figure, back)
    await fleet.told(row.figure, back)
    assert fleet.places() == before


@pytest.mark.row(
    "Redis down for 60 s; a database dies and returns meanwhile",
    "feeling goes on; the web answers 503 and when to come again; recording again and told in "
    "order within 10 s",
)
async def test_down(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    visitor = await visited(lab, fleet.all)
    with felt_throughout(row.figure, fleet.living, 6), injecting.redis_down(lab):
        down = time.time()
        with injecting.target_killed(lab, fleet.mortal):
            await asyncio.sleep(15)  # unavailable in between
        answers = []
        while time.time() < down + 60:
            answers.append(await visitor.get("/last_observation"))
            await asyncio.sleep(2)  # a visitor's rhythm
        returning = time.time()
    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    back = time.time()
    await fleet.recording_again(row.figure, back)
    await fleet.told(row.figure, back)
    await eventually(visitor.answering, within=5)
    for name in fleet.doomed:
        rows = [row.transition for row in lab.transitions(name)]
        assert [row.rule for row in rows] == ["first_ok", "doubt", "false_alarm"]
        assert down < rows[1].at < rows[2].at < returning, "told afterwards, dated when it was seen"


@pytest.mark.row(
    "Redis out of memory: it answers and refuses to write (maxmemory, noeviction)",
    "feeling goes on; /readyz and /metrics name it within 10 s; no process exits; caught up "
    "within 10 s",
)
async def test_out_of_memory(row: Row) -> None:
    lab = row.make_lab(workers=2)
    fleet = await fleet_of(lab, row.start_postgres)
    visitor = await visited(lab, fleet.all)

    async def named() -> bool:
        check = (await visitor.get("/readyz")).json()["checks"]["redis"]
        metrics = (await visitor.get("/metrics")).text
        return "out_of_memory" in check["detail"] and "feeler_redis_writable 0.0" in metrics

    async def said_by_all() -> bool:
        return all("out_of_memory" in role.text() for role in lab.roles if role.name != "web")

    with felt_throughout(row.figure, fleet.living, 6):
        with injecting.redis_full(lab):
            full = time.time()
            await eventually(named, within=20)
            row.figure("named by /readyz and /metrics after", time.time() - full, most=BACK)
            await eventually(said_by_all, within=20)
            row.figure("said in every log after", time.time() - full, most=BACK)
            with injecting.target_killed(lab, fleet.mortal):
                await asyncio.sleep(10)  # unavailable in between
        with injecting.redis_full(lab, room=1.0):  # some writes find a place, others do not
            await asyncio.sleep(5)  # some writes of every kind
    back = time.time()
    await fleet.recording_again(row.figure, back)
    await lab.all_in(fleet.doomed, "available", within=30)
    await fleet.told(row.figure, back)
    assert all(role.alive for role in lab.roles)
    assert (await visitor.get("/readyz")).json()["checks"]["redis"]["status"] == "pass"


@pytest.mark.row(
    "Redis out of memory for 40 s: no leader could complete a sweep",
    "from 15 s on the term stands still for 25 s: nobody takes the lead who would do no better; "
    "<= 5 s after there is room sweeps are completed again; each process tells of a trouble once, "
    "not at each try",
)
async def test_out_of_memory_for_long(row: Row) -> None:
    lab = row.make_lab(workers=2, supervisors=2)
    fleet = await fleet_of(lab, row.start_postgres)
    with injecting.redis_full(lab):
        await asyncio.sleep(15)  # whoever may take the lead has
        term = last_term(lab)
        await asyncio.sleep(25)  # 25 s without another term
        row.figure("new terms meanwhile", last_term(lab) - term, "", most=0)
    back = time.time()
    # the last mark is long gone
    await eventually(lambda: lab.redis.pttl(LED) > 0, within=30, every=0.1)
    row.figure("a sweep completed after", time.time() - back, most=5)
    await fleet.recording_again(row.figure, back)
    await fleet.told(row.figure, back)
    tries = [role.text().count("step=record trouble=redis:out_of_memory") for role in lab.workers()]
    assert min(tries) >= 1
    row.figure("lines of one worker about records that failed", max(tries), "", most=2)


def last_term(lab: Lab) -> int:
    """Return the highest term that was given to a leader."""
    with lab.store.begin() as connection:
        return int(connection.execute(text("SELECT term FROM leadership")).scalar_one())


# --- replies lost ---------------------------------------------------------------------------------


@pytest.mark.row(
    "20 times the reply to a record that changes a state is lost after it was executed",
    "no transition is journaled or counted twice; the chain is whole",
)
async def test_replies_lost(row: Row) -> None:
    store, server = row.start_redis(), row.start_postgres()
    proxy = row.start_proxy(store.port)
    lab = row.make_lab(workers=2, server=store, environment={"REDIS_URL": proxy.url(store.url)})
    names = lab.monitor_many(12, server)
    await lab.all_in(names, "available", within=30)
    with injecting.replies_lost(lab):
        losing = asyncio.create_task(lose_replies(proxy, 20))
        while not losing.done():
            with injecting.target_killed(lab, server):
                await lab.all_in(names, "unavailable", within=40)
            await lab.all_in(names, "available", within=40)
        await losing
    await lab.settle()
    row.figure("replies lost", proxy.lost_replies, "")
    assert proxy.lost_replies == 20
    assert lab.counters()["transitions"] == sum(len(lab.transitions(name)) for name in names)


async def lose_replies(proxy: Proxy, times: int) -> None:
    """Lose the replies to so many records that change a state, one after the other."""
    for number in range(times):
        proxy.drop_next_reply(CARRIES)
        await eventually(lambda number=number: proxy.lost_replies > number, within=60)


# --- failover -------------------------------------------------------------------------------------


@pytest.fixture
def pair(start_redis: StartRedis, start_proxy: StartProxy) -> RedisPair:
    """A master and a replica of one's own behind one address."""
    delay = {"repl_diskless_sync_delay": "0"}
    return RedisPair(start_redis(**delay), start_redis(**delay), start_proxy)


@pytest.mark.row(
    "failover to a replica that missed the last writes, and back again",
    "feeling goes on; recording again within 10 s each time under new epochs; no transition lost",
)
async def test_failed_over(row: Row, pair: RedisPair) -> None:
    lab = row.make_lab(workers=2, server=pair)
    fleet = await fleet_of(lab, row.start_postgres)
    with felt_throughout(row.figure, fleet.living, 6), injecting.target_killed(lab, fleet.mortal):
        pair.cut()
        await lab.all_in(fleet.doomed, "unavailable", within=20)
        old = pair.master
        fail_over = partial(injecting.redis_failed_over, lab, pair)
        moved = await remembered(fleet, row.figure, lambda: fail_over().kill())
        await fleet.told(row.figure, moved)
        assert {lab.state(name) for name in fleet.doomed} == {"unavailable"}
        old.start()
        await asyncio.to_thread(pair.replicate)
        await remembered(fleet, row.figure, fail_over)
    await back_to_life(fleet, CRASH)


def ways_to(lab: Lab, pair: RedisPair) -> dict[int, Proxy]:
    """Start three workers, each with a way of its own to Redis; return the ways by process id."""
    ways = [pair.way_to(pair.master) for _ in range(3)]
    return {lab.launch("worker", REDIS_URL=way.url(pair.url)).pid: way for way in ways}


def all_but_one_follow(lab: Lab, pair: RedisPair, ways: dict[int, Proxy], left: Role) -> None:
    """Fail over; one worker stays with the old master."""
    injecting.redis_failed_over(lab, pair)
    for pid, way in ways.items():
        if pid != left.pid:
            way.retarget(pair.master.port)


async def comes_over(lab: Lab, worker: Role) -> None:
    """Wait until a worker follows the generation of now."""

    def follows() -> bool:
        generation = lab.redis.get(partition_key(0, "generation"))
        return f"action=following generation={generation}" in worker.text()

    await eventually(follows, within=20)


@pytest.mark.row(
    "failover while the old master lives on and one worker stays with it; then it comes over",
    "others take its databases over within 16 s and their word stands; it agrees within 10 s of "
    "coming over; what the old master accepted meanwhile is kept in history, marked superseded",
)
async def test_one_worker_left_with_the_old_master(row: Row, pair: RedisPair) -> None:
    lab = row.make_lab(workers=0, server=pair, forks_allowed=True)
    ways = ways_to(lab, pair)
    fleet = await fleet_of(lab, row.start_postgres)
    left = lab.owner_of(fleet.doomed[0])
    theirs = lab.owned_by(left, fleet.doomed)
    pair.cut()
    with ExitStack() as dead:
        with injecting.left_behind(lab, left):
            all_but_one_follow(lab, pair, ways, left)
            # Not before the failover: a historian quick enough would make the doubt of the one left
            # behind durable.
            dead.enter_context(injecting.target_killed(lab, fleet.mortal))
            seconds = await lab.observed_again(fleet.all, within=40)
            row.figure("recorded by others after", seconds, most=TAKEN_OVER)
            await lab.all_in(fleet.doomed, "unavailable", within=40)
            await lab.settle()
            assert not lab.owned_by(left, fleet.all)
            held = {name: lab.hash(name) for name in fleet.all}
            over = time.time()
            ways[left.pid].retarget(pair.master.port)
        await comes_over(lab, left)
        await fleet.told(row.figure, over)
        for name, before in held.items():
            now = lab.hash(name)
            assert (now["state"], now["identity"]) == (before["state"], before["identity"])
            assert Epoch.parse(now["epoch"]) >= Epoch.parse(before["epoch"])
    await lab.all_in(fleet.doomed, "available", within=20)
    assert_superseded(lab, lab.id_of(left), theirs)


def assert_superseded(lab: Lab, worker: str, names: list[str]) -> None:
    """Only what a worker said at the old master was overtaken: its doubt, and what it led to."""
    told = [row for name in lab.targets for row in lab.transitions(name) if row.superseded]
    overtaken: dict[str, list[str]] = {}
    for row in told:
        assert row.transition.worker == worker
        overtaken.setdefault(row.transition.database, []).append(row.transition.rule)
    print(overtaken)
    assert set(overtaken) == set(names)
    assert {rules[0] for rules in overtaken.values()} == {"doubt"}


@pytest.mark.timeout(240)
@pytest.mark.row(
    "the same, and the worker left behind loses the databases too: it sees nobody else, and "
    "nothing that answers",
    "never `unavailable`: nobody is believed to be the only worker where nobody leads; 40 s later "
    "it comes over",
)
async def test_one_worker_left_with_nothing(row: Row, pair: RedisPair) -> None:
    lab = row.make_lab(workers=0, server=pair, forks_allowed=True)
    ways = ways_to(lab, pair)
    server = row.start_postgres()
    proxy = row.start_proxy(server.port)
    names = lab.monitor_many(6, server, way=proxy)
    await lab.all_in(names, "available", within=30)
    await lab.settle()
    left = lab.owner_of(names[0])
    application = f"feeler/{lab.id_of(left)}"

    def cut(deaf: bool) -> None:
        proxy.deaf_to(application) if deaf else proxy.hear(application)

    pair.cut()
    with injecting.left_behind(lab, left), injecting.hidden(lab, names, [lab.id_of(left)], cut):
        all_but_one_follow(lab, pair, ways, left)
        seconds = await lab.observed_again(names, within=40)
        row.figure("recorded by others after", seconds, most=TAKEN_OVER)
        await asyncio.sleep(40)  # longer than it takes to be believed alone
        ways[left.pid].retarget(pair.master.port)
        await comes_over(lab, left)
    await lab.all_in(names, "available", within=20)
    assert not [name for name in names if "unavailable" in lab.eye.states(name)]


@pytest.fixture
def small_disk(start_redis: StartRedis) -> Iterator[tuple[RedisServer, Path]]:
    """A Redis on a small disk; needs root. Ask for it before the lab: it must go later."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    server = start_redis()
    with injecting.redis_on_small_disk(server) as folder:
        yield server, folder


@pytest.mark.row(
    "the disk of Redis is full: it answers and refuses to write (MISCONF)",
    "feeling goes on; /readyz names it within 10 s; no process shows a traceback; caught up "
    "within 10 s",
)
async def test_disk_full(small_disk: tuple[RedisServer, Path], row: Row) -> None:
    server, folder = small_disk
    lab = row.make_lab(workers=2, server=server)
    fleet = await fleet_of(lab, row.start_postgres)
    visitor = await visited(lab, fleet.all)

    async def named() -> bool:
        check = (await visitor.get("/readyz")).json()["checks"]["redis"]
        return "cannot_persist" in check["detail"]

    with felt_throughout(row.figure, fleet.living, 6):
        said = sum(role.text().count("\n") for role in lab.roles)
        with injecting.redis_disk_full(lab, folder):
            full = time.time()
            await eventually(named, within=20)
            row.figure("named by /readyz after", time.time() - full, most=BACK)
            await asyncio.sleep(20)  # beats are refused meanwhile
        back = time.time()
        await fleet.recording_again(row.figure, back)
    await fleet.told(row.figure, back)
    row.figure("tracebacks", sum(role.text().count("Traceback") for role in lab.roles), "", most=0)
    row.figure("lines of log", sum(role.text().count("\n") for role in lab.roles) - said, "")
    words = (word for role in lab.roles for word in role.text().split())
    print(Counter(word for word in words if word.startswith("action=")))
