"""Who may assign, what an assignment leaves behind, and indexes that agree with the hashes."""

import asyncio

from monitor.core.assignment import Assignment
from monitor.core.placement import Assigned, Place
from monitor.core.policy import Policy
from monitor.core.status import Identity, State, Status
from monitor.live import assignments, generation, observations, targets
from monitor.live.connections import Live
from monitor.live.generation import Restored
from monitor.live.keys import index_key, partition, partition_key
from monitor.live.targets import Target
from tests.factories import DB, NOW, W1, W2, beat, doubted, epoch, identity, status, transition
from tests.live.builders import given, reply_to, stored

UP = State.AVAILABLE


async def assign(
    live: Live, under: str, owner: str = W1, *, planned: bool = False, doubt: str = ""
) -> Assigned:
    return await assignments.assign(
        live,
        Assignment(DB, owner, epoch(under)),
        planned=planned,
        now=NOW,
        doubt=identity(doubt),
        registry="",
    )


async def place(live: Live) -> Place:
    return (await assignments.places(live, [DB]))[DB]


async def test_a_place_nobody_knows(live: Live) -> None:
    assert await place(live) == Place(DB)


async def test_assigned(live: Live, name: str) -> None:
    assert await assign(live, "1.2") is Assigned.ASSIGNED
    found = await place(live)
    assert (found.owner, found.epoch, found.proven, found.seeded) == (
        W1,
        epoch("1.2"),
        False,
        False,
    )
    assert await assignments.mine(live, W1) == {DB: "1.2 0"}
    assert await observations.names(live) == [DB]
    assert (await generation.standing(live)).term == 1


async def test_the_first_accepted_beat_proves_the_owner_and_a_new_epoch_starts_over(
    live: Live, name: str
) -> None:
    await given(live, "1.2", seed=Status())
    await reply_to(live, name, W1, beat("1.2", status()))
    assert (await place(live)).proven
    await given(live, "1.3")
    assert not (await place(live)).proven
    assert "number" not in await stored(live)
    assert "observed_at" in await stored(live)


async def test_stale_by_epoch(live: Live, name: str) -> None:
    await given(live, "2.10")
    for under in ("2.9", "1.11", "2.10"):
        assert await assign(live, under, W2) is Assigned.STALE
    assert (await place(live)).owner == W1
    assert await assignments.mine(live, W2) == {}


async def test_stale_by_a_term_seen_anywhere_in_the_partition(live: Live, name: str) -> None:
    await generation.lead(live, 3, "")
    assert await assign(live, "2.99") is Assigned.STALE
    assert await assign(live, "3.1") is Assigned.ASSIGNED


async def test_the_same_assignment_again_is_no_reason_to_step_down(live: Live, name: str) -> None:
    """Its reply may have been lost."""
    await given(live, "1.2", seed=Status())
    await reply_to(live, name, W1, beat("1.2", status()))
    before = await stored(live)
    assert await assign(live, "1.2") is Assigned.ASSIGNED
    assert await assign(live, "1.2", planned=True) is Assigned.ASSIGNED
    assert await stored(live) == before
    await generation.lead(live, 2, "")
    assert await assign(live, "1.2") is Assigned.STALE


async def test_a_planned_move_waits_for_the_owners_first_accepted_beat(
    live: Live, name: str
) -> None:
    assert await assign(live, "1.2", planned=True) is Assigned.ASSIGNED, "nobody owned it"
    assert await assign(live, "1.3", W2, planned=True) is Assigned.UNPROVEN
    await reply_to(live, name, W1, beat("1.2", status()))
    assert await assign(live, "1.3", W2, planned=True) is Assigned.ASSIGNED
    assert await assign(live, "1.4", W1) is Assigned.ASSIGNED, "W2 died"


async def test_a_planned_move_waits_for_an_open_generation(live: Live, name: str) -> None:
    await given(live, "1.2", seed=Status())
    await reply_to(live, name, W1, beat("1.2", status()))
    await live.cache.delete(partition_key(partition(DB), "generation"))
    assert await assign(live, "1.3", W2, planned=True) is Assigned.CLOSED
    assert await assign(live, "1.3", W2) is Assigned.ASSIGNED


async def test_two_leaders_race_and_the_higher_epoch_stands(live: Live, name: str) -> None:
    for round_ in range(20):
        low, high = f"1.{round_ + 2}", f"2.{round_ + 2}"
        await live.cache.flushdb()
        answers = await asyncio.gather(assign(live, low, W1), assign(live, high, W2))
        found = await place(live)
        assert answers[1] is Assigned.ASSIGNED
        assert (found.owner, found.epoch) == (W2, epoch(high))
        assert await assignments.mine(live, W1) == {}
        assert await assignments.mine(live, W2) == {DB: f"{high} 0"}


async def test_a_late_assignment_of_a_paused_leader_does_not_revive_an_old_epoch(
    live: Live, name: str
) -> None:
    await given(live, "1.2", seed=Status())
    await given(live, "2.1", W2)
    assert (
        await reply_to(live, name, W2, beat("2.1", status("2.1.1", UP), transition("2.1.1")))
        == "accepted"
    )
    assert await assign(live, "1.3", W1) is Assigned.STALE
    assert (
        await reply_to(live, name, W1, beat("1.3", status("1.3.1", UP), transition("1.3.1")))
        == "fenced"
    )
    assert await reply_to(live, name, W1, beat("1.2", status())) == "fenced"


# --- seeds and doubts -----------------------------------------------------------------------------


