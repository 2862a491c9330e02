"""Which databases that could not be reached still ask for another worker.

Pure; the leader alone imports this.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from monitor.core.assignment import Refusal
from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.custody import TELL_AGAIN
from monitor.core.event import CannotReach, Transition
from monitor.core.placement import Place
from monitor.core.policy import Policy
from monitor.core.status import Identity, State
from monitor.core.verdict import patience

MOVES_MOST = 3  # of one database at once ...
MOVES_WITHIN = 600.0  # ... in so many seconds; more only in doubts that last
VOID_GRACE = 30.0  # seconds a cry that is due again may take to come
ASK_AGAIN = (
    20.0  # a doubt moved this long ago may be moved again: the former owner's word has expired
)


@dataclass(slots=True)
class _Question:
    """A doubt that is open: who cried last, why, and since when the leader has known of it."""

    worker: str
    doubt: Identity
    cause: Cause | None = None  # None: taken from the hash, which does not tell
    since: float | None = None


class Doubts:
    """Open cries by database, and the refusals that came of them. No moment in the future counts:
    clocks are set.
    """

    def __init__(self, policy: Callable[[str], Policy] = lambda _: Policy()) -> None:
        self._policy = policy
        self._open: dict[str, _Question] = {}
        self._refusals: dict[tuple[str, str], tuple[Refusal, Identity]] = {}  # each with its doubt
        self._given_up: dict[str, CannotReach] = {}  # by owners that can only say void
        self._confirmed: dict[str, float] = {}  # when a database was found unavailable last

    def hear(self, cry: CannotReach) -> None:
        """Note a cry; the newest worker's counts. Whoever can only say void adds no word to a
        doubt.
        """
        if EVIDENCE[cry.cause] is Evidence.OUR_FAULT:
            self._given_up[cry.database] = cry
            return
        known = self._open.get(cry.database)
        since = known.since if known and known.doubt == cry.doubt else None
        self._open[cry.database] = _Question(cry.worker, cry.doubt, cry.cause, since)

    def settle(self, transition: Transition) -> None:
        """A state was reached: nobody needs to look for it any more."""
        if transition.target is not State.UNCERTAIN:
            self._open.pop(transition.database, None)
        if transition.target is State.UNAVAILABLE:
            self._confirmed[transition.database] = transition.at

    def review(self, places: Iterable[Place]) -> None:
        """Take up what the hashes say: a new leader has not heard the cries of the old one's
        time.
        """
        for place in places:
            if place.state is not State.UNCERTAIN:
                self._open.pop(place.database, None)  # this look may have overtaken the news of it
            elif place.doubt and place.owner:
                self._open.setdefault(place.database, _Question(place.owner, place.doubt))

    def doubt(self, database: str, owner: str | None) -> Identity | None:
        """Return the open doubt that a move away from this owner answers; none where the owner
        could only say void.
        """
        asked, refused = self._open.get(database), self._refusals.get((database, owner or ""))
        return None if asked is None or (refused and refused[0].void) else asked.doubt

    def refusals(self, places: Mapping[str, Place], now: float) -> list[Refusal]:
        """Return who must not get what: cries of present owners within their limits, and those of
        the last minute.
        """
        self._confirmed = {
            name: at for name, at in self._confirmed.items() if 0 <= now - at < MOVES_WITHIN
        }
        for database, asked in self._open.items():
            place = places.get(database)
            if place and place.owner == asked.worker and self._may_move(place, asked, now):
                self._refusals[database, asked.worker] = (
                    Refusal(database, asked.worker, now),
                    asked.doubt,
                )
        for database, cry in self._given_up.items():
            if (place := places.get(database)) and place.owner == cry.worker:
                self._refusals[database, cry.worker] = (
                    Refusal(database, cry.worker, now, void=True),
                    cry.doubt,
                )
        self._given_up.clear()
        self._refusals = {
            key: (one, doubt)
            for key, (one, doubt) in self._refusals.items()
            if one.counts(now) and self._counts(one, doubt, places, now)
        }
        return [one for one, _ in self._refusals.values()]

    def _counts(
        self, one: Refusal, doubt: Identity, places: Mapping[str, Place], now: float
    ) -> bool:
        """Tell whether a refusal counts against a present owner: in its own doubt, or while it goes
        on saying void.
        """
        place = places.get(one.database)
        if place is None or place.owner != one.worker:
            return True
        if one.void:
            return now - one.at < TELL_AGAIN + VOID_GRACE
        asked = self._open.get(one.database)
        return asked is not None and asked.doubt == doubt

    def _may_move(self, place: Place, asked: _Question, now: float) -> bool:
        """Tell whether a doubt may move now: once while the former owner's word counts, and at once
        three times in ten minutes. A doubt that outlives its rule's patience needs its second
        observer whatever was before it.
        """
        if asked.since is None or asked.since > now:
            asked.since = now
        recent = [moment for moment in place.moves if 0 <= now - moment < MOVES_WITHIN]
        if recent and place.moved_for == asked.doubt and now - max(recent) <= ASK_AGAIN:
            return False
        used = [moment for moment in recent if moment > self._confirmed.get(place.database, 0.0)]
        return len(used) < MOVES_MOST or now - asked.since >= patience(
            self._policy(place.database), asked.cause
        )
