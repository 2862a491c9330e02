"""Fleet seconds: the Redis server's clock carried on this host's monotonic one. Only workers/ imports this."""

import time
from collections.abc import Callable

STEP = 0.05  # seconds: smaller differences are round trips, not clocks


class FleetClock:
    """A clock all workers share; steps of a host's wall clock change nothing."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = time.time() - monotonic()  # a guess until the first anchor

    def now(self) -> float:
        """Return unix seconds, rounded to the millisecond."""
        return round(self._monotonic() + self._offset, 3)

    def anchor(self, fleet_now: float, round_trip: float) -> None:
        """Take the server's time, read within the last `round_trip` seconds, as the truth."""
        offset = fleet_now + round_trip / 2 - self._monotonic()
        if abs(offset - self._offset) > STEP + round_trip / 2:
            self._offset = offset
