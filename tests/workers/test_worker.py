"""A worker's life as a process: its id, its last words, and what it does when it meets its twin."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from monitor.config import Settings
from monitor.core.status import Epoch
from monitor.live import presence
from monitor.live.connections import Live
from monitor.live.keys import claim_key, presence_key
from monitor.secrets import SecretBox
from tests.factories import transition
from tests.waiting import eventually
from tests.workers.test_recorder import opened
from workers.worker import process as module
from workers.worker.process import Worker, claim_id, new_id


@pytest.fixture
async def working(
    live: Live, redis_url: str, tmp_path: Path
) -> AsyncIterator[tuple[Worker, asyncio.Task[bool]]]:
    """A worker at work under the id w1; it owns nothing."""
    await opened(live, Epoch(1, 1))
    assert await presence.claim(live, "w1")
    settings = Settings(home=tmp_path, database_url="", redis_url=redis_url, cache_url=redis_url)
    worker = Worker("w1", settings, live, SecretBox(["0" * 43 + "="]))
    running = asyncio.create_task(worker.run())

    async def is_here() -> bool:
        return "w1" in await presence.present(live)

    await eventually(is_here, within=20)
    yield worker, running
    running.cancel()
    await asyncio.wait({running})


async def test_an_id_that_lives_or_is_still_known_is_drawn_again(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["alive", "remembered", "free"])
    monkeypatch.setattr(module, "new_id", lambda: next(drawn))
    await live.bus.set(claim_key("alive"), "another process")
    await live.bus.zadd("feeler:workers", {"remembered": 1.0})
    assert await claim_id(live) == "free"
    assert await live.bus.get(claim_key("free")) == presence.PROCESS


def test_ids_differ_by_40_bits() -> None:
    host, _, drawn = new_id().rpartition("-")
    assert (1 <= len(host) <= 8, len(drawn), int(drawn, 16) >= 0) == (True, 10, True)
    assert len({new_id() for _ in range(10_000)}) == 10_000


async def test_a_worker_whose_id_another_process_holds_ends(
    live: Live, working: tuple[Worker, asyncio.Task[bool]]
) -> None:
    _, running = working
    await live.bus.set(claim_key("w1"), "its twin")
    assert await asyncio.wait_for(running, 20) is False
    assert await live.bus.get(claim_key("w1")) == "its twin", "whose presence it is now"
    assert await live.bus.exists(presence_key("w1"))


async def test_a_presence_that_outlives_its_worker_is_nobodys_company(
    working: tuple[Worker, asyncio.Task[bool]],
    live: Live,
    arrive: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where Redis's clock goes back just after a worker died, the one that is left must come to
    know that it is.
    """
    worker, _ = working
    monkeypatch.setattr(presence, "PRESENCE_TTL", 3.0)
    await arrive("w2")
    await live.bus.pexpire(presence_key("w2"), 3_600_000)
    await eventually(lambda: worker.peers.eligible == 2, within=10)
    await eventually(lambda: worker.peers.eligible == 1, within=15)
    assert "w2" in await presence.present(live)


async def test_a_worker_that_leaves_is_gone_at_once(
    live: Live, working: tuple[Worker, asyncio.Task[bool]]
) -> None:
    worker, running = working
    worker._stop.set()
    assert await asyncio.wait_for(running, 20) is True
    assert await live.bus.exists(presence_key("w1"), claim_key("w1")) == 0
    assert await presence.known(live) == set()


async def test_a_worker_that_leaves_early_is_gone_at_once_too(
    live: Live, working: tuple[Worker, asyncio.Task[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, running = working

    async def is_needed() -> bool:
        await worker._announce()
        return True

    monkeypatch.setattr(module, "HANDOVER", 0.5)
    monkeypatch.setattr(worker, "_is_needed", is_needed)
    worker._stop.set()
    assert await asyncio.wait_for(running, 20) is True
    assert await live.bus.exists(presence_key("w1"), claim_key("w1")) == 0
    assert await presence.known(live) == {"w1"}, "what it owns must still be taken from it"


class DropsCancellation:
    """A step that drops its first cancellation, as asyncio.wait_for does before Python 3.12 when
    what it waits for is just done.
    """

    def __init__(self) -> None:
        self.dropped = False

    async def __call__(self) -> bool:
        try:
            await asyncio.sleep(0 if self.dropped else 60)
        except asyncio.CancelledError:
            self.dropped = True
        return True


async def test_a_handover_ends_in_time_though_its_timeout_is_dropped(
    working: tuple[Worker, asyncio.Task[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, running = working
    step = DropsCancellation()
    monkeypatch.setattr(module, "HANDOVER", 0.5)
    monkeypatch.setattr(worker, "_is_needed", step)
    worker._stop.set()
    await asyncio.wait({running}, timeout=10)
    assert (step.dropped, running.done()) == (True, True)
    assert running.result() is True


async def test_a_drain_ends_in_time_though_its_timeout_is_dropped(
    working: tuple[Worker, asyncio.Task[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, running = working
    step = DropsCancellation()
    recorder = worker._recorder
    recorder.custody._retain((transition("1.1.1"),))
    monkeypatch.setattr(module, "HANDOVER", 0.5)
    monkeypatch.setattr(recorder, "forget_durable", step)
    recorder.give_up_id()
    await asyncio.wait({running}, timeout=10)
    assert (step.dropped, running.done(), recorder.retained) == (True, True, 1)
    assert running.result() is False
