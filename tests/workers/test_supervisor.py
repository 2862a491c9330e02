"""Who leads when Redis cannot be reached: two supervisors on real stores, moved step by step."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from monitor.config import Settings
from monitor.core.cause import Cause
from monitor.core.errors import ForeignRedis, StoreUnavailable
from monitor.core.event import CannotReach, encode
from monitor.core.generation import Signature
from monitor.core.status import Epoch, Identity
from monitor.live import assignments, connections, generation, journal, observations
from monitor.live.connections import Live
from monitor.live.keys import PARTITIONS, database_key, partition_key
from monitor.registry import fleet, leadership
from monitor.registry.store import Store, open_store
from tests.conftest import numbers
from tests.fixtures import StartRedis
from tests.proxy import Proxy
from tests.servers import PostgresServer
from tests.waiting import eventually
from workers.supervisor.leader import Leader
from workers.supervisor.placements import Deposed
from workers.supervisor.process import Supervisor
from workers.worker.recorder import Recorder

LEASE = 1.5  # seconds
MakeSupervisor = Callable[..., Supervisor]
Restart = Callable[[], Awaitable[None]]


@pytest.fixture
async def make_supervisor(
    tmp_path: Path, database_url: str, store: Store
) -> AsyncIterator[MakeSupervisor]:
    async with contextlib.AsyncExitStack() as stack:

        def make(redis_url: str, other: Store | None = None) -> Supervisor:
            live = connections.connect(redis_url)
            stack.push_async_callback(connections.close, live)
            settings = Settings(
                home=tmp_path, database_url=database_url, redis_url=redis_url, lease=LEASE
            )
            return Supervisor(settings, live, other or store)

        yield make


async def step(*supervisors: Supervisor) -> None:
    """Let each try to hold the lead and to sweep, once."""
    for one in supervisors:
        for part in (one._hold_lead, one._sweep):
            with contextlib.suppress(StoreUnavailable, ForeignRedis):
                await part()


@pytest.fixture
def staging(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Store]:
    """Another registry, which has had more leaders than ours."""
    name = f"feeler_{next(numbers)}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    postgres_server.execute("UPDATE leadership SET registry_name = 'staging', term = 50", name)
    other = open_store(postgres_server.url(name))
    fleet.add(other, "toy", "sealed", labels={})
    yield other
    other.close()


@pytest.fixture
async def production(
    make_supervisor: MakeSupervisor, store: Store, redis_url: str, live: Live, arrive: Any
) -> AsyncIterator[Supervisor]:
    """A leader of ours whose fleet is assigned to two workers."""
    for name in ("orders", "ledger"):
        fleet.add(store, name, "sealed", labels={})
    leader = make_supervisor(redis_url)

    async def watched() -> bool:
        await arrive("w1", "w2")
        await step(leader)
        places = await assignments.places(live, ["orders", "ledger"])
        return all(place.owner for place in places.values())

    await eventually(watched)
    return leader


@pytest.fixture
def quick_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew leases ten times a second."""
    monkeypatch.setattr("workers.supervisor.process.LEASE_RENEW_EVERY", 0.1)


@pytest.fixture
def link(redis_server: Any, redis_url: str, start_proxy: Callable[[int], Proxy]) -> Proxy:
    """One supervisor's way to Redis."""
    return start_proxy(redis_server.port)


@pytest.mark.usefixtures("quick_renewal")
async def test_a_leader_cut_off_redis_makes_way(
    make_supervisor: MakeSupervisor, link: Proxy, redis_url: str
) -> None:
    first, second = make_supervisor(link.url(redis_url)), make_supervisor(redis_url)
    await step(first, second)
    assert first._leader
    assert not second._leader
    link.mode = "refuse"

    async def second_leads() -> bool:
        await step(first, second)
        return second._leader is not None

    await eventually(second_leads, within=3 * LEASE)
    link.mode = "pass"
    await step(first)
    assert first._leader is None


