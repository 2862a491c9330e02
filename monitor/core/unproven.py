"""Owners in name only: given a database, and no beat of theirs accepted since.

Pure; the leader alone imports this. `now` is monotonic seconds; `fleet_now` is of the fleet's
clock, which refusals are dated by.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from monitor.core.assignment import Refusal
from monitor.core.placement import Place
from monitor.core.status import Epoch
from monitor.core.timing import UNPROVEN_BARRED, UNPROVEN_FOR

AT_ONCE = 1000  # databases looked at in one sweep


class _Wait(NamedTuple):
    """For the first beat under an epoch."""

    epoch: Epoch | None
    since: float


class Unproven:
    """Whose first beat is waited for, and who has been given up."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}  # by database
        self._refusals: dict[tuple[str, str], Refusal] = {}  # by database and worker
        self._barred: dict[str, float] = {}  # until when

    def note(self, places: Iterable[Place], now: float) -> None:
        """Wait for the owners of these, but for those that lack the database's Status to begin."""
        for place in places:
            self._note(place, now)

    def _note(self, place: Place, now: float) -> None:
        database = place.database
        must_beat = place.owner and place.seeded
        if not must_beat or place.proven:
            self._waits.pop(database, None)
            return
        known = self._waits.get(database)
        if known is None or known.epoch != place.epoch:
            self._waits[database] = _Wait(place.epoch, now)

    def overdue(self, now: float, steady_since: float) -> list[str]:
        """Return some databases whose owner should have beaten by now: Redis took beats so long."""
        late: list[str] = []
        for database, wait in self._waits.items():
            since = max(wait.since, steady_since)
            if now - since < UNPROVEN_FOR:
                continue
            late.append(database)
            if len(late) == AT_ONCE:
                break
        return late

    def give_up(self, places: Sequence[Place], now: float, fleet_now: float) -> set[str]:
        """Judge overdue databases by their places, just read; return the owners that still are."""
        owners: set[str] = set()
        for place in places:
            database = place.database
            owner = place.owner
            overdue = self._waits[database]
            self._note(place, now)
            if self._waits.get(database) != overdue:
                continue
            del self._waits[database]
            key = (database, owner)
            self._refusals[key] = Refusal(database, owner, fleet_now)
            owners.add(owner)
        return owners

    def bar(self, worker: str, now: float) -> None:
        """Give this worker nothing for a while."""
        self._barred[worker] = now + UNPROVEN_BARRED

    def barred(self, now: float) -> set[str]:
        """Return who is given nothing."""
        known = list(self._barred.items())
        for worker, until in known:
            if until <= now:
                del self._barred[worker]
        return set(self._barred)

    def refusals(self, fleet_now: float) -> list[Refusal]:
        """Return who must not have what."""
        known = list(self._refusals.items())
        for key, refusal in known:
            if not refusal.counts(fleet_now):
                del self._refusals[key]
        return list(self._refusals.values())

    def was_given_up(self, database: str, owner: str) -> bool:
        """Tell whether a move away from this owner waits for no beat of its own."""
        refused = (database, owner) in self._refusals
        return refused or owner in self._barred
