"""Every state, evidence and context: what must hold of the machine whatever happens."""

import copy
import itertools
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.event import CannotReach, Transition
from monitor.core.machine import (
    CANNOT_MOVE,
    MACHINE,
    NAMED_BY,
    STEADY,
    TRANSITIONS,
    Opinion,
    is_quiet,
    tick,
)
from monitor.core.policy import Policy
from monitor.core.status import Doubt, Epoch, Identity, State, Status, Witness, decode, encode
from monitor.core.timing import CLOCK_STEP
from monitor.core.verdict import ERRORS_MOST, Subject, elapsed
from tests.core.making import POLICY, START, context, examples, seen

NOW = 100.0  # when the observation ends, in seconds from START
ID = Identity(Epoch(1, 1), 7)
# One cause a class, and every one that names a state.
SPOKEN = (Cause.OK, Cause.STARTING, Cause.LOCKED_OUT, Cause.SERVER_ERROR)
CAUSES = (*SPOKEN, Cause.PORT_CLOSED, Cause.HUNG, Cause.LATE_LOOP)


def witness(worker: str, ago: float, cause: Cause = Cause.PORT_CLOSED, rounds: int = 2) -> Witness:
    return Witness(worker, rounds, START + NOW - ago - 0.5, START + NOW - ago, cause)


def doubtful(age: float, witnesses: tuple[Witness, ...], **more) -> Status:
    began, run = START + NOW - age, (None, 0)
    if witnesses and all(EVIDENCE[one.cause] is Evidence.ABSENT for one in witnesses):
        run = began, sum(one.rounds for one in witnesses)
    doubt = Doubt(ID, began, began, witnesses, *run)
    return Status(State.UNCERTAIN, began, ID, "doubt", doubt, **more)


def settled_statuses() -> list[Status]:
    settled = [state for state in State if state is not State.UNCERTAIN]
    plain = [Status(), *(Status(state, START + NOW - 50, ID, "x") for state in settled)]
    spoken = {State.STARTING: Cause.LOCKED_OUT}
    waiting = [replace(one, alive=spoken.get(one.state, Cause.STARTING)) for one in plain]
    down = Status(State.UNAVAILABLE, START + NOW - 50, ID, "x")
    recovering = [replace(down, ok_since=START + NOW - ago, ok_rounds=1) for ago in (1, 5)]
    lost = [{"unreachable_from": ("w1", "w2"), "unreachable_at": START + NOW - t} for t in (9, 900)]
    doubted = [replace(status, **more) for status in plain for more in lost]
    erring = [replace(status, errors=2) for status in plain if status.state is not State.REFUSING]
    return plain + waiting + recovering + doubted + erring


def uncertain_statuses() -> list[Status]:
    groups = [
        (),
        (witness("w1", 1),),
        (witness("w2", 3),),
        (witness("w2", 3, Cause.HUNG), witness("w1", 1)),
        (witness("w2", 15),),
        (witness("w2", 90, Cause.HUNG),),
        (witness("w3", 3), witness("w2", 2.5, Cause.HUNG), witness("w1", 1)),
    ]
    told = ((None, 0), (Cause.LOCKED_OUT, 0), (None, 2))
    return [
        doubtful(age, group, alive=alive, errors=errors)
        for age, group, (alive, errors) in itertools.product((1, 4, 95), groups, told)
        if not group or age > 3
    ]


def opinion(cause: Cause, ago: float, worker: str = "w4", doubt: Identity = ID) -> Opinion:
    return Opinion(doubt, worker, START + NOW - ago - 0.1, START + NOW - ago, cause)


OPINIONS = [
    (),
    (opinion(Cause.PORT_CLOSED, 2.5), opinion(Cause.PORT_CLOSED, 1.5)),
    (opinion(Cause.HUNG, 30),),
    (opinion(Cause.PORT_CLOSED, 0.1),),  # came after the owner's probe was sent
    (opinion(Cause.OK, 2),),
    (opinion(Cause.LOCKED_OUT, 2, "w2"),),
]
ALONE = [
    (1, START + NOW - 31, True),
    (1, START + NOW - 31, False),
    (1, START + NOW - 5, True),
    (3, None, True),
]


