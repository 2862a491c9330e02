"""The metadata Postgres dies, freezes, refuses, forgets: watching goes on, history waits."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest
from sqlalchemy import text

from monitor.live.keys import REQUESTS, partition, partition_key, target_key
from monitor.registry import fleet, leadership
from tests.faults import injecting
from tests.faults.asserting import TAKEN_OVER, taken_over
from tests.faults.conftest import Figures, Row
from tests.faults.history import lateness
from tests.faults.injecting import SmallDisk
from tests.faults.lab import Lab, new_registry, partition_keys
from tests.faults.observed import Effect, History
from tests.faults.visiting import Visitor, visited
from tests.fixtures import StartPostgres
from tests.proxy import Proxy
from tests.servers import PostgresServer
from tests.system.cluster import Role
from tests.waiting import eventually

Away = Callable[[Lab, PostgresServer], AbstractContextManager[None]]

CATCH_UP = 10.0  # seconds after the return
DOWN = 12.0  # seconds from a target's death to `unavailable`


@pytest.fixture
def metadata(start_postgres: StartPostgres) -> PostgresServer:
    """A metadata server of one's own, migrated."""
    server = start_postgres()
    new_registry(server)
    return server


async def watched(lab: Lab, server: PostgresServer, count: int = 6) -> tuple[list[str], Visitor]:
    """Have databases watched and a visitor ask for them."""
    names = lab.monitor_many(count, server)
    visitor = await visited(lab, names)
    await lab.settle()
    return names, visitor


async def available(lab: Lab, server: PostgresServer) -> list[str]:
    """Have four databases watched, and that is history."""
    names = lab.monitor_many(4, server)
    await lab.all_in(names, "available", within=30)
    await lab.settle()
    return names


async def caught_up(lab: Lab, figure: Figures, most: float = CATCH_UP) -> None:
    """History must say soon what was accepted meanwhile."""
    back = time.monotonic()
    await lab.settle()
    figure("history caught up after", time.monotonic() - back, most=most)


async def goes_down(lab: Lab, server: PostgresServer, figure: Figures) -> None:
    """Kill a target: it must become unavailable, and available again when it is back."""
    names = [name for name in injecting.databases_of(lab, server) if name not in lab.retired]
    with injecting.target_killed(lab, server):
        figure("unavailable after", await lab.all_in(names, "unavailable", within=30), most=DOWN)
    figure("available again after", await lab.all_in(names, "available", within=30), most=7)


# --- it is away -----------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.row(
    "the metadata Postgres killed for some seconds",
    "a target that dies meanwhile is unavailable <= 12 s; the web answers throughout and refuses "
    "changes (503); history catches up <= 10 s after",
)
async def test_killed_shortly(row: Row, metadata: PostgresServer) -> None:
    lab, target = row.make_lab(workers=2, metadata=metadata.url("feeler")), row.start_postgres()
    _, visitor = await watched(lab, target)
    with visitor.visiting():
        with injecting.postgres_down(lab, metadata):
            await visitor.refused_change(row.figure)
            await goes_down(lab, target, row.figure)
        await caught_up(lab, row.figure)
    visitor.demand(row.figure)


@pytest.mark.row(
    "the metadata Postgres killed for 60 s",
    "feeling, recording, reassigning and serving go on: a dead worker's databases are taken over "
    "<= 16 s, a dead target is unavailable <= 12 s, changes are refused (503); history catches up "
    "<= 10 s after",
)
async def test_killed_for_a_minute(row: Row, metadata: PostgresServer) -> None:
    await away(row, metadata, injecting.postgres_down, seconds=60)


@pytest.mark.row(
    "the metadata Postgres frozen for 30 s",
    "as when it is killed; nothing hangs, no event loop stands still for more than 0.25 s",
)
async def test_frozen(row: Row, metadata: PostgresServer) -> None:
    await away(row, metadata, injecting.postgres_frozen, seconds=30)


