"""Rows that a newer version wrote beside this one: each reader sets its own aside, counts it, and
reads the others.
"""

import json
import logging

import pytest

from monitor.core.cause import Cause
from monitor.core.event import encode
from monitor.core.policy import Policy
from monitor.core.status import State
from monitor.live import (
    assignments,
    generation,
    journal,
    letters,
    observations,
    presence,
    requests,
    targets,
)
from monitor.live.connections import Live
from monitor.live.keys import (
    PARTITIONS,
    REQUESTS,
    database_key,
    partition,
    partition_key,
    presence_key,
    target_key,
)
from monitor.live.targets import Target
from tests.factories import DB, W1, beat, status, transition
from tests.live.builders import given, reply_to

OTHER = "ledger"


@pytest.fixture
async def two(live: Live, name: str) -> str:
    """Two databases with a state, an observation and a target each."""
    for i, database in enumerate((DB, OTHER)):
        await targets.publish(
            live, database, Target("sealed", Policy(), {"env": "prod"}, 1), term=9, registry=""
        )
        await given(live, f"1.{i + 2}", database=database)
        first = transition(f"1.{i + 2}.1", database=database)
        after = status(f"1.{i + 2}.1", State.AVAILABLE)
        assert (
            await reply_to(live, name, W1, beat(f"1.{i + 2}", after, first, database=database))
            == "accepted"
        )
    return name


async def counted(live: Live, what: str) -> int:
    return (await observations.counters(live)).get(what, 0)


