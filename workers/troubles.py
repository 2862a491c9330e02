"""What fails again and again is logged when it begins and when it is over. For workers alone.

A step runs several times a second; a Redis that is away for an hour must not fill the log.
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
        self._failures: Counter[str] = Counter()  # by kind
        self._failed_at = 0.0  # monotonic seconds

    def failed(self, kind: str) -> None:
        """Note a failure; each kind is told once."""
        if kind not in self._failures:
            log.warning("action=step_failing step=%s trouble=%s", self._step, kind)
        self._failures[kind] += 1
        self._failed_at = time.monotonic()

    def worked(self) -> None:
        """Note that the step was done; once that has lasted, tell how often it failed before."""
        if self._failures and time.monotonic() - self._failed_at >= CALM:
            failures = self._failures.total()
            log.warning("action=step_recovered step=%s failures=%d", self._step, failures)
            self._failures.clear()
