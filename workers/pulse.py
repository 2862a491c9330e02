"""The heartbeat of an event loop: notices that this process was frozen or late. Only workers/ imports this."""

import asyncio
import logging
import time
from collections.abc import Callable

log = logging.getLogger("feeler.pulse")

BEAT = 0.1  # seconds between heartbeats
STALL = 0.5  # a gap this long makes our own negatives worthless
FREEZE = 3.0  # a gap this long may have cost us our databases: presence lives for 6 s


class Pulse:
    """Gaps in the monotonic clock as the loop sees them. `on_freeze` runs before anything is written after one."""

    def __init__(self, on_freeze: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._on_freeze = on_freeze
        self._last = clock()
        self._stalled_at = float("-inf")

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            self.check()
            await asyncio.sleep(BEAT)

    def check(self) -> None:
        """Note the time since the last check; call it before every write as well, whoever wakes first."""
        now = self._clock()
        gap, self._last = now - self._last, now
        if gap > STALL:
            self._stalled_at = now
            log.warning("action=loop_stalled seconds=%.3f", gap)
        if gap > FREEZE:
            self._on_freeze()

    def stalled_since(self, moment: float) -> bool:
        """Tell whether the loop stood still at any time after `moment` (monotonic seconds)."""
        self.check()
        return self._stalled_at > moment
