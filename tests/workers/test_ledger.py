from dataclasses import replace

from monitor.core.cause import Cause
from monitor.core.event import CannotReach, Transition
from monitor.core.machine import Context
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Identity, State, Status
from workers.worker.ledger import PENDING_MOST, Ledger

FIRST, SECOND = Epoch(1, 1), Epoch(1, 2)


def felt(cause: Cause, at: float) -> Observation:
    return Observation(database="orders", worker="w1", sent_at=at - 0.01, at=at, cause=cause)


def context(epoch: Epoch) -> Context:
    return Context(worker="w1", epoch=epoch, policy=Policy(), eligible=2)


def ledger_with_a_pending_light() -> Ledger:
    ledger = Ledger("orders", FIRST, Status())
    ledger.observe(felt(Cause.OK, 10.0), context(FIRST))
    return ledger


def test_status_is_tentative_until_accepted() -> None:
    ledger = Ledger("orders", FIRST, Status())
    beat = ledger.observe(felt(Cause.OK, 10.0), context(FIRST))
    assert beat is not None
    assert (ledger.accepted.state, ledger.tentative.state) == (State.NEW, State.AVAILABLE)
    (accepted,) = ledger.accept(beat)
    assert accepted.identity == Identity(FIRST, 1)
    assert ledger.accepted == ledger.tentative
    assert ledger.pending == ()


def test_a_worker_that_can_only_say_void_cries_in_any_state() -> None:
    for before in (Status(), Status(State.AVAILABLE, 1.0, Identity(FIRST, 3))):
        last = before.identity or Identity(FIRST, 0)
        ledger = Ledger("orders", FIRST, before)
        beats = [
            ledger.observe(felt(Cause.NO_CREDENTIALS, at), context(FIRST))
            for at in (10.0, 15.0, 20.0)
        ]
        assert ledger.pending == (CannotReach("orders", last, "w1", 20.0, Cause.NO_CREDENTIALS),)
        assert ledger.tentative == before
        assert beats[-1] is not None
        assert ledger.accept(beats[-1]) == ()
        assert ledger.pending == ()


def test_a_new_epoch_counts_voids_anew() -> None:
    ledger = Ledger("orders", FIRST, Status())
    for epoch in (FIRST, SECOND):
        ledger.learn(epoch, Status())
        for at in (10.0, 11.0):
            ledger.observe(felt(Cause.NO_CREDENTIALS, at), context(epoch))
    assert ledger.pending == ()


def test_events_wait_in_order_while_nothing_is_accepted() -> None:
    ledger = ledger_with_a_pending_light()
    beat = ledger.observe(felt(Cause.PORT_CLOSED, 15.0), context(FIRST))
    assert beat is not None
    rules = [event.rule for event in beat.events if isinstance(event, Transition)]
    assert rules == ["first_ok", "doubt"]


def test_a_stopped_ledger_says_nothing() -> None:
    ledger = ledger_with_a_pending_light()
    ledger.stop()
    before = ledger.tentative
    assert ledger.observe(felt(Cause.PORT_CLOSED, 15.0), context(FIRST)) is None
    assert ledger.tentative == before


def test_an_answer_to_a_beat_of_an_older_epoch_is_ignored() -> None:
    ledger = ledger_with_a_pending_light()
    beat = ledger.observe(felt(Cause.OK, 11.0), context(FIRST))
    assert beat is not None
    ledger.learn(SECOND, Status())
    assert ledger.accept(beat) == ()
    assert ledger.pending


def test_a_pending_event_is_carried_over_under_its_old_identity() -> None:
    ledger = ledger_with_a_pending_light()
    ledger.stop()
    assert ledger.learn(SECOND, Status()) == ()
    beat = ledger.observe(felt(Cause.PORT_CLOSED, 20.0), context(SECOND))
    assert beat is not None
    transitions = [event for event in beat.events if isinstance(event, Transition)]
    assert [t.identity for t in transitions] == [Identity(FIRST, 1), Identity(SECOND, 1)]
    assert transitions[1].prev == Identity(FIRST, 1)


