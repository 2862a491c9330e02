from monitor.core.timing import FREEZE, STALL
from workers.worker.pulse import Pulse


class Hand:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_frozen_process_is_fenced_before_it_writes() -> None:
    clock, fenced = Hand(), []
    pulse = Pulse(lambda: fenced.append(clock.time), clock)
    clock.time += FREEZE - 0.1
    pulse.check()
    assert not fenced
    clock.time += FREEZE + 0.1
    pulse.check()
    assert fenced == [clock.time]


def test_a_stall_discredits_only_what_it_overlapped() -> None:
    clock = Hand()
    pulse = Pulse(lambda: None, clock)
    before = clock.time
    clock.time += STALL + 0.1
    assert pulse.stalled_since(before)
    after = clock.time
    clock.time += 0.1
    assert not pulse.stalled_since(after)
