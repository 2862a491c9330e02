"""What the leading supervisor does in each sweep: see who is here, plan, assign, nudge. For supervisor.py alone.

The leader's memory is a cache: all of it is rebuilt from Postgres (the fleet), Redis (places) and the journal.
"""

import asyncio
import logging
import time
from dataclasses import replace

from monitor.core import assignment as planner
from monitor.core.assignment import Assignment, Move
from monitor.core.database import DatabaseStatus
from monitor.core.errors import StoreUnavailable
from monitor.core.event import CannotReach, Transition
from monitor.core.status import Epoch, Identity, Status
from monitor.live import assignments, connections, generation, journal, observations, presence, requests, targets
from monitor.live.assignments import Assigned, Place
from monitor.live.connections import Live
from monitor.live.journal import Entry
from monitor.live.presence import Presence
from monitor.live.targets import Target
from monitor.registry import fleet, history
from monitor.registry.fleet import Registered
from monitor.registry.leadership import Lease
from monitor.registry.store import Store
from workers.doubts import Doubts
from workers.queues import Nudger

log = logging.getLogger("feeler.leader")

GROUP = "supervisor"
SETTLE = 6.0  # seconds of uninterrupted Redis before an absence counts; also the time workers get to restore
FLEET_EVERY = 5.0
REVIEW_EVERY = 60.0  # all places read anew, all indexes rewritten, the journal trimmed
LISTEN = 1.0
CHUNK = 200  # commands in flight at once


class Deposed(Exception):
    """Somebody leads with a higher term."""


