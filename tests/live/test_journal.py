"""The journal: groups that survive a flush, entries that survive their consumers, trimming that
loses nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest
from redis.exceptions import ResponseError

from monitor.core.event import CannotReach, Event, Transition
from monitor.core.status import State, Status
from monitor.core.timing import REDIS_TIMEOUT
from monitor.live import journal, observations
from monitor.live.connections import Live
from monitor.live.keys import PARTITIONS, partition, partition_key
from tests.factories import DB, NOW, W1, beat, cannot_reach, doubted, status, transition
from tests.live.builders import given, opened, reply_to
from tests.servers import RedisServer

NAMES = [f"db{i}" for i in range(40)]


async def happen(
    live: Live, name: str, databases: list[str], under: str = "1.2"
) -> list[Transition]:
    """Let a first transition happen to each of these."""
    events = []
    for database in databases:
        await given(live, under, database=database, seed=Status())
        events.append(transition(f"{under}.1", database=database))
    beats = [
        beat(under, status(f"{under}.1", State.AVAILABLE), one, database=one.database)
        for one in events
    ]
    assert {v.value for v in await observations.record(live, name, W1, beats)} == {"accepted"}
    return events


async def read(
    live: Live, group: str = "historian", consumer: str = "one", *, count: int = 1000
) -> list[journal.Entry]:
    return await journal.read(live, group, consumer, count=count, block=0)


def by_name(entries: list[journal.Entry]) -> list[Event]:
    return sorted((entry.event for entry in entries), key=lambda event: NAMES.index(event.database))


async def test_every_group_gets_everything_once_from_the_beginning(live: Live, name: str) -> None:
    events = await happen(live, name, NAMES)
    found = await read(live)
    assert by_name(found) == events
    assert {entry.partition for entry in found} == {partition(database) for database in NAMES}
    assert all(entry.partition == partition(entry.event.database) for entry in found)
    assert await read(live, consumer="two") == []
    assert by_name(await read(live, group="supervisor")) == events


async def test_events_of_a_row_come_in_order(live: Live, name: str) -> None:
    await given(live, "1.2", seed=Status())
    events = (transition("1.2.1", target=State.UNCERTAIN), cannot_reach("1.2.1"))
    await reply_to(live, name, W1, beat("1.2", doubted("1.2.1"), *events))
    found = [entry.event for entry in await read(live)]
    assert found == list(events)
    assert isinstance(found[1], CannotReach)


async def test_a_read_waits_for_news_and_no_longer(live: Live, name: str) -> None:
    await journal.ensure(live, "historian")
    started = time.monotonic()
    assert await journal.read(live, "historian", "one", count=10, block=0.3) == []
    assert 0.25 <= time.monotonic() - started < 1.0
    waiting = asyncio.create_task(journal.read(live, "historian", "one", count=10, block=5))
    await asyncio.sleep(journal.LOOK_EVERY)  # it has looked at least once, in vain
    events = await happen(live, name, ["db7"])
    async with asyncio.timeout(5 * journal.LOOK_EVERY):
        assert [entry.event for entry in await waiting] == events


async def test_a_wait_may_be_longer_than_the_deadline_of_other_commands(
    live: Live, name: str
) -> None:
    assert await journal.read(live, "historian", "one", count=10, block=1.5) == []


async def test_a_read_outwaits_a_stall_of_redis(
    live: Live, name: str, redis_server: RedisServer
) -> None:
    """What a stalled server hands out after its reader has hung up is claimed much later."""
    reading = asyncio.create_task(journal.read(live, "historian", "one", count=10, block=5))
    await asyncio.sleep(journal.LOOK_EVERY)  # it has looked at least once
    redis_server.freeze()
    await asyncio.sleep(REDIS_TIMEOUT * 1.5)  # other commands give up
    redis_server.thaw()
    events = await happen(live, name, ["db7"])
    assert [entry.event for entry in await reading] == events


async def test_a_partition_that_cannot_be_read_takes_nothing_from_the_others(
    live: Live, name: str
) -> None:
    events = await happen(live, name, ["db7"])
    await journal.ensure(live, "historian")
    other = (partition("db7") + 1) % PARTITIONS
    await live.cache.set(partition_key(other, "journal"), "no stream")
    assert [entry.event for entry in await read(live)] == events
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await read(live)


async def test_groups_are_made_again_after_redis_lost_its_memory(live: Live, name: str) -> None:
    await happen(live, name, NAMES[:3])
    assert len(await read(live)) == 3
    await live.cache.flushall()
    assert await journal.claim(live, "historian", "one", idle=0) == []
    again = await opened(live, "1.5")
    events = await happen(live, again, NAMES[:3], under="1.6")
    assert by_name(await read(live)) == events


async def test_one_missing_group_is_made_and_the_others_go_on_where_they_were(
    live: Live, name: str
) -> None:
    await happen(live, name, NAMES)
    await journal.ack(live, "historian", await read(live))
    await live.cache.delete(partition_key(partition("db1"), "journal"))
    assert await read(live) == []
    event = transition("1.2.2", prev="1.2.1", database="db1")
    await reply_to(
        live, name, W1, beat("1.2", status("1.2.2", State.REFUSING), event, database="db1")
    )
    assert [entry.event for entry in await read(live)] == [event]


async def test_what_a_dead_consumer_took_is_claimed_until_it_is_acknowledged(
    live: Live, name: str
) -> None:
    events = await happen(live, name, NAMES)
    await read(live, consumer="dead")
    assert await journal.claim(live, "historian", "heir", idle=60) == []
    claimed = await journal.claim(live, "historian", "heir", idle=0)
    assert by_name(claimed) == events
    await journal.ack(live, "historian", claimed)
    assert await journal.claim(live, "historian", "third", idle=0) == []
    backlog = await journal.backlog(live)
    assert backlog["length"] == 40
    assert backlog["historian_pending"] == backlog["historian_lag"] == 0


async def test_the_backlog_is_summed_over_partitions(live: Live, name: str) -> None:
    assert await journal.backlog(live) == {"length": 0, "dead": 0}
    await happen(live, name, NAMES)
    await journal.ensure(live, "supervisor")
    taken = await read(live)
    await journal.ack(live, "historian", taken[:15])
    assert await journal.backlog(live) == {
        "length": 40, "dead": 0,
        "historian_pending": 25, "historian_lag": 0, "supervisor_pending": 0, "supervisor_lag": 40,
    }  # fmt: skip


# --- trim -----------------------------------------------------------------------------------------


async def lengths(live: Live) -> int:
    return sum(
        [await live.cache.xlen(partition_key(number, "journal")) for number in range(PARTITIONS)]
    )


async def test_nothing_is_trimmed_before_the_durable_groups_exist(live: Live, name: str) -> None:
    await happen(live, name, NAMES)
    assert await journal.trim(live, NOW) == 0
    await journal.ack(live, "supervisor", await read(live, "supervisor"))
    assert await journal.trim(live, NOW) == 0
    assert await lengths(live) == 40


async def test_only_what_every_group_acknowledged_is_trimmed(live: Live, name: str) -> None:
    """Taken is not acknowledged, and acknowledged by one is not acknowledged by all."""
    for i in range(10):
        await happen(live, name, [DB], under=f"1.{i + 2}") if i == 0 else await another(
            live, name, i
        )
    mine = await read(live)
    await read(live, "supervisor")
    await journal.ensure(live, "notifier")
    await journal.ack(live, "historian", [*mine[:4], *mine[6:]])
    assert await journal.trim(live, NOW) == 0, "the supervisor owes all ten"
    await journal.ack(live, "supervisor", mine)
    assert await journal.trim(live, NOW) == 0, "the notifier has not begun"
    await journal.ack(live, "notifier", await read(live, "notifier"))
    assert await journal.trim(live, NOW) == 4, "the historian owes the fifth and sixth"
    left = await live.cache.xrange(partition_key(partition(DB), "journal"))
    assert [id_ for id_, _ in left] == [entry.id for entry in mine[4:]]
    claimed = await journal.claim(live, "historian", "heir", idle=0)
    assert [entry.id for entry in claimed] == [entry.id for entry in mine[4:6]]
    await journal.ack(live, "historian", claimed)
    assert await journal.trim(live, NOW) == 5, "the last one delivered stays"
    assert (await observations.counters(live))["trimmed"] == 9


async def another(live: Live, name: str, i: int) -> None:
    one = transition(f"1.2.{i + 1}", prev=f"1.2.{i}")
    after = status(f"1.2.{i + 1}", State.AVAILABLE)
    assert await reply_to(live, name, W1, beat("1.2", after, one, at=NOW + i)) == "accepted"


async def test_beyond_the_limit_entries_go_loudly(
    live: Live, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await happen(live, name, [DB])
    for i in range(1, 10):
        await another(live, name, i)
    await journal.ensure(live, "historian")
    with caplog.at_level(logging.ERROR, logger="feeler.live"):
        assert await journal.trim(live, NOW, limit=7) == 3
    assert "action=journal_trimmed_unacknowledged entries=3" in caplog.text
    assert (await observations.counters(live))["trimmed_unacknowledged"] == 3
    assert len(await read(live)) == 7


async def test_consumers_that_owe_nothing_are_removed_when_they_are_gone_for_long(
    live: Live, name: str
) -> None:
    await happen(live, name, [DB])
    await read(live, consumer="owes")
    key = partition_key(partition(DB), "journal")
    await live.cache.xgroup_createconsumer(key, "historian", "free")
    await journal.trim(live, NOW)
    assert {one["name"] for one in await live.cache.xinfo_consumers(key, "historian")} == {
        "owes",
        "free",
    }
    args = (journal.LIMIT, "0", -1, *journal.DURABLE)
    keys = [partition_key(partition(DB), kind) for kind in ("journal", "durable", "counters")]
    await journal.steps.run(live.cache, journal._TRIM, [(keys, args)])
    assert {one["name"] for one in await live.cache.xinfo_consumers(key, "historian")} == {"owes"}


async def test_two_consumers_of_a_group_share_the_work(
    live: Live, name: str, connect: Callable[..., Live], redis_url: str
) -> None:
    await journal.ensure(live, "historian")
    await happen(live, name, NAMES)
    other = connect(redis_url)
    parts = await asyncio.gather(
        journal.read(live, "historian", "one", count=16, block=0.2),
        journal.read(other, "historian", "two", count=16, block=0.2),
    )
    ids = [(entry.partition, entry.id) for part in parts for entry in part]
    assert len(ids) == len(set(ids))
    assert all(parts)


async def test_an_entry_nobody_can_read_holds_up_nothing(
    live: Live, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await journal.ensure(live, "historian")
    key = partition_key(partition(name), "journal")
    for event in ('{"type":"gossip"}', "no JSON", '{"type":"transition","identity":"1.2"}'):
        await live.cache.xadd(key, {"event": event})
    await live.cache.xadd(key, {"other": "field"})
    assert await journal.read(live, "historian", "a", count=160, block=0.1) == []
    assert "entry_unreadable" in caplog.text
    assert (await live.cache.xpending(key, "historian"))["pending"] == 0
