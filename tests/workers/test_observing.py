"""One feel of a watch: what is learned of it for the next, and what is told of it."""

import asyncio
import time
from collections.abc import Callable

import pytest

from monitor.core.cause import Cause
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.schedule import grid
from monitor.core.status import Status
from monitor.core.timing import STALL
from monitor.feeler.session import FeelNotes
from tests import factories
from workers.worker.clock import FleetClock
from workers.worker.observing import Observer, sent_at
from workers.worker.peers import Peers
from workers.worker.pulse import Pulse
from workers.worker.watch import UnreadableAddress, Watch

POLICY = Policy()


@pytest.mark.parametrize(
    ("sent", "told"), [(98.0, 98.0), (3698.0, 100.0), (-3500.0, 97.5), (99.5, 99.5)]
)
def test_no_feel_took_longer_than_this_hosts_clock_says(sent: float, told: float) -> None:
    seen = factories.observation(at=100.0, sent_at=sent, cause=Cause.HUNG)
    assert sent_at(seen, 2.5) == told


class Far(UnreadableAddress):
    """A database whose login takes half a second."""

    async def feel(self, **_asked: object) -> tuple[Observation, FeelNotes]:
        await asyncio.sleep(0.5)
        return factories.observation(at=self.clock(), fresh_login=True), FeelNotes()


class Refusing:
    """A database that is down, felt by a process that stands still meanwhile."""

    neighbours = 1

    def __init__(self, stand_still: Callable[[], None]) -> None:
        self._stand_still = stand_still

    async def feel(self, **_asked: object) -> tuple[Observation, FeelNotes]:
        self._stand_still()
        return factories.observation(cause=Cause.PORT_CLOSED), FeelNotes()


async def test_the_next_routine_login_is_due_on_its_own_grid_however_long_this_one_took() -> None:
    clock = FleetClock()
    observer = Observer(clock, Pulse(lambda: None), Peers(), owned=lambda: 1)
    watch = Watch("orders", "", POLICY, 1, Far("orders", "w1", 1, clock.now))
    await observer.observe(watch, Status())
    due = clock.now() + watch.login_due - time.monotonic()
    on_grid = grid("orders", POLICY.login_interval, due - POLICY.login_interval / 2)
    assert due == pytest.approx(on_grid, abs=0.1)


@pytest.mark.parametrize(
    ("seconds", "cause"), [(STALL / 2, Cause.PORT_CLOSED), (STALL * 2, Cause.LATE_LOOP)]
)
async def test_a_negative_that_our_own_standing_still_may_have_caused_is_our_fault(
    seconds: float, cause: Cause
) -> None:
    clock, passed = FleetClock(), [0.0]
    pulse = Pulse(lambda: None, lambda: time.monotonic() + passed[0])
    session = Refusing(lambda: passed.append(passed.pop() + seconds))
    watch = Watch("orders", "", POLICY, 1, session)  # type: ignore[arg-type]
    seen = await Observer(clock, pulse, Peers(), owned=lambda: 1).observe(watch, Status())
    assert seen.cause is cause


class Felt(UnreadableAddress):
    """A database that is well, at a server with a hundred of ours."""

    notes = FeelNotes()

    async def feel(self, **_asked: object) -> tuple[Observation, FeelNotes]:
        return factories.observation(at=self.clock()), self.notes


async def felt(notes: FeelNotes) -> tuple[Watch, Observation]:
    clock, peers = FleetClock(), Peers()
    peers.meet(1, led=True, now=0.0)
    session = Felt("orders", "w1", 1, clock.now, neighbours=100)
    session.__class__.notes = notes
    watch = Watch("orders", "", POLICY, 1, session)
    observer = Observer(clock, Pulse(lambda: None), peers, owned=lambda: 1)
    return watch, await observer.observe(watch, Status())


async def test_two_workers_prove_one_login_a_second_at_a_server_of_a_hundred_each() -> None:
    _, seen = await felt(FeelNotes())
    assert seen.login_interval == 200


@pytest.mark.parametrize(
    ("notes", "due"),
    [
        (FeelNotes(), 0),  # there was no time for them: at once
        (FeelNotes(slow_seconds=1.0, slow_complete=True), 200),
        (FeelNotes(slow_seconds=0.001, slow_complete=True), POLICY.slow_interval),
    ],
)
async def test_slow_gauges_are_due_again_as_their_cost_and_their_luck_say(
    notes: FeelNotes, due: float
) -> None:
    watch, _ = await felt(notes)
    assert watch.slow_due == pytest.approx(time.monotonic() + due, abs=0.5)


async def test_a_login_interval_counts_the_databases_there_are_when_the_feel_is_over() -> None:
    """A worker that inherits thousands feels the first of them while it learns the others."""
    clock, owned = FleetClock(), [1]
    session = Refusing(lambda: owned.append(100_000))
    observer = Observer(clock, Pulse(lambda: None), Peers(), owned=lambda: owned[-1])
    watch = Watch("orders", "", POLICY, 1, session)  # type: ignore[arg-type]
    seen = await observer.observe(watch, Status())
    assert (seen.login_interval or 0) > POLICY.login_interval
