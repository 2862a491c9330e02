"""What the leading supervisor does in each sweep: see who is here, plan, assign, nudge. For
supervisor.py alone.

The leader's memory is a cache: all of it is rebuilt from Postgres (the fleet), Redis (places) and
the journal.
"""

import asyncio
import logging
import math
import time
from dataclasses import replace

from monitor.core import assignment as planner
from monitor.core.assignment import Move
from monitor.core.database import DatabaseStatus
from monitor.core.doubts import Doubts
from monitor.core.errors import StoreUnavailable
from monitor.core.event import CannotReach, Transition
from monitor.core.placement import Place
from monitor.core.policy import Policy
from monitor.core.status import Status
from monitor.core.timing import (
    ABSENCE_GRACE,
    FLEET_EVERY,
    LEADER_ABANDONED,
    LEASE,
    LISTEN,
    REVIEW_EVERY,
)
from monitor.core.unproven import Unproven
from monitor.live import (
    assignments,
    connections,
    generation,
    journal,
    observations,
    presence,
    requests,
    targets,
)
from monitor.live.connections import Live
from monitor.live.journal import Entry
from monitor.live.presence import Alive, Presence
from monitor.live.targets import Target
from monitor.registry import fleet
from monitor.registry.fleet import Database, Registry
from monitor.registry.leadership import Lease
from monitor.registry.store import Store
from workers.nudges import Nudger
from workers.supervisor.placements import Deposed, Placements
from workers.supervisor.recovery import Recovery

log = logging.getLogger("feeler.leader")

GROUP = "supervisor"
CHUNK = 200  # commands in flight at once