def cases():
    """Yield every status, observation and context worth telling apart."""
    calm = context()
    for status, cause, late in itertools.product(settled_statuses(), CAUSES, (0, 60)):
        yield status, seen(cause, NOW - late, sent=NOW - late - 0.2), calm
    contexts = [
        context(eligible=eligible, alone_since=since, canaries_green=green, opinions=opinions)
        for eligible, since, green in ALONE
        for opinions in (OPINIONS if eligible > 1 else OPINIONS[::2])
    ]
    for status, cause, there in itertools.product(uncertain_statuses(), CAUSES, contexts):
        yield status, seen(cause, NOW, sent=NOW - 0.2), there
    for status, cause in itertools.product(uncertain_statuses(), CAUSES):
        yield status, seen(cause, NOW - 96, sent=NOW - 96), calm


CASES = list(cases())


@cache
def outcomes():
    """Tick every case once; the machine fires each, the guard asked or not."""
    told = []
    for status, observation, there in CASES:
        subject = Subject(status, observation, there)
        assert MACHINE.events["tick"].trigger(subject)
        told.append((status, observation, there, subject.rule, *tick(status, observation, there)))
    return told


def holding(status, observation, there):
    """Return the names of the rules that hold, asked one by one, without the machine."""
    subject = Subject(status, observation, there)
    return [
        rule.name
        for rule in TRANSITIONS
        if status.state in rule.sources
        and subject.evidence in rule.evidence
        and rule.target(observation.cause) not in (None, status.state)
        and rule.proof(subject)
    ]


def test_exactly_one_rule_fires_in_every_case_and_every_rule_in_some():
    for status, observation, there, rule, _, _ in outcomes():
        names = holding(status, observation, there)
        assert len(names) <= 1, (names, status, observation, there)
        assert [rule] == (names or [STEADY.name])
    fired = {rule for _, _, _, rule, _, _ in outcomes()}
    assert fired == {rule.name for rule in (STEADY, *TRANSITIONS)}


def test_the_guard_and_the_machine_agree():
    moved = set()
    for status, observation, _, rule, after, events in outcomes():
        if is_quiet(status, observation):
            assert (rule, after, events) == (STEADY.name, status, ())
        elif rule != STEADY.name:
            assert (after.rule, after.state) == (rule, events[0].target)
            moved.add((status.state, observation.cause))
    # the guard is exact: what it lets through can move, what it holds back can not
    pairs = itertools.product(State, CAUSES)
    assert moved == {(state, cause) for state, cause in pairs if cause not in CANNOT_MOVE[state]}


def test_the_usual_beat_is_quiet():
    assert is_quiet(Status(State.AVAILABLE, START, ID), seen(Cause.OK, 5))
    assert is_quiet(Status(State.UNAVAILABLE, START, ID), seen(Cause.HUNG, 5))
    assert is_quiet(Status(State.LOCKED_OUT, START, ID), seen(Cause.LOCKED_OUT, 5))


def test_our_own_fault_changes_nothing_at_all():
    faults = [cause for cause in Cause if EVIDENCE[cause] is Evidence.OUR_FAULT]
    for status, cause in itertools.product(settled_statuses() + uncertain_statuses(), faults):
        after, events = tick(status, seen(cause, NOW), context())
        assert after is status
        assert events == ()


def test_a_clock_that_was_set_back_freezes_no_state():
    for before in settled_statuses() + uncertain_statuses():
        if before.identity:
            status, earlier = before, before.since - START - 3600
            for i in range(20):  # enough for every patience
                status, _ = tick(status, seen(Cause.OK, earlier + i), context())
            assert status.state is State.AVAILABLE
            doubted, _ = tick(status, seen(Cause.PORT_CLOSED, earlier + 20), context())
            assert doubted.state is State.UNCERTAIN


@pytest.mark.parametrize("back", [15, 59, 3600, 100_000])
@pytest.mark.parametrize("cause", [Cause.PORT_CLOSED, Cause.HUNG])
def test_no_moment_in_the_future_keeps_an_outage_from_being_told(cause, back):
    """Alone, or two in turn: patience begins anew, whatever was under way."""
    for before in settled_statuses() + uncertain_statuses():
        for alone in (True, False):
            status = before
            for i in range(26):
                at = NOW - back + i
                worker = "w1" if alone or i < 13 else "w5"
                there = context(worker, 1 if worker == "w1" else 2, eligible=1 if alone else 3)
                there = replace(there, alone_since=START + at - 40 if alone else None)
                status, _ = tick(status, seen(cause, at, sent=at - 0.5, worker=worker), there)
                assert status.since <= START + at + CLOCK_STEP
            assert status.state is State.UNAVAILABLE, (before, alone)


