"""One watched database: its session, and when a part of its feel is due.

Only workers/worker imports this.
"""

from collections.abc import Callable
from dataclasses import dataclass

from monitor.core.access import UNKNOWN, Access
from monitor.core.cause import Cause
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import State, Status
from monitor.feeler.login_queue import Urgency
from monitor.feeler.session import FeelNotes, Session


@dataclass(frozen=True, slots=True)
class UnreadableAddress:
    """Stands for the session of a database that this worker cannot look at, and says why."""

    database: str
    worker: str
    revision: int
    clock: Callable[[], float]
    cause: Cause = Cause.NO_CREDENTIALS
    detail: str = "no key of ours fits"
    neighbours: int = 1

    async def feel(self, **_asked: object) -> tuple[Observation, FeelNotes]:
        """Return our own fault, whatever a Session is asked: it proves nothing."""
        now = self.clock()
        observation = Observation(
            database=self.database,
            worker=self.worker,
            revision=self.revision,
            sent_at=now,
            at=now,
            cause=self.cause,
            detail=self.detail,
        )
        return observation, FeelNotes()

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(slots=True)
class Watch:
    """One database of ours; when a part of its feel is due stands in monotonic seconds."""

    database: str
    index: str  # what the index of assignments said of it when it was learned last
    policy: Policy
    revision: int
    session: Session | UnreadableAddress
    access: Access = UNKNOWN
    login_requested: bool = False  # somebody wants one now, whatever the last ones came to
    feeling: bool = False
    feel_again: bool = False  # as soon as the feel under way has ended
    slow_due: float = 0.0
    login_due: float = 0.0


def urgency(status: Status) -> Urgency:
    """Say how urgently a login is to be proved."""
    if status.alive or status.state in (State.NEW, State.UNCERTAIN):
        return Urgency.UNDECIDED
    return Urgency.DUE if status.state is State.AVAILABLE else Urgency.REPEATED
