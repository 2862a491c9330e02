"""The leader on real stores; workers are only announced: each step of the protocol can be seen."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from monitor.core.beat import Beat, Reply
from monitor.core.cause import Cause
from monitor.core.errors import StoreUnavailable
from monitor.core.machine import Context, tick
from monitor.core.observation import Observation
from monitor.core.placement import Place
from monitor.core.policy import Policy
from monitor.core.status import State, Status
from monitor.core.timing import RESTORE_GRACE
from monitor.live import (
    assignments,
    connections,
    generation,
    journal,
    observations,
    presence,
    requests,
)
from monitor.live.connections import Live
from monitor.live.generation import Restored
from monitor.live.keys import PARTITIONS, partition_key, presence_key
from monitor.registry import fleet, leadership
from monitor.registry.store import Store
from monitor.registry.transitions import write_transitions
from tests.waiting import eventually
from workers.supervisor.leader import Leader
from workers.supervisor.placements import Deposed

Arrive = Callable[..., Awaitable[None]]
Watched = Callable[..., Awaitable[None]]
UnprovenFor = Callable[[float], None]


class Nudges:
    """Keeps what would be put on workers' queues."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, tuple[str, ...]]] = []

    def nudge(self, worker: str, function: str, databases: list[str]) -> None:
        self.sent.append((worker, function, tuple(databases)))

    def remove(self, worker: str) -> None:
        self.sent.append((worker, "remove", ()))


@pytest.fixture
def nudges() -> Nudges:
    return Nudges()


@pytest.fixture
def leader(live: Live, store: Store, nudges: Nudges) -> Leader:
    return lead(live, store, nudges, "first")


def lead(live: Live, store: Store, nudges: Nudges, name: str) -> Leader:
    current = leadership.current(store)
    if current:
        leadership.release(store, current)
    lease = leadership.acquire(store, name)
    assert lease
    return Leader(live, store, lease, nudges, asyncio.Event())  # type: ignore[arg-type]


@pytest.fixture
def watched(live: Live, store: Store, leader: Leader, arrive: Arrive) -> Watched:
    """Register databases and assign them to workers: `await watched("orders", by=("w1",))`."""

    async def watched(*names: str, by: tuple[str, ...] = ("w1",)) -> None:
        register(store, *names)
        await arrive(*by)
        await sweep(leader)
        await sweep(leader)

    return watched


@pytest.fixture
def unproven_for(monkeypatch: pytest.MonkeyPatch) -> UnprovenFor:
    """Say for how many seconds an owner may prove nothing."""
    return lambda seconds: monkeypatch.setattr("monitor.core.unproven.UNPROVEN_FOR", seconds)


async def sweep(leader: Leader) -> None:
    """Sweep once, on the fleet as it is now."""
    await leader.sweep()
    if reading := leader._fleet.reading:
        await asyncio.wait({reading})
        await leader.sweep()


def register(store: Store, *names: str) -> None:
    for name in names:
        fleet.add(store, name, "sealed", labels={})


async def place(live: Live, name: str) -> Place:
    return (await assignments.places(live, [name]))[name]


async def beat(live: Live, name: str, cause: Cause, *, at: float | None = None) -> Reply:
    """Feel and record as the owner of a database would."""
    where = await place(live, name)
    assert where.epoch
    status = (await observations.latest(live, [name]))[name].status
    moment = at or await connections.now(live)
    seen = Observation(database=name, worker=where.owner, sent_at=moment, at=moment, cause=cause)
    context = Context(worker=where.owner, epoch=where.epoch, policy=Policy(), eligible=2)
    after, events = tick(status, seen, context)
    opened = (await generation.generation(live)).name
    (verdict,) = await observations.record(
        live, opened, where.owner, [Beat(name, where.epoch, after, seen, events)]
    )
    return verdict


async def test_the_first_leader_of_all_opens_at_once_and_assigns(
    live: Live, store: Store, leader: Leader, arrive: Arrive, nudges: Nudges
) -> None:
    register(store, "orders", "ledger")
    await sweep(leader)
    assert (await generation.generation(live)).open
    await arrive("w1", "w2")
    await sweep(leader)
    places = await assignments.places(live, ["orders", "ledger"])
    assert {one.owner for one in places.values()} == {"w1", "w2"}
    assert all(one.seeded and one.state is State.NEW for one in places.values())
    assert {(worker, function) for worker, function, _ in nudges.sent} >= {
        ("w1", "watch"),
        ("w2", "watch"),
    }
    assert await beat(live, "orders", Cause.OK) is Reply.ACCEPTED


