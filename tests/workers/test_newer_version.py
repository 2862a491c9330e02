"""Processes of this version beside a newer one: what it wrote stops nothing but its own row."""

import json
from contextlib import AsyncExitStack

from monitor.core.cause import Cause
from monitor.core.status import State
from monitor.live import durability, generation, letters, observations
from monitor.live.connections import Live
from monitor.live.keys import REQUESTS, database_key, partition, partition_key, presence_key
from monitor.registry.store import Store
from monitor.registry.transitions import read_transitions
from monitor.secrets import SecretBox
from tests.servers import PostgresServer
from tests.waiting import eventually
from tests.workers.test_leader import Arrive, Nudges, beat, lead, place, register, sweep
from tests.workers.test_patrol import OURS, assigned, opened, working
from workers.supervisor.historian import Historian
from workers.supervisor.sampler import Sampler


async def watched(live: Live, store: Store, arrive: Arrive, *names: str) -> None:
    """Let a first leader give databases to two workers, and each have an observation."""
    leader = lead(live, store, Nudges(), "first")
    register(store, *names)
    await arrive("w1", "w2")
    for _ in range(3):
        await sweep(leader)
    for name in names:
        await beat(live, name, Cause.OK)


async def test_a_leader_leads_on_past_a_state_it_does_not_know(
    live: Live, store: Store, arrive: Arrive
) -> None:
    await watched(live, store, arrive, "orders", "ledger")
    before = await place(live, "orders")
    await live.cache.hset(database_key("orders"), "state", "blind")
    told = json.loads(await live.bus.get(presence_key("w1")))
    await live.bus.set(presence_key("w9"), json.dumps(told | {"worker": "w9", "capacity": "many"}))
    await live.bus.zadd("feeler:workers", {"w9": 1.0})
    await live.bus.xadd(REQUESTS, {"kind": "dance", "database": "orders"})
    await live.cache.xadd(
        partition_key(partition("orders"), "journal"), {"event": '{"type":"blinded"}'}
    )
    register(store, "new")
    leader = lead(live, store, Nudges(), "second")
    await leader.listen()
    for _ in range(3):
        await sweep(leader)
    assert (await place(live, "new")).owner in {"w1", "w2"}
    assert (await place(live, "orders")).owner == before.owner, "not free for the taking"
    await live.bus.delete(presence_key(before.owner))
    leader._roster.steady_since = 0.0
    await sweep(leader)
    assert (await place(live, "orders")).owner == ({"w1", "w2"} - {before.owner}).pop(), (
        "nor lost with its owner"
    )


async def test_a_state_taken_out_by_hand_comes_back_from_the_history(
    live: Live, store: Store, arrive: Arrive
) -> None:
    await watched(live, store, arrive, "orders")
    while await Historian(live, store, "h").drain():
        pass
    await live.cache.hset(database_key("orders"), "state", "blind")
    await live.cache.hdel(database_key("orders"), "state")
    await sweep(lead(live, store, Nudges(), "second"))
    assert (await observations.held(live, ["orders"]))["orders"].status.state is State.AVAILABLE


async def test_a_worker_watches_what_it_can_read(
    live: Live, postgres_server: PostgresServer
) -> None:
    url, box = postgres_server.superuser_url(), SecretBox([OURS])
    await opened(live)
    for i, name in enumerate(("orders", "ledger")):
        await assigned(live, name, box.seal(name, url), i + 2)
    await live.cache.hset(database_key("orders"), "state", "blind")
    async with AsyncExitStack() as stack:
        patrol = await working(stack, live)
        await patrol.reconcile()

        async def state() -> State | None:
            found = await observations.latest(live, ["orders", "ledger"])
            return found["ledger"].status.state if found.unreadable == {"orders"} else None

        async def is_available() -> bool:
            return await state() is State.AVAILABLE

        await eventually(is_available, within=10)
        assert await live.cache.hget(database_key("orders"), "state") == "blind", "left as it was"


async def test_samples_are_taken_of_what_can_be_read(
    live: Live, store: Store, arrive: Arrive
) -> None:
    await watched(live, store, arrive, "orders", "ledger")
    await live.cache.hset(database_key("orders"), "state", "blind")
    assert await Sampler(live, store).sample() == 1


async def test_a_historian_writes_the_others_and_the_letter_once_it_can(
    live: Live, store: Store, arrive: Arrive
) -> None:
    await watched(live, store, arrive, "orders", "ledger")
    key = partition_key(partition("orders"), "journal")
    [(entry, row)] = [
        (id_, row) for id_, row in await live.cache.xrange(key) if '"orders"' in row["event"]
    ]
    await live.cache.xdel(key, entry)
    blind = json.dumps(json.loads(row["event"]) | {"target": "blind"})
    await live.cache.xadd(key, {"event": blind})
    historian = Historian(live, store, "old")
    while await historian.drain():
        pass
    assert (len(read_transitions(store, "ledger")), read_transitions(store, "orders")) == (
        1,
        (),
    )
    [letter] = await letters.dead_letters(live)
    identities = [(name, (await place(live, name)).identity) for name in ("orders", "ledger")]
    durable = await durability.durable(
        live, [(name, identity) for name, identity in identities if identity]
    )
    assert {name for name, _ in durable} == {"ledger"}, "its worker retains the other"
    newer = letters.Letter(letter.partition, letter.entry, row["event"], letter.ids, letter.groups)
    assert await letters.revive(live, (await generation.generation(live)).name, [newer])
    while await historian.drain():
        pass
    [written] = read_transitions(store, "orders")
    assert written.transition.target is State.AVAILABLE
