"""A worker that can only say void is not watching, and says so."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.custody import (
    VOIDS_MOST,
    Faults,
    Voids,
    hear,
)
from monitor.core.timing import FAULTS_AGAIN, FAULTS_AWAY, FAULTS_FOR, LEARNED_LATELY
from tests.core.making import START, examples, seen

VOIDS = [cause for cause in Cause if EVIDENCE[cause] is Evidence.OUR_FAULT]


def cries(*story: tuple[Cause, float]) -> list[float]:
    """Return when a worker cries that feels this."""
    voids, told = Voids(), []
    for cause, at in story:
        voids, due = hear(voids, seen(cause, at))
        told += [at] if due else []
    return told


def test_three_voids_in_a_row_are_a_cry_and_two_are_none():
    assert cries(*[(Cause.NO_CREDENTIALS, at) for at in (0, 1, 2, 3)]) == [2]
    assert (
        cries((Cause.LATE_LOOP, 0), (Cause.LATE_LOOP, 1), (Cause.OK, 2), (Cause.LATE_LOOP, 3)) == []
    )


def test_so_are_ten_seconds_of_them():
    assert cries((Cause.MISSING_FILE, 0), (Cause.MISSING_FILE, 9.999)) == []
    assert cries((Cause.MISSING_FILE, 0), (Cause.MISSING_FILE, 10)) == [10]


def test_it_is_said_again_once_a_minute():
    assert cries(*[(Cause.DESCRIPTORS, at) for at in range(0, 150, 5)]) == [10, 70, 130]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*VOIDS, Cause.OK, Cause.PORT_CLOSED]), st.integers(-30_000, 30_000)
        ),
        max_size=40,
    )
)
@examples(60)
def test_whatever_the_clock_does_no_row_of_voids_stays_unsaid(steps):
    """A clock that is set back starts the row anew, so it is never silent for longer than a row
    takes.
    """
    voids, at, row, first, told = Voids(), 0, 0, 0, False
    for cause, pause in steps:
        at += pause
        back = pause < 0
        voids, due = hear(voids, seen(cause, at / 1000))
        if cause not in VOIDS:
            row, told = 0, False
            assert (voids, due) == (Voids(), False)
            continue
        row = 1 if back and voids.rounds == 1 else row + 1
        first = at if row == 1 else first
        told = (told and row > 1) or due
        assert told == (row >= VOIDS_MOST or (at - first) / 1000 >= FAULTS_FOR)
        assert (
            voids.told_at is None
            or voids.told_at <= START + at / 1000 < voids.told_at + FAULTS_AGAIN
        )


def test_who_learns_nothing_of_anything_is_not_able_until_a_while_has_passed():
    faults, told = Faults(), Voids(3, START, START)
    assert faults.able(0.0)
    faults.note(seen(Cause.NO_CREDENTIALS, 1), Voids(1, START), 1.0)
    assert faults.able(1.0), "one void is none"
    faults.note(seen(Cause.NO_CREDENTIALS, 2), told, 2.0)
    assert (faults.able(2.0), faults.causes(2.0)) == (False, {"no_credentials": 1})
    assert not faults.able(2.0 + FAULTS_AWAY - 1)
    assert (faults.able(2.0 + FAULTS_AWAY), faults.causes(2.0 + FAULTS_AWAY)) == (True, {})


def test_who_cannot_look_at_one_database_can_watch_others():
    faults = Faults()
    faults.note(seen(Cause.OK, 1), Voids(), 1.0)
    faults.note(replace(seen(Cause.MISSING_FILE, 2), database="db2"), Voids(3, START, START), 2.0)
    assert faults.able(2.0)
    assert not faults.able(1.0 + LEARNED_LATELY)
    assert faults.causes(2.0) == {"missing_file": 1}
    faults.note(replace(seen(Cause.PORT_CLOSED, 40), database="db2"), Voids(), 40.0)
    assert (faults.able(40.0), faults.causes(40.0)) == (True, {})