async def test_a_row_of_the_registry_that_cannot_be_read_is_left_as_it_is(
    live: Live, store: Store, leader: Leader, nudges: Nudges, watched: Watched
) -> None:
    await watched("orders", "ledger")
    before = await place(live, "orders")
    with store.begin() as connection:
        connection.execute(text("UPDATE databases SET labels = '[]' WHERE name = 'orders'"))
    register(store, "toys")
    for one in (leader, lead(live, store, nudges, "second")):
        await requests.ask(live, "fleet_changed")
        await sweep(one)
        await sweep(one)
        assert ((await place(live, "orders")).owner, (await place(live, "toys")).owner) == (
            before.owner,
            "w1",
        )


async def test_a_request_moves_the_database_once_and_away_from_who_made_it(
    live: Live, leader: Leader, watched: Watched
) -> None:
    await watched("orders", by=("w1", "w2"))
    first = (await place(live, "orders")).owner
    await beat(live, "orders", Cause.OK)
    await beat(live, "orders", Cause.PORT_CLOSED)
    await leader.listen()
    await sweep(leader)
    moved = await place(live, "orders")
    assert moved.owner != first
    assert moved.moved_for == moved.doubt
    await beat(live, "orders", Cause.PORT_CLOSED)
    for _ in range(3):
        await sweep(leader)
    assert (await place(live, "orders")).owner == moved.owner


async def test_a_blip_that_is_over_moves_nothing(
    live: Live, leader: Leader, watched: Watched
) -> None:
    """The move is refused, since its owner reached it again before; the news of that comes next."""
    await watched("orders", by=("w1", "w2"))
    owner = (await place(live, "orders")).owner
    await beat(live, "orders", Cause.OK)
    for _ in range(2):
        await beat(live, "orders", Cause.PORT_CLOSED)
        await leader.listen()
        await beat(live, "orders", Cause.OK)
        await sweep(leader)
        await leader.listen()
        await sweep(leader)
        assert (await place(live, "orders")).owner == owner


async def test_a_new_leader_takes_up_the_doubts_of_the_old_one(
    live: Live, store: Store, arrive: Arrive, nudges: Nudges, watched: Watched
) -> None:
    await watched("orders")
    await beat(live, "orders", Cause.OK)
    await beat(live, "orders", Cause.PORT_CLOSED)
    await arrive("w1", "w2")
    await sweep(lead(live, store, nudges, "second"))
    assert (await place(live, "orders")).owner == "w2"


async def test_an_older_term_steps_down(
    live: Live, store: Store, leader: Leader, arrive: Arrive, nudges: Nudges
) -> None:
    register(store, "orders")
    await arrive("w1")
    await sweep(leader)
    await sweep(lead(live, store, nudges, "second"))
    with pytest.raises(Deposed):
        await sweep(leader)


async def test_after_a_flush_the_claimant_keeps_its_database_and_its_status(
    live: Live, leader: Leader, arrive: Arrive, watched: Watched
) -> None:
    await watched("orders", by=("w1", "w2"))
    await beat(live, "orders", Cause.OK)
    before = await place(live, "orders")
    status = (await observations.latest(live, ["orders"]))["orders"].status
    await live.cache.flushall()
    await arrive("w1", "w2", restored=False)
    await sweep(leader)
    assert not (await generation.generation(live)).open, "nobody has restored yet"
    owned = Restored("orders", status, before.epoch, before.owner)
    other = ({"w1", "w2"} - {before.owner}).pop()
    await generation.restore(live, before.owner, [owned], 1, "")
    await generation.restore(live, other, [], 1, "")
    await sweep(leader)
    after = await place(live, "orders")
    assert (await generation.generation(live)).open
    assert (after.owner, after.state) == (before.owner, State.AVAILABLE)
    assert after.identity == before.identity
    assert after.epoch
    assert before.epoch
    assert after.epoch > before.epoch


