from hypothesis import given
from hypothesis import strategies as st

from monitor.core.schedule import Wheel, grid

names = st.sampled_from("abcdef")
moments = st.floats(0, 100, allow_nan=False)


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
