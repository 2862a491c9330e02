"""When a database is due, and for what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.cause import Cause
from monitor.core.schedule import (
    Wheel,
    cadence,
    grid,
    login_interval,
    next_due,
    slow_due,
    wants_login,
)
from monitor.core.status import Doubt, Epoch, Identity, State, Status
from tests.core.making import POLICY, START, seen

names = st.sampled_from("abcdef")
moments = st.floats(0, 100, allow_nan=False)


def doubtful(since: float = START) -> Status:
    identity = Identity(Epoch(1, 1), 1)
    return Status(State.UNCERTAIN, since, identity, "doubt", Doubt(identity, since, since, ()))


@given(st.lists(st.tuples(names, moments), max_size=30), moments)
def test_pops_exactly_what_is_due_at_its_newest_time(
    settings: list[tuple[str, float]], now: float
) -> None:
    wheel, newest = Wheel(), {}
    for name, due in settings:
        wheel.set(name, due)
        newest[name] = due
    expected = sorted(due for due in newest.values() if due <= now)
    popped = wheel.pop(now)
    assert [due for _, due in popped] == expected
    assert all(newest[name] == due for name, due in popped)
    left = [due for due in newest.values() if due > now]
    assert wheel.next() == (min(left) if left else None)
    assert wheel.pop(now) == []


def test_a_removed_database_is_never_due() -> None:
    wheel = Wheel()
    wheel.set("orders", 1.0)
    wheel.remove("orders")
    assert wheel.pop(10.0) == []
    assert wheel.next() is None


@given(names, st.floats(0.1, 60), st.floats(1.7e9, 1.8e9))
def test_grid_is_the_next_point_and_keeps_its_phase(name: str, interval: float, now: float) -> None:
    due = grid(name, interval, now)
    assert now < due <= now + interval + 1e-6
    steps = (grid(name, interval, due + interval / 2) - due) / interval
    assert abs(steps - round(steps)) < 1e-3


def test_the_cadence_follows_the_state():
    bad = Status(State.UNAVAILABLE, since=START)
    login_failing = Status(State.AVAILABLE, alive=Cause.STARTING)
    assert cadence(Status(), POLICY, START) == POLICY.interval
    assert cadence(Status(State.AVAILABLE), POLICY, START) == POLICY.interval
    assert cadence(login_failing, POLICY, START) == POLICY.fast_interval
    assert cadence(doubtful(), POLICY, START + 500) == POLICY.fast_interval
    assert cadence(bad, POLICY, START + 59.9) == POLICY.fast_interval
    assert cadence(bad, POLICY, START + 60) == POLICY.bad_interval


@pytest.mark.parametrize("observation", [None, seen(Cause.OK, 0.2, sent=0.1)])
def test_a_well_database_is_felt_on_its_own_grid(observation):
    due = next_due("db1", POLICY, Status(State.AVAILABLE), observation, START + 1)
    assert due == grid("db1", POLICY.interval, START + 1)


def test_a_doubt_counts_from_when_its_last_probe_was_sent():
    absent = seen(Cause.PORT_CLOSED, 0.3, sent=0.1)
    due = next_due("db1", POLICY, doubtful(), absent, START + 0.3)
    assert due == pytest.approx(START + 0.1 + POLICY.fast_interval)


def test_nothing_is_due_in_the_past_nor_long_after_a_clock_that_stepped_back():
    late = seen(Cause.PORT_CLOSED, 5, sent=0)
    assert next_due("db1", POLICY, doubtful(), late, START + 5) == START + 5
    ahead = seen(Cause.PORT_CLOSED, 600)
    due = next_due("db1", POLICY, doubtful(), ahead, START)
    assert due == START + POLICY.fast_interval


@pytest.mark.parametrize("at", [2.0, 2.7, 5.1, 7.9])
def test_silent_probes_end_just_when_the_doubt_may_be_decided(at):
    silent = seen(Cause.CONNECT_TIMEOUT, at, sent=at - POLICY.deadline)
    due = next_due("db1", POLICY, doubtful(), silent, START + at)
    probes_left = (START + POLICY.silent_seconds - due) / POLICY.deadline
    assert probes_left == pytest.approx(round(probes_left), abs=1e-6)
    assert START + at <= due < START + at + POLICY.fast_interval + POLICY.deadline


def test_only_an_available_database_does_without_fresh_logins():
    assert [state for state in State if not wants_login(Status(state))] == [State.AVAILABLE]
    assert wants_login(Status(State.AVAILABLE, alive=Cause.LOGIN_FAILING))
    assert not wants_login(Status(State.UNAVAILABLE, ok_rounds=1))


def test_logins_are_proved_each_minute():
    assert login_interval(POLICY, owned=1, neighbours=1, workers=1) == 60
    assert login_interval(POLICY, owned=700, neighbours=1, workers=50) == 60


def test_no_server_is_asked_for_more_than_one_login_a_second():
    assert login_interval(POLICY, owned=60, neighbours=60, workers=1) == 60
    assert login_interval(POLICY, owned=100, neighbours=100, workers=2) == 200


def test_no_worker_spends_more_than_a_twentieth_on_proving_logins():
    assert login_interval(POLICY, owned=10_000, neighbours=1, workers=1) == 800


@pytest.mark.parametrize(
    ("seconds", "complete", "due"),
    [(0.01, True, 160.0), (1.0, True, 300.0), (0.0, False, 100.0), (0.5, False, 200.0)],
)
def test_slow_gauges_that_found_no_time_are_asked_again_soon_but_never_for_more_than_their_share(
    seconds, complete, due
):
    assert slow_due(POLICY, 100.0, seconds, complete=complete) == due
