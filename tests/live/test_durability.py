"""What is durable is known by identity; what is replayed goes to the journal alone."""

from monitor.core.status import Identity
from monitor.core.timing import DURABLE_REMEMBERED
from monitor.live import durability, journal, observations
from monitor.live.connections import Live
from monitor.live.keys import partition_key
from tests.factories import DB, NOW, epoch, transition
from tests.live.builders import opened

NAMES = [f"db{i}" for i in range(40)]


async def test_durable_transitions_are_known_by_identity(live: Live) -> None:
    one, two = Identity(epoch("1.2"), 1), Identity(epoch("1.2"), 2)
    await durability.mark_durable(live, [(DB, one), ("db1", two)], NOW)
    assert await durability.durable(live, [(DB, one), (DB, two), ("db1", one), ("db1", two)]) == {
        (DB, one),
        ("db1", two),
    }
    await durability.mark_durable(live, [("db1", two)], NOW + 10)
    await journal.trim(live, NOW + DURABLE_REMEMBERED + 5)
    assert await durability.durable(live, [(DB, one), ("db1", two)]) == {("db1", two)}
    assert await durability.durable(live, []) == set()
    await durability.mark_durable(live, [], NOW)


async def test_replayed_events_go_to_the_journal_alone(live: Live, name: str) -> None:
    events = [transition("1.1.1", database=database) for database in NAMES]
    assert await durability.replay(live, name, events)
    found = await journal.read(live, "historian", "one", count=1000, block=0)
    assert sorted(entry.event.database for entry in found) == sorted(NAMES)
    assert {entry.event for entry in found} == set(events)
    for entry in found:
        key = partition_key(entry.partition, "journal")
        [(_, fields)] = await live.cache.xrange(key, entry.id, entry.id)
        assert fields["replayed"] == "1"
    assert await observations.counters(live) == {"replayed": 40}
    assert await observations.latest(live, NAMES) == {}
    assert await durability.replay(live, name, [])


async def test_nothing_is_replayed_into_another_generation(live: Live, name: str) -> None:
    await opened(live, "1.8")
    assert not await durability.replay(live, name, [transition("1.1.1")])
    assert await journal.backlog(live) == {"length": 0, "dead": 0}


async def test_conflicts_in_postgres_are_counted(live: Live) -> None:
    await durability.count_conflicts(live, 2)
    await durability.count_conflicts(live, 1)
    assert await observations.counters(live) == {"identity_conflicts": 3}
