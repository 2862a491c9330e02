"""What a worker holds, and what each answer does to it."""

import pytest

from monitor.core import custody as module
from monitor.core.beat import Beat, Reply
from monitor.core.cause import Cause
from monitor.core.custody import Custody, Following
from monitor.core.event import CannotReach, Transition
from monitor.core.generation import Generation, Signature
from monitor.core.holding import PENDING_MOST, Holding
from monitor.core.machine import Context
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Identity, State, Status
from monitor.core.timing import RELEASED_KEPT

DB = "orders"
FIRST, SECOND = Epoch(1, 1), Epoch(1, 2)
OTHERS = Status(State.AVAILABLE, identity=Identity(Epoch(1, 3), 1), rule="first_ok")


def felt(cause: Cause, at: float) -> Observation:
    return Observation(database=DB, worker="w1", sent_at=at - 0.01, at=at, cause=cause)


def held(accepted: Status | None = None) -> tuple[Custody, Holding]:
    """Return a worker that owns one database under its first epoch."""
    custody = Custody()
    custody.learn(DB, FIRST, accepted or Status())
    return custody, custody.holdings[DB]


def observe(holding: Holding, cause: Cause, at: float) -> Beat:
    """Feel once, and return the beat that would leave then."""
    seen = felt(cause, at)
    holding.observe(seen, Context(worker="w1", epoch=holding.epoch, policy=Policy(), eligible=2))
    return holding.beat(seen)


def held_with_one_pending() -> tuple[Custody, Holding]:
    custody, holding = held()
    observe(holding, Cause.OK, 10.0)
    return custody, holding


def accepted_once() -> tuple[Custody, Beat]:
    custody, holding = held()
    beat = observe(holding, Cause.OK, 10.0)
    custody.apply_reply(beat, Reply.ACCEPTED)
    return custody, beat


def rules(holding: Holding) -> list[str]:
    return [event.rule for event in holding.pending if isinstance(event, Transition)]


def requests(holding: Holding) -> list[CannotReach]:
    return [event for event in holding.pending if isinstance(event, CannotReach)]


def opened(name: str, signature: Signature | None = None) -> Generation:
    return Generation(f"ab:{name}" if name else "", "ab", signature or Signature())


# --- tentative, pending, accepted -----------------------------------------------------------------


def test_status_is_tentative_until_accepted() -> None:
    custody, holding = held()
    beat = observe(holding, Cause.OK, 10.0)
    assert (holding.accepted.state, holding.tentative.state) == (State.NEW, State.AVAILABLE)
    (accepted,) = custody.apply_reply(beat, Reply.ACCEPTED)
    assert accepted.identity == Identity(FIRST, 1)
    assert holding.accepted == holding.tentative
    assert holding.pending == ()


@pytest.mark.parametrize("before", [Status(), Status(State.AVAILABLE, 1.0, Identity(FIRST, 3))])
def test_a_worker_that_finds_only_its_own_faults_asks_for_another_in_any_state(
    before: Status,
) -> None:
    last = before.identity or Identity(FIRST, 0)
    custody, holding = held(before)
    beats = [observe(holding, Cause.NO_CREDENTIALS, at) for at in (10.0, 15.0, 20.0)]
    assert holding.pending == (CannotReach(DB, last, "w1", 20.0, Cause.NO_CREDENTIALS),)
    assert holding.tentative == before
    assert custody.apply_reply(beats[-1], Reply.ACCEPTED) == ()
    assert (holding.pending, custody.retained) == ((), {})


def test_a_new_epoch_counts_own_faults_anew() -> None:
    custody, holding = held()
    for epoch in (FIRST, SECOND):
        custody.learn(DB, epoch, Status())
        for at in (10.0, 11.0):
            observe(holding, Cause.NO_CREDENTIALS, at)
    assert holding.pending == ()


