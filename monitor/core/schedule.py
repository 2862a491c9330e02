"""When each database is due: a pure schedule, one entry per database. Only the patrol imports
this.
"""

import heapq
import itertools
from zlib import crc32


class Wheel:
    """Due times by database; setting one anew replaces the old."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._turn = itertools.count()

    def set(self, database: str, due: float) -> None:
        """Make `database` due at `due`."""
        turn = next(self._turn)
        self._due[database] = (due, turn)
        heapq.heappush(self._heap, (due, turn, database))

    def remove(self, database: str) -> None:
        """Forget `database`."""
        self._due.pop(database, None)

    def pop(self, now: float) -> list[tuple[str, float]]:
        """Return what is due by `now` and since when, earliest first, and forget it."""
        due: list[tuple[str, float]] = []
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if not self._stale(entry):
                del self._due[entry[2]]
                due.append((entry[2], entry[0]))
        return due

    def next(self) -> float | None:
        """Return the earliest due time."""
        while self._heap and self._stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _stale(self, entry: tuple[float, int, str]) -> bool:
        return self._due.get(entry[2]) != entry[:2]


def grid(database: str, interval: float, now: float) -> float:
    """Return the first moment after `now` on the database's own grid of `interval` seconds.

    The phase comes from the name: it spreads the fleet and stays when the owner changes.
    """
    phase = crc32(database.encode()) % 10_000 / 10_000 * interval
    return now + interval - (now - phase) % interval
