from monitor.core.cause import Cause
from monitor.core.event import CannotReach
from monitor.core.status import Epoch, Identity, State
from monitor.live.assignments import Place
from workers.doubts import ASK_AGAIN, MOVES_MOST, MOVES_WITHIN, REFUSAL, Doubts

DOUBT = Identity(Epoch(1, 1), 2)
CRY = CannotReach("orders", DOUBT, "w1", 100.0, Cause.REFUSED)


def place(state: State = State.UNCERTAIN, owner: str = "w1", **more: object) -> dict[str, Place]:
    doubt = DOUBT if state is State.UNCERTAIN else None
    return {"orders": Place("orders", owner=owner, state=state, doubt=doubt, **more)}  # type: ignore[arg-type]


def refused(doubts: Doubts, places: dict[str, Place], now: float) -> list[str]:
    return [refusal.worker for refusal in doubts.refusals(places, now)]


def test_a_cry_keeps_the_database_from_its_worker_for_a_minute() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    assert refused(doubts, place(), 100.0) == ["w1"]
    assert refused(doubts, place(owner="w2"), 100.0 + REFUSAL - 1) == ["w1"]
    assert refused(doubts, place(owner="w2"), 100.0 + REFUSAL) == []


def test_a_doubt_moves_once_while_the_former_owners_word_counts() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    moved = place(moved_for=DOUBT, moves=(100.0,))
    assert refused(doubts, moved, 100.0 + ASK_AGAIN) == []
    assert refused(doubts, moved, 101.0 + ASK_AGAIN) == ["w1"]


def test_a_database_moves_three_times_in_ten_minutes_at_most() -> None:
    doubts = Doubts()
    doubts.hear(CRY)
    worn = place(moves=tuple(100.0 + i for i in range(MOVES_MOST)))
    assert refused(doubts, worn, 200.0) == []
    assert refused(doubts, worn, 101.0 + MOVES_WITHIN) == ["w1"]


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
