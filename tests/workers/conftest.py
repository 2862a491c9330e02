from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from monitor.live import connections, generation
from monitor.live.connections import Live
from monitor.live.presence import announce
from tests.factories import here


@pytest.fixture
async def live(redis_url: str) -> AsyncIterator[Live]:
    live = connections.connect(redis_url)
    yield live
    await connections.close(live)


@pytest.fixture
def arrive(live: Live) -> Callable[..., Awaitable[None]]:
    """Announce workers that only seem to be there."""

    async def arrive(*workers: str, leaving: bool = False, restored: bool = True) -> None:
        for worker in workers:
            now = await connections.now(live)
            await announce(live, here(worker, now, started_at=1.0, leaving=leaving))
            if restored:
                await generation.restore(live, worker, [], 0, "")

    return arrive
