"""Instances of Redis: what closes a generation, what restores bring together, who may open."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from monitor.core.cause import Cause
from monitor.core.generation import Signature
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Identity, State, Status
from monitor.live import (
    assignments,
    connections,
    durability,
    generation,
    journal,
    observations,
    steps,
    targets,
)
from monitor.live.connections import Live
from monitor.live.generation import Restored, Standing
from monitor.live.keys import PARTITIONS, database_key, partition, partition_key
from tests.factories import DB, NOW, W1, W2, beat, epoch, identity, status, transition
from tests.fixtures import StartRedis
from tests.live.builders import everything, given, namesakes, opened, reply_to, stored

UP = State.AVAILABLE
Report = tuple[list[Restored], int, Signature]


async def test_an_empty_redis_is_closed(live: Live) -> None:
    found = await generation.generation(live)
    assert not found.open
    assert found.epoch is None
    assert len(found.instance) == 40


async def test_open_in_all_partitions_or_closed(live: Live) -> None:
    name = await opened(live, "3.7")
    found = await generation.generation(live)
    assert found.open
    assert found.name == name == f"{found.instance}:3.7"
    assert found.epoch == epoch("3.7")
    last = partition_key(PARTITIONS - 1, "generation")
    await live.cache.set(last, f"{found.instance}:3.8")
    assert not (await generation.generation(live)).open
    await live.cache.delete(last)
    assert not (await generation.generation(live)).open
    await live.cache.set(last, name)
    assert (await generation.generation(live)).open
    await live.cache.flushall()
    assert not (await generation.generation(live)).open


async def test_a_restart_that_kept_its_data_closes_the_generation(
    start_redis: StartRedis, connect: Callable[..., Live]
) -> None:
    """As a failover does: the key is there, the server is another."""
    server = start_redis()
    live = connect(server.url)
    name = await opened(live)
    await given(live, "1.2", seed=Status())
    assert await reply_to(live, name, W1, beat("1.2", status())) == "accepted"
    server.stop()
    server.start()
    live = connect(server.url)
    assert await live.cache.get(partition_key(partition(DB), "generation")) == name
    assert not (await generation.generation(live)).open
    assert await generation.reported(live) == set()
    assert await reply_to(live, name, W1, beat("1.2", status(), at=NOW + 1)) == "closed"
    assert (await stored(live))["observed_at"] == f"{NOW:.3f}"
    event = transition("1.1.1")
    assert not await durability.replay(live, name, [event])
    assert await journal.backlog(live) == {"length": 0, "dead": 0}
    again = await opened(live, "1.3")
    await given(live, "1.4")
    assert again != name
    assert await reply_to(live, again, W1, beat("1.4", status(), at=NOW + 2)) == "accepted"


async def test_whoever_has_entered_a_newer_generation_ends_an_older_one(live: Live) -> None:
    name = await opened(live, "2.9")
    await given(live, "2.10")
    for entered in ("2.9", "1.11"):
        await generation.close_generation(live, epoch(entered), 5)
        assert (await generation.generation(live)).name == name
    assert (await generation.standing(live)).term == 2
    await generation.close_generation(live, epoch("2.10"), 5)
    assert not (await generation.generation(live)).open
    assert (await generation.standing(live)).term == 5
    assert await reply_to(live, name, W1, beat("2.10", status(), at=NOW)) == "closed"
    await generation.close_generation(live, epoch("9.9"), 9)
    assert (await generation.standing(live)).term == 5, "there was nothing to end"


# --- terms ----------------------------------------------------------------------------------------


async def test_terms_are_signed_by_the_registry_that_gave_them(live: Live) -> None:
    assert await generation.lead(live, 4, "")
    assert (await generation.standing(live)).signature == Signature()
    assert await generation.lead(live, 4, "ours")
    assert await generation.standing(live) == Standing(4, frozenset({Signature(0, "ours")}))


async def test_a_leader_of_another_registry_is_refused_by_every_step(live: Live) -> None:
    """Whatever its term: it may be the higher one, or the very same."""
    await generation.lead(live, 3, "ours")
    await given(live, "3.1", registry="ours")
    before = await everything(live, but=[":counters"])
    for term in (3, 9):
        assert not await generation.lead(live, term, "theirs")
        assert not await generation.restore(
            live, "theirs", [row("9.9.9", "", database="toy")], term, "theirs"
        )
        assignment = assignments.Assignment(DB, W2, Epoch(term, 9))
        told = await assignments.assign(live, assignment, planned=False, now=NOW, registry="theirs")
        assert told is assignments.Assigned.FOREIGN
        assert not await assignments.unassign(live, DB, term, "theirs")
        assert not await assignments.forget(live, DB, term, "theirs")
        assert not await targets.publish(
            live, DB, targets.Target("x", Policy(), {}, 99), term, "theirs"
        )
        assert await generation.open_generation(live, Epoch(term, 9), (), "theirs") is None
    assert await everything(live, but=[":counters"]) == before


async def test_the_registry_is_restored_with_the_term(live: Live) -> None:
    await generation.restore(live, W1, (), 7, Signature(0, "ours"))
    standing = await generation.standing(live)
    assert (standing.term, standing.holder("ours"), standing.holder("theirs")) == (7, "", "ours")
    await generation.restore(live, "leader", (), 7, "ours")
    assert await generation.open_generation(live, epoch("7.1"), {"leader"}, "ours")
    await generation.restore(live, W2, (), 7, Signature(0, "zebra"))
    assert (await generation.standing(live)).signature == Signature(0, "ours"), "it is open"
    await generation.restore(live, W2, (), 7, Signature(1, "heirs"))
    assert (await generation.standing(live)).signature == Signature(1, "heirs"), "it was taken over"


async def test_a_leader_signs_and_a_generation_tells_by_whom(live: Live) -> None:
    await generation.restore(live, "leader", (), 1, "ours")
    assert (await generation.generation(live)).signature == Signature()
    assert await generation.lead(live, 1, "ours")
    assert (await generation.generation(live)).signature == Signature(0, "ours")


async def test_of_two_registries_that_claim_an_empty_redis_one_has_it_wholly(live: Live) -> None:
    await live.cache.set(partition_key(0, "registry"), "theirs 0")  # half a millisecond earlier
    assert not await generation.lead(live, 9, "ours")
    standing = await generation.standing(live)
    assert (standing.term, standing.holder("ours"), standing.holder("theirs")) == (0, "theirs", "")
    assert await generation.lead(live, 1, "theirs")
    assert (await generation.standing(live)).signatures == {Signature(0, "theirs")}


async def test_of_two_who_adopt_at_once_one_has_it(live: Live) -> None:
    await generation.lead(live, 3, "ours")
    assert await generation.take_over(live, "heirs", 1)
    assert await generation.take_over(live, "heirs", 1), "its reply may have been lost"
    assert not await generation.take_over(live, "others", 1)
    assert not await generation.lead(live, 9, "ours")
    assert await generation.lead(live, 4, "heirs")


def test_a_signature_of_a_newer_version_is_read() -> None:
    assert Signature.parse("ours 3 since-yesterday") == Signature(3, "ours")
    assert Signature.parse("ours") == Signature(0, "ours")
    assert Signature.parse("") == Signature()


async def test_a_term_only_rises(live: Live) -> None:
    assert (await generation.standing(live)).term == 0
    assert await generation.lead(live, 4, "")
    assert not await generation.lead(live, 3, "")
    assert await generation.lead(live, 4, "")
    assert (await generation.standing(live)).term == 4
    await generation.restore(live, W1, (), 9, "")
    await generation.restore(live, W2, (), 2, "")
    assert (await generation.standing(live)).term == 9
    assert {
        await live.cache.get(partition_key(number, "term")) for number in range(PARTITIONS)
    } == {"9"}


# --- restore --------------------------------------------------------------------------------------


def row(which: str, under: str, state: State = UP, owner: str = W1, database: str = DB) -> Restored:
    return Restored(database, status(which, state), epoch(under) if under else None, owner)


async def test_the_highest_identity_and_the_highest_claim_win(live: Live) -> None:
    await generation.restore(live, W1, [row("1.10.2", "1.10")], 1, "")
    await generation.restore(live, W2, [row("1.9.7", "1.11", State.REFUSING, W2)], 1, "")
    await generation.restore(live, "leader", [row("1.2.1", "", State.LOCKED_OUT, "leader")], 2, "")
    place = (await assignments.places(live, [DB]))[DB]
    assert (place.identity, place.state, place.seeded) == (identity("1.10.2"), UP, True)
    assert (place.claimant, place.claim, place.owner) == (W2, epoch("1.11"), "")
    assert await observations.names(live) == [DB]


async def test_a_memory_that_comes_late_counts_if_it_is_newer_than_all_that_happened(
    live: Live, name: str
) -> None:
    await given(live, "1.20", seed=status("1.3.1"))
    assert await generation.restore(live, W1, [row("1.9.9", "1.9", State.REFUSING)], 0, "")
    place = (await assignments.places(live, [DB]))[DB]
    assert (place.identity, place.state) == (identity("1.9.9"), State.REFUSING)
    assert place.epoch == epoch("1.20")
    stale = beat("1.20", status("1.20.1"), transition("1.20.1", "1.3.1"))
    assert await reply_to(live, name, W1, stale) == "ahead"
    assert W1 in await generation.reported(live)


async def test_a_memory_that_comes_late_takes_nothing_back(live: Live, name: str) -> None:
    await given(live, "1.20", seed=status("1.20.1"))
    before = await everything(live, but=[":reports", ":term"])
    unknown = Restored("unknown", status("1.9.9"), epoch("1.9"), W1)
    assert await generation.restore(live, W1, [row("1.9.9", "1.9", State.REFUSING), unknown], 9, "")
    assert await everything(live, but=[":reports", ":term"]) == before
    assert (await generation.standing(live)).term == 9


async def test_a_large_memory_goes_in_parts_and_is_reported_at_the_end(live: Live) -> None:
    rows = [row(f"1.{i}.1", f"1.{i}", database=f"db{i}") for i in range(1, 12_001)]
    assert await generation.restore(live, W1, rows, 1, "")
    assert await generation.reported(live) == {W1}
    places = await assignments.places(live, [one.database for one in rows])
    assert all(places[one.database].identity == one.status.identity for one in rows)


async def test_a_wipe_in_the_middle_of_a_report_is_noticed(live: Live) -> None:
    instance = (await generation.generation(live)).instance
    number = partition(DB)
    middle = generation._restore_call(
        number, (instance, W1, 10**9, "middle", 1, ""), [row("1.2.1", "1.2")]
    )
    assert await observations.steps.run(live.cache, generation._RESTORE, [middle]) == [0]
    first = generation._restore_call(
        number, (instance, W1, 10**9, "first", 1, ""), [row("1.2.1", "1.2")]
    )
    last = generation._restore_call(number, (instance, W1, 10**9, "last", 1, ""), [])
    other = generation._restore_call(number, (instance, W1, 10**9 + 1, "last", 1, ""), [])
    steps = [
        await observations.steps.run(live.cache, generation._RESTORE, [one])
        for one in (first, other, middle, last)
    ]
    assert steps == [[1], [0], [1], [1]]
    report = await live.cache.hget(partition_key(number, "reports"), W1)
    assert report == f"{instance} {10**9} done"


@pytest.mark.parametrize("rows", [0, 1, 600])
async def test_no_request_that_comes_late_stands_for_a_whole_report(
    live: Live, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """A worker gave a report up in a first closed period; Redis executes one of its requests in the
    next.
    """
    run, sent = steps.run, []

    async def noted(client: Redis, script: steps.Step, calls: Sequence[steps.Call]) -> list[object]:
        sent.extend(calls)
        return await run(client, script, calls)

    monkeypatch.setattr(steps, "run", noted)
    names = namesakes(rows) if rows else []  # in one partition
    assert await generation.restore(
        live, W1, [row("1.2.1", "1.2", database=one) for one in names], 1, ""
    )
    assert await generation.reported(live) == {W1}
    instance = (await generation.generation(live)).instance
    for late in sent:
        await live.cache.flushall()
        await run(live.cache, generation._RESTORE, [late])
        reports = late[0][3]
        assert not generation._is_done(await live.cache.hget(reports, W1) or "", instance)


async def test_a_late_memory_counts_without_an_owner_but_not_after_retirement(
    live: Live, name: str
) -> None:
    await given(live, "1.20", seed=status("1.3.1"))
    await given(live, "1.21", database="retired", seed=status("1.3.1"))
    assert await assignments.unassign(live, DB, 1, "")  # no worker was there
    assert await assignments.forget(live, "retired", 1, "")
    memories = [
        row("1.9.9", "1.9", State.REFUSING),
        row("1.9.9", "1.9", State.REFUSING, database="retired"),
    ]
    assert await generation.restore(live, W1, memories, 0, "")
    places = await assignments.places(live, [DB, "retired"])
    assert (places[DB].identity, places[DB].state) == (identity("1.9.9"), State.REFUSING)
    assert places[DB].owner == ""
    assert not await live.cache.exists(database_key("retired"))


async def test_memories_of_another_instance_of_the_server_are_refused(live: Live) -> None:
    call = generation._restore_call(
        partition(DB), ("0" * 40, W1, 10**9, "first", 1, ""), [row("1.2.1", "1.2")]
    )
    assert await observations.steps.run(live.cache, generation._RESTORE, [call]) == [0]
    assert await live.cache.keys("*") == []


async def test_a_report_vanishes_with_what_it_reports(live: Live) -> None:
    await generation.restore(live, W1, [row("1.2.1", "1.2")], 1, "")
    await generation.restore(live, W2, (), 1, "")
    assert await generation.reported(live) == {W1, W2}
    await live.cache.delete(partition_key(3, "reports"))
    assert await generation.reported(live) == set()
    await generation.restore(live, W2, (), 1, "")
    assert await generation.reported(live) == {W2}


identities = st.none() | st.builds(
    Identity, st.builds(Epoch, st.integers(1, 2), st.integers(1, 11)), st.integers(1, 2)
)
memories = st.builds(
    Restored,
    database=st.sampled_from(["orders", "billing"]),
    status=st.builds(
        Status,
        state=st.sampled_from([UP, State.REFUSING]),
        since=st.sampled_from([NOW, NOW + 1]),
        identity=identities,
        ok_rounds=st.integers(0, 1),
        alive=st.sampled_from([None, Cause.STARTING]),
    ),
    epoch=st.none() | st.builds(Epoch, st.integers(1, 2), st.integers(1, 11)),
    owner=st.sampled_from([W1, W2]),
)
signatures = st.builds(Signature, st.integers(0, 2), st.sampled_from(["ours", "theirs"])) | st.just(
    Signature()
)
reports = st.lists(
    st.tuples(st.lists(memories, max_size=3), st.integers(1, 3), signatures), min_size=1, max_size=5
)


@pytest.mark.parametrize("kept", [False, True], ids=["empty", "kept"])
def test_restores_end_alike_in_any_order_and_repetition(redis_url: str, kept: bool) -> None:
    """`kept`: the hash survived (a restart from disk), and memories are merged into it."""

    @settings(max_examples=60, deadline=None)
    @for_all(reports, st.randoms(use_true_random=False))
    def check(restores: list[Report], random: object) -> None:
        shuffled = restores + restores[:2]
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert asyncio.run(ends(redis_url, restores, kept)) == asyncio.run(
            ends(redis_url, shuffled, kept)
        )

    check()


async def ends(redis_url: str, restores: list[Report], kept: bool) -> dict[str, object]:
    live = connections.connect(redis_url)
    try:
        await live.cache.flushall()
        if kept:
            await given(live, "1.5", seed=replace(status("1.5.1", UP), ok_rounds=1))
        calls = [generation.restore(live, f"w{i}", *report) for i, report in enumerate(restores)]
        assert all(await asyncio.gather(*calls))
        return await everything(live, but=[":reports"])
    finally:
        await connections.close(live)


# --- open -----------------------------------------------------------------------------------------


async def test_nobody_opens_against_a_higher_term(live: Live) -> None:
    await generation.restore(live, "leader", (), 2, "")
    await live.cache.set(partition_key(7, "term"), 3)
    assert await generation.open_generation(live, epoch("2.1"), {"leader"}, "") is None
    assert not (await generation.generation(live)).open
    assert (await generation.standing(live)).term == 3


async def test_nobody_opens_without_the_reports_it_rests_on(live: Live) -> None:
    await generation.restore(live, "leader", (), 1, "")
    assert await generation.open_generation(live, epoch("1.1"), {"leader", W1}, "") is None
    await generation.restore(live, W1, (), 1, "")
    await live.cache.flushall()
    await generation.restore(live, W1, (), 1, "")  # the worker was quicker than the leader
    assert await generation.open_generation(live, epoch("1.1"), {"leader", W1}, "") is None
    assert not (await generation.generation(live)).open


async def test_opening_again_after_a_lost_reply_is_the_same_opening(live: Live) -> None:
    name = await opened(live, "1.4")
    assert await generation.open_generation(live, epoch("1.4"), {"leader"}, "") == name
    assert await generation.open_generation(live, epoch("1.5"), {"leader"}, "") is None, (
        "reports serve one opening"
    )


async def test_a_leader_that_died_between_partitions_leaves_it_closed_until_the_next_opens_all(
    live: Live,
) -> None:
    await generation.restore(live, W1, [row("1.2.1", "1.2")], 1, "")
    await generation.restore(live, "one", (), 1, "")
    instance = (await generation.generation(live)).instance
    mine = partition(DB)
    keys = [partition_key(mine, kind) for kind in ("generation", "term", "reports", "registry")]
    await observations.steps.run(
        live.cache, generation._OPEN, [(keys, (f"{instance}:1.3", instance, 1, "", "one", W1))]
    )
    assert not (await generation.generation(live)).open
    assert await generation.reported(live) == set(), "what was opened wants its reports anew"
    await generation.restore(live, "two", (), 2, "")
    await generation.restore(live, W1, [row("1.1.1", "1.1")], 1, "")
    assert (await stored(live))["identity"] == "1.2.1"
    name = await generation.open_generation(live, epoch("2.1"), {"two", W1}, "")
    assert name == (await generation.generation(live)).name == f"{instance}:2.1"


async def test_a_flush_between_partitions_leaves_the_rest_closed(live: Live) -> None:
    await generation.restore(live, "leader", (), 1, "")
    instance = (await generation.generation(live)).instance
    args = (f"{instance}:1.3", instance, 1, "", "leader")
    calls = [
        (
            [partition_key(number, kind) for kind in ("generation", "term", "reports", "registry")],
            args,
        )
        for number in range(PARTITIONS)
    ]
    assert set(await observations.steps.run(live.cache, generation._OPEN, calls[:9])) == {"opened"}
    await live.cache.flushall()
    assert set(await observations.steps.run(live.cache, generation._OPEN, calls[9:])) == {
        "forgotten"
    }
    assert await live.cache.keys("*") == []


async def test_an_opening_meant_for_another_instance_of_the_server_is_refused(live: Live) -> None:
    await generation.restore(live, "leader", (), 1, "")
    other = "0" * 40
    keys = [partition_key(0, kind) for kind in ("generation", "term", "reports", "registry")]
    answer = await observations.steps.run(
        live.cache, generation._OPEN, [(keys, (f"{other}:1.1", other, 1, "", "leader"))]
    )
    assert answer == ["moved"]
