"""Which cries of 'I can't reach this database' still ask for another worker: pure, the leader's alone."""

from collections.abc import Iterable, Mapping

from monitor.core.assignment import Refusal
from monitor.core.event import CannotReach, Transition
from monitor.core.status import Identity, State
from monitor.live.assignments import Place

REFUSAL = 60.0  # seconds a database stays away from a worker that cannot reach it
MOVES_MOST = 3  # of one database ...
MOVES_WITHIN = 600.0  # ... in so many seconds
ASK_AGAIN = 20.0  # a doubt moved this long ago may be moved again: the former owner's word has expired


class Doubts:
    """Open cries by database, and the refusals that came of them."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, Identity]] = {}  # database -> the worker that cried, in which doubt
        self._refusals: dict[tuple[str, str], Refusal] = {}

    def hear(self, cry: CannotReach) -> None:
        """Note a cry; the newest worker's counts."""
        self._open[cry.database] = (cry.worker, cry.doubt)

    def settle(self, transition: Transition) -> None:
        """A state was reached: nobody needs to look for it any more."""
        if transition.target is not State.UNCERTAIN:
            self._open.pop(transition.database, None)

    def review(self, places: Iterable[Place]) -> None:
        """Take up what the hashes say: a new leader has not heard the cries of the old one's time."""
        for place in places:
            if place.state is not State.UNCERTAIN:
                self._open.pop(place.database, None)  # this look may have overtaken the news of it
            elif place.doubt and place.owner:
                self._open.setdefault(place.database, (place.owner, place.doubt))

    def doubt(self, database: str) -> Identity | None:
        """Return the open doubt of a database."""
        cry = self._open.get(database)
        return cry[1] if cry else None

    def refusals(self, places: Mapping[str, Place], now: float) -> list[Refusal]:
        """Return who must not get what: cries of present owners within their limits, and those of the last minute."""
        for database, (worker, doubt) in self._open.items():
            place = places.get(database)
            if place and place.owner == worker and _may_move(place, doubt, now):
                self._refusals[database, worker] = Refusal(database, worker, now)
        self._refusals = {key: one for key, one in self._refusals.items() if now - one.at < REFUSAL}
        return list(self._refusals.values())


def _may_move(place: Place, doubt: Identity, now: float) -> bool:
    """One move for each doubt while the former owner's word counts, three in ten minutes."""
    recent = [moment for moment in place.moves if now - moment < MOVES_WITHIN]
    if len(recent) >= MOVES_MOST:
        return False
    return place.moved_for != doubt or not recent or now - max(recent) > ASK_AGAIN
