"""Whose turn it is to prove a login beside its kept session: one at a time per server and role.

A role's connection limit must hold that one more; and the server's pace is shared by all its roles
and by all workers. For this package alone, but for `Urgency`.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from time import monotonic
from weakref import WeakValueDictionary

from monitor.core.database import Address
from monitor.feeler.servers import Server

SPACING = 0.2  # seconds between two proofs at one server, whatever the role and whichever worker
RESERVED = 1.0  # seconds a turn waits for whoever was woken for it


class Urgency(IntEnum):
    """How urgently a login is to be proved; the lowest is served first."""

    UNDECIDED = 0  # one failed: the next one decides
    DUE = 1  # as a matter of routine
    REPEATED = 2  # logins are known to fail: tell when they work again


class Pace:
    """How soon one server may be asked for another login, in monotonic seconds."""

    def __init__(self, workers: Callable[[], int]) -> None:
        self._workers = workers  # how many there are: each takes its share of the pace
        self._free_at = 0.0
        self._routine_at = 0.0

    def wait(self, urgency: Urgency) -> float:
        """Return the seconds until the next proof; one that decides waits for no other worker's."""
        free_at = self._free_at
        if urgency is not Urgency.UNDECIDED:
            free_at = max(free_at, self._routine_at)
        return free_at - monotonic()

    def begins(self, urgency: Urgency) -> None:
        """Note that a proof begins."""
        now = monotonic()
        self._free_at = now + SPACING
        if urgency is not Urgency.UNDECIDED:
            self._routine_at = now + SPACING * self._workers()


@dataclass(slots=True)
class Waiter:
    """Who waits: how urgently, since which place in the queue, and how to be woken."""

    urgency: Urgency
    number: int
    wake: Callable[[], None]


@dataclass(slots=True, weakref_slot=True)
class LoginQueue:
    """The queue of one role at one server."""

    server: Server
    pace: Pace
    holder: object = None  # whose turn it is
    waiting: dict[object, Waiter] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    def enter(self, who: object, urgency: Urgency, wake: Callable[[], None]) -> bool:
        """Say whether it is `who`'s turn now; else `wake` is called then, and it must ask again."""
        if self.holder is not who:
            before = self.waiting.pop(who, None)
            number = before.number if before else next(_numbers)
            self.waiting[who] = Waiter(urgency, number, wake)
            self._serve_next(asking=who)
        if self.holder is not who:
            return False
        self._cancel()
        return True

    def leave(self, who: object) -> None:
        """End a turn, or the wait for one."""
        self.waiting.pop(who, None)
        if self.holder is who:
            self.holder = None
            self._cancel()
            self._serve_next()

    def _serve_next(self, asking: object = None) -> None:
        if self.holder is not None or not self.waiting:
            return
        self._cancel()
        loop = asyncio.get_running_loop()
        first = min(self.waiting, key=self._order)
        urgency = self.waiting[first].urgency
        wait = self.pace.wait(urgency)
        if wait > 0:
            self._timer = loop.call_later(wait, self._elapsed)
            return
        self.pace.begins(urgency)
        waiter, self.holder = self.waiting.pop(first), first
        if first is not asking:
            self._timer = loop.call_later(RESERVED, self.leave, first)
            waiter.wake()

    def _order(self, who: object) -> tuple[Urgency, int]:
        waiter = self.waiting[who]
        return waiter.urgency, waiter.number

    def _elapsed(self) -> None:
        self._timer = None
        self._serve_next()

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


class LoginQueues:
    """The queues of one process; each lives as long as a session that uses it."""

    def __init__(self, workers: Callable[[], int] = lambda: 1) -> None:
        self._workers = workers
        self._servers: WeakValueDictionary[tuple[str, int], Server] = WeakValueDictionary()
        self._paces: WeakValueDictionary[tuple[str, int], Pace] = WeakValueDictionary()
        self._queues: WeakValueDictionary[tuple[str, int, str], LoginQueue] = WeakValueDictionary()

    def of(self, address: Address) -> LoginQueue:
        """Return the queue of an address."""
        place = (address.host, address.port)
        server = self._servers.setdefault(place, Server())
        pace = self._paces.setdefault(place, Pace(self._workers))
        queue = LoginQueue(server, pace)
        return self._queues.setdefault((*place, address.user), queue)


_numbers = itertools.count()
