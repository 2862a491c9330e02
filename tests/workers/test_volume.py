"""Hours without Redis at full size: what 500 databases had to say meanwhile is recorded once it is
back.

Ten minutes of it; FEELER_DEEPER=2 tries three hours, in which the worst of them reach the limit.
"""

import asyncio
import os
import resource
import time

import pytest

from monitor.core.assignment import Assignment
from monitor.core.cause import Cause
from monitor.core.event import Transition
from monitor.core.holding import PENDING_MOST
from monitor.core.machine import Context
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Status
from monitor.live import assignments, observations
from monitor.live.connections import Live
from monitor.live.keys import PARTITIONS, partition_key
from tests.waiting import eventually
from tests.workers.test_recorder import opened
from workers.worker import recorder as module
from workers.worker.pulse import Pulse
from workers.worker.recorder import Recorder

DATABASES, INTERVAL = 500, 5
SECONDS = 3 * 3600 if int(os.environ.get("FEELER_DEEPER", "1")) > 1 else 600
SILENCE = 0.2  # seconds the loop may stand still
START = 1_000_000_000.0
WELL, DOWN = 250, 150


def cause(number: int, beat: int) -> Cause:
    """Say how a database is found: well, down all the time, or coming and going every half
    minute.
    """
    if number < WELL:
        return Cause.OK
    if number < WELL + DOWN:
        return Cause.PORT_CLOSED if beat else Cause.OK
    return Cause.OK if beat // 6 % 2 else Cause.STARTING


async def live_through(recorder: Recorder, names: list[str]) -> None:
    """Feel all of them at their cadence."""
    for beat in range(SECONDS // INTERVAL):
        for number, name in enumerate(names):
            if beat and number < WELL:
                continue  # nothing comes of it
            at = START + beat * INTERVAL
            seen = Observation(
                database=name, worker="w1", sent_at=at - 0.01, at=at, cause=cause(number, beat)
            )
            holding = recorder.custody.holdings[name]
            context = Context(worker="w1", epoch=holding.epoch, policy=Policy(), eligible=2)
            holding.observe(seen, context)
            recorder.offer(seen)
        await asyncio.sleep(0)


class Loop:
    """Measures for how long the loop stands still by its own doing; what a busy machine takes does
    not count.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, time.thread_time() - before)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_what_500_databases_said_while_redis_was_away_is_recorded(live: Live) -> None:
    await opened(live, Epoch(1, 1))
    recorder, names = (
        Recorder(live, "w1", lambda: None),
        [f"db-{number:03}" for number in range(DATABASES)],
    )
    for number, name in enumerate(names):
        epoch = Epoch(1, 10 + number)
        await assignments.assign(
            live, Assignment(name, "w1", epoch), planned=False, now=1.0, seed=Status(), registry=""
        )
        recorder.learn(name, epoch, Status())
    before = rss()
    began = time.monotonic()
    await live_through(recorder, names)
    print(f"lived through in {time.monotonic() - began:.1f} s")
    waiting = {name: recorder.custody.holdings[name].pending for name in names}
    events = sum(map(len, waiting.values()))
    assert max(map(len, waiting.values())) <= PENDING_MOST + 1
    print(f"{events} events wait, {rss() - before} MB; unjudged {recorder.unjudged}")
    assert await recorder.follow_generation()  # Redis is back
    recorder.pulse = Pulse(lambda: None)  # all that took its time
    loop, began = Loop(), time.monotonic()
    tasks = [asyncio.create_task(loop.watch()), asyncio.create_task(recorder.run())]
    recorder._wake.set()
    await eventually(lambda: not recorder._outbox, within=300, every=0.05)
    took = time.monotonic() - began
    for task in tasks:
        task.cancel()
    print(
        f"recorded in {took:.1f} s, {events / took:.0f} events/s; "
        f"loop stood still for {loop.longest * 1000:.0f} ms"
    )
    print(f"at most {rss()} MB; batches of {recorder._bytes} bytes of {module.BYTES}")
    latest = await observations.latest(live, names)
    for name in names:
        holding = recorder.custody.holdings[name]
        assert (holding.pending, holding.accepted) == ((), holding.tentative)
        assert latest[name].status.identity == holding.accepted.identity
        assert sum(isinstance(event, Transition) for event in waiting[name]) == (
            sum(1 for database, _ in recorder.custody.retained if database == name)
        )
    journal = [
        await live.cache.xlen(partition_key(number, "journal")) for number in range(PARTITIONS)
    ]
    assert sum(journal) == events
    assert loop.longest < SILENCE


def rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
