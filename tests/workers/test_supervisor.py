"""Who leads when Redis cannot be reached: two supervisors on real stores, moved step by step."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.config import Settings
from monitor.core.errors import StoreUnavailable
from monitor.live import connections
from monitor.registry import leadership
from monitor.registry.store import Store
from tests.proxy import Proxy
from tests.waiting import eventually
from workers.supervisor import Supervisor

LEASE = 1.5  # seconds
MakeSupervisor = Callable[[str], Supervisor]


@pytest.fixture
async def make_supervisor(tmp_path: Path, database_url: str, store: Store) -> AsyncIterator[MakeSupervisor]:
    async with contextlib.AsyncExitStack() as stack:

        def make(redis_url: str) -> Supervisor:
            live = connections.connect(redis_url)
            stack.push_async_callback(connections.close, live)
            settings = Settings(home=tmp_path, database_url=database_url, redis_url=redis_url, lease=LEASE)
            return Supervisor(settings, live, store)

        yield make


async def step(*supervisors: Supervisor) -> None:
    """Let each try to hold the lead and to sweep, once."""
    for one in supervisors:
        for part in (one._hold, one._sweep):
            with contextlib.suppress(StoreUnavailable):
                await part()


@pytest.fixture
def link(redis_server: Any, redis_url: str, start_proxy: Callable[[int], Proxy]) -> Proxy:
    """One supervisor's way to Redis."""
    return start_proxy(redis_server.port)


async def test_a_leader_cut_off_redis_makes_way(
    make_supervisor: MakeSupervisor, link: Proxy, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.RENEW", 0.1)
    first, second = make_supervisor(link.url(redis_url)), make_supervisor(redis_url)
    await step(first, second)
    assert first._leader
    assert not second._leader
    link.mode = "refuse"

    async def second_leads() -> bool:
        await step(first, second)
        return second._leader is not None

    await eventually(second_leads, within=3 * LEASE)
    link.mode = "pass"
    await step(first)
    assert first._leader is None


async def test_nobody_leads_who_cannot_reach_redis(
    make_supervisor: MakeSupervisor, link: Proxy, redis_url: str, store: Store
) -> None:
    link.mode = "refuse"
    with pytest.raises(StoreUnavailable):
        await make_supervisor(link.url(redis_url))._hold()
    assert leadership.current(store) is None