async def away(row: Row, metadata: PostgresServer, fault: Away, seconds: float) -> None:
    lab = row.make_lab(metadata=metadata.url("feeler"), supervisors=2)
    mortal, lasting, figure = row.start_postgres(), row.start_postgres(), row.figure
    lab.monitor("mortal", mortal)
    names, visitor = await watched(lab, lasting)
    began = time.time()
    with visitor.visiting():
        with fault(lab, metadata):
            ends = time.monotonic() + seconds
            await visitor.refused_change(figure)
            victim = lab.owner_of(names[0])
            over = taken_over(lab, victim, names, figure, "taken over after")
            await asyncio.gather(over, goes_down(lab, mortal, figure))
            await asyncio.sleep(max(0.0, ends - time.monotonic()))  # so long away in all
        await caught_up(lab, figure)
    visitor.demand(figure)
    seen = History(began, time.time(), sights=lab.eye.sights)
    found = max(lateness(seen, names, (began, time.time())))
    figure("latest observation was late by", found, most=TAKEN_OVER)


# --- it takes no writes ---------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.row(
    "the metadata Postgres becomes read-only",
    "as when it is away; the log names the cause and /readyz warns <= 10 s; history catches up <= "
    "10 s after",
)
async def test_read_only(row: Row, metadata: PostgresServer) -> None:
    lab, target = row.make_lab(workers=2, metadata=metadata.url("feeler")), row.start_postgres()
    _, visitor = await watched(lab, target)
    with visitor.visiting():
        since = time.monotonic()
        with injecting.postgres_read_only(lab, metadata):
            await named(lab, "read only", since, row.figure)
            await warned(visitor, since, row.figure)
            await visitor.refused_change(row.figure)
            await goes_down(lab, target, row.figure)
        await caught_up(lab, row.figure)
    visitor.demand(row.figure)


@pytest.mark.row(
    "a switch-over of the metadata Postgres: the old one goes on as a standby that everybody has "
    "connections to",
    "as when it takes no writes; <= 10 s after the name leads to the new one history catches up "
    "and a lease runs",
)
async def test_switched_over(row: Row) -> None:
    old, target = row.start_postgres(wal_level="replica"), row.start_postgres()
    new_registry(old)
    way = row.start_proxy(old.port)
    lab = row.make_lab(workers=2, metadata=way.url(old.url("feeler")))
    await watched(lab, target)
    with injecting.postgres_switched_over(lab, way, old, row.start_postgres()):
        await named(lab, "read only", time.monotonic(), row.figure)
        await goes_down(lab, target, row.figure)
    since = time.monotonic()
    await caught_up(lab, row.figure)
    led = partial(leadership.current, lab.store)
    await eventually(lambda: lab.tolerantly(led), within=20, every=0.2)
    row.figure("a lease ran after", time.monotonic() - since, most=10)


async def named(lab: Lab, trouble: str, since: float, figure: Figures) -> None:
    """The cause must stand in a supervisor's log."""

    def logged() -> bool:
        return any(f"trouble=postgres:{trouble}" in role.text() for role in lab.supervisors())

    await eventually(logged, within=20, every=0.1)
    figure("the log names the cause after", time.monotonic() - since, most=10)


async def warned(visitor: Visitor, since: float, figure: Figures) -> None:
    """/readyz must go on answering 200, and warn."""

    def warns() -> bool:
        answer = visitor.client.get("/readyz")
        assert answer.status_code == 200
        return answer.json()["status"] == "warn"

    await eventually(warns, within=20, every=0.2)
    figure("/readyz warns after", time.monotonic() - since, most=10)


@pytest.mark.row(
    "the disk of the metadata Postgres is full",
    "as when it is away; the log names the cause <= 10 s after the first write that failed; "
    "/readyz warns of what is not written down <= 25 s after; <= 10 s after there is room again "
    "history catches up, and it warns no more",
)
async def test_disk_full(
    small_disk: Callable[[PostgresServer], SmallDisk], row: Row, metadata: PostgresServer
) -> None:
    disk = small_disk(metadata)
    lab, target = row.make_lab(workers=2, metadata=metadata.url("feeler")), row.start_postgres()
    names, visitor = await watched(lab, target, 12)
    with visitor.visiting():
        with injecting.postgres_disk_full(lab, disk):
            with injecting.target_killed(lab, target):
                since = time.monotonic()
                down, _, _ = await asyncio.gather(
                    lab.all_in(names, "unavailable", within=30),
                    named(lab, "disk full", since, row.figure),
                    history_is(visitor, "warn", since, row.figure, most=25),
                )
                row.figure("unavailable after", down, most=DOWN)
            seconds = await lab.all_in(names, "available", within=30)
            row.figure("available again after", seconds, most=7)
        await asyncio.gather(
            caught_up(lab, row.figure),
            history_is(visitor, "pass", time.monotonic(), row.figure, most=CATCH_UP),
        )
    visitor.demand(row.figure)


