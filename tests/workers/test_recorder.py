"""The worker's writing hand on a real Redis: what it retains, restores and replays."""

import asyncio
import math
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from monitor.core.assignment import Assignment
from monitor.core.beat import Beat, Reply
from monitor.core.cause import Cause
from monitor.core.event import Transition
from monitor.core.machine import Context
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import Epoch, State, Status
from monitor.live import (
    assignments,
    connections,
    durability,
    generation,
    journal,
    observations,
    reasons,
)
from monitor.live.connections import Live
from monitor.live.keys import PARTITIONS, partition_key
from tests.fixtures import Become, StartProxy
from tests.waiting import eventually
from workers.worker import recorder as module
from workers.worker.pulse import Pulse
from workers.worker.recorder import Recorder

DB, EPOCH = "orders", Epoch(1, 2)
MANY = 200


@pytest.fixture
async def recorder(live: Live) -> Recorder:
    """A recorder that has entered the open generation and owns one database."""
    await opened(live, Epoch(1, 1))
    await assignments.assign(
        live, Assignment(DB, "w1", EPOCH), planned=False, now=1.0, seed=Status(), registry=""
    )
    recorder = Recorder(live, "w1", lambda: None)
    assert await recorder.follow_generation()
    recorder.learn(DB, EPOCH, Status())
    return recorder


async def opened(live: Live, epoch: Epoch) -> None:
    await generation.restore(live, "leader", [], epoch.term, "")
    assert await generation.open_generation(live, epoch, {"leader"}, "")


def observe(
    recorder: Recorder, cause: Cause, at: float, *, database: str = DB, detail: str = ""
) -> Beat:
    """Feel once, as the patrol would, and return the beat that would leave now."""
    holding = recorder.custody.holdings[database]
    seen = Observation(
        database=database, worker="w1", sent_at=at - 0.01, at=at, cause=cause, detail=detail
    )
    holding.observe(seen, Context(worker="w1", epoch=holding.epoch, policy=Policy(), eligible=2))
    return holding.beat(seen)


def felt(recorder: Recorder, at: float = 10.0) -> Beat:
    """Feel that it is there; the first time that is a transition."""
    return observe(recorder, Cause.OK, at)


def offer(recorder: Recorder, beat: Beat) -> Beat:
    recorder.offer(beat.observation)
    return beat


async def stored(live: Live) -> Status:
    return (await observations.latest(live, [DB]))[DB].status


def restorable(recorder: Recorder) -> Status:
    status, _ = recorder.custody.restorable()[DB]
    return status


async def events(live: Live) -> int:
    return (await journal.backlog(live))["length"]


async def test_what_the_server_said_is_told_with_the_beat(live: Live, recorder: Recorder) -> None:
    said = observe(recorder, Cause.PORT_CLOSED, 2.0, detail="ECONNREFUSED").observation
    recorder.offer(replace(said, revision=7))
    assert await recorder.flush()
    latest = await observations.latest(live, [DB])
    assert (await reasons.reasons(live, latest.values()))[DB].detail == "ECONNREFUSED"
    assert latest[DB].revision == 7