@pytest.mark.usefixtures("quick_renewal")
async def test_a_leader_that_completes_no_sweep_makes_way_whatever_the_reason(
    make_supervisor: MakeSupervisor, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_supervisor(redis_url), make_supervisor(redis_url)
    await step(first, second)
    assert first._leader

    async def choke(*_: object) -> None:
        raise ValueError("'blind' is not a State")

    monkeypatch.setattr(first._leader, "_review", choke)
    monkeypatch.setattr(first._leader, "_recover", choke)

    async def second_leads() -> bool:
        with contextlib.suppress(ValueError):
            await step(first)
        await step(second)
        return second._leader is not None

    await eventually(second_leads, within=3 * LEASE)
    assert first._leader is None


async def test_while_redis_refuses_writes_nobody_takes_the_lead(
    make_supervisor: MakeSupervisor, start_redis: StartRedis, store: Store
) -> None:
    """Where no successor could complete a sweep either, changing leaders only burns terms."""
    server = start_redis()
    first, second = make_supervisor(server.url), make_supervisor(server.url)
    await step(first, second)
    assert first._leader
    term = first._leader.lease.term
    with redis.Redis.from_url(server.url) as client:
        client.config_set("min-replicas-to-write", 1)

        async def made_way() -> bool:
            await step(first, second)
            return first._leader is None

        await eventually(made_way, within=10 * LEASE)
        ends = time.monotonic() + 3 * LEASE
        while time.monotonic() < ends:
            await step(first, second)
            assert (first._leader, second._leader) == (None, None)
            await asyncio.sleep(0.1)
        client.config_set("min-replicas-to-write", 0)

    async def leads() -> bool:
        await step(first, second)
        return (first._leader or second._leader) is not None

    await eventually(leads, within=LEASE)
    lease = leadership.current(store, LEASE)
    assert lease
    assert lease.term == term + 1


async def test_a_redis_that_is_full_of_acknowledged_entries_gets_room_again(
    make_supervisor: MakeSupervisor, start_redis: StartRedis
) -> None:
    """Where nobody can write nobody leads: the journal is trimmed all the same."""
    server = start_redis()
    one = make_supervisor(server.url)
    await step(one)
    for group in journal.DURABLE:
        await journal.ensure(one._live, group)
    request = encode(CannotReach("a", Identity(Epoch(1, 1), 1), "w", 1.0, Cause.DNS))
    pipe = one._live.cache.pipeline(transaction=False)
    for _ in range(10_000):
        pipe.xadd(partition_key(3, "journal"), {"event": request})
    await pipe.execute()
    for group in journal.DURABLE:
        while entries := await journal.read(one._live, group, "one", count=16_000, block=0.1):
            await journal.ack(one._live, group, entries)
    one._leader = None
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 300_000)
        with pytest.raises(StoreUnavailable):
            await connections.check_writes(one._live)
        await one._trim()
        await connections.check_writes(one._live)


