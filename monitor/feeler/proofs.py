"""Whose turn it is to prove a login beside its kept session: one at a time for each server and
role.

A role's connection limit must hold that one more, and a server that hangs must not be asked by
everybody at once: what it says to whoever comes is told to all who keep a session there. For this
package alone.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from time import monotonic
from weakref import WeakValueDictionary

from monitor.core.database import Address
from monitor.feeler.causes import Failed
from monitor.feeler.crowds import Crowd

SPACING = 0.2  # seconds between two proofs at one server, whatever the role and whichever worker
RESERVED = 1.0  # seconds a turn, or what a proof told, waits for whoever was woken for it
TOLD_FROM = 2  # such failures in a row: one may be a packet that got lost


class Urgency(IntEnum):
    """How urgently a login is to be proved; the lowest is served first."""

    UNDECIDED = 0  # one failed: the next one decides
    DUE = 1  # as a matter of routine
    REPEATED = 2  # logins are known to fail: tell when they work again


@dataclass(frozen=True, slots=True)
class Told:
    """How one proof failed, for all who keep a session at that address."""

    failed: Failed
    hostaddr: str
    began: float  # monotonic
    until: float = field(default_factory=lambda: monotonic() + RESERVED)


class Server:
    """What all roles at one server share."""

    def __init__(self, workers: Callable[[], int]) -> None:
        self.sessions: dict[
            object, Callable[[], None]
        ] = {}  # of this process, and how each is woken
        self.crowd = Crowd()
        self._workers = workers  # how many there are: each takes its share of the pace
        self._free_at = self._routine_at = (
            0.0  # monotonic seconds from which the next proof may begin
        )
        self._entered = "", 0.0  # at which address, and when (monotonic) a login last came through
        self._failing = ""  # the address that the failures are about
        self._failures = 0  # since somebody got an answer there
        self._told: Told | None = None

    def wait(self, urgency: Urgency) -> float:
        """Return the seconds until the next proof may begin; one that decides waits for no other
        worker's.
        """
        free_at = (
            self._free_at if urgency is Urgency.UNDECIDED else max(self._free_at, self._routine_at)
        )
        return free_at - monotonic()

    def begins(self, urgency: Urgency) -> None:
        """Note that a proof begins."""
        self._free_at = monotonic() + SPACING
        if urgency is not Urgency.UNDECIDED:
            self._routine_at = monotonic() + SPACING * self._workers()

    def failed(self, who: object, told: Told) -> None:
        """Note how a proof failed that would have failed for anybody; all others learn it at
        once.
        """
        if told.hostaddr != self._failing:
            self._failing, self._failures, self._told = told.hostaddr, 0, None
        self._failures += 1
        if self._failures < TOLD_FROM:
            return
        self._told = told
        for session, wake in tuple(self.sessions.items()):
            if session is not who:
                wake()

    def answered(self, hostaddr: str) -> None:
        """Note that somebody got an answer of their own."""
        if hostaddr == self._failing:
            self._failures, self._told = 0, None

    def entered(self, hostaddr: str) -> None:
        """Note that somebody got in: whoever was told of failures by others takes this word of
        others too.
        """
        self._entered = hostaddr, monotonic()
        self.answered(hostaddr)

    def entered_since(self, moment: float, hostaddr: str) -> bool:
        """Say whether the newest login that came through did so at this address, after that moment
        (monotonic).
        """
        where, at = self._entered
        return where == hostaddr and at > moment

    def told(self, hostaddr: str, since: float) -> Failed | None:
        """Return how a proof at this address just failed, if it was begun after `since`
        (monotonic).
        """
        told = self._told
        if told and told.hostaddr == hostaddr and told.began > since and monotonic() < told.until:
            return told.failed
        return None


@dataclass(slots=True)
class Waiter:
    """Who waits: since which turn, how urgently, and how to be told."""

    urgency: Urgency
    turn: int
    wake: Callable[[], None]


@dataclass(slots=True, weakref_slot=True)
class Door:
    """One role's way into one server."""

    server: Server
    holder: object = None
    waiting: dict[object, Waiter] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    def take(self, who: object, urgency: Urgency, wake: Callable[[], None]) -> bool:
        """Say whether it is `who`'s turn now; whose it is not is woken when it is, and has to ask
        again.
        """
        if self.holder is not who:
            before = self.waiting.pop(who, None)
            self.waiting[who] = Waiter(urgency, before.turn if before else next(_turns), wake)
            self._next(asking=who)
        if self.holder is not who:
            return False
        self._cancel()
        return True

    def give_back(self, who: object) -> None:
        """End a turn, or the wait for one."""
        self.waiting.pop(who, None)
        if self.holder is who:
            self.holder = None
            self._cancel()
            self._next()

    def _next(self, asking: object = None) -> None:
        if self.holder is not None or not self.waiting:
            return
        self._cancel()
        loop = asyncio.get_running_loop()
        first = min(
            self.waiting, key=lambda one: (self.waiting[one].urgency, self.waiting[one].turn)
        )
        urgency = self.waiting[first].urgency
        if (wait := self.server.wait(urgency)) > 0:
            self._timer = loop.call_later(wait, self._elapsed)
            return
        self.server.begins(urgency)
        waiter, self.holder = self.waiting.pop(first), first
        if self.holder is not asking:
            self._timer = loop.call_later(RESERVED, self.give_back, self.holder)
            waiter.wake()

    def _elapsed(self) -> None:
        self._timer = None
        self._next()

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


class Doors:
    """The doors of one process; each lives as long as a session that uses it."""

    def __init__(self, workers: Callable[[], int] = lambda: 1) -> None:
        self._workers = workers
        self._servers: WeakValueDictionary[tuple[str, int], Server] = WeakValueDictionary()
        self._doors: WeakValueDictionary[tuple[str, int, str], Door] = WeakValueDictionary()

    def of(self, address: Address) -> Door:
        """Return the door of an address."""
        place = (address.host, address.port)
        server = self._servers.setdefault(place, Server(self._workers))
        return self._doors.setdefault((*place, address.user), Door(server))


_turns = itertools.count()
