"""What logins at a database told lately: how long one takes, when the next may be tried.

It stands in the database's hash and moves with it, so that a password is not tried by each new
owner. Anyone may import this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from monitor.core.cause import LOCKS, Cause
from monitor.core.policy import Policy

ACCESS_FIELDS = ("login_at", "login_usual", "login_refused", "login_pooled")
_PASSWORDS = (Cause.WRONG_PASSWORD, Cause.NOT_ADMITTED)  # these lock accounts, fill security logs
_MARGIN = 3.0  # times its usual time that a login may take
_MEMORY = 0.75  # share of the time known so far in a new usual time


@dataclass(frozen=True, slots=True)
class Access:
    """How long logins take at an address, why the newest in a row were refused, who answers."""

    address: str = ""  # a checksum; of no worth to anybody who has not the address itself
    usual: float | None = None  # seconds
    cause: Cause | None = None
    refusals: int = 0
    held_until: float = 0.0  # fleet seconds
    pooled: bool = False  # by a pooler: its silence alone is the address's, the server's is a wait

    def at(self, address: str) -> "Access":
        """Return what is known of this address."""
        if self.address == address:
            return self
        return Access(address)

    def entered(self, seconds: float) -> "Access":
        """Return what is known after a login that took so long."""
        usual = _smoothed(self.usual, seconds)
        return Access(self.address, usual, pooled=self.pooled)

    def refused(self, cause: Cause, at: float, policy: Policy) -> "Access":
        """Return what is known after a login that failed; only a lock is a reason to wait."""
        if cause not in LOCKS:
            return self
        refusals = self.refusals + 1
        until = at + _hold(cause, refusals, policy)
        return replace(self, cause=cause, refusals=refusals, held_until=until)

    def held(self, now: float, policy: Policy) -> Cause | None:
        """Return why no login may be tried now; None where one may. A moment far ahead is another
        clock's.
        """
        longest = max(policy.password_first, policy.password_interval, policy.entry_interval)
        waits = now < self.held_until <= now + longest
        return self.cause if waits else None

    def deadline(self, policy: Policy) -> float:
        """Return the seconds a login may take."""
        if self.usual is None:
            return policy.login_most
        wanted = max(self.usual * _MARGIN, policy.login_least)
        return min(wanted, policy.login_most)


UNKNOWN = Access()


def _smoothed(known: float | None, seen: float) -> float:
    """Return the usual time: it rises at once, else the next login would already be too slow."""
    if known is None:
        return round(seen, 3)
    smoothed = _MEMORY * known + (1 - _MEMORY) * seen
    usual = max(seen, smoothed)
    return round(usual, 3)


def _hold(cause: Cause, refusals: int, policy: Policy) -> float:
    """Return the seconds without a login after so many refusals in a row."""
    if refusals == 1:
        return 0.0  # the second one decides
    if cause not in _PASSWORDS:
        return policy.entry_interval
    return policy.password_first if refusals == 2 else policy.password_interval


def encode(access: Access) -> dict[str, str]:
    """Return the fields of a hash, each at most 64 bytes; '' where there is nothing to say."""
    refused = ""
    if access.cause:
        refused = f"{access.cause} {access.refusals} {access.held_until:.3f}"
    return {
        "login_at": access.address,
        "login_usual": "" if access.usual is None else f"{access.usual:.3f}",
        "login_refused": refused,
        # An older version changes the address and leaves this alone: then it counts for nothing.
        "login_pooled": access.address if access.pooled else "",
    }


def decode(fields: Mapping[str, str]) -> Access:
    """Read what `encode` wrote; what a newer version wrote otherwise counts for nothing."""
    address = fields.get("login_at", "")
    usual = fields.get("login_usual")
    pooled = fields.get("login_pooled") == address != ""
    try:
        seconds = float(usual) if usual else None
        access = Access(address, seconds, pooled=pooled)
        refused = fields.get("login_refused", "")
        return _with_refusals(access, refused)
    except ValueError:
        return UNKNOWN


def _with_refusals(access: Access, refused: str) -> Access:
    if not refused:
        return access
    cause, refusals, until = refused.split()
    return replace(
        access,
        cause=Cause(cause),
        refusals=int(refusals),
        held_until=float(until),
    )