def test_a_lost_reply_is_found_in_the_hash() -> None:
    ledger = ledger_with_a_pending_light()
    stored = ledger.tentative
    (accepted,) = ledger.learn(SECOND, stored)
    assert accepted.identity == Identity(FIRST, 1)
    assert ledger.accepted == stored
    assert ledger.pending == ()


def test_what_another_owner_overtook_is_dropped() -> None:
    ledger = ledger_with_a_pending_light()
    other = replace(
        Status(), state=State.AVAILABLE, identity=Identity(Epoch(1, 3), 1), rule="first_ok"
    )
    assert ledger.learn(Epoch(1, 4), other) == ()
    assert ledger.tentative == ledger.accepted == other
    assert ledger.pending == ()


def test_a_hash_that_lost_its_memory_takes_nothing_back() -> None:
    ledger = ledger_with_a_pending_light()
    beat = ledger.observe(felt(Cause.OK, 11.0), context(FIRST))
    assert beat is not None
    ledger.accept(beat)
    assert ledger.learn(SECOND, Status()) == ()
    assert ledger.accepted == ledger.tentative == beat.status
    assert ledger.epoch == SECOND


def test_a_read_older_than_our_own_last_beat_takes_nothing_back() -> None:
    ledger = ledger_with_a_pending_light()
    beat = ledger.observe(felt(Cause.OK, 11.0), context(FIRST))
    assert beat is not None
    ledger.stop()
    ledger.accept(beat)  # it was under way when we were frozen
    assert ledger.learn(FIRST, Status()) == ()
    assert ledger.tentative.identity == Identity(FIRST, 1)
    after = ledger.observe(felt(Cause.PORT_CLOSED, 20.0), context(FIRST))
    assert after is not None
    assert after.status.identity == Identity(FIRST, 2)


def test_of_the_cries_of_one_doubt_only_the_newest_waits() -> None:
    ledger = ledger_with_a_pending_light()
    beats = [
        ledger.observe(felt(Cause.PORT_CLOSED, 15.0 + 10 * i), context(FIRST)) for i in range(1_000)
    ]
    rules = [event.rule for event in ledger.pending if isinstance(event, Transition)]
    cries = [event for event in ledger.pending if isinstance(event, CannotReach)]
    assert (rules, [cry.at for cry in cries]) == (["first_ok", "doubt"], [15.0 + 10 * 999])
    assert beats[1]
    assert len(ledger.accept(beats[1])) == 2, (
        "of a beat with an older cry the transitions are accepted all the same"
    )
    assert ledger.pending == (cries[0],)


def test_each_doubt_keeps_its_cry() -> None:
    ledger = ledger_with_a_pending_light()
    for i in range(10):
        ledger.observe(
            felt(Cause.PORT_CLOSED if i % 2 else Cause.OK, 20.0 + 10 * i), context(FIRST)
        )
    cries = [event.doubt for event in ledger.pending if isinstance(event, CannotReach)]
    assert len(cries) == len(set(cries)) == 5


def test_what_waits_is_bounded_and_keeps_its_identities() -> None:
    """A reply may have been lost: what waits may be accepted, so nothing of it may be told anew
    under its names.
    """
    ledger = ledger_with_a_pending_light()
    for i in range(2_000):
        ledger.observe(
            felt(Cause.PORT_CLOSED if i % 2 else Cause.OK, 20.0 + 10 * i), context(FIRST)
        )
    assert len(ledger.pending) < PENDING_MOST + 3
    assert ledger.unjudged > 0
    before, last = ledger.pending, ledger.tentative
    beat = ledger.observe(felt(Cause.OK, 90_000.0), context(FIRST))
    assert beat
    assert (beat.events, beat.status) == (before, last)
    ledger.accept(beat)
    assert (ledger.pending, ledger.accepted) == ((), last)
    assert ledger.observe(felt(Cause.PORT_CLOSED, 90_010.0), context(FIRST)) is not None
