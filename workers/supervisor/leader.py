"""One term of leadership: each sweep sees, decides and carries out. For process.py alone.

The leader's memory is a cache: all of it is rebuilt from Postgres (the fleet), Redis (places) and
the journal. Whatever it does may come late, after a freeze or a lost reply: every write is fenced
by its term, so that a leader that was succeeded changes nothing any more.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from monitor.core import assignment as planner
from monitor.core.assignment import Move
from monitor.core.chunks import chunks
from monitor.core.doubts import Doubts
from monitor.core.errors import StoreUnavailable
from monitor.core.event import CannotReach, Transition
from monitor.core.placement import Place
from monitor.core.status import Status
from monitor.core.timing import LEADER_ABANDONED, LEASE, LISTEN, REVIEW_EVERY
from monitor.core.unproven import Unproven
from monitor.live import (
    assignments,
    connections,
    generation,
    journal,
    observations,
    presence,
    requests,
)
from monitor.live.connections import Live
from monitor.live.journal import Entry
from monitor.live.presence import Presence
from monitor.registry.leadership import Lease
from monitor.registry.store import Store
from workers.nudges import Nudger
from workers.supervisor.fleet_view import FleetView
from workers.supervisor.placements import CHUNK, Deposed, Placements
from workers.supervisor.recovery import Recovery
from workers.supervisor.roster import Roster

log = logging.getLogger("feeler.leader")

GROUP = "supervisor"


class Leader:
    """One term of leadership. `wake` is set when a sweep would find something to do."""

    def __init__(
        self,
        live: Live,
        store: Store,
        lease: Lease,
        nudger: Nudger,
        wake: asyncio.Event,
        lease_seconds: float = LEASE,
        waiting_since: float | None = None,
    ) -> None:
        self._live = live
        self._nudger = nudger
        self._wake = wake
        self.lease = lease
        self._fleet = FleetView(store, wake)
        self._roster = Roster(live)
        self._placements = Placements(live, store, lease)
        self._recovery = Recovery(live, store, self._placements, lease_seconds, waiting_since)
        self._doubts = Doubts(self._fleet.policy)
        self._unproven = Unproven()
        self._news: list[Entry] = []  # of the journal: read, not yet taken up
        self._claimed = False  # our term and our registry's name stand in Redis
        self._review_at = 0.0  # monotonic seconds
        self._swept_at = time.monotonic()  # when a sweep was completed last
        self._failing = False  # the last sweep was not completed

    @property
    def stuck_for(self) -> float:
        """Return the seconds since a sweep was completed, or since the one under way got further.

        One that failed got nowhere: what it did it will do again.
        """
        since = self._swept_at
        if not self._failing:
            since = max(since, self._placements.progress_at)
        return time.monotonic() - since

    @property
    def _places(self) -> Mapping[str, Place]:
        return self._placements.places

    def continue_from(self, previous: "Leader") -> None:
        """Know the workers of an earlier term of this process, if nobody led in between.

        Nobody else can have given anything to a worker that we never met.
        """
        if previous.lease.term + 1 == self.lease.term:
            self._roster.met = previous._roster.met

    async def sign_off(self) -> None:
        """Mark Redis's memory as complete, as our last write, if we know that it is.

        Then the next leader waits, in a closed generation, for the workers named in it alone.
        """
        standing = await generation.standing(self._live)
        if standing.term != self.lease.term or standing.holder(self.lease.registry):
            return
        if (await generation.generation(self._live)).open:
            await generation.mark_complete(self._live, self.lease.named)

    async def listen(self) -> None:
        """Read the journal and wake the sweep: a request for another worker is met at once."""
        read = await journal.read(self._live, GROUP, self.lease.owner, count=CHUNK, block=LISTEN)
        if read:
            self._news += read
            self._wake.set()

    # --- the sweep --------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Bring assignments in line with the fleet, the workers and what they cannot reach."""
        try:
            await self._sweep()
        except Exception as exc:
            self._failing = True
            if isinstance(exc, StoreUnavailable) and exc.store == "redis":
                self._roster.interrupted()
            raise
        self._failing, self._swept_at = False, time.monotonic()
        await presence.mark_swept(self._live, self.lease.owner)

    async def _sweep(self) -> None:
        """See, decide, carry out; in a closed generation recover and do nothing else."""
        term_seen = await self._check_lead()
        await self._see()
        if not self._fleet.known:
            return
        present = await self._roster.present()
        if not (await generation.generation(self._live)).open:
            await self._recover(present, term_seen)
            return
        self._recovery.generation_is_open()
        # A failover may have lost our term, at no cost to the generation.
        if term_seen < self.lease.term or not self._claimed:
            await self._claim()
        await self._review()
        await self._take_news()
        await self._publish()
        await self._withdraw()
        await self._reassign(present)

    async def _check_lead(self) -> int:
        """Step down where Redis knows of a later leader or another registry's; return its term.

        A leader that was frozen, or cut off Postgres, learns of its successor here first.
        """
        standing = await generation.standing(self._live)
        if standing.term > self.lease.term or standing.holder(self.lease.registry):
            raise Deposed
        return standing.term

    async def _claim(self) -> None:
        """Have our term and our registry's name stand everywhere before we write under them."""
        self._claimed = await generation.lead(self._live, self.lease.term, self.lease.registry)
        if not self._claimed:
            raise Deposed

    async def _recover(self, present: Mapping[str, Presence], term_seen: int) -> None:
        """Open a new generation once the workers have reported what they know to be accepted."""
        reports = await self._recovery.reports(self._roster.met, term_seen)
        if reports is None:
            return
        await self._claim()
        self._fleet.publish_all_again()
        await self._publish()
        opened = await self._recovery.reopen(self._fleet.zones(), present, reports)
        # Targets of databases that got no owner went with their old epochs.
        self._fleet.publish_all_again()
        if opened:
            for worker in present:
                self._nudger.nudge(worker, "watch", [])
        self._review_at = 0.0
        self._wake.set()

    # --- seeing -----------------------------------------------------------------------------------

    async def _see(self) -> None:
        if not await presence.mark_bus(self._live, self.lease.owner):
            self._roster.interrupted()
        await self._take_requests()
        self._fleet.refresh()

    async def _take_requests(self) -> None:
        for request in await requests.take(self._live, self.lease.owner):
            if request.kind == "fleet_changed":
                self._fleet.read_now()
            elif owner := self._placements.owner(request.database):
                self._nudger.nudge(owner, "observe_now", [request.database])

    async def _review(self) -> None:
        """Read every place and rewrite every index, at first and once a minute.

        It mends what was missed: what another leader did last, and what a crash left half done.
        """
        if time.monotonic() < self._review_at:
            return
        fleet = self._fleet
        known = await observations.names(self._live)
        await self._placements.read(fleet.databases.keys() | known, fleet.paused)
        self._doubts.review(self._places.values())
        self._unproven.note(self._places.values(), time.monotonic())
        self._news += await journal.claim(
            self._live, GROUP, self.lease.owner, idle=LEADER_ABANDONED
        )
        await self._clean_up()
        self._review_at = time.monotonic() + REVIEW_EVERY

    async def _clean_up(self) -> None:
        """Rewrite the indexes, forget workers that are gone and own nothing."""
        known = await presence.known(self._live)
        owners = self._placements.owners()
        await assignments.rewrite_indexes(self._live, self._places, known | owners)
        for worker in await self._roster.gone(known, owners):
            await presence.forget(self._live, worker)
            self._nudger.remove(worker)

    async def _take_news(self) -> None:
        """Take up what workers said since the last sweep, then acknowledge it.

        What a crash loses after that stands in the hashes, which the next leader reviews, or is
        said again: a doubt's request within seconds, a worker's own faults within a minute.
        """
        news, self._news = self._news, []
        for entry in news:
            event = entry.event
            if isinstance(event, CannotReach):
                self._doubts.request(event)
            elif isinstance(event, Transition) and self._placements.note(event):
                self._doubts.decided(event)
        if news:
            await journal.ack(self._live, GROUP, news)

    # --- deciding ---------------------------------------------------------------------------------

    async def _reassign(self, present: Mapping[str, Presence]) -> None:
        """Plan on what is known now and carry it out."""
        now = await connections.now(self._live)
        await self._give_up_unproven(now)
        spared = set[str]()
        if self._roster.is_shaken:
            spared = self._placements.owners() - present.keys()
        barred = self._unproven.barred(time.monotonic())
        workers = self._roster.candidates(present, spared, barred)
        alive = present.keys() | workers.keys()
        self._roster.met = alive
        if not workers:
            return
        zones = self._fleet.zones()
        current: dict[str, str] = {}
        for name, place in self._places.items():
            if place.owner and name in zones:
                current[name] = place.owner
        refusals = self._doubts.refusals(self._places, now)
        refusals += self._unproven.refusals(now)
        moves = planner.plan(zones, workers.values(), current, refusals, now)
        await self._carry_out(moves, alive, now)
        await self._placements.seed_waiting(zones, now)

    async def _give_up_unproven(self, now: float) -> None:
        """Take from their owners what they have not watched for long.

        A worker of whom nothing at all was accepted gets nothing for a while.
        """
        overdue = self._unproven.overdue(time.monotonic(), self._roster.steady_since)
        if not overdue:
            return
        fresh = await self._placements.reread(overdue)  # the leader is not told of every beat
        proven = {place.owner for place in self._places.values() if place.proven}
        for worker in self._unproven.give_up(fresh, time.monotonic(), now):
            idle = worker not in proven
            log.warning("action=unproven worker=%s barred=%s", worker, idle)
            if idle:
                self._unproven.bar(worker, time.monotonic())

    # --- carrying out -----------------------------------------------------------------------------

    async def _carry_out(self, moves: Sequence[Move], alive: Collection[str], now: float) -> None:
        """Assign; a chunk of moves takes about one round trip."""
        for chunk in chunks(moves, CHUNK):
            names = [move.database for move in chunk]
            seeds = await self._placements.seeds_of_unseeded(names)
            tries = (self._move(move, alive, seeds.get(move.database), now) for move in chunk)
            done = await asyncio.gather(*tries)
            self._wait_for_proofs(names)
            self._nudge_both(itertools.compress(chunk, done))

    async def _move(
        self,
        move: Move,
        alive: Collection[str],
        seed: Status | None,
        now: float,
    ) -> bool:
        """Assign one database.

        A planned move, away from an owner that lives, waits in Redis for that owner's first
        accepted beat: else assignments could outrun each other and nobody would ever watch. But
        not for ever.
        """
        source = move.source or ""
        given_up = self._unproven.was_given_up(move.database, source)
        doubt = None
        if move.reason == "cannot_reach":
            doubt = self._doubts.answered_by_move(move.database, source)
        assigned = await self._placements.assign(
            move.database,
            move.target,
            planned=source in alive and not given_up,
            doubt=doubt,
            seed=seed,
            now=now,
        )
        if assigned:
            log.info(
                "action=assigned database=%s from=%s to=%s reason=%s",
                move.database,
                source or "-",
                move.target,
                move.reason,
            )
        return assigned

    def _wait_for_proofs(self, databases: Collection[str]) -> None:
        places = [self._places.get(name) for name in databases]
        self._unproven.note(filter(None, places), time.monotonic())

    def _nudge_both(self, moves: Iterable[Move]) -> None:
        """Hint both sides of each move; who gets no hint finds out within a second or two."""
        gained: dict[str, list[str]] = {}
        lost: dict[str, list[str]] = {}
        for move in moves:
            gained.setdefault(move.target, []).append(move.database)
            if move.source:
                lost.setdefault(move.source, []).append(move.database)
        for worker, databases in gained.items():
            self._nudger.nudge(worker, "watch", databases)
        for worker, databases in lost.items():
            self._nudger.nudge(worker, "release", databases)

    async def _publish(self) -> None:
        """Put new and changed targets where workers find them."""
        changed = self._fleet.unpublished()
        for chunk in chunks(changed, CHUNK):
            await self._placements.publish(chunk)
            self._fleet.note_published(chunk)
        owners = {self._placements.owner(row.name) for row in changed}
        for owner in owners - {""}:
            self._nudger.nudge(owner, "watch", [])

    async def _withdraw(self) -> None:
        """Take databases nobody wants monitored from their owners; of retired ones nothing stays.

        One whose row cannot be read is not retired: it stays where it is.
        """
        fleet = self._fleet
        for name in self._places.keys() - fleet.databases.keys() - fleet.unreadable:
            owner = self._placements.owner(name)
            if name in fleet.paused:
                await self._placements.unassign(name)
            else:
                await self._placements.forget(name)
            fleet.note_withdrawn(name)
            if owner:
                self._nudger.nudge(owner, "release", [name])
            log.info("action=withdrawn database=%s", name)
