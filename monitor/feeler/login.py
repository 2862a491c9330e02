"""From an address to a connection: whose turn it is, which address, which cause when it fails.

Workers use `LoginLimiter` and `strip_pg_environment`; the rest is for this package alone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeVar

from psycopg.pq.abc import PGconn

from monitor.core.cause import FULL, Cause
from monitor.core.database import Address
from monitor.feeler.attempt import Attempt
from monitor.feeler.causes import Failed
from monitor.feeler.conninfo import conninfo, strip_pg_environment
from monitor.feeler.handshake import Handshake
from monitor.feeler.knock import Knock
from monitor.feeler.names import Names
from monitor.feeler.proofs import Doors
from monitor.feeler.threads import Threads
from monitor.feeler.turns import Found, Places, Where

__all__ = ["LoginLimiter", "knock", "log_in", "strip_pg_environment"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


# Which of several addresses' failures speaks for the host: silence before a refusal before what our
# side lacks.
_WEIGHT = {Cause.CONNECT_TIMEOUT: 3, Cause.PORT_CLOSED: 2, Cause.RESET: 2, Cause.UNREACHABLE: 1}

ADDRESSES = 4  # tried of one name
MARGIN = 0.02  # seconds before the deadline that a connect ends: what it found is for others too
LONGEST = 10.0  # seconds a login gives way to others of ours where the server has no slot left
ENDLESS = 64  # proofs that may be computed for longer than a moment, at most one for each session


class LoginLimiter:
    """What the logins of one process share: turns at each address, threads for proofs, names."""

    def __init__(
        self,
        per_address: int = 8,
        lent: float = 0.1,
        threads: int = 32,
        workers: Callable[[], int] = lambda: 1,
    ) -> None:
        self.names, self.threads = Names(), Threads(threads, overdue=ENDLESS)
        self.places, self.doors = Places(per_address, lent), Doors(workers)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where to log in, and as whom."""

    address: Address
    worker: str
    ca_dir: Path | None


class Way(Protocol[T_co]):
    """A connection in the making."""

    async def connect(self, until: float, place: Where) -> None: ...

    async def log_in(self) -> T_co: ...

    def close(self) -> "asyncio.Future[int] | None": ...


Start = Callable[[str], Callable[[], Way[T]]]  # of one address, when its turn has come


async def log_in(entrance: Entrance, attempt: Attempt, logins: LoginLimiter) -> PGconn:
    """Return a connection that is ready for queries; raise Failed."""

    def start(hostaddr: str) -> Callable[[], Way[PGconn]]:
        text = conninfo(entrance.address, hostaddr, entrance.worker, entrance.ca_dir)
        return partial(Handshake, text, entrance.address.password, attempt, logins.threads)

    address, crowd = entrance.address, logins.doors.of(entrance.address).server.crowd
    while True:
        if not attempt.timeout:
            return await _reach(
                address, start, attempt, logins
            )  # beside a kept session: it has its turn
        try:
            crowd.begins()
            pgconn = await _reach(address, start, attempt, logins)
            crowd.entered(address)
            return pgconn
        except Failed as failed:
            if failed.cause not in FULL or attempt.waited > LONGEST:
                raise
            with attempt.queue():
                again = await crowd.give_way(failed.cause, address)
            if not again:
                raise
            attempt.again()


async def knock(entrance: Entrance, attempt: Attempt, logins: LoginLimiter) -> None:
    """Return when the server answers, whoever we are; raise Failed."""

    def start(hostaddr: str) -> Callable[[], Way[None]]:
        return partial(Knock, hostaddr, attempt)

    await _reach(entrance.address, start, attempt, logins)


async def _reach(address: Address, start: Start[T], attempt: Attempt, logins: LoginLimiter) -> T:
    """Return what comes of the first address that takes our connect; raise Failed.

    The caller sets the deadline; each address has its share of it for the connect.
    """
    with attempt.step("dns"):
        found = await logins.names.resolve(address.host, attempt.until)
    attempt.dns_stale, hostaddrs = found.stale, found.hosts[:ADDRESSES]
    attempt.tried.clear()
    failures: list[Failed] = []
    for tried, hostaddr in enumerate(hostaddrs):
        where = hostaddr, address.port
        attempt.tried.append(hostaddr)
        try:
            return await _reach_at(where, len(hostaddrs) - tried, start(hostaddr), attempt, logins)
        except Failed as failed:
            if attempt.reached:
                raise
            failures.append(failed)
    raise max(failures, key=lambda failed: _WEIGHT.get(failed.cause, 0))


async def _reach_at(
    where: Where, left: int, start: Callable[[], Way[T]], attempt: Attempt, logins: LoginLimiter
) -> T:
    """Go in when it is our turn there, or take what another login finds out meanwhile."""
    place = logins.places.at(where)
    with attempt.queue():
        turn = await place.turn(attempt.since)
    if isinstance(turn, Found):
        raise attempt.take(turn)
    sent_at, began = attempt.sending()
    way: Way[T] | None = None
    try:
        way = start()
        with attempt.step("connect"):
            await way.connect(began + (attempt.until - began) / left - MARGIN, where)
        attempt.reached = True
        place.reached()
        with attempt.step("login"):
            found = await way.log_in()
        place.answered()
        return found
    except Failed as failed:
        told = failed.cause, failed.detail, failed.sqlstate
        until = began + attempt.deadline
        place.learn(Found(*told, sent_at, attempt.clock(), began, monotonic(), until))
        raise
    finally:
        turn.give_back()
        attempt.stuck = (way.close() if way else None) or attempt.stuck
