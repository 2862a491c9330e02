"""What a worker owes to the databases in its care when all it finds is its own faults. Pure; time
is an argument.

A worker that can only say void is not watching: it must say that it cannot reach the database, and
why.
"""

from collections import Counter
from dataclasses import dataclass

from monitor.core.cause import Cause, Evidence
from monitor.core.observation import Observation
from monitor.core.timing import FAULTS_AGAIN, FAULTS_AWAY, FAULTS_FOR, LEARNED_LATELY

VOIDS_MOST = 3  # voids in a row ...


@dataclass(frozen=True, slots=True)
class Voids:
    """The feels in a row by which one worker learned nothing of one database."""

    rounds: int = 0
    since: float = 0.0
    told_at: float | None = None  # when it last cried for it

    @property
    def told(self) -> bool:
        return self.told_at is not None


def hear(voids: Voids, seen: Observation) -> tuple[Voids, bool]:
    """Return the voids in a row after this feel, and whether to cry now. A clock that was set back
    starts them anew.
    """
    if seen.evidence is not Evidence.OUR_FAULT:
        return Voids(), False
    if seen.at < max(voids.since, voids.told_at or 0.0):
        voids = Voids()
    since, rounds = (voids.since if voids.rounds else seen.at), voids.rounds + 1
    enough = rounds >= VOIDS_MOST or round(seen.at - since, 3) >= FAULTS_FOR
    due = enough and (voids.told_at is None or seen.at - voids.told_at >= FAULTS_AGAIN)
    return Voids(rounds, since, seen.at if due else voids.told_at), due


class Faults:
    """What one worker could not look at lately, and why."""

    def __init__(self) -> None:
        self._given_up: dict[str, tuple[Cause, float]] = {}
        self._learned_at = float("-inf")

    def note(self, seen: Observation, voids: Voids, now: float) -> None:
        """Note a feel and the voids in a row that it ends; `now` in seconds of a clock that nobody
        sets.
        """
        if seen.evidence is not Evidence.OUR_FAULT:
            self._learned_at = now
            self._given_up.pop(seen.database, None)
        elif voids.told:
            self._given_up[seen.database] = (seen.cause, now)

    def causes(self, now: float) -> dict[str, int]:
        """Return how many databases could not be looked at lately, by cause."""
        self._given_up = {
            name: why for name, why in self._given_up.items() if now - why[1] < FAULTS_AWAY
        }
        return dict(Counter(cause.value for cause, _ in self._given_up.values()))

    def able(self, now: float) -> bool:
        """Tell whether this worker can watch: it gave nothing up, or has learned something since
        then.
        """
        return not self.causes(now) or now - self._learned_at < LEARNED_LATELY