async def test_while_postgres_is_away_all_reports_do_however_late_the_last_one_comes(
    live: Live, leader: Leader, arrive: Arrive, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    await watched("orders")
    await live.cache.flushall()

    def away(*_: object) -> bool:
        raise StoreUnavailable("postgres", "away")

    monkeypatch.setattr(leadership, "renew", away)
    monkeypatch.setattr("workers.supervisor.recovery.RESTORE_GRACE", 0.0)
    await arrive("w1", restored=False)
    await sweep(leader)
    assert not (await generation.generation(live)).open, "nobody says who leads"
    await generation.restore(live, "w1", [], 1, "")
    await sweep(leader)
    assert (await generation.generation(live)).open


async def test_a_leader_new_to_its_workers_waits_for_those_an_older_memory_does_not_know(
    live: Live, store: Store, nudges: Nudges, watched: Watched
) -> None:
    """The replica that was promoted has its term and one worker; the other one came later."""
    await watched("orders")
    assert (await generation.generation(live)).open
    for number in range(PARTITIONS):
        await live.cache.set(
            partition_key(number, "generation"), "0" * 40 + ":1.1"
        )  # as in another life
    second = lead(live, store, nudges, "second")
    await sweep(second)
    await generation.restore(live, "w1", [], 1, "")
    await sweep(second)
    assert not (await generation.generation(live)).open, "somebody may be missing"

    async def opened() -> bool:
        await sweep(second)
        return (await generation.generation(live)).open

    await eventually(opened, within=RESTORE_GRACE + 5)


@pytest.mark.parametrize("others", [0, 1])
async def test_a_leader_that_follows_itself_knows_its_workers(
    others: int, live: Live, store: Store, leader: Leader, nudges: Nudges, watched: Watched
) -> None:
    """Redis came back empty after a lease; waiting helps only where others led in between."""
    await watched("orders")
    await live.cache.flushall()
    for _ in range(others):
        lead(live, store, nudges, "other")
    again = lead(live, store, nudges, "first")
    again.continue_from(leader)
    await sweep(again)
    assert not (await generation.generation(live)).open, "nobody has restored yet"
    await generation.restore(live, "w1", [], 1, "")
    await sweep(again)
    assert (await generation.generation(live)).open == (not others)


async def test_what_no_worker_remembers_comes_from_the_history(
    live: Live, store: Store, leader: Leader, arrive: Arrive, watched: Watched
) -> None:
    await watched("orders")
    where = await place(live, "orders")
    assert where.epoch
    seen = Observation(database="orders", worker="w1", sent_at=5.0, at=5.0, cause=Cause.OK)
    _, events = tick(Status(), seen, Context(worker="w1", epoch=where.epoch, policy=Policy()))
    write_transitions(store, events)  # type: ignore[arg-type]
    await live.cache.flushall()
    await arrive("w1")
    await sweep(leader)
    await sweep(leader)
    after = await place(live, "orders")
    assert (after.state, after.identity) == (State.AVAILABLE, events[0].identity)


async def test_a_leaving_workers_databases_move_after_its_first_beat(
    live: Live, leader: Leader, arrive: Arrive, watched: Watched
) -> None:
    await watched("orders")
    await arrive("w1", leaving=True)
    await arrive("w2")
    await sweep(leader)
    assert (await place(live, "orders")).owner == "w1", (
        "unproven: its first beat may still be under way"
    )
    await beat(live, "orders", Cause.OK)
    await sweep(leader)
    assert (await place(live, "orders")).owner == "w2"


async def test_an_absence_counts_only_once_redis_has_answered_for_a_while(
    live: Live, leader: Leader, arrive: Arrive, watched: Watched
) -> None:
    await watched("orders")
    await beat(live, "orders", Cause.OK)
    await arrive("w2")
    await live.bus.delete(presence_key("w1"))
    leader._roster.steady_since = time.monotonic()
    await sweep(leader)
    assert (await place(live, "orders")).owner == "w1", "it may only not have been back yet"
    leader._roster.steady_since = 0.0
    await sweep(leader)
    assert (await place(live, "orders")).owner == "w2"


async def test_a_presence_that_outlives_its_worker_keeps_nothing(
    live: Live, leader: Leader, arrive: Arrive, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    """As where Redis's clock goes back just after a worker died."""
    await watched("orders")
    await beat(live, "orders", Cause.OK)
    await live.bus.pexpire(presence_key("w1"), 3_600_000)
    monkeypatch.setattr(presence, "PRESENCE_TTL", 1.0)
    leader._roster.steady_since = 0.0

    async def taken_over() -> bool:
        await arrive("w2")
        await sweep(leader)
        return (await place(live, "orders")).owner == "w2"

    await eventually(taken_over, within=10)


async def test_retired_databases_leave_nothing_and_paused_ones_their_last_observation(
    live: Live, store: Store, leader: Leader, watched: Watched
) -> None:
    await watched("orders", "ledger")
    await beat(live, "orders", Cause.OK)
    await beat(live, "ledger", Cause.OK)
    fleet.remove(store, "orders")
    fleet.set_status(store, "ledger", fleet.DatabaseStatus.PAUSED)
    await requests.ask(live, "fleet_changed")
    await sweep(leader)
    assert await observations.names(live) == ["ledger"]
    latest = (await observations.latest(live, ["ledger"]))["ledger"]
    assert (latest.owner, latest.status.state) == ("", State.AVAILABLE)
    assert await assignments.mine(live, "w1") == {}


async def test_a_database_that_was_removed_and_added_again_goes_on_with_its_history(
    live: Live, store: Store, leader: Leader, watched: Watched
) -> None:
    await watched("orders")
    await beat(live, "orders", Cause.OK)
    before = (await observations.latest(live, ["orders"]))["orders"].status
    write_transitions(
        store, [one.event for one in await journal.read(live, "test", "t", count=9, block=1)]
    )
    for change in (lambda: fleet.remove(store, "orders"), lambda: register(store, "orders")):
        change()
        await requests.ask(live, "fleet_changed")
        await sweep(leader)
    await beat(live, "orders", Cause.PORT_CLOSED)
    after = (await observations.latest(live, ["orders"]))["orders"].status
    assert (before.state, after.state) == (State.AVAILABLE, State.UNCERTAIN)
    assert after.identity
    assert before.identity
    assert after.identity > before.identity


async def test_a_change_told_during_a_read_of_the_fleet_is_read_too(
    live: Live, store: Store, leader: Leader
) -> None:
    await leader.sweep()
    reading = leader._fleet.reading
    assert reading
    await asyncio.wait({reading})  # read, and not yet taken up
    register(store, "orders")
    await requests.ask(live, "fleet_changed")
    await leader.sweep()
    assert leader._fleet.databases == {}
    await sweep(leader)
    assert set(leader._fleet.databases) == {"orders"}


async def test_what_its_owner_never_proves_is_moved_and_who_proves_nothing_gets_nothing(
    live: Live,
    store: Store,
    leader: Leader,
    arrive: Arrive,
    watched: Watched,
    unproven_for: UnprovenFor,
) -> None:
    """One is here and follows nothing, the other works."""
    names = [f"db{number}" for number in range(6)]
    await watched(*names, by=("idle", "well"))
    places = await assignments.places(live, names)
    assert {place.owner for place in places.values()} == {"idle", "well"}
    unproven_for(0.3)

    async def all_moved() -> bool:
        await arrive("idle", "well", restored=False)
        for name, place in (await assignments.places(live, names)).items():
            if place.owner == "well" and not place.proven:
                await beat(live, name, Cause.OK)
        await sweep(leader)
        return all(
            place.owner == "well" for place in (await assignments.places(live, names)).values()
        )

    await eventually(all_moved)
    register(store, "new")
    names.append("new")
    await requests.ask(live, "fleet_changed")
    await sweep(leader)
    assert (await place(live, "new")).owner == "well", "the other one is barred"


async def test_one_database_unproven_moves_alone(
    live: Live, leader: Leader, watched: Watched, unproven_for: UnprovenFor
) -> None:
    await watched("orders", "ledger", "toys", "books", by=("w1", "w2"))
    before = {
        name: (await place(live, name)).owner for name in ("orders", "ledger", "toys", "books")
    }
    for name in ("ledger", "toys", "books"):
        await beat(live, name, Cause.OK)
    unproven_for(0.1)

    async def moved() -> bool:
        await sweep(leader)
        return (await place(live, "orders")).owner != before["orders"]

    await eventually(moved)
    await sweep(leader)
    assert (await place(live, "orders")).owner != before.pop("orders")
    stayed = [name for name, owner in before.items() if (await place(live, name)).owner == owner]
    assert len(stayed) >= 2, "at most one goes for balance"


async def test_the_only_worker_keeps_what_it_cannot_prove(
    live: Live, leader: Leader, watched: Watched, unproven_for: UnprovenFor
) -> None:
    await watched("orders")
    unproven_for(0.0)
    for _ in range(3):
        await sweep(leader)
    assert (await place(live, "orders")).owner == "w1"
