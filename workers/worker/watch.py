"""One watched database: its session, its timing, when it is due next. Only the patrol imports
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
from monitor.feeler.proofs import Urgency
from monitor.feeler.session import Feeling, Session

SLOW_SHARE = 200  # the slow tier may take 1/200 of the target's time
LOGIN_COST = 0.004  # seconds of a processor that a login over SCRAM takes us
LOGIN_SHARE = 0.05  # of a worker's time may go into proving logins as a matter of routine
LOGIN_SPACING = 1.0  # seconds between two such proofs at one server, on average


@dataclass(frozen=True, slots=True)
class UnreadableAddress:
    """Stands for the session of a database that this worker cannot look at: it feels nothing, and
    says why.
    """

    clock: Callable[[], float]
    cause: Cause = Cause.NO_CREDENTIALS
    detail: str = "no key of ours fits"
    neighbours: int = 1

    async def feel(self, **_asked: object) -> Feeling:
        """Return a void, whatever a Session is asked: our own fault proves nothing."""
        return Feeling(self.cause, self.clock(), self.clock(), detail=self.detail)

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(slots=True)
class Watch:
    """One database of ours: its session, what the index said, and when which part of a feel is due
    (monotonic).
    """

    database: str
    index: str
    policy: Policy
    revision: int
    session: Session | UnreadableAddress
    access: Access = UNKNOWN
    asked: bool = False  # somebody wants a login now, whatever the last ones told
    feeling: bool = False
    again: bool = False  # somebody asked while it was felt
    slow_due: float = 0.0
    login_due: float = 0.0


def urgency(status: Status) -> Urgency:
    """Say how urgently a login is to be proved."""
    if status.alive or status.state in (State.NEW, State.UNCERTAIN):
        return Urgency.UNDECIDED
    return Urgency.DUE if status.state is State.AVAILABLE else Urgency.REPEATED


def login_interval(watch: Watch, owned: int, workers: int) -> float:
    """Return the seconds between two routine proofs: the policy's, unless they cost us or a server
    too much.
    """
    ours = owned * LOGIN_COST / LOGIN_SHARE
    theirs = (
        watch.session.neighbours * workers * LOGIN_SPACING
    )  # the planner spreads a server's databases evenly
    return max(watch.policy.login_interval, ours, theirs)


def slow_due(watch: Watch, feeling: Feeling, began: float) -> float:
    """Return when to ask the dear gauges again (monotonic).

    After a feel that failed or had no time for all of them: as soon as their cost allows, else a
    storm of ours would hide them for a whole interval.
    """
    rest = watch.policy.slow_interval if feeling.slow_whole else 0.0
    return began + max(rest, feeling.slow_cost * SLOW_SHARE)


def next_due(watch: Watch, status: Status, observation: Observation | None, now: float) -> float:
    """Return when to feel next: on the database's own grid, or closer while something is wrong."""
    policy = watch.policy
    interval = cadence(status, policy, now)
    if observation is None or interval >= policy.interval:
        return grid(watch.database, policy.interval, now)
    due = max(
        now, min(observation.sent_at, now) + interval
    )  # the fleet's clock may have stepped back
    if status.doubt and observation.evidence is Evidence.SILENT:
        # Silent probes end one deadline after they began: let one end just when patience does, not
        # a deadline later.
        patience = status.doubt.sent_at + policy.silent_seconds - due
        due += max(0.0, patience) % policy.deadline
    return due
