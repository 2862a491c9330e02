"""The watched databases and their sessions, as many as this worker has room for.

Only workers/worker imports this.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from zlib import crc32

from monitor.core.access import Access
from monitor.core.cause import Cause
from monitor.core.errors import InvalidInput
from monitor.feeler.login import LoginLimiter
from monitor.feeler.session import Session
from monitor.live.targets import Target
from monitor.secrets import SecretBox
from workers.worker.clock import FleetClock
from workers.worker.watch import UnreadableAddress, Watch

log = logging.getLogger("feeler.patrol")


class Watches:
    """Each database has its watch, with a session or with what stands for one."""

    def __init__(
        self, worker: str, box: SecretBox, clock: FleetClock, logins: LoginLimiter, capacity: int
    ) -> None:
        self._worker, self._box, self._clock, self._logins = worker, box, clock, logins
        self._capacity = capacity
        self._watches: dict[str, Watch] = {}
        self._without_room: set[str] = set()  # watches that have no session for want of room

    def __len__(self) -> int:
        return len(self._watches)

    def __iter__(self) -> Iterator[str]:
        return iter(self._watches)

    def get(self, database: str) -> Watch | None:
        """Return the watch of a database, None where it is not ours."""
        return self._watches.get(database)

    def is_watched(self, watch: Watch) -> bool:
        """Say whether this watch still counts: else it is of an address that is no more."""
        return self._watches.get(watch.database) is watch

    def has_room(self) -> bool:
        """Say whether one session more can be held."""
        return len(self._watches) - len(self._without_room) < self._capacity

    def lacks_room(self, database: str) -> bool:
        """Say whether this database has no session for want of room."""
        return database in self._without_room

    async def open(
        self, database: str, target: Target, access: Access, wake: Callable[[], None]
    ) -> Watch:
        """Watch a database at its target's address instead of the one before, if any."""
        await self.close(database)
        session = self._session(database, target, wake)
        checksum = f"{crc32(target.ciphertext.encode()):08x}"
        watch = Watch(
            database=database,
            index="",
            policy=target.policy,
            revision=target.revision,
            session=session,
            access=access.at(checksum),
        )
        self._watches[database] = watch
        return watch

    def _session(
        self, database: str, target: Target, wake: Callable[[], None]
    ) -> Session | UnreadableAddress:
        """Open the address; one that we cannot open must not keep us from the others."""
        if not self.has_room():
            return self._refuse(database, target)
        try:
            address = self._box.open_address(database, target.ciphertext)
        except InvalidInput as exc:
            log.error("action=address_sealed database=%s error=%s", database, exc)
            return UnreadableAddress(database, self._worker, target.revision, self._clock.now)
        return Session(
            address,
            database=database,
            worker=self._worker,
            revision=target.revision,
            deadline=target.policy.deadline,
            clock=self._clock.now,
            logins=self._logins,
            wake=wake,
        )

    def _refuse(self, database: str, target: Target) -> UnreadableAddress:
        """Take no more than we can hold: more would take the descriptors of all the others."""
        capacity = self._capacity
        log.error("action=refused database=%s reason=no_capacity capacity=%d", database, capacity)
        self._without_room.add(database)
        return UnreadableAddress(
            database,
            self._worker,
            target.revision,
            self._clock.now,
            Cause.NO_CAPACITY,
            f"refused, no capacity: {capacity} are watched",
        )

    async def close(self, database: str) -> None:
        """Watch a database no longer."""
        self._without_room.discard(database)
        watch = self._watches.pop(database, None)
        if watch:
            await watch.session.close()

    async def close_all(self) -> None:
        """Sever every session."""
        closing = [watch.session.close() for watch in self._watches.values()]
        await asyncio.gather(*closing, return_exceptions=True)
