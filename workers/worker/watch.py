"""One watched database: its session, its timing, when it is due next. Only workers/worker imports
this.
"""

from collections.abc import Callable
from dataclasses import dataclass

from monitor.core.access import UNKNOWN, Access
from monitor.core.cause import Cause, Evidence
from monitor.core.machine import cadence
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.schedule import grid
from monitor.core.status import State, Status
from monitor.feeler.login_queue import Urgency
from monitor.feeler.session import FeelNotes, Session

SLOW_SHARE = 200  # the slow gauges may take 1/200 of the target's time
LOGIN_COST = 0.004  # seconds of a processor that a login over SCRAM takes us
LOGIN_SHARE = 0.05  # of a worker's time may go into proving logins as a matter of routine
LOGIN_SPACING = 1.0  # seconds between two such proofs at one server, on average


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


def login_interval(watch: Watch, owned: int, workers: int) -> float:
    """Return the seconds between two routine proofs: what we and the server can bear, at least."""
    ours = owned * LOGIN_COST / LOGIN_SHARE
    # the planner spreads a server's databases evenly over the workers
    theirs = watch.session.neighbours * workers * LOGIN_SPACING
    return max(watch.policy.login_interval, ours, theirs)


def slow_due(watch: Watch, notes: FeelNotes, began: float) -> float:
    """Return when to ask the slow gauges again (monotonic).

    After a feel that failed or had no time for all of them: as soon as their cost allows, else a
    storm of ours would hide them for a whole interval.
    """
    interval = watch.policy.slow_interval if notes.slow_complete else 0.0
    return began + max(interval, notes.slow_seconds * SLOW_SHARE)


def next_due(watch: Watch, status: Status, observation: Observation | None, now: float) -> float:
    """Return when to feel next: on the database's own grid, or closer while something is wrong."""
    policy = watch.policy
    interval = cadence(status, policy, now)
    if observation is None or interval >= policy.interval:
        return grid(watch.database, policy.interval, now)
    sent_at = min(observation.sent_at, now)  # the fleet's clock may have stepped back
    due = max(now, sent_at + interval)
    if status.doubt and observation.evidence is Evidence.SILENT:
        # Silent probes end one deadline after they began: let one end just when the doubt may be
        # decided, not a deadline later.
        left = status.doubt.sent_at + policy.silent_seconds - due
        due += max(0.0, left) % policy.deadline
    return due