class Leader:
    """One term of leadership."""

    def __init__(
        self,
        live: Live,
        store: Store,
        lease: Lease,
        nudger: Nudger,
        lease_seconds: float = LEASE,
        waiting_since: float | None = None,
    ) -> None:
        self._live, self._store, self._nudger = live, store, nudger
        self._placements = Placements(live, store, lease)
        self._recovery = Recovery(live, store, self._placements, lease_seconds, waiting_since)
        self.lease = lease
        self.wake = asyncio.Event()
        self._fleet: dict[str, Database] = {}
        self._paused: set[str] = set()
        self._claimed = False
        self._unreadable: frozenset[str] = (
            frozenset()
        )  # registered, but nobody knows how: they stay as they are
        self._fleet_known = False
        self.reading: asyncio.Task[Registry] | None = None
        self._published: dict[str, int] = {}  # revision of each target in Redis
        self._doubts = Doubts(self._policy)
        self._unproven = Unproven()
        self._alive = Alive()
        self._heard: list[Entry] = []
        self._members: set[str] = set()
        self._fleet_at = self._review_at = 0.0
        self._steady_since = time.monotonic()  # Redis has answered without a break since
        self._swept_at = time.monotonic()  # when a sweep was completed last
        self._failing = False  # the last sweep was not completed

    @property
    def unswept(self) -> float:
        """Return the seconds since a sweep was completed, or since the one under way got further.

        One that failed got nowhere: what it did it will do again.
        """
        since = self._swept_at if self._failing else max(self._swept_at, self._placements.worked_at)
        return time.monotonic() - since

    def inherit(self, before: "Leader") -> None:
        """Know the workers `before` knew, where nobody led in between: no others can have been
        given anything.
        """
        if before.lease.term + 1 == self.lease.term:
            self._members = before._members

    @property
    def _places(self) -> dict[str, Place]:
        return self._placements.places

    async def rest(self) -> None:
        """Say a last word, if this memory of Redis is known to be whole."""
        standing = await generation.standing(self._live)
        ours = standing.term == self.lease.term and not standing.holder(self.lease.registry)
        if ours and (await generation.generation(self._live)).open:
            await generation.mark_complete(self._live, self.lease.named)

    async def listen(self) -> None:
        """Take news from the journal and wake the sweep: a cry for another worker is answered at
        once.
        """
        entries = await journal.read(self._live, GROUP, self.lease.owner, count=CHUNK, block=LISTEN)
        if entries:
            self._heard += entries
            self.wake.set()

    async def sweep(self) -> None:
        """Bring assignments in line with the fleet, the workers and their cries."""
        try:
            await self._sweep()
        except Exception as exc:
            self._failing = True
            if isinstance(exc, StoreUnavailable) and exc.store == "redis":
                self._steady_since = time.monotonic()
            raise
        self._failing, self._swept_at = False, time.monotonic()
        await presence.mark_swept(self._live, self.lease.owner)

    async def _sweep(self) -> None:
        standing = await generation.standing(self._live)
        term = standing.term
        if term > self.lease.term or standing.holder(self.lease.registry):
            raise Deposed
        if not await presence.mark_bus(self._live, self.lease.owner):
            self._steady_since = time.monotonic()
        await self._take_requests()
        self._refresh_fleet()
        if not self._fleet_known:
            return
        present = await self._present()
        if not (await generation.generation(self._live)).open:
            await self._recover(present, term)
            return
        self._recovery.over()
        if term < self.lease.term or not self._claimed:
            await self._claim()
        await self._review()
        await self._hear()
        await self._publish()
        await self._withdraw()
        await self._reassign(present)

    async def _claim(self) -> None:
        """Have our term and our registry's name stand everywhere before anything is written under
        them.
        """
        self._claimed = await generation.lead(self._live, self.lease.term, self.lease.registry)
        if not self._claimed:
            raise Deposed

    # --- seeing -----------------------------------------------------------------------------------

    async def _present(self) -> dict[str, Presence]:
        return self._alive.among(await presence.present(self._live), time.monotonic())

    async def _take_requests(self) -> None:
        for request in await requests.take(self._live, self.lease.owner):
            if request.kind == "fleet_changed":
                self._fleet_at = 0.0
            elif (place := self._places.get(request.database)) and place.owner:
                self._nudger.nudge(place.owner, "observe_now", [request.database])

    def _refresh_fleet(self) -> None:
        """Read the registry in the background: a Postgres that hangs holds no sweep up, the last
        fleet stays.
        """
        if self.reading is None and time.monotonic() >= self._fleet_at:
            self._fleet_at = (
                math.inf
            )  # a request that comes during the read takes it back to 0: read again
            self.reading = asyncio.create_task(asyncio.to_thread(fleet.fleet, self._store))
            self.reading.add_done_callback(lambda _: self.wake.set())
        if self.reading is None or not self.reading.done():
            return
        reading, self.reading = self.reading, None
        self._fleet_at = self._fleet_at and time.monotonic() + FLEET_EVERY
        try:
            rows = reading.result()
        except StoreUnavailable as exc:
            log.warning("action=fleet_unread known=%d error=%s", len(self._fleet), exc.detail)
            return
        kept = {name: row for name, row in self._fleet.items() if name in rows.unreadable}
        self._fleet = kept | {row.name: row for row in rows if row.status is DatabaseStatus.ACTIVE}
        self._paused = {row.name for row in rows} - self._fleet.keys()
        self._unreadable = rows.unreadable
        self._fleet_known = True

    async def _review(self) -> None:
        """Read every place and rewrite every index, at first and once a minute."""
        if time.monotonic() < self._review_at:
            return
        known = set(await observations.names(self._live)) | self._fleet.keys()
        places = await assignments.places(self._live, sorted(known))
        self._placements.places = {
            name: place for name, place in places.items() if place.owner or name not in self._paused
        }
        self._doubts.review(self._places.values())
        self._unproven.note(self._places.values(), time.monotonic())
        self._heard += await journal.claim(
            self._live, GROUP, self.lease.owner, idle=LEADER_ABANDONED
        )
        await self._clean_up()
        self._review_at = time.monotonic() + REVIEW_EVERY

    async def _clean_up(self) -> None:
        """Rewrite the indexes, forget workers that are gone and own nothing."""
        known = await presence.known(self._live)
        owners = {place.owner for place in self._places.values() if place.owner}
        await assignments.rewrite_indexes(self._live, self._places, known | owners)
        for worker in known - owners - (await self._present()).keys():
            await presence.forget(self._live, worker)
            self._nudger.remove(worker)

    async def _hear(self) -> None:
        """Note what workers said since the last sweep; an entry is acknowledged once its effect is
        in memory.
        """
        entries, self._heard = self._heard, []
        for entry in entries:
            event = entry.event
            if isinstance(event, CannotReach):
                self._doubts.request(event)
            elif isinstance(event, Transition):
                self._note(event)
        if entries:
            await journal.ack(self._live, GROUP, entries)

    def _note(self, event: Transition) -> None:
        place = self._places.get(event.database)
        if place and (place.identity is None or event.identity > place.identity):
            self._places[event.database] = replace(
                place, state=event.target, identity=event.identity
            )
            self._doubts.decided(event)

    def _policy(self, database: str) -> Policy:
        row = self._fleet.get(database)
        return row.policy if row else Policy()

    # --- deciding ---------------------------------------------------------------------------------

    def _workers(self, present: dict[str, Presence]) -> dict[str, planner.Worker]:
        """Return who may own databases; while Redis has not been steady, absence proves nothing.

        Whoever can watch nothing owns nothing, unless nobody can.
        """
        staying = [one for one in present.values() if not one.leaving]
        able = [one for one in staying if one.able] or staying
        here = {one.worker: planner.Worker(one.worker, one.zone, one.capacity) for one in able}
        if time.monotonic() - self._steady_since < ABSENCE_GRACE:
            owners = {
                place.owner for place in self._places.values() if place.owner
            } - present.keys()
            here |= {owner: planner.Worker(owner) for owner in owners}
        barred = self._unproven.barred(time.monotonic())
        return {worker: one for worker, one in here.items() if worker not in barred} or here

    async def _give_up_unproven(self, now: float) -> None:
        """Take from their owners what they have not watched for long; a worker that watches nothing
        gets nothing.
        """
        overdue = self._unproven.overdue(time.monotonic(), self._steady_since)
        if not overdue:
            return
        fresh = await assignments.places(self._live, overdue)
        self._places.update(fresh)
        for worker in self._unproven.give_up(list(fresh.values()), time.monotonic(), now):
            idle = not any(place.proven for place in self._places.values() if place.owner == worker)
            log.warning("action=unproven worker=%s barred=%s", worker, idle)
            if idle:
                self._unproven.bar(worker, time.monotonic())

    async def _reassign(self, present: dict[str, Presence]) -> None:
        """Plan on what is known now and carry it out."""
        now = await connections.now(self._live)
        await self._give_up_unproven(now)
        workers = self._workers(present)
        self._members = present.keys() | workers.keys()
        if not workers:
            return
        current = {
            name: place.owner
            for name in self._fleet
            if (place := self._places.get(name)) and place.owner
        }
        refusals = self._doubts.refusals(self._places, now) + self._unproven.refusals(now)
        moves = planner.plan(self._zones(), workers.values(), current, refusals, now)
        alive = present.keys() | workers.keys()
        await self._carry_out(moves, alive, now)
        await self._seed_unknown(now)

    async def _carry_out(self, moves: tuple[Move, ...], alive: set[str], now: float) -> None:
        """Assign; a move away from a live owner waits for that owner's first accepted beat, but not
        for ever.
        """
        for start in range(0, len(moves), CHUNK):
            chunk = moves[start : start + CHUNK]
            seeds = await self._unseeded([move.database for move in chunk])
            results = await asyncio.gather(
                *(self._move(move, move.source in alive, seeds, now) for move in chunk)
            )
            placed = filter(None, (self._places.get(move.database) for move in chunk))
            self._unproven.note(placed, time.monotonic())
            self._nudge([move for move, done in zip(chunk, results, strict=True) if done])

    async def _move(self, move: Move, planned: bool, seeds: dict[str, Status], now: float) -> bool:
        doubt = (
            self._doubts.answered_by_move(move.database, move.source)
            if move.reason == "cannot_reach"
            else None
        )
        planned = planned and not self._unproven.was_given_up(move.database, move.source or "")
        done = await self._placements.assign(
            move.database,
            move.target,
            planned=planned,
            doubt=doubt,
            seed=seeds.get(move.database),
            now=now,
        )
        if done:
            log.info(
                "action=assigned database=%s from=%s to=%s reason=%s",
                move.database, move.source or "-", move.target, move.reason,
            )  # fmt: skip
        return done

    def _nudge(self, moves: list[Move]) -> None:
        for function, side in (("watch", "target"), ("release", "source")):
            by_worker: dict[str, list[str]] = {}
            for move in moves:
                if worker := getattr(move, side):
                    by_worker.setdefault(worker, []).append(move.database)
            for worker, databases in by_worker.items():
                self._nudger.nudge(worker, function, databases)

    async def _unseeded(self, databases: list[str]) -> dict[str, Status]:
        return await self._placements.seeds(
            [name for name in databases if not self._placements.is_seeded(name)]
        )

    async def _seed_unknown(self, now: float) -> None:
        """Give owners that feel and wait the Status Postgres could not tell before."""
        waiting = [
            name for name, place in self._places.items() if name in self._fleet and place.owner
        ]
        waiting = [name for name in waiting if not self._places[name].seeded][:CHUNK]
        for name, seed in (await self._unseeded(waiting)).items():
            await self._placements.assign(
                name, self._places[name].owner, planned=False, seed=seed, now=now
            )

    # --- keeping targets and retired databases in line --------------------------------------------

    async def _publish(self) -> None:
        """Put new and changed target addresses (ciphertext) where workers find them."""
        changed = [
            row for name, row in self._fleet.items() if self._published.get(name) != row.revision
        ]
        for start in range(0, len(changed), CHUNK):
            chunk = changed[start : start + CHUNK]
            lease = self.lease
            await asyncio.gather(
                *(
                    targets.publish(self._live, row.name, _target(row), lease.term, lease.registry)
                    for row in chunk
                )
            )
            self._placements.worked_at = time.monotonic()
            for row in chunk:
                self._published[row.name] = row.revision
        owners = {
            place.owner for row in changed if (place := self._places.get(row.name)) and place.owner
        }
        for owner in owners:
            self._nudger.nudge(owner, "watch", [])

    async def _withdraw(self) -> None:
        """Take databases nobody wants monitored from their owners; of retired ones nothing
        stays.
        """
        for name in self._places.keys() - self._fleet.keys() - self._unreadable:
            place = self._places.pop(name)
            take = assignments.unassign if name in self._paused else assignments.forget
            if not await take(self._live, name, self.lease.term, self.lease.registry):
                raise Deposed
            self._published.pop(name, None)
            if place.owner:
                self._nudger.nudge(place.owner, "release", [name])
            log.info("action=withdrawn database=%s", name)

    # --- a new life of Redis ----------------------------------------------------------------------

    async def _recover(self, present: dict[str, Presence], term_seen: int) -> None:
        """Wait for the workers' memories, then give every database a fresh epoch and open the
        generation last.
        """
        reports = await self._recovery.ready(self._members, term_seen)
        if reports is None:
            return
        await self._claim()
        self._published.clear()
        await self._publish()
        opened = await self._recovery.reopen(self._zones(), present, reports)
        # the targets of databases without an owner went with their old epochs
        self._published.clear()
        if opened:
            for worker in present:
                self._nudger.nudge(worker, "watch", [])
        self._review_at = 0.0
        self.wake.set()

    def _zones(self) -> dict[str, str]:
        return {name: row.zone for name, row in self._fleet.items()}


def _target(row: Database) -> Target:
    return Target(
        ciphertext=row.ciphertext, policy=row.policy, labels=row.labels, revision=row.revision
    )
