"""Whose turn it is to prove a login beside its kept session: one at a time for each server and role.

A role's connection limit must hold that one more, and a server that hangs must not be asked by everybody at once. For
this package alone.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from time import monotonic
from weakref import WeakValueDictionary

from monitor.core.database import Address

SPACING = 0.2  # seconds between two proofs at one server, whatever the role
RESERVED = 1.0  # seconds a turn waits for whoever was woken for it


class Urgency(IntEnum):
    """How urgently a login is to be proved; the lowest is served first."""

    UNDECIDED = 0  # one failed: the next one decides
    DUE = 1  # as a matter of routine
    REPEATED = 2  # logins are known to fail: tell when they work again


class Server:
    """What all roles at one server share."""

    def __init__(self) -> None:
        self.sessions = 0  # of this process
        self.free_at = 0.0  # monotonic seconds from which the next proof may begin


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
        """Say whether it is `who`'s turn now; whose it is not is woken when it is, and has to ask again."""
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
        if self.holder is not None or not self.waiting or self._timer:
            return
        loop, now = asyncio.get_running_loop(), monotonic()
        if now < self.server.free_at:
            self._timer = loop.call_later(self.server.free_at - now, self._elapsed)
            return
        self.server.free_at = now + SPACING
        self.holder = min(self.waiting, key=lambda one: (self.waiting[one].urgency, self.waiting[one].turn))
        waiter = self.waiting.pop(self.holder)
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

    def __init__(self) -> None:
        self._servers: WeakValueDictionary[tuple[str, int], Server] = WeakValueDictionary()
        self._doors: WeakValueDictionary[tuple[str, int, str], Door] = WeakValueDictionary()

    def of(self, address: Address) -> Door:
        """Return the door of an address."""
        place = (address.host, address.port)
        server = self._servers.setdefault(place, Server())
        return self._doors.setdefault((*place, address.user), Door(server))


_turns = itertools.count()
