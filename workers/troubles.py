"""What goes wrong again and again is logged when it begins, and when it is over with how often it
came. A leaf.
"""

import logging
import time
from collections import Counter

log = logging.getLogger("feeler.process")

CALM = 5.0  # seconds without it until a trouble is over: what comes and goes is one trouble


class Trouble:
    """The troubles of one step of a process."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._times: Counter[str] = Counter()
        self._last = 0.0

    def came(self, trouble: str) -> None:
        """Note a failure; each kind is told once."""
        if trouble not in self._times:
            log.warning("action=step_hindered step=%s trouble=%s", self._step, trouble)
        self._times[trouble] += 1
        self._last = time.monotonic()

    def well(self) -> None:
        """Note that the step was done."""
        if self._times and time.monotonic() - self._last >= CALM:
            log.warning("action=step_well step=%s failures=%d", self._step, self._times.total())
            self._times.clear()
