from workers.worker.clock import FleetClock


def test_follows_the_fleet_and_not_the_hosts_wall_clock() -> None:
    mono = [50.0]
    clock = FleetClock(lambda: mono[0])
    clock.anchor(1_000_000.0, round_trip=0.0)
    assert clock.now() == 1_000_000.0
    mono[0] += 12.5
    assert clock.now() == 1_000_012.5


def test_a_moment_is_dated_by_the_clock_as_it_is_set_now() -> None:
    mono = [50.0]
    clock = FleetClock(lambda: mono[0])
    clock.anchor(1_000_000.0, round_trip=0.0)
    mono[0] += 40
    clock.anchor(1_000_040.0 - 3600, round_trip=0.0)
    assert clock.now() - clock.date(50.0) == 40


def test_a_slow_answer_does_not_shift_it() -> None:
    mono = [50.0]
    clock = FleetClock(lambda: mono[0])
    clock.anchor(1_000_000.0, round_trip=0.0)
    clock.anchor(1_000_000.03, round_trip=0.1)
    assert clock.now() == 1_000_000.0