def test_what_is_older_than_the_state_changes_nothing_at_all():
    young = [status for status in uncertain_statuses() if status.since > START + NOW - 5]
    for status, cause in itertools.product(settled_statuses() + young, CAUSES):
        if status.identity and status.unreachable_at <= status.since and not status.ok_since:
            older = seen(cause, status.since - START - 5, sent=status.since - START - 6)
            assert tick(status, older, context()) == (status, ())


def test_the_same_feel_told_twice_counts_once():
    status = doubtful(4, (witness("w1", 1),))
    again = seen(Cause.PORT_CLOSED, NOW - 1, sent=NOW - 1.5)
    assert tick(status, again, context())[0] is status


def test_every_state_has_an_exit():
    left = ((status.state, after.state) for status, _, _, _, after, _ in outcomes())
    assert {before for before, after in left if after != before} == set(State)


def test_only_a_single_observer_reaches_unavailable_by_itself():
    found = set()
    for _, _, there, _, _, events in outcomes():
        for event in events:
            if isinstance(event, Transition) and event.target is State.UNAVAILABLE:
                found.add((event.rule, len(event.observers)))
                alone = event.rule == "single_observer" and there.eligible == 1
                assert alone or len(event.observers) > 1
    assert {("confirm_absent", 2), ("confirm_silent", 2), ("single_observer", 1)} <= found


def test_alive_is_never_down():
    for status, observation, _, _, after, events in outcomes():
        spoke = observation.evidence in (Evidence.OK, Evidence.ALIVE)
        if spoke and status.state is not State.UNAVAILABLE:
            assert after.state is not State.UNAVAILABLE
            assert not any(isinstance(event, CannotReach) for event in events)


def test_a_tick_is_deterministic_and_leaves_its_arguments_alone():
    for status, observation, there in CASES[::29]:
        before = copy.deepcopy((status, observation, there))
        assert tick(status, observation, there) == tick(*before)
        assert (status, observation, there) == before


def test_a_healthy_database_is_available_after_three_beats():
    for status in settled_statuses() + uncertain_statuses():
        after = status
        for at in (NOW, NOW + 1, NOW + 2):
            after, _ = tick(after, seen(Cause.OK, at), context())
        assert after.state is State.AVAILABLE, status


@pytest.mark.parametrize("cause", [Cause.PORT_CLOSED, Cause.HUNG])
def test_a_dead_database_is_unavailable_soon_after_it_changed_hands(cause):
    """W1 feels it for 8 s, then w5: silent takes 10 s since the first failed probe."""
    for status in settled_statuses() + uncertain_statuses():
        after = status
        for at in range(14):
            worker = "w1" if at < 8 else "w5"
            there = context(worker, 1 if at < 8 else 2)
            after, _ = tick(after, seen(cause, NOW + at, sent=NOW + at - 0.5, worker=worker), there)
        assert after.state is State.UNAVAILABLE, status


@pytest.mark.parametrize("cause", NAMED_BY)
def test_a_server_that_speaks_names_the_state_within_two_beats_and_with_errors_three(cause):
    for status in settled_statuses() + uncertain_statuses():
        after = status
        for at in range(ERRORS_MOST if cause is Cause.SERVER_ERROR else 2):
            after, _ = tick(after, seen(cause, NOW + at), context())
        assert after.state is NAMED_BY[cause], status


@pytest.mark.parametrize("other", [Cause.PORT_CLOSED, Cause.HUNG, Cause.LATE_LOOP])
def test_a_server_that_errs_and_falls_silent_in_turn_is_refusing_in_the_end(other):
    for before in settled_statuses() + uncertain_statuses():
        states, status = set(), before
        for at in range(12):
            found = seen(other if at % 2 else Cause.SERVER_ERROR, NOW + at)
            status, _ = tick(status, found, context())
            states.add(status.state)
        assert State.REFUSING in states or before.state is State.UNAVAILABLE, before


steps = st.lists(
    st.tuples(
        st.sampled_from((*CAUSES, Cause.PORT_CLOSED, Cause.HUNG, Cause.OK)),
        st.integers(-50, 4000),  # milliseconds between two feels: clocks may go back a little
        st.integers(0, 2000),  # milliseconds a feel takes
        st.sampled_from(["", "", "", "", "w1", "w2", "w3"]),  # who takes over
        st.sampled_from([0, 1, 1, 3]),  # eligible
    ),
    max_size=50,
)


