"""Whether sessions last at a server, and so are worth keeping. Pure; for this package alone."""

from collections import deque

SHORT_LIVES = 3  # kept sessions that end by themselves ...
SHORT_WITHIN = 30.0  # ... within so many seconds: we keep none ...
NONE_KEPT_FOR = 600.0  # ... for so many seconds
# Seconds between two ends that are acted on: who ends every session gets no storm of logins.
ACT_EVERY = 1.0


class Keeping:
    """The ends of one database's kept sessions; moments are monotonic seconds."""

    def __init__(self) -> None:
        self._ended: deque[float] = deque(maxlen=SHORT_LIVES)
        self._keep_again = 0.0
        self._acted = float("-inf")

    def session_ended(self, now: float) -> bool:
        """Note that a session ended by itself; say whether to look at the database at once.

        Where none lasts (idle_session_timeout, a proxy) the next beat logs in, at its own time.
        """
        self._ended.append(now)
        if len(self._ended) == SHORT_LIVES and now - self._ended[0] < SHORT_WITHIN:
            self._keep_again = now + NONE_KEPT_FOR
            return False
        if now - self._acted < ACT_EVERY:
            return False
        self._acted = now
        return True

    def may_keep(self, now: float) -> bool:
        """Say whether a session may stay open between two feels."""
        return now >= self._keep_again