async def test_a_sweep_that_gets_on_may_take_longer_than_a_lease(
    production: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = production._leader
    assert leader
    leader._swept_at -= 60
    assert leader.stuck_for < LEASE, "it assigned a moment ago"
    monkeypatch.setattr(leader, "_review", None)
    leader._review_at = 0.0
    with contextlib.suppress(TypeError):
        await leader.sweep()
    assert leader.stuck_for > 60, "what failed got nowhere"


@pytest.mark.parametrize("withdraw", ["unassign", "forget"])
async def test_a_long_withdrawal_gets_on(production: Supervisor, withdraw: str) -> None:
    leader = production._leader
    assert leader
    leader._swept_at -= 60
    leader._placements.progress_at -= 60
    assert leader.stuck_for >= LEASE
    await getattr(leader._placements, withdraw)("orders")
    assert leader.stuck_for < LEASE


async def test_nobody_leads_who_cannot_reach_redis(
    make_supervisor: MakeSupervisor, link: Proxy, redis_url: str, store: Store
) -> None:
    link.mode = "refuse"
    with pytest.raises(StoreUnavailable):
        await make_supervisor(link.url(redis_url))._hold_lead()
    assert leadership.current(store) is None


async def test_the_supervisor_of_another_registry_leads_nowhere_else(
    production: Supervisor,
    make_supervisor: MakeSupervisor,
    staging: Store,
    redis_url: str,
    live: Live,
) -> None:
    stranger = make_supervisor(redis_url, staging)
    for _ in range(3):
        with pytest.raises(ForeignRedis, match="feeler redis adopt"):
            await stranger._hold_lead()
        await step(production, stranger)
    assert leadership.current(staging) is None
    assert production._leader
    assert await observations.names(live) == ["ledger", "orders"]
    with pytest.raises(ForeignRedis):
        await stranger._historian.drain()


async def test_of_two_registries_at_one_empty_redis_one_leads_wholly(
    make_supervisor: MakeSupervisor,
    store: Store,
    staging: Store,
    redis_url: str,
    live: Live,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "workers.supervisor.recovery.RESTORE_GRACE", 0.0
    )  # both are about to write in the same moment
    for _ in range(5):
        await live.cache.flushall()
        for one in (store, staging):
            if lease := leadership.current(one):
                leadership.release(one, lease)
        both = [make_supervisor(redis_url), make_supervisor(redis_url, staging)]

        async def is_open() -> bool:
            await asyncio.gather(*map(step, both))  # noqa: B023
            return (await generation.generation(live)).open

        await eventually(is_open, within=30)
        await asyncio.gather(*map(step, both))
        [signature] = (await generation.standing(live)).signatures
        [loser] = [one for one in both if one._leader is None]
        assert signature.registry == (
            "staging" if loser._store is store else leadership.registry(store)
        )
        with pytest.raises(ForeignRedis, match="feeler redis adopt"):
            await loser._hold_lead()


async def test_a_leader_claims_before_it_opens(
    make_supervisor: MakeSupervisor, redis_url: str, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another registry's leader was quicker at a Redis that forgot all."""
    one = make_supervisor(redis_url)
    await step(one)
    leader = one._leader
    assert leader

    async def everybody(*_: object) -> set[str]:
        return set()

    await live.cache.flushall()
    assert await generation.lead(live, 1, "0123abcdef" * 3)
    monkeypatch.setattr(leader._recovery, "reports", everybody)
    with pytest.raises(Deposed):
        await leader._recover({}, 0)


async def test_a_leader_steps_down_where_another_registry_is_named(
    production: Supervisor,
    make_supervisor: MakeSupervisor,
    staging: Store,
    redis_url: str,
    live: Live,
) -> None:
    """Its term may be the higher one: it led before it was pointed here, or the name came late."""
    stranger = make_supervisor(redis_url, staging)
    lease = leadership.acquire(staging, "stranger", seen=99)
    assert lease
    stranger._leader = Leader(live, staging, lease, stranger._nudger, asyncio.Event())
    await step(stranger)
    assert stranger._leader is None
    assert await observations.names(live) == ["ledger", "orders"]


async def test_a_redis_that_forgot_its_registry_is_left_to_those_who_remember(
    production: Supervisor,
    make_supervisor: MakeSupervisor,
    staging: Store,
    redis_url: str,
    live: Live,
    arrive: Any,
) -> None:
    stranger, worker = make_supervisor(redis_url, staging), Recorder(live, "w1", lambda: None)
    assert await worker.follow_generation()
    await step(stranger)
    await live.cache.flushall()
    await arrive("w1", "w2", restored=False)
    await step(stranger)
    assert stranger._leader is None, "the name stood there a moment ago"
    await worker.follow_generation()
    with pytest.raises(ForeignRedis):
        await stranger._hold_lead()


async def test_a_take_over_by_a_persons_word_is_obeyed(
    production: Supervisor,
    make_supervisor: MakeSupervisor,
    staging: Store,
    redis_url: str,
    live: Live,
    arrive: Any,
) -> None:
    heir, worker = make_supervisor(redis_url, staging), Recorder(live, "w1", lambda: None)
    assert await worker.follow_generation()
    assert await generation.take_over(live, "staging", 1)

    async def taken_over() -> bool:
        await arrive("w1", "w2")
        await step(production, heir)
        return await observations.names(live) == ["toy"]

    await eventually(taken_over)
    assert production._leader is None
    await worker.follow_generation()
    await live.cache.flushall()
    await worker.follow_generation()
    assert (await generation.standing(live)).signature == Signature(1, "staging")


@pytest.mark.parametrize("term", [1, 50])
async def test_a_worker_that_outlived_all_others_is_followed_and_follows(
    make_supervisor: MakeSupervisor, redis_url: str, live: Live, term: int
) -> None:
    """Redis forgot, Postgres is an older copy, and both were at work before the worker was back."""
    worker, leader = Recorder(live, "w1", lambda: None), make_supervisor(redis_url)
    await generation.restore(live, "before", [], term, "")
    assert await generation.open_generation(live, Epoch(term, 7), {"before"}, "")
    assert await worker.follow_generation()
    await live.cache.flushall()

    async def is_open() -> bool:
        await step(leader)
        return (await generation.generation(live)).open

    await eventually(is_open, within=20)
    assert (await generation.generation(live)).epoch == Epoch(1, 1)

    async def follows() -> bool:
        await step(leader)
        return await worker.follow_generation()

    await eventually(follows, within=30)
    opened = (await generation.generation(live)).epoch
    assert opened
    assert opened.term > term


async def test_the_journal_is_trimmed_though_no_place_can_be_read(
    make_supervisor: MakeSupervisor, live: Live, redis_url: str
) -> None:
    """A review that fails for hours must not fill Redis."""
    one = make_supervisor(redis_url)
    await step(one)
    key = partition_key(3, "journal")
    for group in journal.DURABLE:
        await journal.ensure(live, group)
    for _ in range(3):
        await live.cache.xadd(
            key, {"event": encode(CannotReach("a", Identity(Epoch(1, 1), 1), "w", 1.0, Cause.DNS))}
        )
    await live.cache.sadd(partition_key(0, "names"), "broken")
    await live.cache.set(database_key("broken"), "no hash: no review gets past it")
    for group in journal.DURABLE:
        await journal.ack(
            live, group, await journal.read(live, group, "one", count=1600, block=0.1)
        )
    assert one._leader
    one._leader._review_at = 0.0
    with contextlib.suppress(ResponseError):
        await one._leader.sweep()
    await one._trim()
    assert await live.cache.xlen(key) == 1, "the last one delivered stays"


@pytest.fixture
def restart(live: Live, monkeypatch: pytest.MonkeyPatch) -> Restart:
    """Close the generation as a restart from disk does; no wait of a new leader ends by itself."""
    monkeypatch.setattr("workers.supervisor.recovery.RESTORE_GRACE", 3600.0)

    async def restart() -> None:
        for number in range(PARTITIONS):
            await live.cache.set(partition_key(number, "generation"), "0" * 40 + ":1.1")

    return restart


async def swept_often(supervisor: Supervisor) -> None:
    """Sweep until the fleet is known, and some times more."""

    async def knows() -> bool:
        await step(supervisor)
        return supervisor._leader is not None and supervisor._leader._fleet.known

    await eventually(knows)
    for _ in range(3):
        await step(supervisor)


@pytest.mark.parametrize("orderly", [True, False])
async def test_after_an_orderly_stop_nobody_is_waited_for(
    orderly: bool,
    production: Supervisor,
    make_supervisor: MakeSupervisor,
    redis_url: str,
    live: Live,
    arrive: Any,
    restart: Restart,
) -> None:
    assert production._leader
    if orderly:
        await production._give_up()
    else:
        await asyncio.to_thread(leadership.release, production._store, production._leader.lease)
    await restart()
    await arrive("w1", "w2")
    heir = make_supervisor(redis_url)
    await swept_often(heir)
    assert (await generation.generation(live)).open == orderly


async def test_a_memory_marked_complete_counts_for_the_next_leader_alone(
    production: Supervisor,
    make_supervisor: MakeSupervisor,
    redis_url: str,
    live: Live,
    arrive: Any,
    store: Store,
    restart: Restart,
) -> None:
    """Somebody led after it, and may have met a worker that this older memory does not know."""
    await production._give_up()
    between = leadership.acquire(store, "between", LEASE)
    assert between
    leadership.release(store, between)
    await restart()
    await arrive("w1", "w2")
    heir = make_supervisor(redis_url)
    await swept_often(heir)
    assert not (await generation.generation(live)).open


async def test_a_standby_waits_for_reports_before_it_leads(
    production: Supervisor,
    make_supervisor: MakeSupervisor,
    redis_url: str,
    live: Live,
    arrive: Any,
    store: Store,
    restart: Restart,
) -> None:
    heir = make_supervisor(redis_url)
    await restart()
    await arrive("w1")
    await step(heir)
    assert not heir._leader
    assert heir._waiting_since
    heir._waiting_since -= 3600
    leadership.release(store, production._leader.lease)  # type: ignore[union-attr]

    async def opened() -> bool:
        await step(heir)
        return (await generation.generation(live)).open

    await eventually(opened)
    places = await assignments.places(live, ["orders", "ledger"])
    assert {place.owner for place in places.values()} <= {"w1", "w2"}, "a mark is no worker"
