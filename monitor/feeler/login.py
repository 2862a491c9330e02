"""From an address to a connection: whose turn it is, which address, which cause when it fails.

Workers use `LoginLimiter` and `strip_pg_environment`; the rest is for this package alone.
"""

from dataclasses import dataclass
from pathlib import Path

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
from monitor.feeler.turns import Found, Places, Where

__all__ = ["LoginLimiter", "log_in", "strip_pg_environment"]


# Which of several addresses' failures speaks for the host: silence before a refusal before what our side lacks.
_WEIGHT = {Cause.CONNECT_TIMEOUT: 3, Cause.REFUSED: 2, Cause.RESET: 2, Cause.UNREACHABLE: 1}

MARGIN = 0.02  # seconds before the deadline that a connect ends: what it found is for others too
ENDLESS = 64  # proofs that may be computed for longer than a moment, at most one for each session


class LoginLimiter:
    """What the logins of one process share: turns at each address, threads for proofs, names."""

    def __init__(self, per_address: int = 8, lent: float = 0.1, threads: int = 32) -> None:
        self.names, self.threads = Names(), Threads(threads, overdue=ENDLESS)
        self.places, self.doors = Places(per_address, lent), Doors()


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where to log in, and as whom."""

    address: Address
    worker: str
    ca_dir: Path | None


async def log_in(entrance: Entrance, attempt: Attempt, logins: LoginLimiter) -> PGconn:
    """Return a connection that is ready for queries, from the first address that takes our connect; raise Failed.

    The caller sets the deadline; each address has its share of it for the connect.
    """
    with attempt.step("dns"):
        hostaddrs = await logins.names.resolve(entrance.address.host, attempt.until)
    failures: list[Failed] = []
    for tried, hostaddr in enumerate(hostaddrs):
        where = hostaddr, entrance.address.port
        try:
            return await _log_in_at(where, len(hostaddrs) - tried, entrance, attempt, logins)
        except Failed as failed:
            if attempt.reached:
                raise
            failures.append(failed)
    raise max(failures, key=lambda failed: _WEIGHT.get(failed.cause, 0))


async def _log_in_at(where: Where, left: int, entrance: Entrance, attempt: Attempt, logins: LoginLimiter) -> PGconn:
    """Log in when it is our turn there, or take what another login finds out meanwhile."""
    text = conninfo(entrance.address, where[0], entrance.worker, entrance.ca_dir)
    place = logins.places.at(where)
    with attempt.queue():
        turn = await place.turn(attempt.since)
    if isinstance(turn, Found):
        raise attempt.take(turn)
    sent_at, began = attempt.sending()
    handshake = Handshake(text, entrance.address.password, attempt, logins.threads)
    try:
        with attempt.step("connect"):
            await handshake.connect(began + (attempt.until - began) / left - MARGIN, where)
        attempt.reached = True
        place.reached()
        with attempt.step("login"):
            pgconn = await handshake.log_in()
        place.answered()
        return pgconn
    except Failed as failed:
        place.learn(Found(failed.cause, failed.detail, sent_at, attempt.clock(), began, began + attempt.deadline))
        raise
    finally:
        turn.give_back()
        attempt.stuck = handshake.close() or attempt.stuck
