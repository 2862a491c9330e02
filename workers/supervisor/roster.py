"""The workers: who is here, who may own databases, whom we have met. For the leader alone."""

import time
from collections.abc import Collection, Iterable, Mapping

from monitor.core.assignment import Worker
from monitor.core.timing import ABSENCE_GRACE
from monitor.live import presence
from monitor.live.connections import Live
from monitor.live.presence import Alive, Presence


def workers(present: Iterable[Presence]) -> dict[str, Worker]:
    """Return these workers as the planner knows them."""
    found: dict[str, Worker] = {}
    for one in present:
        found[one.worker] = Worker(
            id=one.worker,
            zone=one.zone,
            capacity=one.capacity,
        )
    return found


class Roster:
    """What the leader knows of the workers."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._alive = Alive()
        self.met: set[str] = set()  # who was here, or was spared, when the leader planned last
        self.steady_since = time.monotonic()  # Redis has answered without a break since

    @property
    def is_shaken(self) -> bool:
        """Tell whether Redis was away so lately that an absence proves nothing."""
        return time.monotonic() - self.steady_since < ABSENCE_GRACE

    def interrupted(self) -> None:
        """Note that Redis was away or lost its memory: workers may not have been back yet."""
        self.steady_since = time.monotonic()

    async def present(self) -> dict[str, Presence]:
        """Return who is here."""
        announced = await presence.present(self._live)
        return self._alive.among(announced, time.monotonic())

    async def gone(self, known: Collection[str], owners: Collection[str]) -> set[str]:
        """Return which of the workers once announced are not here and own nothing."""
        present = await self.present()
        return set(known) - set(owners) - present.keys()

    def candidates(
        self,
        present: Mapping[str, Presence],
        spared: Collection[str],
        barred: Collection[str],
    ) -> dict[str, Worker]:
        """Return who may own databases: whoever is here to stay and can watch, if anybody can.

        `spared` are absent owners that may keep what they have, `barred` get nothing while others
        may.
        """
        staying = [one for one in present.values() if not one.leaving]
        able = [one for one in staying if one.able]
        here = workers(able or staying)
        for worker in spared:
            here[worker] = Worker(worker)
        trusted = here.keys() - barred
        if not trusted:
            return here
        return {name: worker for name, worker in here.items() if name in trusted}
