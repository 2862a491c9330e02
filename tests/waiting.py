"""Wait for something to become true, with a deadline instead of a sleep."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def eventually(probe: Callable[[], Any], *, within: float = 5.0, every: float = 0.02) -> Any:
    """Return the first truthy result of `probe` (sync or async); fail when none comes in time."""
    deadline = time.monotonic() + within
    while True:
        result = probe()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"not true within {within} s; last result: {result!r}"
        await asyncio.sleep(every)
