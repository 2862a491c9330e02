"""From an address to a connection: whose turn it is, which address, which cause when it fails.

Workers use `LoginLimiter` and `strip_pg_environment`; the rest is for this package alone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from psycopg.pq.abc import PGconn

from monitor.core.cause import Cause
from monitor.core.database import Address
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed
from monitor.feeler.conninfo import conninfo, strip_pg_environment
from monitor.feeler.handshake import Handshake
from monitor.feeler.names import Names
from monitor.feeler.proofs import Doors
from monitor.feeler.threads import Threads

__all__ = ["LoginLimiter", "log_in", "strip_pg_environment"]


# Which of several addresses' failures speaks for the host: silence before a refusal before what our side lacks.
_WEIGHT = {Cause.CONNECT_TIMEOUT: 3, Cause.REFUSED: 2, Cause.RESET: 2, Cause.UNREACHABLE: 1}

ENDLESS = 64  # proofs that may be computed for longer than a moment, at most one for each session


class LoginLimiter:
    """What the logins of one process share: turns at each host, threads for proofs, names.

    A turn is lent for a moment only: a host that does not answer must not make its other databases wait.
    """

    def __init__(self, per_host: int = 8, lent: float = 0.1, threads: int = 32) -> None:
        self.names, self.threads, self.doors = Names(), Threads(threads, overdue=ENDLESS), Doors()
        self._per_host, self._lent = per_host, lent
        self._hosts: WeakValueDictionary[tuple[str, int], asyncio.Semaphore] = WeakValueDictionary()

    async def turn(self, host: str, port: int) -> Callable[[], None]:
        """Wait for one of this host's turns, first come, first served; call the answer to give it back."""
        turns = self._hosts.get((host, port))
        if turns is None:
            turns = self._hosts[host, port] = asyncio.Semaphore(self._per_host)
        await turns.acquire()
        timer: list[asyncio.TimerHandle] = []

        def give_back() -> None:
            if timer:
                timer.pop().cancel()
                turns.release()

        timer.append(asyncio.get_running_loop().call_later(self._lent, give_back))
        return give_back


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where to log in, and as whom."""

    address: Address
    worker: str
    ca_dir: Path | None


async def log_in(entrance: Entrance, attempt: Attempt, logins: LoginLimiter) -> PGconn:
    """Return a connection that is ready for queries; raise Failed. The caller sets the deadline."""
    address = entrance.address
    with attempt.step("dns"):
        hostaddrs = await logins.names.resolve(address.host, attempt.until)
    attempt.stage = "slot"
    with attempt.own_time():
        give_back = await logins.turn(address.host, address.port)
    try:
        return await _first(entrance, hostaddrs, attempt, logins.threads)
    finally:
        give_back()


async def _first(entrance: Entrance, hostaddrs: tuple[str, ...], attempt: Attempt, threads: Threads) -> PGconn:
    """Log in at the first address that takes our connect; each address has its share of the time for that."""
    failures: list[Failed] = []
    for place, hostaddr in enumerate(hostaddrs):
        now = asyncio.get_running_loop().time()
        share = (attempt.until - now) / (len(hostaddrs) - place)
        text = conninfo(entrance.address, hostaddr, entrance.worker, entrance.ca_dir)
        handshake = Handshake(text, entrance.address.password, attempt, threads)
        try:
            with attempt.step("connect"):
                await handshake.connect(now + share, (hostaddr, entrance.address.port))
            with attempt.step("login"):
                return await handshake.log_in()
        except Failed as failed:
            if handshake.connected:
                raise
            failures.append(failed)
        finally:
            attempt.stuck = handshake.close() or attempt.stuck
    raise max(failures, key=lambda failed: _WEIGHT.get(failed.cause, 0))