def test_events_wait_in_order_while_nothing_is_accepted() -> None:
    _, holding = held_with_one_pending()
    observe(holding, Cause.PORT_CLOSED, 15.0)
    assert rules(holding) == ["first_ok", "doubt"]


def test_of_the_requests_of_one_doubt_only_the_newest_waits() -> None:
    custody, holding = held_with_one_pending()
    beats = [observe(holding, Cause.PORT_CLOSED, 15.0 + 10 * i) for i in range(1_000)]
    assert rules(holding) == ["first_ok", "doubt"]
    (newest,) = requests(holding)
    assert newest.at == 15.0 + 10 * 999
    assert len(custody.apply_reply(beats[1], Reply.ACCEPTED)) == 2, (
        "of a beat with an older request the transitions are accepted all the same"
    )
    assert holding.pending == (newest,)


def test_each_doubt_keeps_its_request() -> None:
    _, holding = held_with_one_pending()
    for i in range(10):
        observe(holding, Cause.PORT_CLOSED if i % 2 else Cause.OK, 20.0 + 10 * i)
    doubts = [request.doubt for request in requests(holding)]
    assert len(doubts) == len(set(doubts)) == 5


def test_what_waits_is_bounded_and_keeps_its_identities() -> None:
    """A reply may have been lost: what waits may be accepted, so none of it may be made anew."""
    custody, holding = held_with_one_pending()
    for i in range(2_000):
        observe(holding, Cause.PORT_CLOSED if i % 2 else Cause.OK, 20.0 + 10 * i)
    assert len(holding.pending) < PENDING_MOST + 3
    assert custody.unjudged == holding.unjudged > 0
    before, last = holding.pending, holding.tentative
    beat = observe(holding, Cause.OK, 90_000.0)
    assert (beat.events, beat.status) == (before, last)
    custody.apply_reply(beat, Reply.ACCEPTED)
    assert (holding.pending, holding.accepted) == ((), last)
    observe(holding, Cause.PORT_CLOSED, 90_010.0)
    assert rules(holding) == ["doubt"]


# --- replies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [Reply.FENCED, Reply.AHEAD, Reply.CONFLICT, Reply.TWIN])
def test_a_refusal_stops_until_the_hash_is_learned(reply: Reply) -> None:
    custody, holding = held_with_one_pending()
    assert custody.apply_reply(holding.beat(felt(Cause.OK, 10.0)), reply) == ()
    before = holding.tentative
    observe(holding, Cause.PORT_CLOSED, 15.0)
    assert holding.tentative == before
    assert custody.beat(felt(Cause.PORT_CLOSED, 15.0)) is None
    assert custody.must_learn(DB)
    custody.learn(DB, FIRST, Status())
    assert not custody.must_learn(DB)
    assert custody.beat(felt(Cause.OK, 16.0))


def test_a_twin_stops_all_and_a_refusal_one() -> None:
    custody, holding = held_with_one_pending()
    custody.learn("toys", SECOND, Status())
    beat = holding.beat(felt(Cause.OK, 10.0))
    custody.apply_reply(beat, Reply.FENCED)
    assert [custody.must_learn(name) for name in (DB, "toys")] == [True, False]
    custody.apply_reply(beat, Reply.TWIN)
    assert custody.must_learn("toys")


def test_a_closed_generation_stops_no_feel() -> None:
    custody, holding = held_with_one_pending()
    custody.enter(opened("1.1"))
    custody.apply_reply(holding.beat(felt(Cause.OK, 10.0)), Reply.CLOSED)
    assert (custody.generation, custody.must_learn(DB)) == ("", False)
    observe(holding, Cause.PORT_CLOSED, 15.0)
    assert rules(holding) == ["first_ok", "doubt"]


def test_an_answer_to_a_beat_of_an_older_epoch_takes_nothing_from_what_waits() -> None:
    custody, holding = held_with_one_pending()
    beat = observe(holding, Cause.OK, 11.0)
    custody.learn(DB, SECOND, Status())
    custody.apply_reply(beat, Reply.FENCED)
    assert not custody.must_learn(DB)
    (late,) = custody.apply_reply(beat, Reply.ACCEPTED)
    assert rules(holding) == ["first_ok"], "the next beat brings it again; the hash knows it"
    assert (DB, late.identity) in custody.retained


