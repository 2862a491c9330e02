"""Whose turn it is to log in at an address, and what one login found out there for all who want to.

For this package alone.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic
from weakref import WeakValueDictionary

from monitor.core.cause import EVIDENCE, Cause, Evidence

# What an address says to whoever comes, whichever database is wanted. Nothing else is shared.
SHARED = frozenset({Cause.PORT_CLOSED, Cause.CONNECT_TIMEOUT, Cause.UNREACHABLE, Cause.STARTING})

Where = tuple[str, int]  # a resolved address and its port


@dataclass(frozen=True, slots=True)
class Found:
    """How one login ended for all databases of its address; `began`, `ended` and `until` are by the
    loop's clock.
    """

    cause: Cause
    detail: str
    sqlstate: str
    sent_at: float  # fleet seconds
    at: float  # fleet seconds
    began: float
    ended: float
    until: float  # the end of its deadline: who wants to log in later looks for itself


@dataclass(frozen=True, slots=True)
class Waiter:
    """One login that waits; `since`: a probe that began before this moment (monotonic) is no news
    to it.
    """

    since: float
    granted: "asyncio.Future[Turn | Found]"


class Turn:
    """Leave to log in. It is lent for a moment: a host that does not answer must not make its
    databases wait.
    """

    def __init__(self, place: "Place", lent: float) -> None:
        self.place = place
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            lent, self.give_back
        )

    def give_back(self) -> None:
        """Let the next one go; a second call does nothing."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
            self.place.freed()


class Place:
    """One address and port: its turns, first come, first served, and the newest failure that is
    everybody's.
    """

    def __init__(self, turns: int, lent: float) -> None:
        self._free, self._lent = turns, lent
        self._waiting: deque[Waiter] = deque()
        self._found: Found | None = None
        self._reached = self._answered = 0.0  # when a connect, a login last came through

    async def turn(self, since: float) -> Turn | Found:
        """Wait for a turn, or for what another login finds out meanwhile."""
        if self._found and self._found.began > since:
            return self._found
        granted: asyncio.Future[Turn | Found] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiter(since, granted))
        self._serve()
        try:
            return await granted
        except asyncio.CancelledError:
            if (
                granted.done()
                and not granted.cancelled()
                and isinstance(turn := granted.result(), Turn)
            ):
                turn.give_back()
            raise

    def freed(self) -> None:
        """Take a turn back."""
        self._free += 1
        self._serve()

    def reached(self) -> None:
        """Note that the host took a connection: that it took none is no news any more."""
        self._reached = monotonic()
        if self._found and self._found.cause is not Cause.STARTING:
            self._found = None

    def answered(self) -> None:
        """Note that the server said something that is not everybody's: nothing found before is news
        any more.
        """
        self._answered, self._found = monotonic(), None

    def learn(self, found: Found) -> None:
        """Share what a login found out with all who wait, and with whoever comes within its
        deadline.
        """
        if found.cause in SHARED:
            self._share(found)
        elif EVIDENCE[found.cause] is Evidence.ALIVE:
            self.answered()

    def _share(self, found: Found) -> None:
        refuted = (
            self._answered if found.cause is Cause.STARTING else max(self._reached, self._answered)
        )
        if found.began < refuted or (self._found and found.began < self._found.began):
            return
        self._found = found
        asyncio.get_running_loop().call_later(
            max(0.0, found.until - monotonic()), self._forget, found
        )
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if found.began <= waiter.since:
                self._waiting.append(waiter)
            elif not waiter.granted.done():
                waiter.granted.set_result(found)

    def _forget(self, found: Found) -> None:
        if self._found is found:
            self._found = None

    def _serve(self) -> None:
        while self._waiting and self._free:
            waiter = self._waiting.popleft()
            if not waiter.granted.done():
                self._free -= 1
                waiter.granted.set_result(Turn(self, self._lent))


class Places:
    """The addresses this process logs in at; one is forgotten when nobody waits there and nothing
    is known of it.
    """

    def __init__(self, turns: int, lent: float) -> None:
        self._turns, self._lent = turns, lent
        self._known: WeakValueDictionary[Where, Place] = WeakValueDictionary()

    def at(self, where: Where) -> Place:
        """Return the place there."""
        place = self._known.get(where)
        if place is None:
            place = self._known[where] = Place(self._turns, self._lent)
        return place