async def test_what_is_retained_for_an_hour_is_replayed_once_more(
    live: Live, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(recorder, felt(recorder))
    assert await recorder.flush()
    for group in journal.DURABLE:
        await journal.ensure(live, group)
    assert await journal.trim(live, await connections.now(live), limit=0) == 1, "by force"
    await recorder.forget_durable()
    await recorder.forget_durable()
    assert (recorder.retained, await events(live)) == (1, 0), "an hour has not passed"
    monkeypatch.setattr(module, "REPLAY_EVERY", 0.0)
    recorder._repeat_at = 0.0
    await recorder.forget_durable()
    assert (recorder.retained, await events(live)) == (1, 1)
    [entry] = await journal.read(live, "historian", "one", count=100, block=0.1)
    assert (await observations.counters(live))["replayed"] == 1
    assert isinstance(entry.event, Transition)
    await durability.mark_durable(live, [(DB, entry.event.identity)], 1.0)
    await recorder.forget_durable()
    assert recorder.retained == 0


async def test_an_answer_that_comes_after_the_release_is_restored(
    live: Live, recorder: Recorder
) -> None:
    beat = felt(recorder)
    assert await observations.record(live, recorder.generation, "w1", [beat]) == [Reply.ACCEPTED]
    recorder.release(DB, None)  # the hash was read before
    assert (recorder.retained, restorable(recorder)) == (0, Status())
    recorder._take_reply(beat, Reply.ACCEPTED)
    assert (recorder.retained, restorable(recorder)) == (1, beat.status)
    await live.cache.flushall()
    await recorder.follow_generation()
    assert await stored(live) == beat.status, "restored"


async def test_a_release_looks_in_the_hash_for_what_was_accepted_without_an_answer(
    live: Live, recorder: Recorder
) -> None:
    beat = felt(recorder)
    assert await observations.record(live, recorder.generation, "w1", [beat]) == [Reply.ACCEPTED]
    recorder.release(DB, await stored(live))
    assert (recorder.retained, restorable(recorder)) == (1, beat.status)
    await live.cache.flushall()
    await recorder.follow_generation()
    assert await stored(live) == beat.status
    await opened(live, Epoch(1, 3))
    assert await recorder.follow_generation()
    assert await events(live) == 1, "replayed"


async def test_what_a_hash_told_to_be_accepted_is_replayed_with_no_new_generation(
    live: Live, recorder: Recorder
) -> None:
    beat = felt(recorder)
    assert await observations.record(live, recorder.generation, "w1", [beat]) == [Reply.ACCEPTED]
    recorder.learn(DB, Epoch(1, 3), await stored(live))
    for _ in range(2):
        await recorder.forget_durable()
        assert await events(live) == 2, "once more than it was recorded"


async def test_what_is_held_is_restored_with_no_beat_on_its_way(
    live: Live, recorder: Recorder
) -> None:
    await live.cache.flushall()
    offer(recorder, felt(recorder))
    async with recorder._exchange:  # a beat is on its way
        following = asyncio.create_task(recorder.follow_generation())
        recording = asyncio.create_task(recorder.flush())
        assert (await asyncio.wait({following, recording}, timeout=0.3))[0] == set()
        assert await generation.reported(live) == set()
    await asyncio.wait({following, recording})

    async def told() -> bool:
        return await generation.reported(live) == {"w1"}

    await eventually(told, within=5)


async def test_a_hash_that_is_older_than_what_was_accepted_takes_nothing_back(
    live: Live, recorder: Recorder
) -> None:
    beat = offer(recorder, felt(recorder))
    assert await recorder.flush()
    await live.cache.flushall()
    await opened(live, Epoch(1, 3))  # without us
    later = Epoch(1, 4)
    await assignments.assign(
        live, Assignment(DB, "w1", later), planned=False, now=1.0, seed=Status(), registry=""
    )
    assert (await stored(live)).state is State.NEW
    recorder.learn(DB, later, await stored(live))
    assert recorder.custody.holdings[DB].accepted == beat.status
    recorder.custody.generation = (await generation.generation(live)).name
    offer(recorder, felt(recorder, 20.0))
    assert await recorder.flush()
    assert (await stored(live)).identity == beat.status.identity, "the next beat brings the hash up"


async def given(live: Live, recorder: Recorder, database: str, epoch: Epoch) -> None:
    """Make the recorder's worker the owner of one more database."""
    await assignments.assign(
        live, Assignment(database, "w1", epoch), planned=False, now=1.0, seed=Status(), registry=""
    )
    recorder.learn(database, epoch, Status())


async def flapped(live: Live, recorder: Recorder) -> None:
    """Let many databases flap, each with 60 events, and offer their newest observations."""
    for i in range(MANY):
        name = f"db-{i}"
        await given(live, recorder, name, Epoch(1, 10 + i))
        for n in range(40):
            cause = Cause.PORT_CLOSED if n % 2 else Cause.OK
            beat = observe(recorder, cause, 10.0 + 10 * n, database=name)
        offer(recorder, beat)
    recorder.pulse = Pulse(lambda: None)  # all that took its time


async def test_a_batch_is_bounded_by_its_bytes(live: Live, recorder: Recorder) -> None:
    await flapped(live, recorder)
    batches = 0
    while recorder._outbox:
        taken = recorder._take()
        assert sum(map(observations.weight, taken)) <= module.BYTES
        assert await recorder.flush()
        batches += 1
    assert batches > 3
    assert recorder.retained == MANY * 40
    assert await events(live) == MANY * 60


async def test_a_batch_that_takes_too_long_is_halved_and_the_others_go_first(
    live: Live, recorder: Recorder, redis_url: str, start_proxy: StartProxy
) -> None:
    await flapped(live, recorder)
    proxy = start_proxy(urlsplit(redis_url).port or 0)
    recorder._live = connections.connect(proxy.url(redis_url))
    proxy.mode = "deaf"
    before, first = recorder._bytes, next(iter(recorder._outbox))
    assert not await recorder.flush()
    assert (recorder._bytes, next(iter(recorder._outbox)) != first) == (before // 2, True)
    for _ in range(2):
        assert not await recorder.flush()
    assert recorder._bytes == before // 8
    proxy.mode = "pass"

    async def recorded() -> bool:
        await recorder.flush()
        return not recorder._outbox

    await eventually(recorded, within=30)
    assert recorder._bytes == module.BYTES
    await connections.close(recorder._live)


async def test_what_a_newer_observation_replaces_is_counted(live: Live, recorder: Recorder) -> None:
    seen = felt(recorder).observation
    recorder.offer(seen)
    assert recorder.replaced == 0
    recorder.offer(replace(seen, at=11.0))
    assert recorder.replaced == 1
    recorder._flying = dict(recorder._outbox)
    recorder.offer(replace(seen, at=12.0))
    assert recorder.replaced == 1, "the one before is on its way"
    recorder._flying = {}
    assert await recorder.flush()
    assert (await observations.latest(live, [DB]))[DB].at == 12.0


async def test_a_report_ends_when_the_generation_is_open(live: Live, recorder: Recorder) -> None:
    """Each life of a worker would leave one behind in every partition."""
    for i in range(3):
        assert await Recorder(live, f"w-{i}", lambda: None).follow_generation()
    kept = [
        await live.cache.hgetall(partition_key(number, "reports")) for number in range(PARTITIONS)
    ]
    assert kept == [{}] * PARTITIONS
    assert await generation.reported(live) == set()


async def test_a_worker_that_owned_nothing_follows_a_registry_whose_terms_were_lower(
    live: Live,
) -> None:
    """It tells the term it saw, so that the leader takes one above; else it would never follow, and
    be given work.
    """
    await opened(live, Epoch(7, 3))
    idle = Recorder(live, "idle", lambda: None)
    assert await idle.follow_generation()
    await live.cache.flushall()
    assert not await idle.follow_generation()
    assert (await generation.standing(live)).term == 7
    await generation.restore(live, "leader", [], 1, "")
    assert await generation.open_generation(live, Epoch(1, 1), {"leader"}, "") is None
    await opened(live, Epoch(8, 1))
    assert await idle.follow_generation()


async def test_a_process_that_was_frozen_says_nothing_before_it_has_looked(
    live: Live, recorder: Recorder
) -> None:
    offer(recorder, felt(recorder))
    assert await recorder.flush()
    offer(recorder, felt(recorder, 11.0))
    recorder.pulse._last -= 4.0
    assert await recorder.flush(), "there is nothing to say"
    assert (await observations.latest(live, [DB]))[DB].at == 10.0
    recorder.learn(DB, EPOCH, await stored(live))
    offer(recorder, felt(recorder, 12.0))
    assert await recorder.flush()
    assert (await observations.latest(live, [DB]))[DB].at == 12.0


async def test_a_twin_is_told_so_and_says_nothing_more(
    live: Live, recorder: Recorder, become: Become
) -> None:
    offer(recorder, felt(recorder))
    become("the first")
    assert await recorder.flush()
    assert not recorder.twin.is_set()
    offer(recorder, felt(recorder, 11.0))
    become("the second")
    assert await recorder.flush()
    assert (recorder.twin.is_set(), recorder.custody.must_learn(DB)) == (True, True)
    assert (await observations.latest(live, [DB]))[DB].at == 10.0


async def test_hours_without_redis_leave_one_request_of_each_doubt(
    live: Live, recorder: Recorder
) -> None:
    """500 databases that asked every 10 s for 3 hours were never recorded again."""
    for i in range(20):
        name = f"db-{i}"
        await given(live, recorder, name, Epoch(1, 10 + i))
        for n in range(400):
            beat = observe(recorder, Cause.PORT_CLOSED, 10.0 + 10 * n, database=name)
        offer(recorder, beat)
    recorder.pulse = Pulse(lambda: None)  # all that took its time
    assert await recorder.flush()
    assert (recorder._outbox, await events(live)) == ({}, 20 * 2), "the doubt, and the newest one"


async def test_a_late_report_of_an_earlier_closing_stands_for_no_restore(
    live: Live, recorder: Recorder
) -> None:
    beat = offer(recorder, felt(recorder))
    assert await recorder.flush()
    await live.cache.flushall()
    await recorder.follow_generation()
    await opened(live, Epoch(1, 3))
    assert await recorder.follow_generation()
    await live.cache.flushall()
    assert await generation.restore(live, "w1", [], 1, ""), "it comes late, without the beat"
    await recorder.follow_generation()
    assert await stored(live) == beat.status


async def test_what_is_found_while_others_are_replayed_twice_at_once_is_replayed_next(
    live: Live, recorder: Recorder
) -> None:
    """A worker that leaves replays beside its own routine."""
    for number, database in enumerate((DB, "ledger"), 10):
        await given(live, recorder, database, Epoch(1, number))
    recorder._repeat_at = math.inf  # what an hour brings is another test's
    beats = [observe(recorder, Cause.OK, 10.0, database=name) for name in (DB, "ledger")]
    accepted = await observations.record(live, recorder.generation, "w1", beats)
    assert accepted == [Reply.ACCEPTED] * 2
    recorder.learn(DB, Epoch(1, 20), beats[0].status)
    [first] = recorder.custody.found
    both = asyncio.gather(recorder.forget_durable(), recorder.forget_durable())
    await asyncio.sleep(0)  # both are waiting for Redis
    recorder.learn("ledger", Epoch(1, 21), beats[1].status)
    await both
    [second] = recorder.custody.found
    assert (first.database, second.database) == (DB, "ledger")
    await recorder.forget_durable()
    assert (recorder.custody.found, await events(live)) == ((), 2 + 2 + 1)