async def history_is(
    visitor: Visitor, status: str, since: float, figure: Figures, most: float
) -> None:
    """/readyz must go on answering 200, and say whether what happens is written down."""

    async def said() -> bool:
        answer = await asyncio.to_thread(visitor.client.get, "/readyz")
        assert answer.status_code == 200
        return answer.json()["checks"]["history"]["status"] == status

    await eventually(said, within=2 * most, every=0.2)
    figure(f"/readyz: history {status} after", time.monotonic() - since, most=most)


@pytest.fixture
def small_disk(start_postgres: StartPostgres) -> Iterator[Callable[[PostgresServer], SmallDisk]]:
    """Move a server's data to a small disk; needs root. Ask for it before the lab."""
    disks: list[SmallDisk] = []

    def move(server: PostgresServer) -> SmallDisk:
        disks.append(SmallDisk(server))
        return disks[-1]

    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    yield move
    for disk in disks:
        disk.remove()


# --- it forgets -----------------------------------------------------------------------------------

TERMS_LOST = 10


@pytest.mark.row(
    "the metadata Postgres restored from an older copy: 10 terms and some transitions are gone",
    "watching goes on; a leader assigns again <= 15 s after, in a term above all before; no epoch "
    "is used again; changes of the registry count; new transitions are recorded behind a visible "
    "gap",
)
async def test_restored_from_an_older_copy(row: Row, metadata: PostgresServer) -> None:
    lab, target = row.make_lab(workers=2, metadata=metadata.url("feeler")), row.start_postgres()
    names = await available(lab, target)
    with injecting.postgres_set_back(lab, metadata):
        for _ in range(TERMS_LOST):
            await new_leader(lab)
        for number in range(3):
            fleet.change(lab.store, names[0], labels={"lost": str(number)})
        await flap(lab, target, names, times=1, within=30)
        await lab.settle()
        await published(lab, names[0], {"lost": "2"})
        said = {name: lab.transitions(name)[1:] for name in names}
        lost = {name: [row.transition.identity for row in rows] for name, rows in said.items()}
        before = highest_term(lab)
    back = time.monotonic()
    fleet.change(lab.store, names[0], labels={"lost": "no"})
    lab.launch("worker")
    victim = lab.owner_of(names[0])
    orphans = lab.owned_by(victim, names)
    injecting.killed(lab, victim)
    await eventually(lambda: highest_term(lab) > before, within=120, every=0.1)
    row.figure("a leader in a term above all before after", time.monotonic() - back, most=15)
    await lab.observed_by_others(orphans, victim, within=60)
    row.figure("taken over after", time.monotonic() - back, most=TAKEN_OVER)
    await published(lab, names[0], {"lost": "no"})
    found = time.monotonic() - back
    row.figure("a change of the registry reached the workers after", found, most=TAKEN_OVER)
    await flap(lab, target, names, times=1, within=30)
    await caught_up(lab, row.figure)
    for name in names:
        rows = [row.transition for row in lab.transitions(name)]
        assert not {row.identity for row in rows} & set(lost[name]), "come back by themselves"
        assert rows[1].prev == lost[name][-1], "the gap must be visible"
    row.figure("transitions lost by the restore", sum(map(len, lost.values())), "rows")


async def published(lab: Lab, name: str, labels: dict[str, str]) -> None:
    """Wait until what stands in the registry stands in Redis."""

    def there() -> bool:
        return json.loads(lab.redis.hget(target_key(name), "labels") or "{}") == labels

    await eventually(lambda: lab.tolerantly(there), within=30, every=0.1)


