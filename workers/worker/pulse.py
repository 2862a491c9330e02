"""The heartbeat of an event loop: notices that this process was frozen or late.

Only workers/worker imports this.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable

from monitor.core.timing import FREEZE, PULSE_EVERY, STALL

log = logging.getLogger("feeler.pulse")

WARN_FROM = 0.25  # seconds: a loop that stands still for longer says so


class Pulse:
    """Gaps in the monotonic clock as the loop sees them.

    `on_freeze` runs after a long one, before anything is written.
    """

    def __init__(
        self, on_freeze: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._on_freeze = on_freeze
        self._last = clock()
        self._starvation = _Starvation()
        self._stalled_at = float("-inf")

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            self.check()
            await asyncio.sleep(PULSE_EVERY)

    def check(self) -> None:
        """Note the time since the last check.

        The recorder calls it before every batch: after a freeze it may be woken before this loop.
        """
        now, starved = self._clock(), self._starvation.grown()
        gap, self._last = now - self._last, now
        if gap > STALL:
            self._stalled_at = now
        if gap > PULSE_EVERY + WARN_FROM:
            log.warning("action=loop_stalled seconds=%.3f starved=%.3f", gap - PULSE_EVERY, starved)
        if gap > FREEZE:
            self._on_freeze()

    def stalled_since(self, moment: float) -> bool:
        """Tell whether the loop stood still at any time after `moment` (monotonic seconds)."""
        self.check()
        return self._stalled_at > moment


class _Starvation:
    """How long this thread was ready to run and got no processor.

    It tells our own slowness from the machine's. Linux's schedstat; zero where there is none.
    """

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1
        self._before = 0.0
        self.grown()

    def grown(self) -> float:
        """Return the seconds waited for a processor since the last call."""
        try:
            waited = int(os.pread(self._file, 64, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0
        grown, self._before = waited - self._before, waited
        return grown