class Leader:
    """One term of leadership."""

    def __init__(self, live: Live, store: Store, lease: Lease, nudger: Nudger) -> None:
        self._live, self._store, self._nudger = live, store, nudger
        self.lease = lease
        self.wake = asyncio.Event()
        self._counter = 0
        self._fleet: dict[str, Registered] = {}
        self._paused: set[str] = set()
        self._fleet_known = False
        self._places: dict[str, Place] = {}
        self._published: dict[str, int] = {}  # revision of each target in Redis
        self._doubts = Doubts()
        self._heard: list[Entry] = []
        self._members: dict[str, Presence] = {}
        self._fleet_at = self._review_at = 0.0
        self._steady_since = time.monotonic()  # Redis has answered without a break since
        self._closed_since: float | None = None
        self._memory_kept = False  # of the Redis that is being recovered: it still knows terms and workers
        self._term_seen = 0

    async def listen(self) -> None:
        """Take news from the journal and wake the sweep: a cry for another worker is answered at once."""
        entries = await journal.read(self._live, GROUP, self.lease.owner, count=CHUNK, block=LISTEN)
        if entries:
            self._heard += entries
            self.wake.set()

    async def sweep(self) -> None:
        """Bring assignments in line with the fleet, the workers and their cries."""
        try:
            await self._sweep()
        except StoreUnavailable as exc:
            if exc.store == "redis":
                self._steady_since = time.monotonic()
            raise

    async def _sweep(self) -> None:
        self._term_seen = await generation.highest_term(self._live)
        if self._term_seen > self.lease.term:
            raise Deposed
        if not await presence.mark_bus(self._live, self.lease.owner):
            self._steady_since = time.monotonic()
        await self._take_requests()
        await self._refresh_fleet()
        if not self._fleet_known:
            return
        present = await presence.present(self._live)
        if not (await generation.generation(self._live)).open:
            await self._recover(present)
            return
        self._closed_since = None
        if self._term_seen < self.lease.term and not await generation.lead(self._live, self.lease.term):
            raise Deposed
        await self._review()
        await self._hear()
        await self._publish()
        await self._withdraw()
        await self._reassign(present)

    # --- seeing ---------------------------------------------------------------------------------------------------

    async def _take_requests(self) -> None:
        for request in await requests.take(self._live, self.lease.owner):
            if request.kind == "fleet_changed":
                self._fleet_at = 0.0
            elif place := self._places.get(request.database):
                self._nudger.nudge(place.owner, "observe_now", [request.database])

    async def _refresh_fleet(self) -> None:
        """Read the registry; while Postgres is away the fleet stays as last seen."""
        if time.monotonic() < self._fleet_at:
            return
        try:
            rows = await asyncio.to_thread(fleet.fleet, self._store)
        except StoreUnavailable as exc:
            log.warning("action=fleet_unread known=%d error=%s", len(self._fleet), exc.detail)
        else:
            self._fleet = {row.name: row for row in rows if row.status is DatabaseStatus.ACTIVE}
            self._paused = {row.name for row in rows} - self._fleet.keys()
            self._fleet_known = True
        self._fleet_at = time.monotonic() + FLEET_EVERY

    async def _review(self) -> None:
        """Read every place and rewrite every index, at first and once a minute."""
        if time.monotonic() < self._review_at:
            return
        known = set(await observations.names(self._live)) | self._fleet.keys()
        places = await assignments.places(self._live, sorted(known))
        self._places = {name: place for name, place in places.items() if place.owner or name not in self._paused}
        self._doubts.review(self._places.values())
        await self._clean_up()
        await journal.trim(self._live, await connections.now(self._live))
        self._review_at = time.monotonic() + REVIEW_EVERY

    async def _clean_up(self) -> None:
        """Rewrite the indexes, forget workers that are gone and own nothing."""
        known = await presence.known(self._live)
        owners = {place.owner for place in self._places.values() if place.owner}
        await assignments.rewrite_indexes(self._live, self._places, known | owners)
        for worker in known - owners - (await presence.present(self._live)).keys():
            await presence.forget(self._live, worker)
            self._nudger.remove(worker)

    async def _hear(self) -> None:
        """Note what workers said since the last sweep; an entry is acknowledged once its effect is in memory."""
        entries, self._heard = self._heard, []
        for entry in entries:
            event = entry.event
            if isinstance(event, CannotReach):
                self._doubts.hear(event)
            elif isinstance(event, Transition):
                self._note(event)
        if entries:
            await journal.ack(self._live, GROUP, entries)

    def _note(self, event: Transition) -> None:
        place = self._places.get(event.database)
        if place and (place.identity is None or event.identity > place.identity):
            self._places[event.database] = replace(place, state=event.target, identity=event.identity)
            self._doubts.settle(event)

    # --- deciding -------------------------------------------------------------------------------------------------

    def _workers(self, present: dict[str, Presence]) -> dict[str, planner.Worker]:
        """Return who may own databases; while Redis has not been steady, absence proves nothing."""
        here = {
            one.worker: planner.Worker(one.worker, one.zone, one.capacity)
            for one in present.values()
            if not one.leaving
        }
        if time.monotonic() - self._steady_since < SETTLE:
            owners = {place.owner for place in self._places.values() if place.owner} - present.keys()
            here |= {owner: planner.Worker(owner) for owner in owners}
        return here

    async def _reassign(self, present: dict[str, Presence]) -> None:
        """Plan on what is known now and carry it out."""
        workers = self._workers(present)
        self._members = present
        if not workers:
            return
        now = await connections.now(self._live)
        current = {name: place.owner for name in self._fleet if (place := self._places.get(name)) and place.owner}
        wanted = {name: row.zone for name, row in self._fleet.items()}
        moves = planner.plan(wanted, workers.values(), current, self._doubts.refusals(self._places, now), now)
        alive = present.keys() | workers.keys()
        await self._carry_out(moves, alive, now)
        await self._seed_unknown(now)

    async def _carry_out(self, moves: tuple[Move, ...], alive: set[str], now: float) -> None:
        """Assign; a move away from a live owner waits for that owner's first accepted beat."""
        for start in range(0, len(moves), CHUNK):
            chunk = moves[start : start + CHUNK]
            seeds = await self._seeds([move.database for move in chunk if not self._is_seeded(move.database)])
            results = await asyncio.gather(*(self._move(move, move.source in alive, seeds, now) for move in chunk))
            self._nudge([move for move, done in zip(chunk, results, strict=True) if done])

    async def _move(self, move: Move, planned: bool, seeds: dict[str, Status], now: float) -> bool:
        doubt = self._doubts.doubt(move.database) if move.reason == "cannot_reach" else None
        done = await self._assign(
            move.database, move.target, planned=planned, doubt=doubt, seed=seeds.get(move.database), now=now
        )
        if done:
            log.info(
                "action=assigned database=%s from=%s to=%s reason=%s",
                move.database, move.source or "-", move.target, move.reason,
            )  # fmt: skip
        return done

    async def _assign(
        self, database: str, owner: str, *, planned: bool, now: float, doubt: Identity | None, seed: Status | None
    ) -> bool:
        self._counter += 1
        epoch = Epoch(self.lease.term, self._counter)
        result = await assignments.assign(
            self._live, Assignment(database, owner, epoch), planned=planned, doubt=doubt, now=now, seed=seed
        )
        if result is Assigned.STALE:
            raise Deposed
        if result is Assigned.ASSIGNED:
            place = self._places.get(database) or Place.empty(database)
            moves = (*place.moves, now)[-3:] if doubt else place.moves
            self._places[database] = replace(
                place,
                owner=owner,
                epoch=epoch,
                proven=False,
                seeded=place.seeded or seed is not None,
                moved_for=doubt or place.moved_for,
                moves=moves,
            )
        return result is Assigned.ASSIGNED

    def _nudge(self, moves: list[Move]) -> None:
        for function, side in (("watch", "target"), ("release", "source")):
            by_worker: dict[str, list[str]] = {}
            for move in moves:
                if worker := getattr(move, side):
                    by_worker.setdefault(worker, []).append(move.database)
            for worker, databases in by_worker.items():
                self._nudger.nudge(worker, function, databases)

    # --- where a Status comes from when Redis has none ------------------------------------------------------------

    def _is_seeded(self, database: str) -> bool:
        place = self._places.get(database)
        return place is not None and place.seeded

    async def _seeds(self, databases: list[str]) -> dict[str, Status]:
        """Return the last durable Status of each, `new` where there never was one; nothing while Postgres is away."""
        if not databases:
            return {}
        try:
            known = await asyncio.to_thread(history.last_status, self._store, databases)
        except StoreUnavailable as exc:
            log.warning("action=seeds_unread databases=%d error=%s", len(databases), exc.detail)
            return {}
        return {name: known.get(name, Status()) for name in databases}

    async def _seed_unknown(self, now: float) -> None:
        """Give owners that feel and wait the Status Postgres could not tell before."""
        waiting = [name for name, place in self._places.items() if name in self._fleet and place.owner]
        waiting = [name for name in waiting if not self._places[name].seeded]
        for name, seed in (await self._seeds(waiting[:CHUNK])).items():
            await self._assign(name, self._places[name].owner, planned=False, doubt=None, seed=seed, now=now)

    # --- keeping targets and retired databases in line ------------------------------------------------------------

    async def _publish(self) -> None:
        """Put new and changed target addresses (ciphertext) where workers find them."""
        changed = [row for name, row in self._fleet.items() if self._published.get(name) != row.revision]
        for start in range(0, len(changed), CHUNK):
            chunk = changed[start : start + CHUNK]
            await asyncio.gather(*(targets.publish(self._live, row.name, _target(row)) for row in chunk))
            for row in chunk:
                self._published[row.name] = row.revision
        for row in changed:
            if (place := self._places.get(row.name)) and place.owner:
                self._nudger.nudge(place.owner, "watch", [row.name])

    async def _withdraw(self) -> None:
        """Take databases nobody wants monitored from their owners; of retired ones nothing stays."""
        for name in self._places.keys() - self._fleet.keys():
            place = self._places.pop(name)
            take = assignments.unassign if name in self._paused else assignments.forget
            if not await take(self._live, name, self.lease.term):
                raise Deposed
            self._published.pop(name, None)
            if place.owner:
                self._nudger.nudge(place.owner, "release", [name])
            log.info("action=withdrawn database=%s", name)

    # --- a new life of Redis --------------------------------------------------------------------------------------

    async def _recover(self, present: dict[str, Presence]) -> None:
        """Wait for the workers' memories, give every database a fresh epoch, open the generation last."""
        if self._closed_since is None:
            self._closed_since = time.monotonic()
            self._memory_kept = self._term_seen > 0 or self.lease.term == 1
            log.warning("action=generation_closed memory_kept=%s", self._memory_kept)
            await generation.restore(self._live, self.lease.owner, [], self.lease.term)  # marks the wait's beginning
        reports = await generation.reported(self._live)
        if self.lease.owner not in reports:
            self._closed_since = None  # memory was lost again
            self.wake.set()
        elif await self._everybody(reports):
            await self._reopen(present, reports)

    async def _reopen(self, present: dict[str, Presence], reports: set[str]) -> None:
        now = await connections.now(self._live)
        await self._restore_from_registry()
        self._published.clear()
        await self._publish()
        self._places = await assignments.places(self._live, sorted(self._fleet))
        await self._reissue(present, now)
        self._counter += 1
        opened = await generation.open_generation(self._live, Epoch(self.lease.term, self._counter), reports)
        self._closed_since, self._review_at = None, 0.0
        self.wake.set()
        if opened:
            log.info("action=generation_opened name=%s databases=%d", opened, len(self._places))
            for worker in present:
                self._nudger.nudge(worker, "watch", [])

    async def _everybody(self, reports: set[str]) -> bool:
        """Wait for every worker known before; for nobody where nothing can have been accepted yet; 6 s at most."""
        assert self._closed_since is not None
        if time.monotonic() - self._closed_since >= SETTLE:
            return True
        known = self._members.keys() | await presence.known(self._live)
        return (bool(known) or self._memory_kept) and known <= reports

    async def _restore_from_registry(self) -> None:
        """Merge what Postgres knows: lowest precedence, since merging goes by the highest identity."""
        seeds = await self._seeds(sorted(self._fleet))
        rows = [generation.Restored(name, status, None, "") for name, status in seeds.items()]
        await generation.restore(self._live, self.lease.owner, rows, self.lease.term)

    async def _reissue(self, present: dict[str, Presence], now: float) -> None:
        """Leave each database with the live claimant of the highest epoch; plan the rest."""
        here = {one.worker: planner.Worker(one.worker, one.zone, one.capacity) for one in present.values()}
        claims = {name: place.claimant for name, place in self._places.items() if place.claimant in here}
        owners = dict(claims)
        if here:
            wanted = {name: row.zone for name, row in self._fleet.items() if name not in claims}
            for move in planner.plan(wanted, here.values(), {}, (), now):
                owners[move.database] = move.target
        for name, owner in owners.items():
            await self._assign(name, owner, planned=False, doubt=None, seed=None, now=now)


def _target(row: Registered) -> Target:
    return Target(ciphertext=row.ciphertext, policy=row.policy, labels=row.labels, revision=row.revision)
