"""A worker that finds only its own faults is not watching, and asks for another one."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.own_faults import FAULTS_MOST, NO_FAULTS, FaultStreak, OwnFaults, count_fault
from monitor.core.timing import FAULTS_AGAIN, FAULTS_AWAY, FAULTS_FOR, LEARNED_LATELY
from tests.core.making import START, examples, seen

OUR_FAULTS = [cause for cause in Cause if EVIDENCE[cause] is Evidence.OUR_FAULT]


def requests(*story: tuple[Cause, float]) -> list[float]:
    """Return when a worker that feels this asks for another one."""
    streak, asked = NO_FAULTS, []
    for cause, at in story:
        streak, due = count_fault(streak, seen(cause, at))
        asked += [at] if due else []
    return asked


def test_three_faults_in_a_row_are_a_request_and_two_are_none():
    assert requests(*[(Cause.NO_CREDENTIALS, at) for at in (0, 1, 2, 3)]) == [2]
    late = [(Cause.LATE_LOOP, at) for at in (0, 1, 3)]
    assert requests(*late[:2], (Cause.OK, 2), late[2]) == []


def test_so_are_ten_seconds_of_them():
    assert requests((Cause.MISSING_FILE, 0), (Cause.MISSING_FILE, 9.999)) == []
    assert requests((Cause.MISSING_FILE, 0), (Cause.MISSING_FILE, 10)) == [10]


def test_it_is_requested_again_once_a_minute():
    assert requests(*[(Cause.DESCRIPTORS, at) for at in range(0, 150, 5)]) == [10, 70, 130]


found = st.sampled_from([*OUR_FAULTS, Cause.OK, Cause.PORT_CLOSED])


@given(st.lists(st.tuples(found, st.integers(-30_000, 30_000)), max_size=40))
@examples(60)
def test_whatever_the_clock_does_no_row_of_faults_stays_unsaid(steps):
    """A clock that is set back starts the row anew, so it is never silent for longer than a row
    takes.
    """
    streak, at, row, first, asked = NO_FAULTS, 0, 0, 0, False
    for cause, pause in steps:
        at += pause
        back = pause < 0
        streak, due = count_fault(streak, seen(cause, at / 1000))
        if cause not in OUR_FAULTS:
            row, asked = 0, False
            assert (streak, due) == (NO_FAULTS, False)
            continue
        row = 1 if back and streak.rounds == 1 else row + 1
        first = at if row == 1 else first
        asked = (asked and row > 1) or due
        assert asked == (row >= FAULTS_MOST or (at - first) / 1000 >= FAULTS_FOR)
        since = streak.requested_at
        assert since is None or since <= START + at / 1000 < since + FAULTS_AGAIN


def test_who_learns_nothing_of_anything_cannot_watch_until_a_while_has_passed():
    faults, asked = OwnFaults(), FaultStreak(3, START, START)
    assert faults.can_watch(0.0)
    faults.note(seen(Cause.NO_CREDENTIALS, 1), FaultStreak(1, START), 1.0)
    assert faults.can_watch(1.0), "one fault is none"
    faults.note(seen(Cause.NO_CREDENTIALS, 2), asked, 2.0)
    assert (faults.can_watch(2.0), faults.causes(2.0)) == (False, {"no_credentials": 1})
    assert not faults.can_watch(2.0 + FAULTS_AWAY - 1)
    assert (faults.can_watch(2.0 + FAULTS_AWAY), faults.causes(2.0 + FAULTS_AWAY)) == (True, {})


def test_who_cannot_look_at_one_database_can_watch_others():
    faults = OwnFaults()
    faults.note(seen(Cause.OK, 1), NO_FAULTS, 1.0)
    missing = replace(seen(Cause.MISSING_FILE, 2), database="db2")
    faults.note(missing, FaultStreak(3, START, START), 2.0)
    assert faults.can_watch(2.0)
    assert not faults.can_watch(1.0 + LEARNED_LATELY)
    assert faults.causes(2.0) == {"missing_file": 1}
    faults.note(replace(seen(Cause.PORT_CLOSED, 40), database="db2"), NO_FAULTS, 40.0)
    assert (faults.can_watch(40.0), faults.causes(40.0)) == (True, {})
