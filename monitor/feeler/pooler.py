"""Whether a pooler is between a session and its server, and what silence proves then.

Pure; for this package alone.
"""

from enum import Enum

from monitor.core.cause import Cause
from monitor.feeler.causes import Failed

LARGEST_PID = 1 << 22  # that a Linux gives; poolers make numbers up
# Our prepared statement is unknown, or another's: somebody shares connections.
STATEMENT_LOST = frozenset({"26000", "42P05"})

_AWAITED = {Cause.HUNG, Cause.LOGIN_FAILING, Cause.QUERY_TIMEOUT}
_CONNECTION_EXCEPTIONS = "08"  # the class of SQLSTATE


class Pooling(Enum):
    """What a session knows of a pooler."""

    NONE = "none"  # as far as is known, its connections are its own
    REPORTED = "reported"  # by the server's process id or by whoever looked last; asked anew
    CERTAIN = "certain"  # a statement of ours was lost, whatever process ids say

    @property
    def present(self) -> bool:
        return self is not Pooling.NONE

    def reported(self, present: bool) -> "Pooling":
        """Return what is known after a report; certainty stays."""
        if self is Pooling.CERTAIN:
            return self
        return Pooling.REPORTED if present else Pooling.NONE


def is_made_up(pid: int) -> bool:
    """Say whether this is no process id of a server."""
    return not 0 < pid <= LARGEST_PID


def may_be_waiting(failed: Failed, *, entered: bool) -> bool:
    """Say whether a pooler that lives may have done this: it has no server connection for us.

    `entered`: it had let us in. Before that its codes tell of us: some poolers have class 08 alone
    for everything.
    """
    no_connection = entered and failed.sqlstate.startswith(_CONNECTION_EXCEPTIONS)
    return failed.cause in _AWAITED or no_connection
