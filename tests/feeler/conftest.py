"""Fixtures of the feeler's tests."""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from monitor.core.database import Address
from monitor.core.observation import Observation
from monitor.feeler.session import FeelNotes, Session

MakeSession = Callable[..., Session]
CountResources = Callable[[], tuple[int, int]]


async def feel(session: Session, **asked: Any) -> Observation:
    """Feel as a routine beat does, with neither a login nor slow gauges, unless asked otherwise."""
    seen, _ = await feel_and_note(session, **asked)
    return seen


async def feel_and_note(session: Session, **asked: Any) -> tuple[Observation, FeelNotes]:
    """Feel, and return what the next feel must know too."""
    return await session.feel(**{"fresh": False, "slow": False, **asked})


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run on uvloop, as workers do: it tells of a socket's end in its own way.

    Probes of test_logins run on asyncio.
    """
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def make_session() -> AsyncIterator[MakeSession]:
    """Make sessions that are closed with the test: `make_session(address, deadline=1.0)`."""
    sessions: list[Session] = []

    def make(address: Address, **options: Any) -> Session:
        options = {"worker": "tester-000001", "deadline": 2.0, "clock": time.time, **options}
        sessions.append(Session(address, **options))
        return sessions[-1]

    yield make
    for session in sessions:
        await session.close()


@pytest.fixture
def count_resources() -> CountResources:
    """Count what may leak: open descriptors, and threads that make calls for us."""

    def count() -> tuple[int, int]:
        calls = [thread for thread in threading.enumerate() if thread.name == "feeler-call"]
        return len(os.listdir("/proc/self/fd")), len(calls)

    return count
