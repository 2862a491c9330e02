"""Host names to addresses, off the loop, remembered. For this package alone."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from monitor.core.cause import Cause
from monitor.feeler.causes import Failed, own_shortage
from monitor.feeler.threads import Threads

LOOKUP_TTL = 1.0  # seconds logins use an answer; a look-up that failed is not tried again either
REFRESH_AFTER = 30.0  # seconds after which a name is looked up while its kept session answers
STALE_FOR = 300.0  # seconds an answer is used when asking fails
_LOOKUPS = 16  # at once, one for each name
# Of the time left, what a look-up may take: the rest is for a login, or for saying why not.
_SHARE_OF_KNOWN, _SHARE_OF_UNKNOWN = 0.5, 0.9


Hosts = tuple[str, ...]  # addresses, in the order to try them
LookUp = Callable[[str], Hosts]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a name leads; `stale`: asking failed, and this is the last that was known."""

    hosts: Hosts
    stale: bool = False


@dataclass(slots=True)
class Lookup:
    """One question under way, shared by all who wait for the same name."""

    task: "asyncio.Task[Hosts] | None" = None
    asked: bool = False  # false while it waits for a thread of ours


class Names:
    """The addresses of the names this process uses."""

    def __init__(
        self, look_up: LookUp | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._look_up, self._clock = look_up or system_resolver, clock
        self._threads = Threads(_LOOKUPS)
        self._known: dict[str, tuple[float, Hosts]] = {}
        # when asking failed last, where it did not succeed since
        self._failed: dict[str, float] = {}
        self._lookups: dict[str, Lookup] = {}

    async def resolve(self, host: str, until: float) -> Addresses:
        """Return addresses to try; raise Failed when neither resolver nor memory has any.

        `until` (monotonic) is when the answer must be used.
        """
        if is_address(host):
            return Addresses((host,))
        now = self._clock()
        looked_up_at, known = self._known.get(host, (float("-inf"), ()))
        age = now - looked_up_at
        if age < LOOKUP_TTL:
            return Addresses(known)
        if age > STALE_FOR:
            known = ()
        failed_at = self._failed.get(host, float("-inf"))
        if now - failed_at < LOOKUP_TTL:
            return _last_known(known)
        share = _SHARE_OF_KNOWN if known else _SHARE_OF_UNKNOWN
        return await self._ask(host, known, share * (until - monotonic()))

    def refresh(self, host: str) -> "asyncio.Task[Hosts] | None":
        """Look a name up again that nobody asked for lately; None where there is no need."""
        now = self._clock()
        asked_at, _ = self._known.get(host, (now, ()))
        asked_at = max(asked_at, self._failed.get(host, asked_at))
        if now - asked_at < REFRESH_AFTER or host in self._lookups:
            return None
        return self._start(host).task

    def leads_to(self, host: str, address: str) -> bool:
        """Say whether the newest answer for a name has this address, as far as is known."""
        _, known = self._known.get(host, (0.0, (address,)))
        return address in known

    async def _ask(self, host: str, known: Hosts, timeout: float) -> Addresses:
        lookup = self._lookups.get(host) or self._start(host)
        assert lookup.task
        done, _ = await asyncio.wait((lookup.task,), timeout=max(0.0, timeout))
        found = lookup.task.result() if done else ()
        if found:
            return Addresses(found)
        if not known and not lookup.asked:
            raise Failed(Cause.LATE_LOOP, "too many names to resolve at once")
        return _last_known(known)

    def _start(self, host: str) -> Lookup:
        lookup = self._lookups[host] = Lookup()
        lookup.task = asyncio.create_task(self._run(host, lookup))
        return lookup

    async def _run(self, host: str, lookup: Lookup) -> Hosts:
        def in_thread() -> Hosts:
            lookup.asked = True
            return tuple(dict.fromkeys(self._look_up(host)))

        try:
            answer = await self._threads.start(in_thread)
            hosts = await answer
        except (OSError, UnicodeError, RuntimeError):
            self._failed[host] = self._clock()
            return ()
        finally:
            del self._lookups[host]
        self._known[host] = (self._clock(), hosts)
        self._failed.pop(host, None)
        return hosts


def _last_known(known: Hosts) -> Addresses:
    if not known:
        raise Failed(own_shortage() or Cause.DNS, "the name does not resolve")
    return Addresses(known, stale=True)


def is_address(host: str) -> bool:
    """Say whether the host is an address already."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def system_resolver(host: str) -> Hosts:
    """Ask the system, which takes as long as it likes."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return tuple(str(place[0]) for *_, place in found)
