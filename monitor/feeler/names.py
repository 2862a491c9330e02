"""Host names to addresses, off the loop, remembered. For this package alone."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from monitor.core.cause import Cause
from monitor.feeler.causes import Failed, own_shortage
from monitor.feeler.threads import Threads

ANEW = 1.0  # seconds an answer is used by logins, and a failed look-up is not tried again
FRESH = 30.0  # seconds after which a name is asked for again while its kept session answers
REUSED = 300.0  # seconds an answer is used when asking fails
_LOOKUPS = 16  # at once, one for each name


LookUp = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a name leads; `stale`: asking failed, and this is the last that was known."""

    hosts: tuple[str, ...]
    stale: bool = False


@dataclass(slots=True)
class Lookup:
    """One question under way, shared by all who wait for the same name."""

    task: "asyncio.Task[tuple[str, ...]] | None" = None
    asked: bool = False  # false while it waits for a thread of ours


class Names:
    """The addresses of the names this process uses."""

    def __init__(
        self, look_up: LookUp | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._look, self._clock = look_up or system_resolver, clock
        self._threads = Threads(_LOOKUPS)
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._failed: dict[
            str, float
        ] = {}  # when asking failed last, where it did not succeed since
        self._lookups: dict[str, Lookup] = {}

    async def resolve(self, host: str, until: float) -> Addresses:
        """Return addresses to try, in order; raise Failed when neither the resolver nor memory has
        any.
        """
        if is_address(host):
            return Addresses((host,))
        now = self._clock()
        at, known = self._known.get(host, (now - REUSED - 1, ()))
        if now - at < ANEW:
            return Addresses(known)
        if now - at > REUSED:
            known = ()
        if now - self._failed.get(host, now - ANEW) < ANEW:
            return _last_known(known)
        share = 0.5 if known else 0.9  # of the time left: to go on with, or to say why not
        return await self._ask(host, known, share * (until - monotonic()))

    def refresh(self, host: str) -> "asyncio.Task[tuple[str, ...]] | None":
        """Look a name up again that nobody asked for lately; return the look-up, None where there
        is no need.
        """
        now = self._clock()
        at, _ = self._known.get(host, (now, ()))
        if now - max(at, self._failed.get(host, at)) < FRESH or host in self._lookups:
            return None
        return self._start(host).task

    def leads_to(self, host: str, address: str) -> bool:
        """Say whether the newest answer for a name has this address, as far as is known."""
        _, known = self._known.get(host, (0.0, (address,)))
        return address in known

    async def _ask(self, host: str, known: tuple[str, ...], patience: float) -> Addresses:
        lookup = self._lookups.get(host) or self._start(host)
        assert lookup.task
        done, _ = await asyncio.wait((lookup.task,), timeout=max(0.0, patience))
        if found := lookup.task.result() if done else ():
            return Addresses(found)
        if not known and not lookup.asked:
            raise Failed(Cause.LATE_LOOP, "too many names to resolve at once")
        return _last_known(known)

    def _start(self, host: str) -> Lookup:
        lookup = self._lookups[host] = Lookup()
        lookup.task = asyncio.create_task(self._look_up(host, lookup))
        return lookup

    async def _look_up(self, host: str, lookup: Lookup) -> tuple[str, ...]:
        try:
            answer = await self._threads.start(lambda: self._in_thread(host, lookup))
            addresses = await answer
            self._known[host] = (self._clock(), addresses)
            self._failed.pop(host, None)
            return addresses
        except (OSError, UnicodeError, RuntimeError):
            self._failed[host] = self._clock()
            return ()
        finally:
            del self._lookups[host]

    def _in_thread(self, host: str, lookup: Lookup) -> tuple[str, ...]:
        lookup.asked = True
        return tuple(dict.fromkeys(self._look(host)))


def _last_known(known: tuple[str, ...]) -> Addresses:
    if not known:
        raise Failed(own_shortage() or Cause.DNS, "the name does not resolve")
    return Addresses(known, stale=True)


def is_address(host: str) -> bool:
    """Say whether the host is an address already."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
            return True
        except OSError:
            continue
    return False


def system_resolver(host: str) -> tuple[str, ...]:
    """Ask the system, which takes as long as it likes."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return tuple(str(place[0]) for *_, place in found)
