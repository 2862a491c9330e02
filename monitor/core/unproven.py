"""Owners in name only: given a database, and no beat of theirs accepted since.

Pure; the leader alone imports this.
"""

from collections.abc import Collection, Iterable
from itertools import islice

from monitor.core.assignment import Refusal
from monitor.core.placement import Place
from monitor.core.status import Epoch

WITHIN = 30.0  # seconds an owner has for its first accepted beat
BARRED = 300.0  # seconds for which a worker that proves nothing at all is given nothing
AT_ONCE = 1000  # databases looked at in one sweep


class Unproven:
    """Who is waited for, and who has been given up; `now` is monotonic seconds where nothing else
    is said.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[Epoch | None, float]] = {}
        self._refusals: dict[tuple[str, str], Refusal] = {}
        self._barred: dict[str, float] = {}  # until when

    def note(self, places: Iterable[Place], now: float) -> None:
        """Wait for the owners of these; one that waits for the database's Status itself is not
        waited for.
        """
        for place in places:
            known = self._since.get(place.database)
            if not place.owner or not place.seeded or place.proven:
                self._since.pop(place.database, None)
            elif known is None or known[0] != place.epoch:
                self._since[place.database] = place.epoch, now

    def overdue(self, now: float, steady_since: float) -> list[str]:
        """Return some databases that were given long ago and are not known to be proven, though
        Redis took beats.
        """
        late = (
            name
            for name, (_, since) in self._since.items()
            if now - max(since, steady_since) >= WITHIN
        )
        return list(islice(late, AT_ONCE))

    def give_up(
        self, late: Collection[str], places: Iterable[Place], now: float, fleet_now: float
    ) -> set[str]:
        """Judge those that are late by their places, just read; return the owners that still
        are.
        """
        places = list(places)
        before = {name: self._since[name] for name in late}
        self.note(places, now)
        given_up = [
            place for place in places if self._since.get(place.database) == before[place.database]
        ]
        for place in given_up:
            del self._since[place.database]
            self._refusals[place.database, place.owner] = Refusal(
                place.database, place.owner, fleet_now
            )
        return {place.owner for place in given_up}

    def bar(self, worker: str, now: float) -> None:
        """Give this worker nothing for a while."""
        self._barred[worker] = now + BARRED

    def barred(self, now: float) -> set[str]:
        """Return who is given nothing."""
        self._barred = {worker: until for worker, until in self._barred.items() if until > now}
        return set(self._barred)

    def refusals(self, fleet_now: float) -> list[Refusal]:
        """Return who must not have what."""
        self._refusals = {key: one for key, one in self._refusals.items() if one.counts(fleet_now)}
        return list(self._refusals.values())

    def was_given_up(self, database: str, owner: str) -> bool:
        """Tell whether a move away from this owner waits for no beat of its own."""
        return (database, owner) in self._refusals or owner in self._barred