def highest_term(lab: Lab) -> int:
    """Return the highest term Redis has seen."""
    return max(int(term or 0) for term in lab.redis.mget(partition_keys("term")))


async def new_leader(lab: Lab) -> None:
    """Have another supervisor take the lead in a new term."""
    before, old = highest_term(lab), lab.supervisors()
    fresh = lab.launch("supervisor")
    await eventually(lambda: lab.party(fresh), within=20, every=0.05)
    for role in old:
        role.terminate()
    await eventually(lambda: highest_term(lab) > before, within=20, every=0.05)


# --- a leader that gets nothing done --------------------------------------------------------------


@pytest.mark.row(
    "a key of ours in Redis holds something that no sweep gets past, for 25 s; two supervisors",
    "/readyz says <= 12 s that no sweep is completed, leaders make way for each other, feeling "
    "goes on; when the key is gone a dead worker's databases are taken over <= 16 s",
)
async def test_no_sweep_is_completed(row: Row, metadata: PostgresServer) -> None:
    lab, target = row.make_lab(supervisors=2, metadata=metadata.url("feeler")), row.start_postgres()
    names, visitor = await watched(lab, target)

    def told() -> bool:
        check = visitor.client.get("/readyz").json()["checks"]["leader"]
        return check["status"] == "warn" and "completed no sweep" in check["detail"]

    since = time.monotonic()
    lab.redis.set(REQUESTS, "something else")
    await eventually(told, within=30, every=0.2)
    row.figure("/readyz says it after", time.monotonic() - since, most=12)
    await asyncio.sleep(25 - (time.monotonic() - since))  # as long as it takes to make way
    assert all("action=no_sweep" in role.text() for role in lab.supervisors())
    lab.redis.delete(REQUESTS)
    await taken_over(lab, lab.owner_of(names[0]), names, row.figure, "taken over after")


# --- another one ----------------------------------------------------------------------------------


def another_registry(server: PostgresServer) -> str:
    """Return the URL of a registry with more terms behind it than ours, on the same server."""
    url = new_registry(server, "another")
    server.execute("update leadership set term = 1000", "another")
    return url


def says_whose_it_is(role: Role) -> bool:
    return "feeler redis adopt " in role.text()


@pytest.mark.row(
    "the supervisor of another registry is pointed at our Redis, which forgets everything "
    "meanwhile",
    "it never leads, takes no history and names whose the Redis is and what to do <= 5 s; no "
    "database is lost, its epoch moves by our leader alone; a target that dies is unavailable <= "
    "12 s",
)
async def test_another_registrys_supervisor(row: Row, metadata: PostgresServer) -> None:
    lab, target = row.make_lab(workers=2, metadata=metadata.url("feeler")), row.start_postgres()
    names = lab.monitor_many(4, target)
    await lab.all_in(names, "available", within=30)
    stranger = lab.launch("supervisor", DATABASE_URL=another_registry(metadata))
    # Measured from its first line: Python alone takes seconds to start beside other labs.
    await eventually(lambda: "action=supervisor_started" in stranger.text(), within=20, every=0.02)
    since = time.monotonic()
    await eventually(lambda: says_whose_it_is(stranger), within=20, every=0.05)
    row.figure("it said whose the Redis is after", time.monotonic() - since, most=5)
    await goes_down(lab, target, row.figure)
    injecting.flushed(lab)
    row.figure("observed again after", await lab.observed_again(names, within=30), most=TAKEN_OVER)
    await goes_down(lab, target, row.figure)
    await lab.settle()
    assert "action=leading" not in stranger.text()
    assert metadata.execute("select count(*) from transitions", "another") == [(0,)]


