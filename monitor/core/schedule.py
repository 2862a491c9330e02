"""When each database is due: one entry per database. Pure; only the patrol imports this."""

import heapq
import itertools
from zlib import crc32


class Wheel:
    """Due times by database; setting one anew replaces the old."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []  # replaced entries stay until they come up
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
            moment, turn, database = heapq.heappop(self._heap)
            if self._due.get(database) != (moment, turn):
                continue
            del self._due[database]
            due.append((database, moment))
        return due

    def next(self) -> float | None:
        """Return the earliest due time."""
        while self._heap:
            moment, turn, database = self._heap[0]
            if self._due.get(database) == (moment, turn):
                return moment
            heapq.heappop(self._heap)
        return None


def grid(database: str, interval: float, now: float) -> float:
    """Return the first moment after `now` on the database's own grid of `interval` seconds.

    The phase comes from the name: it spreads the fleet and stays when the owner changes.
    """
    share = crc32(database.encode()) % 10_000 / 10_000
    since_last = (now - share * interval) % interval
    return now + interval - since_last
