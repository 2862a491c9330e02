"""Whose turn it is to log in at an address, and what one login found out there for everybody.

For this package alone.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic
from weakref import WeakValueDictionary

from monitor.core.cause import EVIDENCE, Cause, Evidence

# What an address says to whoever comes, whichever database is wanted. Nothing else is shared.
SHARED_CAUSES = frozenset(
    {Cause.PORT_CLOSED, Cause.CONNECT_TIMEOUT, Cause.UNREACHABLE, Cause.STARTING}
)

HostPort = tuple[str, int]  # a resolved address and its port


@dataclass(frozen=True, slots=True)
class SharedResult:
    """How one login ended, for all databases of its address.

    `began`, `ended` and `expires` are monotonic seconds.
    """

    cause: Cause
    detail: str
    sqlstate: str
    sent_at: float  # fleet seconds
    at: float  # fleet seconds
    began: float
    ended: float
    expires: float  # the end of its deadline: who wants to log in later looks for itself


@dataclass(frozen=True, slots=True)
class Waiter:
    """One login that waits; a probe that began before `since` (monotonic) is no news to it."""

    since: float
    admitted: "asyncio.Future[Slot | SharedResult]"


class Slot:
    """Leave to log in; it frees itself after a moment.

    A host that does not answer must not make its databases wait one deadline each.
    """

    def __init__(self, endpoint: "Endpoint", seconds: float) -> None:
        self._endpoint = endpoint
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = loop.call_later(seconds, self.release)

    def release(self) -> None:
        """Let the next one go; a second call does nothing."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
            self._endpoint.release()


class Endpoint:
    """One address and port: its slots, first come, first served, and its newest shared failure."""

    def __init__(self, slots: int, slot_seconds: float) -> None:
        self._free, self._slot_seconds = slots, slot_seconds
        self._waiting: deque[Waiter] = deque()
        self._failure: SharedResult | None = None
        self._reached_at = 0.0  # monotonic: when a connect last came through
        self._answered_at = 0.0  # and when a login last got an answer of its own

    async def admit(self, since: float) -> Slot | SharedResult:
        """Wait for a slot, or for what another login finds out meanwhile."""
        if self._failure and self._failure.began > since:
            return self._failure
        admitted: asyncio.Future[Slot | SharedResult] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiter(since, admitted))
        self._admit_next()
        try:
            return await admitted
        except asyncio.CancelledError:
            # cancelled between the grant and our waking: the slot would be lost for its time
            if admitted.done() and not admitted.cancelled():
                granted = admitted.result()
                if isinstance(granted, Slot):
                    granted.release()
            raise

    def release(self) -> None:
        """Take a slot back."""
        self._free += 1
        self._admit_next()

    def reached(self) -> None:
        """Note that the host took a connection: that it took none is no news any more."""
        self._reached_at = monotonic()
        if self._failure and self._failure.cause is not Cause.STARTING:
            self._failure = None

    def answered(self) -> None:
        """Note an answer meant for one database alone: it refutes every shared failure."""
        self._answered_at, self._failure = monotonic(), None

    def report(self, result: SharedResult) -> None:
        """Share a failure with all who wait, and with whoever comes before it expires."""
        if result.cause in SHARED_CAUSES:
            self._share(result)
        elif EVIDENCE[result.cause] is Evidence.ALIVE:
            self.answered()

    def _share(self, result: SharedResult) -> None:
        if self._is_outdated(result):
            return
        self._failure = result
        left = max(0.0, result.expires - monotonic())
        asyncio.get_running_loop().call_later(left, self._expire, result)
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if result.began <= waiter.since:
                self._waiting.append(waiter)
            elif not waiter.admitted.done():
                waiter.admitted.set_result(result)

    def _is_outdated(self, result: SharedResult) -> bool:
        """Say whether something begun later is known already."""
        refuted_at = self._answered_at
        if result.cause is not Cause.STARTING:
            refuted_at = max(refuted_at, self._reached_at)
        newest = self._failure.began if self._failure else 0.0
        return result.began < max(refuted_at, newest)

    def _expire(self, result: SharedResult) -> None:
        if self._failure is result:
            self._failure = None

    def _admit_next(self) -> None:
        while self._waiting and self._free:
            waiter = self._waiting.popleft()
            if not waiter.admitted.done():
                self._free -= 1
                waiter.admitted.set_result(Slot(self, self._slot_seconds))


class Endpoints:
    """Where this process logs in; an endpoint is forgotten once nobody waits or knows of it."""

    def __init__(self, slots: int, slot_seconds: float) -> None:
        self._slots, self._slot_seconds = slots, slot_seconds
        self._known: WeakValueDictionary[HostPort, Endpoint] = WeakValueDictionary()

    def at(self, place: HostPort) -> Endpoint:
        """Return the endpoint there."""
        endpoint = self._known.get(place)
        if endpoint is None:
            endpoint = Endpoint(self._slots, self._slot_seconds)
            self._known[place] = endpoint
        return endpoint
