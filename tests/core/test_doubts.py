from dataclasses import replace

import pytest

from monitor.core.assignment import REFUSAL_SECONDS
from monitor.core.cause import Cause
from monitor.core.custody import AWAY, TELL_AGAIN
from monitor.core.doubts import (
    ASK_AGAIN,
    MOVES_MOST,
    MOVES_WITHIN,
    VOID_GRACE,
    Doubts,
)
from monitor.core.event import CannotReach, Transition
from monitor.core.placement import Place
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Identity, State

DOUBT = Identity(Epoch(1, 1), 2)
CRY = CannotReach("orders", DOUBT, "w1", 100.0, Cause.PORT_CLOSED)


def place(state: State = State.UNCERTAIN, owner: str = "w1", **more: object) -> dict[str, Place]:
    doubt = DOUBT if state is State.UNCERTAIN else None
    return {"orders": Place("orders", owner=owner, state=state, doubt=doubt, **more)}  # type: ignore[arg-type]


def decided(target: State, at: float) -> Transition:
    identity = Identity(Epoch(1, 1), 3)
    return Transition(
        "orders", identity, DOUBT, State.UNCERTAIN, target, "any", at, "w1", ("w1",), ()
    )


def refused(doubts: Doubts, places: dict[str, Place], now: float) -> list[str]:
    return [refusal.worker for refusal in doubts.refusals(places, now)]


def test_a_cry_keeps_the_database_from_its_worker_for_a_minute() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    assert refused(doubts, place(), 100.0) == ["w1"]
    assert refused(doubts, place(owner="w2"), 100.0 + REFUSAL_SECONDS - 1) == ["w1"]
    assert refused(doubts, place(owner="w2"), 100.0 + REFUSAL_SECONDS) == []


def test_a_doubt_moves_once_while_the_former_owners_word_counts() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    moved = place(moved_for=DOUBT, moves=(100.0,))
    assert refused(doubts, moved, 100.0 + ASK_AGAIN) == []
    assert refused(doubts, moved, 101.0 + ASK_AGAIN) == ["w1"]


WORN = tuple(100.0 + i for i in range(MOVES_MOST))


def test_a_database_moves_at_once_three_times_in_ten_minutes() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    assert refused(doubts, place(moves=WORN), 200.0) == []
    assert refused(doubts, place(moves=WORN), 101.0 + MOVES_WITHIN) == ["w1"]


@pytest.mark.parametrize(
    ("cause", "patience"),
    [
        (Cause.PORT_CLOSED, Policy().absent_seconds),
        (Cause.HUNG, Policy().silent_seconds),
        (None, Policy().silent_seconds),
    ],
)
def test_a_doubt_that_outlives_its_rule_moves_however_many_moves_there_were(
    cause: Cause | None, patience: float
) -> None:
    doubts = Doubts()
    if cause:
        doubts.hear(replace(CRY, cause=cause))
    else:
        doubts.review(place().values())
    worn = place(moves=WORN)
    assert refused(doubts, worn, 200.0) == []
    doubts.hear(
        replace(CRY, at=200.0, cause=cause or Cause.HUNG)
    )  # a second cry in one doubt starts no new wait
    assert refused(doubts, worn, 200.0 + patience - 0.1) == []
    assert refused(doubts, worn, 200.0 + patience) == ["w1"]


def test_moves_of_outages_that_were_confirmed_use_up_nothing() -> None:
    doubts = Doubts()
    doubts.settle(decided(State.UNAVAILABLE, at=WORN[-1] + 5))
    doubts.hear(CRY)
    assert refused(doubts, place(moves=WORN), 200.0) == ["w1"]


def test_the_end_of_a_doubt_leaves_its_owner_what_it_has_and_keeps_it_from_others() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    assert refused(doubts, place(), 100.0) == ["w1"]
    doubts.settle(decided(State.AVAILABLE, at=101.0))
    assert refused(doubts, place(State.AVAILABLE, owner="w2"), 101.0) == ["w1"], (
        "w2 reached it, w1 has not since"
    )
    assert refused(doubts, place(State.AVAILABLE), 102.0) == []


def test_a_refusal_of_an_earlier_doubt_moves_nothing_in_a_later_one() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    assert refused(doubts, place(), 100.0) == ["w1"]
    doubts.settle(decided(State.AVAILABLE, at=101.0))
    doubts.hear(replace(CRY, doubt=Identity(Epoch(1, 1), 4)))
    assert refused(doubts, place(moves=WORN), 105.0) == []


@pytest.mark.parametrize("back", [30.0, 3600.0])
def test_no_moment_in_the_future_counts(back: float) -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    now = 10_000.0
    worn = place(moved_for=DOUBT, moves=tuple(now + i for i in range(MOVES_MOST)))
    assert refused(doubts, place(), now) == ["w1"]
    doubts.settle(decided(State.UNAVAILABLE, at=now))
    assert refused(doubts, place(owner="w2"), now - back) == [], (
        "a refusal of the future lasts a minute, no longer"
    )
    doubts.hear(CRY)
    assert refused(doubts, worn, now - back) == ["w1"]


VOID = replace(CRY, cause=Cause.NO_CREDENTIALS, worker="w2")


def test_a_worker_that_can_only_say_void_gives_it_up_whatever_doubts_and_moves_there_are() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    assert refused(doubts, place(), 100.0) == ["w1"]
    assert doubts.doubt("orders", "w1") == DOUBT
    moved = place(owner="w2", moved_for=DOUBT, moves=WORN)
    doubts.hear(VOID)
    assert refused(doubts, moved, 103.0) == ["w1", "w2"]
    assert doubts.doubt("orders", "w2") is None, "this move answers no doubt and counts for none"
    doubts.settle(decided(State.AVAILABLE, at=104.0))
    assert refused(doubts, place(State.AVAILABLE), 102.9 + AWAY) == ["w2"]
    assert refused(doubts, place(State.AVAILABLE), 103.0 + AWAY) == []


def test_a_void_of_a_database_in_any_state_is_heard_and_of_a_former_owner_in_none() -> None:
    doubts = Doubts()
    doubts.hear(VOID)
    assert refused(doubts, place(State.AVAILABLE), 100.0) == []
    doubts.hear(VOID)
    assert refused(doubts, place(State.AVAILABLE, owner="w2"), 100.0) == ["w2"]


def test_an_owner_that_no_longer_says_void_may_keep_what_it_has() -> None:
    doubts = Doubts()
    doubts.hear(VOID)
    kept = place(State.AVAILABLE, owner="w2")
    assert refused(doubts, kept, 100.0) == ["w2"]
    assert refused(doubts, kept, 100.0 + TELL_AGAIN) == ["w2"]
    assert refused(doubts, kept, 100.0 + TELL_AGAIN + VOID_GRACE) == []


def test_a_new_leader_takes_up_what_the_hashes_say() -> None:
    doubts = Doubts()
    doubts.review(place().values())
    assert refused(doubts, place(), 100.0) == ["w1"]


def test_a_doubt_that_a_look_found_settled_asks_for_nothing() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    settled = place(State.AVAILABLE)
    doubts.review(settled.values())
    assert refused(doubts, settled, 100_000.0) == []
