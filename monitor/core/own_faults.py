"""What a worker owes to its databases when all it finds is its own faults. Pure; imported by core
and workers.

A worker without credentials, descriptors or a loop in time learns nothing of a database: it does
not watch it, and must ask for another worker as if it could not reach it.
"""

from collections import Counter
from dataclasses import dataclass, replace

from monitor.core.cause import Cause, Evidence
from monitor.core.observation import Observation
from monitor.core.timing import FAULTS_AGAIN, FAULTS_AWAY, FAULTS_FOR, LEARNED_LATELY

FAULTS_MOST = 3  # so many in a row are enough for a request, whatever time they took


@dataclass(frozen=True, slots=True)
class FaultStreak:
    """The feels in a row by which one worker learned nothing of one database."""

    rounds: int = 0
    since: float = 0.0  # fleet seconds
    requested_at: float | None = None  # when it last asked for another worker, in fleet seconds


NO_FAULTS = FaultStreak()


def count_fault(streak: FaultStreak, seen: Observation) -> tuple[FaultStreak, bool]:
    """Return the streak after this feel, and whether to ask for another worker now."""
    if seen.evidence is not Evidence.OUR_FAULT:
        return NO_FAULTS, False
    newest = max(streak.since, streak.requested_at or 0.0)
    if seen.at < newest:
        streak = NO_FAULTS  # the clock was set back: waiting it out would be silence
    if not streak.rounds:
        streak = replace(streak, since=seen.at)
    streak = replace(streak, rounds=streak.rounds + 1)
    lasted = round(seen.at - streak.since, 3)
    enough = streak.rounds >= FAULTS_MOST or lasted >= FAULTS_FOR
    due = enough and _may_ask(streak, seen.at)
    if due:
        streak = replace(streak, requested_at=seen.at)
    return streak, due


def _may_ask(streak: FaultStreak, now: float) -> bool:
    last = streak.requested_at
    if last is None:
        return True
    return now - last >= FAULTS_AGAIN


class OwnFaults:
    """What one worker could not look at lately, and why. `now`: seconds of a clock nobody sets."""

    def __init__(self) -> None:
        self._given_up: dict[str, tuple[Cause, float]] = {}
        self._learned_at = float("-inf")

    def note(self, seen: Observation, streak: FaultStreak, now: float) -> None:
        """Note a feel and the streak that it ends."""
        database = seen.database
        if seen.evidence is not Evidence.OUR_FAULT:
            self._learned_at = now
            self._given_up.pop(database, None)
        elif streak.requested_at is not None:
            self._given_up[database] = (seen.cause, now)

    def causes(self, now: float) -> dict[str, int]:
        """Return how many databases could not be looked at lately, by cause."""
        known = tuple(self._given_up.items())
        for database, (_, since) in known:
            if now - since >= FAULTS_AWAY:
                del self._given_up[database]
        causes = [cause.value for cause, _ in self._given_up.values()]
        counts = Counter(causes)
        return dict(counts)

    def can_watch(self, now: float) -> bool:
        """Tell whether this worker gave nothing up, or has learned something all the same."""
        if not self.causes(now):
            return True
        since_learned = now - self._learned_at
        return since_learned < LEARNED_LATELY
