"""What every process of ours does at start and while it runs. For the two processes alone."""

import asyncio
import logging
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable

from monitor.config import Settings
from monitor.core.errors import FeelerError, StoreUnavailable
from workers.troubles import Trouble

log = logging.getLogger("feeler.process")

RETRY_AFTER = 0.5  # seconds, at least, before a step that failed is tried again
CANCEL_AGAIN = 0.5  # seconds a cancelled task has to end before it is cancelled once more


def start() -> Settings:
    """Set up logs and read the settings; exit with one line when they are not usable."""
    try:
        settings = Settings.from_env(os.environ)
    except FeelerError as exc:
        sys.exit(f"feeler: {exc}")
    form = "%(asctime)s %(levelname).1s %(name)s %(message)s"
    logging.basicConfig(level=settings.log_level, format=form, stream=sys.stderr)
    logging.getLogger("transitions").setLevel(logging.WARNING)  # it tells every callback
    return settings


async def keep(
    step: Callable[[], Awaitable[object]], *, every: float, wake: asyncio.Event | None = None
) -> None:
    """Run `step` for ever, `every` seconds apart or when `wake` is set; no failure ends it."""
    trouble = Trouble(step.__name__)
    while True:
        if wake:
            wake.clear()  # before the step: what comes up during it wakes the next one
        pause = max(every, RETRY_AFTER)
        try:
            await step()
            trouble.worked()
            pause = every
        except StoreUnavailable as exc:
            trouble.failed(f"{exc.store}:{exc.detail}")
        except FeelerError as exc:
            trouble.failed(str(exc))
        except Exception:
            log.exception("action=step_failed step=%s", step.__name__)
        await _pause(pause, wake)


async def end(tasks: Iterable["asyncio.Task[object]"], *, within: float = math.inf) -> None:
    """Cancel tasks and wait for their end, at most `within` seconds; what they raise is dropped.

    Race: before Python 3.12 asyncio.wait_for, by which our Redis client writes, drops a
    cancellation that comes just as the write is done, and the task goes on. So: until it ends.
    """
    until, running = time.monotonic() + within, set(tasks)
    while running and (left := until - time.monotonic()) > 0:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=min(CANCEL_AGAIN, left))


async def _pause(seconds: float, wake: asyncio.Event | None) -> None:
    if wake is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
