"""What a worker owes to its databases when all it finds is its own faults. Pure; imported by core
and workers.

A worker without credentials, descriptors or a loop in time learns nothing of a database: it does
not watch it, and must ask for another worker as if it could not reach it.
"""

from collections import Counter
from dataclasses import dataclass

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
    if seen.at < max(streak.since, streak.requested_at or 0.0):
        streak = NO_FAULTS  # the clock was set back: waiting it out would be silence
    since = streak.since if streak.rounds else seen.at
    rounds = streak.rounds + 1
    requested_at = streak.requested_at
    enough = rounds >= FAULTS_MOST or round(seen.at - since, 3) >= FAULTS_FOR
    due = enough and (requested_at is None or seen.at - requested_at >= FAULTS_AGAIN)
    if due:
        requested_at = seen.at
    return FaultStreak(rounds, since, requested_at), due


class OwnFaults:
    """What one worker could not look at lately, and why. `now`: seconds of a clock nobody sets."""

    def __init__(self) -> None:
        self._given_up: dict[str, tuple[Cause, float]] = {}
        self._learned_at = float("-inf")

    def note(self, seen: Observation, streak: FaultStreak, now: float) -> None:
        """Note a feel and the streak that it ends."""
        if seen.evidence is not Evidence.OUR_FAULT:
            self._learned_at = now
            self._given_up.pop(seen.database, None)
        elif streak.requested_at is not None:
            self._given_up[seen.database] = (seen.cause, now)

    def causes(self, now: float) -> dict[str, int]:
        """Return how many databases could not be looked at lately, by cause."""
        for database, (_, since) in tuple(self._given_up.items()):
            if now - since >= FAULTS_AWAY:
                del self._given_up[database]
        counts: Counter[str] = Counter()
        for cause, _ in self._given_up.values():
            counts[cause.value] += 1
        return dict(counts)

    def can_watch(self, now: float) -> bool:
        """Tell whether this worker gave nothing up, or has learned something all the same."""
        return not self.causes(now) or now - self._learned_at < LEARNED_LATELY