@pytest.mark.row(
    "the metadata Postgres replaced by another registry, which adopts our Redis",
    "refused without the holder's short name; then watching goes on <= 16 s under terms above all "
    "before; the former supervisor obeys, after Redis forgot everything too; what the new "
    "registry does not list is forgotten",
)
async def test_a_redis_is_adopted(row: Row, metadata: PostgresServer) -> None:
    lab, target = row.make_lab(workers=2, metadata=metadata.url("feeler")), row.start_postgres()
    dropped, *names = await available(lab, target)
    [former], before = lab.supervisors(), highest_term(lab)
    lasted = {"began": lab.began, "ended": time.time()}
    lab.note("metadata Postgres replaced", Effect.RESTORED, parties=["postgres"], **lasted)
    lab.replace_registry(another_registry(metadata), [dropped])
    heir = lab.launch("supervisor")
    await eventually(lambda: says_whose_it_is(heir), within=20, every=0.05)
    assert lab.feeler("redis", "adopt") == 2
    holder = heir.text().partition("feeler redis adopt ")[2][:8]
    assert lab.feeler("redis", "adopt", holder) == 0
    since = time.time()
    await eventually(lambda: highest_term(lab) > before, within=30, every=0.05)
    await lab.observed_again(names, within=30, since=since + 1)
    row.figure("watched for the new registry after", time.time() - since, most=TAKEN_OVER)
    await eventually(lambda: not lab.hash(dropped), within=10, every=0.05)
    assert "action=stepped_down" in former.text()
    injecting.flushed(lab)
    row.figure("observed again after", await lab.observed_again(names, within=30), most=TAKEN_OVER)
    await goes_down(lab, target, row.figure)
    await caught_up(lab, row.figure)
    assert former.text().count("action=leading") == 1


# --- the historian dies ---------------------------------------------------------------------------


@pytest.mark.row(
    "historians killed between their commit in Postgres and their word to Redis, again and again",
    "no transition lost or doubled; what they held is acknowledged <= 20 s after the last one",
)
async def test_historian_killed_between_commit_and_ack(row: Row, metadata: PostgresServer) -> None:
    lab = row.make_lab(workers=2, supervisors=0, metadata=metadata.url("feeler"))
    target = row.start_postgres()
    slow = row.start_proxy(lab.server.port)
    slow.delay = 0.1  # seconds: a historian's word takes so long to reach Redis
    names = lab.monitor_many(12, target)
    supervise(lab, slow)
    await lab.all_in(names, "available", within=60)
    await lab.settle()
    flapping = asyncio.create_task(flap(lab, target, names, times=2))
    caught = []
    while not flapping.done():
        rows = durable(lab, names)

        def is_news(rows: set[Durable] = rows) -> bool:
            return flapping.done() or bool(durable(lab, names) - rows)

        await eventually(is_news, within=60, every=0.005)
        for role in lab.supervisors():
            injecting.killed(lab, role)
        caught.append(len(unsaid(lab, durable(lab, names) - rows)))
        supervise(lab, slow)
    await flapping
    row.figure("killed with rows committed and not acknowledged", sum(map(bool, caught)), "times")
    row.figure("such rows", sum(caught), "")
    assert any(caught)
    # others wait for 10 s before they take over what was read
    await caught_up(lab, row.figure, most=20)


def supervise(lab: Lab, proxy: Proxy) -> None:
    for _ in range(2):
        lab.launch("supervisor", REDIS_URL=proxy.url(lab.server.url))


async def flap(
    lab: Lab, target: PostgresServer, names: list[str], times: int, within: float = 60
) -> None:
    """Let a target die and come back."""
    for _ in range(times):
        with injecting.target_killed(lab, target):
            await lab.all_in(names, "unavailable", within=within)
        await lab.all_in(names, "available", within=within)


Durable = tuple[str, str]  # database, identity


def durable(lab: Lab, names: list[str]) -> set[Durable]:
    with lab.store.begin() as connection:
        identity = "epoch_term || '.' || epoch_counter || '.' || n"
        rows = connection.execute(text(f"select database_name, {identity} from transitions"))
        return {(name, identity) for name, identity in rows if name in names}


def unsaid(lab: Lab, rows: set[Durable]) -> set[Durable]:
    """Return what is committed and not yet known to be."""

    def is_said(name: str, identity: str) -> bool:
        key = partition_key(partition(name), "durable")
        return lab.redis.zscore(key, f"{name} {identity}") is not None

    return {row for row in rows if not is_said(*row)}
