"""Wait for something to become true, with a deadline instead of a sleep; watch on meanwhile."""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def again_and_again(act: Callable[[], object], every: float) -> Iterator[None]:
    """Do something in a thread of its own, each so many seconds, as long as the block lasts."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every):
            act()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
