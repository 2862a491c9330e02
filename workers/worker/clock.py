"""Fleet seconds: the Redis server's clock carried on this host's monotonic one.

Only workers/worker imports this. A step of a host's wall clock changes nothing. A small step back
of the fleet's clock delays a verdict by its length, a larger one (CLOCK_STEP) dates a Status anew.
What Redis itself times hangs for the length of the step: lists show a dead worker, entries of a
supervisor that died just before wait to be claimed, what is durable is pruned later. Being alone is
measured on the monotonic clock, the lease on Postgres's.
"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger("feeler.clock")

WARN_FROM = 1.0  # seconds: Redis's clock was set, or it lives on another host now
TOLERANCE = 0.05  # seconds: smaller differences are round trips, not clocks


class FleetClock:
    """A clock all workers share; steps of a host's wall clock change nothing."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = time.time() - monotonic()  # a guess until the first anchor
        self._anchored = False

    def now(self) -> float:
        """Return unix seconds, rounded to the millisecond."""
        return self.date(self._monotonic())

    def date(self, moment: float) -> float:
        """Return when a monotonic moment was, by the fleet's clock as it is set now."""
        return round(moment + self._offset, 3)

    def anchor(self, fleet_now: float, round_trip: float) -> None:
        """Take the server's time, read within the last `round_trip` seconds, as the truth."""
        offset = fleet_now + round_trip / 2 - self._monotonic()
        step = offset - self._offset
        if abs(step) > TOLERANCE + round_trip / 2:
            if self._anchored and abs(step) > WARN_FROM:
                log.warning("action=clock_stepped seconds=%.3f", step)
            self._offset = offset
        self._anchored = True
