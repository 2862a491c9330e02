from collections.abc import AsyncIterator, Callable

import pytest

from monitor.live import connections
from monitor.live.connections import Live
from tests.live.builders import opened
from tests.workers.conftest import arrive  # noqa: F401


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Live]]:
    """Make clients; they are closed after the test."""
    made = []

    def make(redis_url: str, cache_url: str = "") -> Live:
        made.append(connections.connect(redis_url, cache_url))
        return made[-1]

    yield make
    for live in made:
        await connections.close(live)


@pytest.fixture
async def live(redis_url: str, connect: Callable[..., Live]) -> Live:
    """Clients of an empty Redis."""
    return connect(redis_url)


@pytest.fixture
async def name(live: Live) -> str:
    """The name of an open generation."""
    return await opened(live)