def test_an_answer_that_comes_after_the_release_is_kept() -> None:
    custody, holding = held_with_one_pending()
    beat = holding.beat(felt(Cause.OK, 10.0))
    custody.release(DB, None, now=0.0)
    assert (len(custody.retained), custody.restorable()) == (0, {DB: (Status(), FIRST)})
    custody.apply_reply(beat, Reply.ACCEPTED)
    assert (len(custody.retained), custody.restorable()) == (1, {DB: (beat.status, FIRST)})


def test_an_answer_under_another_epoch_than_the_released_is_retained_alone() -> None:
    custody, holding = held_with_one_pending()
    beat = holding.beat(felt(Cause.OK, 10.0))
    custody.learn(DB, SECOND, OTHERS)
    custody.release(DB, OTHERS, now=0.0)
    custody.apply_reply(beat, Reply.ACCEPTED)
    assert (len(custody.retained), custody.restorable()) == (1, {DB: (OTHERS, SECOND)})


# --- a new epoch ----------------------------------------------------------------------------------


def test_a_pending_event_is_carried_over_under_its_old_identity() -> None:
    custody, holding = held_with_one_pending()
    holding.stopped = True
    assert custody.learn(DB, SECOND, Status()) == ()
    beat = observe(holding, Cause.PORT_CLOSED, 20.0)
    transitions = [event for event in beat.events if isinstance(event, Transition)]
    assert [one.identity for one in transitions] == [Identity(FIRST, 1), Identity(SECOND, 1)]
    assert transitions[1].prev == Identity(FIRST, 1)


def test_a_lost_reply_is_found_in_the_hash_and_replayed() -> None:
    custody, holding = held_with_one_pending()
    stored = holding.tentative
    (accepted,) = custody.learn(DB, SECOND, stored)
    assert accepted.identity == Identity(FIRST, 1)
    assert (holding.accepted, holding.pending) == (stored, ())
    assert custody.found == tuple(custody.retained.values()) == (accepted,)
    custody.replayed(custody.found)
    assert (custody.found, len(custody.retained)) == ((), 1)


def test_of_several_pending_the_hash_may_show_the_first_alone() -> None:
    custody, holding = held_with_one_pending()
    stored = holding.tentative
    observe(holding, Cause.PORT_CLOSED, 15.0)
    (accepted,) = custody.learn(DB, SECOND, stored)
    assert (accepted.rule, rules(holding)) == ("first_ok", ["doubt"])


def test_what_another_owner_overtook_is_dropped() -> None:
    custody, holding = held_with_one_pending()
    assert custody.learn(DB, Epoch(1, 4), OTHERS) == ()
    assert holding.tentative == holding.accepted == OTHERS
    assert holding.pending == ()


def test_a_hash_of_a_redis_that_lost_its_data_takes_nothing_back() -> None:
    custody, beat = accepted_once()
    holding = custody.holdings[DB]
    assert custody.learn(DB, SECOND, Status()) == ()
    assert holding.accepted == holding.tentative == beat.status
    assert holding.epoch == SECOND


def test_a_read_older_than_our_own_last_beat_takes_nothing_back() -> None:
    custody, holding = held_with_one_pending()
    beat = holding.beat(felt(Cause.OK, 10.0))
    custody.stop()
    custody.apply_reply(beat, Reply.ACCEPTED)  # it was under way when we were frozen
    assert custody.learn(DB, FIRST, Status()) == ()
    assert holding.tentative.identity == Identity(FIRST, 1)
    after = observe(holding, Cause.PORT_CLOSED, 20.0)
    assert after.status.identity == Identity(FIRST, 2)


