from dataclasses import replace

import pytest

from monitor.core.cause import Cause
from monitor.core.doubts import MOVES_MOST, Doubts
from monitor.core.event import CannotReach, Transition
from monitor.core.placement import Place
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Identity, State
from monitor.core.timing import (
    FAULTS_AGAIN,
    FAULTS_AWAY,
    FAULTS_GRACE,
    MOVE_AGAIN,
    MOVES_WITHIN,
    REFUSED_FOR,
)

DOUBT = Identity(Epoch(1, 1), 2)
REQUEST = CannotReach("orders", DOUBT, "w1", 100.0, Cause.PORT_CLOSED)


def place(state: State = State.UNCERTAIN, owner: str = "w1", **more: object) -> dict[str, Place]:
    doubt = DOUBT if state is State.UNCERTAIN else None
    return {"orders": Place("orders", owner=owner, state=state, doubt=doubt, **more)}


def policy(_: str) -> Policy:
    return Policy()


def decided(target: State, at: float) -> Transition:
    identity = Identity(Epoch(1, 1), 3)
    return Transition(
        "orders", identity, DOUBT, State.UNCERTAIN, target, "any", at, "w1", ("w1",), ()
    )


def refused(doubts: Doubts, places: dict[str, Place], now: float) -> list[str]:
    return [refusal.worker for refusal in doubts.refusals(places, now)]


def test_a_request_keeps_the_database_from_its_worker_for_a_minute() -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    assert refused(doubts, place(), 100.0) == ["w1"]
    assert refused(doubts, place(owner="w2"), 100.0 + REFUSED_FOR - 1) == ["w1"]
    assert refused(doubts, place(owner="w2"), 100.0 + REFUSED_FOR) == []


def test_a_doubt_moves_once_while_the_former_owners_finding_counts() -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    moved = place(moved_for=DOUBT, moves=(100.0,))
    assert refused(doubts, moved, 100.0 + MOVE_AGAIN) == []
    assert refused(doubts, moved, 101.0 + MOVE_AGAIN) == ["w1"]


SILENCE = replace(REQUEST, worker="w2", at=103.0, cause=Cause.CONNECT_TIMEOUT)


@pytest.mark.parametrize("third", [False, True])
def test_whoever_needs_a_third_worker_gets_one_at_once(third: bool) -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    doubts.request(replace(SILENCE, third=third))
    moved = place(owner="w2", moved_for=DOUBT, moves=(100.0,))
    assert refused(doubts, moved, 103.0) == (["w2"] if third else [])


def test_a_new_leader_needs_one_request_to_find_a_third_worker() -> None:
    doubts = Doubts(policy)
    moved = place(owner="w2", moved_for=DOUBT, moves=(100.0,))
    doubts.review(moved.values())
    assert refused(doubts, moved, 103.0) == []
    doubts.request(replace(SILENCE, third=True))
    assert refused(doubts, moved, 103.0) == ["w2"]


def test_a_third_worker_keeps_what_it_got() -> None:
    doubts = Doubts(policy)
    doubts.request(replace(SILENCE, third=True))
    doubts.request(replace(SILENCE, worker="w3", at=105.0))
    moved = place(owner="w3", moved_for=DOUBT, moves=(100.0, 104.0))
    assert refused(doubts, moved, 105.0) == []


THREE_MOVES = tuple(100.0 + i for i in range(MOVES_MOST))


def test_a_database_moves_at_once_three_times_in_ten_minutes() -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    assert refused(doubts, place(moves=THREE_MOVES), 200.0) == []
    assert refused(doubts, place(moves=THREE_MOVES), 101.0 + MOVES_WITHIN) == ["w1"]


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
    doubts = Doubts(policy)
    if cause:
        doubts.request(replace(REQUEST, cause=cause))
    else:
        doubts.review(place().values())
    moved_often = place(moves=THREE_MOVES)
    assert refused(doubts, moved_often, 200.0) == []
    doubts.request(
        replace(REQUEST, at=200.0, cause=cause or Cause.HUNG)
    )  # a second request in one doubt starts no new wait
    assert refused(doubts, moved_often, 200.0 + patience - 0.1) == []
    assert refused(doubts, moved_often, 200.0 + patience) == ["w1"]


