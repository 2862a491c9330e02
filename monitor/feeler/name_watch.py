"""Where a session's name leads by now, and what a negative is worth when it has moved.

For this package alone.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from monitor.core.cause import Cause
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed
from monitor.feeler.names import Names

RECHECK = 0.4  # seconds, half of which a negative waits for the newest answer for its name


class NameWatch:
    """The name of one database's host: where it leads, and whether that is still where we are."""

    def __init__(self, host: str, names: Names) -> None:
        self._host, self._names = host, names
        # addresses the name left while they were tried, since all was well
        self._left: set[str] = set()

    def has_moved(self, hostaddr: str) -> bool:
        """Say whether the name leads elsewhere, as far as is known."""
        return not self._leads_to(hostaddr)

    def _leads_to(self, hostaddr: str) -> bool:
        return self._names.leads_to(self._host, hostaddr)

    def refresh(self, then: Callable[[], None]) -> None:
        """Have the name looked up again from time to time; call `then` when one is answered."""
        lookup = self._names.refresh(self._host)
        if lookup:
            lookup.add_done_callback(lambda _: then())

    def all_is_well(self) -> None:
        """Excuse each address once more."""
        self._left.clear()

    async def check_negative(self, attempt: Attempt, failed: Failed) -> None:
        """Raise what a negative is worth whose name does not resolve, or has left what was tried.

        Each address is excused once until all is well: some names lead elsewhere with every answer.
        """
        detail = f"{failed.cause} {failed.detail}"
        attempt.evidence_at = attempt.evidence_at or attempt.clock()  # before we ask for the name
        if attempt.dns_stale:
            raise Failed(Cause.DNS, f"the name does not resolve; where it led: {detail}")
        with suppress(Failed):
            await self._names.resolve(self._host, time.monotonic() + RECHECK)
        tried = set(attempt.tried)
        if tried <= self._left or any(self._leads_to(address) for address in tried):
            return
        self._left |= tried
        raise Failed(Cause.NAME_MOVED, f"the name leads elsewhere by now; {detail}")
