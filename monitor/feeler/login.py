"""From an address to a connection: admission, which address, which cause when it fails.

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
from monitor.feeler.admission import Endpoints, HostPort, SharedResult
from monitor.feeler.attempt import Attempt
from monitor.feeler.backoff import LoginBackoff
from monitor.feeler.causes import Failed
from monitor.feeler.conninfo import conninfo, strip_pg_environment
from monitor.feeler.handshake import Handshake
from monitor.feeler.liveness import LivenessCheck
from monitor.feeler.login_queue import LoginQueues
from monitor.feeler.names import Names
from monitor.feeler.threads import Threads

__all__ = ["LoginLimiter", "check_liveness", "open_connection", "strip_pg_environment"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


# Which of several addresses' failures speaks for the host: silence before a refusal before what our
# side lacks.
_WEIGHT = {Cause.CONNECT_TIMEOUT: 3, Cause.PORT_CLOSED: 2, Cause.RESET: 2, Cause.UNREACHABLE: 1}

ADDRESSES = 4  # tried of one name
MARGIN = 0.02  # seconds before the deadline that a connect ends: its result is for others too
BACKOFF_MOST = 10.0  # seconds a login backs off for others of ours at a server without a slot
ENDLESS = 64  # proofs that may be computed for longer than a moment, at most one for each session


class LoginLimiter:
    """What the logins of one process share; `slot_seconds`: how long one keeps others waiting."""

    def __init__(
        self,
        per_address: int = 8,
        slot_seconds: float = 0.1,
        threads: int = 32,
        workers: Callable[[], int] = lambda: 1,
        ca_dir: Path | None = None,
    ) -> None:
        self.names = Names()
        self.ca_dir = ca_dir
        self.threads = Threads(threads, overdue=ENDLESS)
        self.endpoints = Endpoints(per_address, slot_seconds)
        self.queues = LoginQueues(workers)


@dataclass(frozen=True, slots=True)
class Login:
    """Where to log in, as whom, and what is shared with other logins of this process."""

    address: Address
    worker: str
    shared: LoginLimiter
    backoff: LoginBackoff  # of the address's server


class Connecting(Protocol[T_co]):
    """A connection in the making."""

    async def connect(self, until: float, place: HostPort) -> None: ...

    async def log_in(self) -> T_co: ...

    def close(self) -> "asyncio.Future[int] | None": ...


Start = Callable[[str], Callable[[], Connecting[T]]]  # of one address, once it is admitted


async def open_connection(login: Login, attempt: Attempt) -> PGconn:
    """Return a connection that is ready for queries; raise Failed."""

    def start(hostaddr: str) -> Callable[[], Connecting[PGconn]]:
        text = conninfo(login.address, hostaddr, login.worker, login.shared.ca_dir)
        secret, threads = login.address.password, login.shared.threads
        return partial(Handshake, text, secret, attempt, threads)

    if not attempt.timeout:
        return await _reach(login, start, attempt)  # beside a kept session: it has had its turn
    while True:
        try:
            login.backoff.login_begins()
            pgconn = await _reach(login, start, attempt)
            login.backoff.login_succeeded(login.address)
            return pgconn
        except Failed as failed:
            if failed.cause not in FULL or attempt.waited > BACKOFF_MOST:
                raise
            with attempt.waiting():
                retry = await login.backoff.wait(failed.cause, login.address)
            if not retry:
                raise
            attempt.restart_login()


async def check_liveness(login: Login, attempt: Attempt) -> None:
    """Return when the server answers, whoever we are; raise Failed."""

    def start(hostaddr: str) -> Callable[[], Connecting[None]]:
        return partial(LivenessCheck, hostaddr, attempt)

    try:
        async with asyncio.timeout_at(attempt.until) as attempt.timeout:
            await _reach(login, start, attempt)
    except TimeoutError:
        raise attempt.expired() from None


async def _reach(login: Login, start: Start[T], attempt: Attempt) -> T:
    """Return what comes of the first address that takes our connect; raise Failed.

    The caller sets the deadline; each address has its share of it for the connect.
    """
    with attempt.step("dns"):
        found = await login.shared.names.resolve(login.address.host, attempt.until)
    hostaddrs = found.hosts[:ADDRESSES]
    attempt.dns_stale = found.stale
    attempt.tried.clear()
    failures: list[Failed] = []
    for number, hostaddr in enumerate(hostaddrs):
        place = hostaddr, login.address.port
        left = len(hostaddrs) - number
        attempt.tried.append(hostaddr)
        try:
            return await _reach_at(place, left, start(hostaddr), attempt, login.shared)
        except Failed as failed:
            if attempt.reached:
                raise
            failures.append(failed)
    raise max(failures, key=_weight)


def _weight(failed: Failed) -> int:
    return _WEIGHT.get(failed.cause, 0)


async def _reach_at(
    place: HostPort,
    left: int,
    start: Callable[[], Connecting[T]],
    attempt: Attempt,
    shared: LoginLimiter,
) -> T:
    """Log in once admitted there, or take what another login finds out meanwhile."""
    endpoint = shared.endpoints.at(place)
    with attempt.waiting():
        slot = await endpoint.admit(attempt.since)
    if isinstance(slot, SharedResult):
        raise attempt.adopt(slot)
    sent_at, began = attempt.sending()
    connecting: Connecting[T] | None = None
    try:
        connecting = start()
        connect_until = began + (attempt.until - began) / left - MARGIN
        with attempt.step("connect"):
            await connecting.connect(connect_until, place)
        attempt.reached = True
        endpoint.reached()
        with attempt.step("login"):
            entered = await connecting.log_in()
        endpoint.answered()
        return entered
    except Failed as failed:
        text = failed.cause, failed.detail, failed.sqlstate
        expires = began + attempt.deadline
        result = SharedResult(*text, sent_at, attempt.clock(), began, monotonic(), expires)
        endpoint.report(result)
        raise
    finally:
        slot.release()
        attempt.stuck_call = (connecting.close() if connecting else None) or attempt.stuck_call
