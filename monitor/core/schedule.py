"""When a database is due, and for what: the decisions, then the wheel that keeps the due times.

Pure: time is an argument, in fleet seconds where nothing else is said. The worker imports this.
"""

import heapq
from zlib import crc32

from monitor.core.cause import Evidence
from monitor.core.observation import Observation
from monitor.core.policy import Policy
from monitor.core.status import State, Status

SLOW_SHARE = 200  # the slow gauges may take 1/200 of the target's time
LOGIN_COST = 0.004  # seconds of a processor that a login over SCRAM takes us
LOGIN_SHARE = 0.05  # of a worker's time may go into proving logins as a matter of routine
LOGIN_SPACING = 1.0  # seconds between two such proofs at one server, on average

_WELL = (State.NEW, State.AVAILABLE)
_PHASES = 10_000  # different places on a grid
_Entry = tuple[float, str]  # when what is due


def next_due(
    database: str, policy: Policy, status: Status, observation: Observation | None, now: float
) -> float:
    """Return when to feel next: on the database's own grid, or closer while something is wrong."""
    interval = cadence(status, policy, now)
    if observation is None or interval >= policy.interval:
        return grid(database, policy.interval, now)
    sent_at = min(observation.sent_at, now)  # the fleet's clock may have stepped back
    fast = sent_at + interval
    due = max(now, fast)
    doubt = status.doubt
    if doubt and observation.evidence is Evidence.SILENT:
        # Silent probes end one deadline after they began: let one end just when the doubt may be
        # decided, not a deadline later.
        may_decide = doubt.sent_at + policy.silent_seconds
        left = max(0.0, may_decide - due)
        due += left % policy.deadline
    return due


def cadence(status: Status, policy: Policy, now: float) -> float:
    """Return the seconds until the next beat: fewer while a question is open, an outage young."""
    if status.state is State.UNCERTAIN or status.alive or status.errors:
        return policy.fast_interval
    if status.state in _WELL:
        return policy.interval
    lasted = now - status.since
    if lasted < policy.fast_seconds:
        return policy.fast_interval
    return policy.bad_interval


def grid(database: str, interval: float, now: float) -> float:
    """Return the first moment after `now` on the database's own grid of `interval` seconds.

    The phase comes from the name: it spreads the fleet and stays when the owner changes.
    """
    checksum = crc32(database.encode())
    share = checksum % _PHASES / _PHASES
    phase = share * interval
    since_last = (now - phase) % interval
    return now + interval - since_last


def wants_login(status: Status) -> bool:
    """Tell whether each beat needs a login: a failed one is undecided, or both must lead back.

    A recovery under way began with a login; its session has only to last. Logins beside it wait for
    their turn, and the databases of a large server would hinder one another's recovery for ever.
    """
    if status.alive is not None:
        return True
    return status.state is not State.AVAILABLE and not status.ok_rounds


def login_interval(policy: Policy, *, owned: int, neighbours: int, workers: int) -> float:
    """Return the seconds between two routine proofs: what we and the server can bear, at least."""
    ours = owned * LOGIN_COST / LOGIN_SHARE
    # The planner spreads a server's databases evenly over the workers.
    at_server = neighbours * workers
    theirs = at_server * LOGIN_SPACING
    return max(policy.login_interval, ours, theirs)


def wants_slow(status: Status) -> bool:
    """Tell whether the slow gauges are asked: they wait until a database is well again."""
    return status.state in _WELL


def slow_due(policy: Policy, began: float, seconds: float, *, complete: bool) -> float:
    """Return when to ask the slow gauges again, after they took so long; on the clock of `began`.

    After a feel that failed or had no time for all of them: as soon as their cost allows, else a
    storm of ours would hide them for a whole interval.
    """
    interval = policy.slow_interval if complete else 0.0
    bearable = seconds * SLOW_SHARE
    return began + max(interval, bearable)


class Wheel:
    """Due times by database, in seconds of any one clock; setting one anew replaces the old."""

    def __init__(self) -> None:
        self._newest: dict[str, _Entry] = {}
        self._heap: list[_Entry] = []  # replaced entries stay until they come up

    def set(self, database: str, due: float) -> None:
        """Make `database` due at `due`."""
        entry = (due, database)
        self._newest[database] = entry
        heapq.heappush(self._heap, entry)

    def remove(self, database: str) -> None:
        """Forget `database`."""
        self._newest.pop(database, None)

    def pop(self, now: float) -> list[tuple[str, float]]:
        """Return what is due by `now` and since when, earliest first, and forget it."""
        popped: list[tuple[str, float]] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            entry = heapq.heappop(heap)
            due, database = entry
            if self._newest.get(database) is not entry:
                continue
            del self._newest[database]
            popped.append((database, due))
        return popped

    def next(self) -> float | None:
        """Return the earliest due time."""
        heap = self._heap
        while heap:
            entry = heap[0]
            due, database = entry
            if self._newest.get(database) is entry:
                return due
            heapq.heappop(heap)
        return None