async def test_a_seed_is_for_a_hash_without_a_state_only(live: Live, name: str) -> None:
    await given(live, "1.2")
    assert not (await place(live)).seeded
    await given(live, "1.3", seed=status("1.1.7", UP))
    await given(live, "1.4", seed=status("1.1.9", State.REFUSING))
    found = await place(live)
    assert (found.state, found.identity, found.seeded) == (UP, identity("1.1.7"), True)
    assert (await observations.latest(live, [DB]))[DB].status == status("1.1.7", UP)


async def test_a_move_for_a_doubt_is_remembered(live: Live, name: str) -> None:
    await given(live, "1.2", seed=doubted("1.1.7"))
    for i in range(5):
        answer = await assignments.assign(
            live,
            Assignment(DB, W2, epoch(f"1.{i + 3}")),
            planned=False,
            now=NOW + i + 0.7,
            doubt=identity("1.1.7"),
            registry="",
        )
        assert answer is Assigned.ASSIGNED
    found = await place(live)
    assert found.doubt == found.moved_for == Identity.parse("1.1.7")
    assert found.moves == (NOW + 2, NOW + 3, NOW + 4)


async def test_a_doubt_that_is_settled_moves_nothing(live: Live, name: str) -> None:
    await given(live, "1.2", seed=doubted("1.1.7"))
    assert await assign(live, "1.3", W2, doubt="1.1.5") is Assigned.SETTLED
    await given(live, "1.4")
    await reply_to(
        live, name, W1, beat("1.4", status("1.4.1", UP), transition("1.4.1", prev="1.1.7"))
    )
    assert await assign(live, "1.5", W2, doubt="1.1.7") is Assigned.SETTLED
    assert (await place(live)).owner == W1


async def test_claims_end_with_the_assignment_that_honours_them(live: Live) -> None:
    rows = [Restored(DB, status("1.2.1", UP), epoch("1.2"), W1)]
    await generation.restore(live, W1, rows, 1, "")
    await given(live, "2.1", W1)
    found = await place(live)
    assert (found.claimant, found.claim, found.owner) == ("", None, W1)
    assert not {"restored", "claim_owner", "claim_epoch"} & (await stored(live)).keys()


# --- taking away ----------------------------------------------------------------------------------


async def published(live: Live, revision: int = 1) -> bool:
    return await targets.publish(
        live, DB, Target("sealed", Policy(), {}, revision), term=9, registry=""
    )


async def test_unassign_keeps_the_hash_and_its_fence(live: Live, name: str) -> None:
    await given(live, "1.2", seed=Status())
    await published(live)
    await reply_to(live, name, W1, beat("1.2", status()))
    assert await assignments.unassign(live, DB, 1, "")
    found = await place(live)
    assert (found.owner, found.epoch, found.seeded) == ("", epoch("1.2"), True)
    assert await assignments.mine(live, W1) == {}
    assert await targets.target(live, DB) is None
    assert await reply_to(live, name, W1, beat("1.2", status(), at=NOW + 1)) == "fenced"
    assert await assign(live, "1.2", W2) is Assigned.STALE
    assert await observations.names(live) == [DB]


async def test_forget_leaves_nothing(live: Live, name: str) -> None:
    await given(live, "1.2", seed=Status())
    await published(live)
    assert await assignments.forget(live, DB, 1, "")
    keys = await live.cache.keys("*")
    assert not [key for key in keys if DB in key or "index" in key or "names" in key]
    assert await reply_to(live, name, W1, beat("1.2", status())) == "fenced"


async def test_a_deposed_leader_takes_nothing_away(live: Live, name: str) -> None:
    await given(live, "2.2")
    assert not await assignments.unassign(live, DB, 1, "")
    assert not await assignments.forget(live, DB, 1, "")
    assert (await place(live)).owner == W1


# --- indexes --------------------------------------------------------------------------------------


async def test_indexes_are_rewritten_from_the_hashes(live: Live, name: str) -> None:
    databases = [f"db{i}" for i in range(40)]
    for i, database in enumerate(databases):
        await given(live, f"1.{i + 2}", owner=W1 if i % 2 else W2, database=database)
    await targets.publish(live, "db1", Target("sealed", Policy(), {}, 7), term=9, registry="")
    true = {worker: await assignments.mine(live, worker) for worker in (W1, W2)}
    assert true[W1]["db1"] == "1.3 7"
    assert len(true[W1]) == len(true[W2]) == 20
    await live.cache.delete(index_key(partition("db1"), W1))  # lost
    await live.cache.hset(index_key(partition("db2"), W1), "db2", "1.1 0")  # somebody else's
    await live.cache.hset(index_key(partition("gone"), W2), "gone", "1.1 0")  # nobody's
    await live.cache.hset(index_key(partition("db5"), "dead-000000"), "db5", "1.1 0")
    await assignments.rewrite_indexes(live, databases, {W1, W2, "dead-000000"})
    assert {worker: await assignments.mine(live, worker) for worker in (W1, W2)} == true
    assert await assignments.mine(live, "dead-000000") == {}


async def test_a_published_target_shows_in_its_owners_index_at_once(live: Live, name: str) -> None:
    assert await published(live, 3)
    await given(live, "1.2")
    assert await assignments.mine(live, W1) == {DB: "1.2 3"}
    assert await published(live, 4)
    assert await assignments.mine(live, W1) == {DB: "1.2 4"}
    await given(live, "1.3", W2)
    assert await assignments.mine(live, W2) == {DB: "1.3 4"}
    assert await assignments.mine(live, W1) == {}