@pytest.mark.parametrize("fields", [
    {"state": "blind"}, {"since": "soon"}, {"identity": "1.2"},
    {"doubt": "x", "state": "uncertain"},
    {"epoch": "9.1.7"}, {"observed_at": "9e99"}, {"number": "many"}, {"family:database": "ok"},
])  # fmt: skip
async def test_observations(
    live: Live, two: str, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    await live.cache.hset(database_key(DB), mapping=fields)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            found = await observations.latest(live, [DB, OTHER, "unknown"])
            assert (set(found), found.unreadable) == ({OTHER}, {DB})
    assert await counted(live, "unreadable_database") == 1, "once, however often it is read"
    assert caplog.text.count("action=row_unreadable kind=database name=orders") == 1
    await live.cache.hset(
        database_key(DB), mapping={"state": "available", "since": "1", "epoch": "1.2"}
    )


async def test_a_row_that_can_be_read_again_is_no_longer_aside(live: Live, two: str) -> None:
    for _ in range(2):
        await live.cache.hset(database_key(DB), "state", "blind")
        assert (await observations.latest(live, [DB])).unreadable == {DB}
        await live.cache.hset(database_key(DB), "state", "available")
        assert (await observations.latest(live, [DB]))[DB].status.state is State.AVAILABLE
    assert await counted(live, "unreadable_database") == 2


async def test_a_cause_and_a_kind_of_reading_of_a_newer_version_are_told_as_they_are(
    live: Live, two: str
) -> None:
    await live.cache.hset(
        database_key(DB),
        mapping={"cause": "proxy_dreaming", "family:database": "postponed 1.0", "mood": "good"},
    )
    latest = (await observations.latest(live, [DB]))[DB]
    assert latest.cause == Cause("proxy_dreaming")
    assert [(one.family, one.status.value) for one in latest.readings] == [
        ("database", "postponed")
    ]


async def test_what_an_owner_learns_needs_no_observation(live: Live, two: str) -> None:
    """The next beat renews it; a state that is not known here nobody can go on from."""
    await live.cache.hset(database_key(DB), mapping={"observed_at": "9e99", "cause": "no word"})
    assert (await observations.held(live, [DB]))[DB].status.state is State.AVAILABLE
    await live.cache.hset(database_key(DB), "state", "blind")
    held = await observations.held(live, [DB, OTHER])
    assert (set(held), held.unreadable) == ({OTHER}, {DB})


async def test_bytes_that_are_no_text_spoil_their_own_row(live: Live, two: str) -> None:
    await live.cache.hset(database_key(DB), "state", b"\xff\xfe")
    found = await observations.latest(live, [DB, OTHER])
    assert (set(found), found.unreadable) == ({OTHER}, {DB})


@pytest.mark.parametrize(
    "fields", [{"state": "blind"}, {"epoch": "x"}, {"moves": "never"}, {"doubt": " "}]
)
async def test_places_keep_the_owner_of_what_cannot_be_read(
    live: Live, two: str, fields: dict[str, str]
) -> None:
    await live.cache.hset(database_key(DB), mapping=fields)
    places = await assignments.places(live, [DB, OTHER, "unknown"])
    assert [(one.owner, one.seeded, one.proven) for one in places.values()] == [
        (W1, True, True), (W1, True, True), ("", False, False),
    ]  # fmt: skip
    assert await counted(live, "unreadable_place") == 1


@pytest.mark.parametrize("fields", [
    {"policy": "[]"}, {"policy": '{"interval":"fast"}'}, {"labels": "7"},
                                    {"revision": "newest"}])  # fmt: skip
async def test_targets(live: Live, two: str, fields: dict[str, str]) -> None:
    await live.cache.hset(target_key(OTHER), "policy", json.dumps({"interval": 7, "mood": "calm"}))
    await live.cache.hset(target_key(DB), mapping=fields)
    found = await targets.targets(live, [DB, OTHER])
    assert (set(found), found.unreadable) == ({OTHER}, {DB})
    assert found[OTHER].policy == Policy(interval=7)


@pytest.mark.parametrize(
    "change", [{"capacity": "many"}, {"at": "now"}, {"at": 1e300}, {"worker": "w2"}, None, [7]]
)
async def test_presence(live: Live, change: object, arrive) -> None:
    await arrive("w1", "w2")
    told = json.loads(await live.bus.get(presence_key("w1")))
    await live.bus.set(presence_key("w2"), json.dumps(told | {"worker": "w2", "mood": "calm"}))
    await live.bus.set(
        presence_key("w1"), json.dumps(told | change if isinstance(change, dict) else change)
    )
    found = await presence.present(live)
    assert (set(found), found.unreadable) == ({"w2"}, {"w1"})


async def test_requests(live: Live) -> None:
    for fields in ({"kind": "dance", "database": DB}, {"verb": "observe"}, {"kind": "observe"}):
        await live.bus.xadd(REQUESTS, fields)
    await requests.ask(live, "observe", DB)
    assert [(one.kind, one.database) for one in await requests.take(live, "leader")] == [
        ("observe", DB)
    ]
    assert await counted(live, "unreadable_request") == 3


async def test_a_generation_of_an_unknown_form_is_closed(live: Live, name: str) -> None:
    for number in range(PARTITIONS):
        await live.cache.set(
            partition_key(number, "generation"), f"{name.partition(':')[0]}:eleven"
        )
    assert not (await generation.generation(live)).open


async def test_counters_of_an_unknown_form_are_left_out(live: Live, two: str) -> None:
    await live.cache.hset(partition_key(0, "counters"), "mood", "calm")
    assert await counted(live, "beats") == 2


# --- the journal ----------------------------------------------------------------------------------


async def unread(live: Live, *texts: str) -> list[letters.Letter]:
    """Put texts into the journal, let both groups read; return the dead letters."""
    for text in texts:
        await live.cache.xadd(partition_key(partition(DB), "journal"), {"event": text})
    for group in journal.DURABLE:
        assert await journal.read(live, group, "old", count=1600, block=0.1) == []
        assert (await live.cache.xpending(partition_key(partition(DB), "journal"), group))[
            "pending"
        ] == 0
    return await letters.dead_letters(live)


async def test_an_entry_that_cannot_be_read_becomes_a_letter_until_it_can(
    live: Live, name: str
) -> None:
    newer = json.loads(encode(transition("1.1.1"))) | {"target": "blind"}
    [one, two] = await unread(live, json.dumps(newer), "[7]")
    assert (one.event, one.groups) == (json.dumps(newer), ("historian", "supervisor"))
    assert two.event == "[7]"
    assert not one.readable
    assert await journal.trim(live, 0.0) == 1, "nobody owes it any more"
    assert (await journal.backlog(live))["dead"] == 4
    assert await counted(live, "dead_letters") == 4
    newer["target"] = "available"  # stands for a version that knows the state
    read = letters.Letter(one.partition, one.entry, json.dumps(newer), one.ids, one.groups)
    assert read.readable
    assert not await letters.revive(live, "", [read]), "the generation is closed"
    assert await letters.revive(live, name, [read])
    [entry] = await journal.read(live, "historian", "new", count=1600, block=0.1)
    assert entry.event == transition("1.1.1")
    assert await counted(live, "replayed") == 1
    assert await letters.dead_letters(live) == [two]


async def test_a_transition_with_fields_of_a_newer_version_is_read(live: Live, name: str) -> None:
    newer = json.loads(encode(transition("1.1.1"))) | {"zone": "eu"}
    await live.cache.xadd(
        partition_key(partition(DB), "journal"), {"event": json.dumps(newer), "mood": "calm"}
    )
    [entry] = await journal.read(live, "historian", "old", count=1600, block=0.1)
    assert entry.event == transition("1.1.1")
