"""Why databases are not ok: written when that changes, and before it expires.

Only the recorder imports this.
"""

import logging
import time

from monitor.core.errors import StoreUnavailable
from monitor.core.observation import Observation
from monitor.live import reasons
from monitor.live.connections import Live
from monitor.live.reasons import Reason

log = logging.getLogger("feeler.recorder")

REWRITE_AFTER = reasons.KEPT / 2  # seconds after which the same is written once more


class Reasons:
    """What was written of each database, and when (monotonic seconds)."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._written: dict[str, tuple[Reason, float]] = {}
        self._news: dict[str, Reason] = {}

    def note(self, observation: Observation) -> None:
        """Take what an accepted observation says; what was written lately is no news."""
        name, reason = observation.database, reasons.reason_of(observation)
        if reason is None:
            self.forget(name)
            return
        written, at = self._written.get(name, (None, 0.0))
        expires_soon = time.monotonic() - at > REWRITE_AFTER
        if written != reason or expires_soon:
            self._news[name] = reason

    def forget(self, database: str) -> None:
        """Have nothing more to say of a database; what was written expires by itself."""
        self._written.pop(database, None)
        self._news.pop(database, None)

    async def tell(self) -> None:
        """Write the news; people's text is worth no second try, and holds nothing up."""
        news, self._news = self._news, {}
        if not news:
            return
        try:
            await reasons.tell(self._live, news)
        except StoreUnavailable as exc:
            log.warning("action=reasons_untold databases=%d error=%s", len(news), exc.detail)
            return
        now = time.monotonic()
        self._written |= {name: (reason, now) for name, reason in news.items()}