def tape(history):
    """Turn the steps into observations with their contexts."""
    at, worker, counter = 0, "w1", 1
    for cause, pause, took, taker, eligible in history:
        if taker and taker != worker:
            worker, counter = taker, counter + 1
        sent, at = at + pause, at + pause + took
        there = context(worker, counter, eligible=eligible, alone_since=START)
        yield seen(cause, at / 1000, sent=sent / 1000, worker=worker), there


def play(recorded, policy=POLICY):
    status, told, ended = Status(), [], []
    for observation, there in recorded:
        status, events = tick(status, observation, replace(there, policy=policy))
        told += events
        ended.append(status)
    return told, ended


@given(steps)
@examples(40)
def test_any_history_keeps_the_chain_and_the_books(history):
    told, ended = play(tape(history))
    transitions = [event for event in told if isinstance(event, Transition)]
    last, state = None, State.NEW
    for event in transitions:
        assert (event.prev, event.source) == (last, state)
        follows = last is not None and last.epoch == event.identity.epoch
        assert event.identity.n == (last.n + 1 if follows else 1)
        assert event.observers == tuple(sorted({finding.worker for finding in event.evidence}))
        assert event.worker in event.observers
        if event.target is State.UNAVAILABLE:
            assert len(event.observers) > 1 or event.rule == "single_observer"
        last, state = event.identity, event.target
    for status in ended:
        assert (status.doubt is not None) == (status.state is State.UNCERTAIN)
        assert status.ok_since is None or status.state is State.UNAVAILABLE
        assert (status.ok_rounds > 0) == (status.ok_since is not None)
        assert len({w.worker for w in status.doubt.witnesses} if status.doubt else ()) <= 4
        fields = encode(status)
        assert decode(fields) == status
        assert max(map(len, fields.values())) <= 64
    assert [status.since for status in ended] == sorted(status.since for status in ended)
    named = {event.doubt for event in told if isinstance(event, CannotReach)}
    assert named == {one.identity for one in transitions if one.target is State.UNCERTAIN}


@given(steps)
@examples(40)
def test_nothing_is_unavailable_before_its_time(history):
    """From the last proof of life to `unavailable` passes the quickest rule's patience."""
    forward = [(cause, abs(pause) + 1, *rest) for cause, pause, *rest in history]
    status, heard = Status(), START - 100
    for observation, there in tape(forward):
        status, events = tick(status, observation, there)
        if observation.evidence in (Evidence.OK, Evidence.ALIVE):
            heard = observation.sent_at
        if events and status.state is State.UNAVAILABLE:
            assert elapsed(heard, events[0].at) >= POLICY.absent_seconds


@given(steps)
@examples(40)
def test_the_quick_rule_rests_on_absents_alone(history):
    """Back to its patience before it fired, no finding was another than absent."""
    forward = [(cause, abs(pause) + 1, *rest) for cause, pause, *rest in history]
    status, since = Status(), None
    for observation, there in tape(forward):
        status, events = tick(status, observation, there)
        if observation.evidence is Evidence.ABSENT:
            since = observation.sent_at if since is None else since
        elif observation.evidence is not Evidence.OUR_FAULT:
            since = None
        if status.rule == "confirm_absent" and events:
            assert elapsed(since, observation.at) >= POLICY.absent_seconds


@given(steps)
@examples(10)
def test_a_tape_replays_to_the_same_end_and_through_the_cache_too(history):
    recorded = list(tape(history))
    told, ended = play(recorded)
    assert play(recorded) == (told, ended)
    status, again = Status(), []
    for observation, there in recorded:
        status, events = tick(decode(encode(status)), observation, there)
        again += events
    assert again == told


def test_a_tape_replays_against_another_policy():
    story = [(0, "w1"), (1, "w2"), (2, "w2")]
    recorded = [(seen(Cause.PORT_CLOSED, at, worker=w), context(w)) for at, w in story]
    for patience, second in ((2.0, State.UNCERTAIN), (1.0, State.UNAVAILABLE)):
        _, ended = play(recorded, Policy(absent_seconds=patience))
        assert [status.state for status in ended][1:] == [second, State.UNAVAILABLE]