def test_what_is_held_already_learns_nothing_from_the_hash() -> None:
    custody, holding = held_with_one_pending()
    assert custody.learn(DB, FIRST, OTHERS) == ()
    assert rules(holding) == ["first_ok"]


def test_what_was_given_up_is_known_when_it_comes_back() -> None:
    custody, beat = accepted_once()
    custody.release(DB, None, now=0.0)
    custody.learn(DB, SECOND, Status())
    assert custody.holdings[DB].accepted == beat.status
    assert custody.restorable() == {DB: (beat.status, SECOND)}


# --- what is released, and what is retained -------------------------------------------------------


def test_a_release_looks_in_the_hash_for_what_was_accepted_without_an_answer() -> None:
    custody, holding = held_with_one_pending()
    beat = holding.beat(felt(Cause.OK, 10.0))
    (found,) = custody.release(DB, beat.status, now=0.0)
    assert (custody.restorable(), custody.found) == ({DB: (beat.status, FIRST)}, (found,))
    assert custody.release(DB, beat.status, now=0.0) == (), "nothing is held"


def test_what_was_released_is_kept_for_a_while() -> None:
    custody, _ = held()
    custody.release(DB, None, now=100.0)
    custody.expire(100.0 + RELEASED_KEPT - 1)
    assert custody.restorable()
    custody.expire(100.0 + RELEASED_KEPT)
    assert not custody.restorable()


def test_what_is_accepted_is_retained_until_it_is_durable() -> None:
    custody, _ = accepted_once()
    ((key, _),) = custody.retained.items()
    custody.forget_durable([(DB, Identity(SECOND, 1))])
    custody.release(DB, None, now=0.0)
    custody.expire(RELEASED_KEPT)
    custody.enter(opened("1.1"))
    assert list(custody.retained) == [key]
    custody.forget_durable([key])
    assert not custody.retained


def test_what_is_retained_is_repeated_at_the_second_look() -> None:
    custody, _ = accepted_once()
    assert custody.repeat() == []
    assert custody.repeat() == list(custody.retained.values())
    custody.forget_durable(list(custody.retained))
    assert custody.repeat() == []


def test_the_oldest_of_too_much_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETAINED_MOST", 1)
    custody, _ = accepted_once()
    beat = observe(custody.holdings[DB], Cause.PORT_CLOSED, 20.0)
    custody.apply_reply(beat, Reply.ACCEPTED)
    assert [one.rule for one in custody.expire(0.0)] == ["first_ok"]
    assert [one.rule for one in custody.retained.values()] == ["doubt"]


# --- generations ----------------------------------------------------------------------------------


def test_a_generation_is_entered_once_and_never_left_for_an_older_one() -> None:
    custody, _ = held()
    seen = opened("2.1")
    assert custody.follow(seen) is Following.ENTER
    assert not custody.generation, "nothing is said before it is restored and replayed"
    custody.enter(seen)
    assert (custody.follow(seen), custody.term) == (Following.STAY, 2)
    assert custody.follow(opened("1.7")) is Following.END
    assert custody.follow(opened("")) is Following.RESTORE
    assert not custody.generation
    assert custody.follow(opened("2.1")) is Following.ENTER, "a copy of ours, of another instance"
    assert custody.follow(opened("2.2")) is Following.ENTER


def test_a_restore_is_into_the_closed_generation_of_now() -> None:
    custody, _ = held()
    custody.restored = True
    custody.enter(opened("1.1"))
    assert not custody.restored


def test_a_take_over_is_obeyed_and_so_is_whoever_opens() -> None:
    custody, _ = held()
    ours, theirs, taken = Signature(0, "ours"), Signature(0, "a"), Signature(1, "b")
    custody.follow(opened("1.1", ours))
    custody.follow(opened("", theirs))
    assert custody.signature == ours, "it has not opened"
    custody.follow(opened("1.2", theirs))
    assert custody.signature == theirs
    custody.follow(opened("", taken))
    custody.follow(opened("1.3", ours))
    assert custody.signature == taken