def test_moves_of_outages_that_were_confirmed_use_up_nothing() -> None:
    doubts = Doubts(policy)
    doubts.decided(decided(State.UNAVAILABLE, at=THREE_MOVES[-1] + 5))
    doubts.request(REQUEST)
    assert refused(doubts, place(moves=THREE_MOVES), 200.0) == ["w1"]


def test_the_end_of_a_doubt_leaves_its_owner_what_it_has_and_keeps_it_from_others() -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    assert refused(doubts, place(), 100.0) == ["w1"]
    doubts.decided(decided(State.AVAILABLE, at=101.0))
    assert refused(doubts, place(State.AVAILABLE, owner="w2"), 101.0) == ["w1"], (
        "w2 reached it, w1 has not since"
    )
    assert refused(doubts, place(State.AVAILABLE), 102.0) == []


def test_a_refusal_of_an_earlier_doubt_moves_nothing_in_a_later_one() -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    assert refused(doubts, place(), 100.0) == ["w1"]
    doubts.decided(decided(State.AVAILABLE, at=101.0))
    doubts.request(replace(REQUEST, doubt=Identity(Epoch(1, 1), 4)))
    assert refused(doubts, place(moves=THREE_MOVES), 105.0) == []


@pytest.mark.parametrize("back", [30.0, 3600.0])
def test_no_moment_in_the_future_counts(back: float) -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    now = 10_000.0
    moved_often = place(moved_for=DOUBT, moves=tuple(now + i for i in range(MOVES_MOST)))
    assert refused(doubts, place(), now) == ["w1"]
    doubts.decided(decided(State.UNAVAILABLE, at=now))
    assert refused(doubts, place(owner="w2"), now - back) == [], (
        "a refusal of the future lasts a minute, no longer"
    )
    doubts.request(REQUEST)
    assert refused(doubts, moved_often, now - back) == ["w1"]


FAULT = replace(REQUEST, cause=Cause.NO_CREDENTIALS, worker="w2")


def test_a_worker_that_is_hindered_itself_gives_it_up_whatever_doubts_and_moves_there_are() -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    assert refused(doubts, place(), 100.0) == ["w1"]
    assert doubts.answered_by_move("orders", "w1") == DOUBT
    moved = place(owner="w2", moved_for=DOUBT, moves=THREE_MOVES)
    doubts.request(FAULT)
    assert refused(doubts, moved, 103.0) == ["w1", "w2"]
    assert doubts.answered_by_move("orders", "w2") is None, (
        "this move answers no doubt and counts for none"
    )
    doubts.decided(decided(State.AVAILABLE, at=104.0))
    assert refused(doubts, place(State.AVAILABLE), 102.9 + FAULTS_AWAY) == ["w2"]
    assert refused(doubts, place(State.AVAILABLE), 103.0 + FAULTS_AWAY) == []


def test_a_fault_counts_in_any_state_and_of_a_former_owner_in_none() -> None:
    doubts = Doubts(policy)
    doubts.request(FAULT)
    assert refused(doubts, place(State.AVAILABLE), 100.0) == []
    doubts.request(FAULT)
    assert refused(doubts, place(State.AVAILABLE, owner="w2"), 100.0) == ["w2"]


def test_an_owner_whose_fault_is_over_may_keep_what_it_has() -> None:
    doubts = Doubts(policy)
    doubts.request(FAULT)
    kept = place(State.AVAILABLE, owner="w2")
    assert refused(doubts, kept, 100.0) == ["w2"]
    assert refused(doubts, kept, 100.0 + FAULTS_AGAIN) == ["w2"]
    assert refused(doubts, kept, 100.0 + FAULTS_AGAIN + FAULTS_GRACE) == []


def test_a_new_leader_takes_up_what_the_hashes_say() -> None:
    doubts = Doubts(policy)
    doubts.review(place().values())
    assert refused(doubts, place(), 100.0) == ["w1"]


def test_a_doubt_that_a_look_found_decided_asks_for_nothing() -> None:
    doubts = Doubts(policy)
    doubts.request(REQUEST)
    now = place(State.AVAILABLE)
    doubts.review(now.values())
    assert refused(doubts, now, 100_000.0) == []
