"""Host names to addresses, off the loop, remembered. For this package alone."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from monitor.core.cause import Cause
from monitor.feeler.causes import Failed, own_shortage
from monitor.feeler.threads import Threads

FRESH = 30.0  # seconds an answer is used without asking again
REUSED = 300.0  # seconds an answer is used when asking fails
_LOOKUPS = 16  # at once, one for each name
_ADDRESSES = 4  # tried of one name


LookUp = Callable[[str], tuple[str, ...]]


@dataclass(slots=True)
class Lookup:
    """One question under way, shared by all who wait for the same name."""

    task: "asyncio.Task[tuple[str, ...]] | None" = None
    asked: bool = False  # false while it waits for a thread of ours


class Names:
    """The addresses of the names this process uses."""

    def __init__(self, look_up: LookUp | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._look, self._clock = look_up or system_resolver, clock
        self._threads = Threads(_LOOKUPS)
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._lookups: dict[str, Lookup] = {}

    async def resolve(self, host: str, until: float) -> tuple[str, ...]:
        """Return addresses to try, in order; raise Failed when neither the resolver nor memory has any."""
        if is_address(host):
            return (host,)
        now = self._clock()
        at, known = self._known.get(host, (now - REUSED - 1, ()))
        if now - at < FRESH:
            return known
        if now - at > REUSED:
            known = ()
        share = 0.5 if known else 0.9  # of the time left: to go on with, or to say why not
        return await self._ask(host, known, share * (until - monotonic()))

    async def _ask(self, host: str, known: tuple[str, ...], patience: float) -> tuple[str, ...]:
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._lookups[host] = Lookup()
            lookup.task = asyncio.create_task(self._look_up(host, lookup))
        assert lookup.task
        done, _ = await asyncio.wait((lookup.task,), timeout=max(0.0, patience))
        found = lookup.task.result() if done else ()
        if found or known:
            return found or known
        if not lookup.asked:
            raise Failed(Cause.LATE_LOOP, "too many names to resolve at once")
        raise Failed(own_shortage() or Cause.DNS, "the name does not resolve")

    async def _look_up(self, host: str, lookup: Lookup) -> tuple[str, ...]:
        try:
            answer = await self._threads.start(lambda: self._in_thread(host, lookup))
            addresses = await answer
            self._known[host] = (self._clock(), addresses)
            return addresses
        except (OSError, UnicodeError, RuntimeError):
            return ()
        finally:
            del self._lookups[host]

    def _in_thread(self, host: str, lookup: Lookup) -> tuple[str, ...]:
        lookup.asked = True
        return tuple(dict.fromkeys(self._look(host)))[:_ADDRESSES]


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
