"""Who watches what: `plan` says which databases should change hands. Pure; anyone may import this.

What matters more comes first:
1. total: every database has an owner while any worker lives;
2. exclusion: a worker that could not reach a database within the last minute does not get it, nor
   one that was hindered itself within the last ten, unless all could not (then it goes to the one
   whose refusal is longest ago, the hindered last; where all were hindered it stays);
3. bounded load: no worker holds more than ceil(1.25 x its fair share), nor more than its capacity
   while all the capacities together suffice. The fair share is databases / workers where every
   capacity allows it;
4. sticky: only what must move moves. A worker below 3/4 of its fair share (one that joined) is
   filled up to that share, never beyond, by those above theirs; so a join moves one share at most
   and no joiner stays empty;
5. zone: a database goes where its zone is wanted, and moves there while a worker of that zone is
   below its share.

Every step brings loads nearer to their bounds or, with these unchanged, one more database to its
zone, and no later step undoes an earlier one: so the passes end, and the plan of a planned fleet is
empty, also after half a plan.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice

from monitor.core.fair_share import shares
from monitor.core.status import Epoch
from monitor.core.timing import FAULTS_AWAY, REFUSED_FOR

# Of a refusal: our own fault or not, when; the lowest is the first to be asked again.
_Rank = tuple[bool, float]
_Ranks = Mapping[str, _Rank]  # by worker
_Heap = list[tuple[int, str]]  # of a number and the worker it is of
_URGENCY = ("unowned", "owner_lost", "cannot_reach", "overloaded", "zone")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A database in the hands of a worker; the epoch is the token of its writes."""

    database: str
    owner: str
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that may be given databases."""

    id: str
    zone: str = ""
    capacity: int = 10_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """A worker's 'I can't reach this database'."""

    database: str
    worker: str
    at: float
    our_fault: bool = False  # the worker was hindered itself: it knows nothing of the database

    def counts(self, now: float) -> bool:
        """Tell whether it still bars the worker; not one of the future: the clock was set back."""
        lasts = FAULTS_AWAY if self.our_fault else REFUSED_FOR
        age = now - self.at
        return 0 <= age < lasts


@dataclass(frozen=True, slots=True)
class Move:
    """One change of hands and its reason, one of _URGENCY (overloaded: above its share)."""

    database: str
    source: str | None
    target: str
    reason: str


def plan(
    databases: Mapping[str, str],
    workers: Collection[Worker],
    current: Mapping[str, str],
    refusals: Collection[Refusal],
    now: float,
) -> tuple[Move, ...]:
    """Return the moves that mend the fleet, the most urgent first; none when it is well.

    `databases` maps each name to its wanted zone ('' is any), `current` each name to its owner.
    """
    if not workers:
        return ()
    draft = _Draft(databases, workers, current, _fresh(refusals, now))
    _place(draft)
    while _fill(draft) + _relieve(draft) + _bring_home(draft):
        pass  # a step may make room for an earlier one
    return draft.moves(current)


class _Draft:
    """The fleet as the plan would leave it."""

    def __init__(
        self,
        databases: Mapping[str, str],
        workers: Collection[Worker],
        current: Mapping[str, str],
        refused: Mapping[str, _Ranks],
    ) -> None:
        self.wanted = databases
        self.refused = refused
        self.zones = {worker.id: worker.zone for worker in workers}
        capacities = {worker.id: worker.capacity for worker in workers}
        self.shares = shares(capacities, len(databases))
        self.owners: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self._take_over(current)
        self.loads = Counter(self.owners.values())
        # By zone ('' is all): load and worker, the lightest first; outdated entries stay in.
        self.heaps: dict[str, _Heap] = defaultdict(list)
        self._heaps_of: dict[str, list[_Heap]] = {}
        for worker, zone in self.zones.items():
            names = {"", zone}
            self._heaps_of[worker] = [self.heaps[name] for name in names]
            self._load(worker, 0)

    def _take_over(self, current: Mapping[str, str]) -> None:
        """Leave every database with its owner, if that one still works."""
        for name in self.wanted:
            owner = current.get(name)
            if owner in self.zones:
                self.owners[name] = owner
            else:
                self.reasons[name] = "owner_lost" if owner else "unowned"

    def give(self, name: str, target: str, reason: str) -> None:
        """Hand a database over; the first reason stays."""
        source = self.owners.get(name)
        self.owners[name] = target
        self.reasons.setdefault(name, reason)
        if source is not None:
            self._load(source, -1)
        self._load(target, 1)

    def _load(self, worker: str, change: int) -> None:
        load = self.loads[worker] + change
        self.loads[worker] = load
        entry = (load, worker)
        for heap in self._heaps_of[worker]:
            heappush(heap, entry)

    def below_fair(self, worker: str) -> int:
        """Return how many a worker lacks to its fair share; negative: what it can spare."""
        share = self.shares[worker]
        return share.fair - self.loads[worker]

    def above_low(self, worker: str) -> int:
        """Return how many a worker may give; negative: it holds far too little."""
        share = self.shares[worker]
        return self.loads[worker] - share.low

    def above_limit(self, worker: str) -> int:
        """Return how many a worker must give; negative: how many it may get."""
        share = self.shares[worker]
        return self.loads[worker] - share.limit

    def refusals_of(self, name: str) -> _Ranks:
        """Return who must not get this database."""
        return self.refused.get(name, {})

    def roomiest(self, name: str) -> str | None:
        """Return the least loaded worker below its limit that may have it, of its zone first."""
        refused = self.refusals_of(name)
        wanted = self.wanted[name]
        if wanted:
            at_home = self._least_loaded(wanted, refused)
            if at_home:
                return at_home
        return self._least_loaded("", refused)

    def _least_loaded(self, zone: str, refused: _Ranks) -> str | None:
        heap = self.heaps[zone]
        aside: _Heap = []
        found = None
        while heap:
            entry = load, worker = heap[0]
            current = load == self.loads[worker]
            if current and worker in refused:
                aside.append(entry)
            elif current and self.above_limit(worker) < 0:
                found = worker
                break
            # Outdated or full ones are dropped: a lighter load pushes a new entry.
            heappop(heap)
        for entry in aside:
            heappush(heap, entry)
        return found

    def held(self) -> dict[str, list[str]]:
        """Return every worker's databases."""
        held = {worker: list[str]() for worker in self.zones}
        for name, owner in self.owners.items():
            held[owner].append(name)
        return held

    def is_home(self, name: str, worker: str) -> bool:
        """Tell whether this worker is in the zone this database is wanted in."""
        wanted = self.wanted[name]
        return wanted != "" and wanted == self.zones[worker]

    def moves(self, current: Mapping[str, str]) -> tuple[Move, ...]:
        """Return what differs from the current owners, the most urgent first."""
        moves: list[Move] = []
        for name, reason in self.reasons.items():
            source = current.get(name) or None
            target = self.owners[name]
            if source != target:
                move = Move(name, source, target, reason)
                moves.append(move)
        moves.sort(key=_urgency)
        return tuple(moves)


def _urgency(move: Move) -> tuple[int, str]:
    return _URGENCY.index(move.reason), move.database


def _fresh(refusals: Collection[Refusal], now: float) -> dict[str, dict[str, _Rank]]:
    fresh: dict[str, dict[str, _Rank]] = {}
    for refusal in refusals:
        if not refusal.counts(now):
            continue
        worker = refusal.worker
        rank = (refusal.our_fault, refusal.at)
        by_worker = fresh.setdefault(refusal.database, {})
        known = by_worker.get(worker, rank)
        by_worker[worker] = max(rank, known)
    return fresh


def _place(draft: _Draft) -> None:
    """Give every database without an owner that can reach it to a worker that may have it."""
    homeless = set(draft.reasons)
    for name, refused in draft.refused.items():
        owner = draft.owners.get(name)
        if owner in refused:
            homeless.add(name)

    def zoned_first(name: str) -> tuple[bool, str]:
        # A zone's room is for its own.
        return not draft.wanted[name], name

    for name in sorted(homeless, key=zoned_first):
        target = _target(draft, name)
        owner = draft.owners.get(name)
        if target != owner:
            draft.give(name, target, "cannot_reach")


def _target(draft: _Draft, name: str) -> str:
    """Return who gets this database: past all limits, if there is nobody else."""
    refused = draft.refusals_of(name)
    allowed: Collection[str] = draft.zones
    if refused:
        allowed = [worker for worker in draft.zones if worker not in refused]
    if not allowed:
        return _last_resort(draft, name)
    roomiest = draft.roomiest(name)
    if roomiest:
        return roomiest

    def least_overloaded(worker: str) -> tuple[int, str]:
        return draft.above_limit(worker), worker

    return min(allowed, key=least_overloaded)


def _last_resort(draft: _Draft, name: str) -> str:
    """Return who gets what all have refused.

    Where nobody can look, moving it about would help nobody.
    """
    owner = draft.owners.get(name)
    refused = draft.refused[name]
    ranks = [refused[worker] for worker in draft.zones]
    all_hindered = all(our_fault for our_fault, _ in ranks)
    if owner and all_hindered:
        return owner

    def longest_ago(worker: str) -> tuple[_Rank, str]:
        return refused[worker], worker

    return min(draft.zones, key=longest_ago)


def _fill(draft: _Draft) -> int:
    """Bring every worker that holds far too little up to its fair share.

    Like the steps below it returns how many databases moved.
    """
    needy = [worker for worker in draft.zones if draft.above_low(worker) < 0]
    if not needy:
        return 0
    spare = _Spare(draft)
    moved = 0
    for worker in sorted(needy):
        missing = draft.below_fair(worker)
        offered = spare.for_worker(worker)
        for name in islice(offered, missing):
            draft.give(name, worker, "overloaded")
            moved += 1
    return moved


class _Spare:
    """What workers hold beyond their fair share."""

    def __init__(self, draft: _Draft) -> None:
        self.draft = draft
        self.held = draft.held()
        # By donor and the zone it would give to.
        self.ordered: dict[tuple[str, str], list[str]] = {}

    def for_worker(self, worker: str) -> Iterator[str]:
        """Yield what others can spare for this worker.

        Always from the one that is furthest above its fair share.
        """
        donors: _Heap = []
        offers: dict[str, Iterator[str]] = {}
        for donor in self.draft.zones:
            below = self.draft.below_fair(donor)
            if below < 0:
                donors.append((below, donor))
                offers[donor] = self._offers(donor, worker)
        heapify(donors)
        while donors:
            below, donor = heappop(donors)
            name = next(offers[donor], None)
            if name is None:
                continue
            yield name
            if below < -1:
                heappush(donors, (below + 1, donor))

    def _offers(self, donor: str, worker: str) -> Iterator[str]:
        owners = self.draft.owners
        for name in self._in_order(donor, worker):
            if owners[name] != donor:
                continue
            refused = self.draft.refusals_of(name)
            if worker not in refused:
                yield name

    def _in_order(self, donor: str, worker: str) -> list[str]:
        """Return what a donor holds: first what is at home with the worker, last with the donor."""
        wanted = self.draft.wanted
        zone = self.draft.zones[worker]
        zone_now = self.draft.zones[donor]
        key = (donor, zone)
        known = self.ordered.get(key)
        if known is not None:
            return known

        def distance(name: str) -> tuple[bool, bool, str]:
            home = wanted[name]
            if not home:
                return True, False, name
            return home != zone, home == zone_now, name

        ordered = sorted(self.held[donor], key=distance)
        self.ordered[key] = ordered
        return ordered


def _relieve(draft: _Draft) -> int:
    """Bring every worker down to its limit."""
    above = [worker for worker in draft.zones if draft.above_limit(worker) > 0]
    if not above:
        return 0
    held = draft.held()
    moved = 0
    for worker in sorted(above):
        strangers_first = [(draft.is_home(name, worker), name) for name in held[worker]]
        for _, name in sorted(strangers_first):
            if draft.above_limit(worker) <= 0:
                break
            target = draft.roomiest(name)
            if target:
                draft.give(name, target, "overloaded")
                moved += 1
    return moved


def _bring_home(draft: _Draft) -> int:
    """Move databases to their wanted zone where a worker there is below its fair share."""
    room = _room(draft)
    if not room:
        return 0
    moved = 0
    for name in _strangers(draft, room):
        zone = draft.wanted[name]
        owner = draft.owners[name]
        host = _host(draft, name, room[zone])
        if host and draft.above_low(owner) > 0:
            draft.give(name, host, "zone")
            moved += 1
    return moved


def _room(draft: _Draft) -> dict[str, list[str]]:
    """Return by zone who is below its fair share."""
    room: dict[str, list[str]] = defaultdict(list)
    for worker, zone in draft.zones.items():
        if zone and draft.below_fair(worker) > 0:
            room[zone].append(worker)
    return room


def _strangers(draft: _Draft, zones: Collection[str]) -> list[str]:
    """Return what is wanted in one of these zones and is not there, by name."""
    strangers: list[str] = []
    for name, zone in draft.wanted.items():
        if zone not in zones:
            continue
        owner = draft.owners[name]
        if draft.zones[owner] != zone:
            strangers.append(name)
    return sorted(strangers)


def _host(draft: _Draft, name: str, workers: Collection[str]) -> str | None:
    """Return the least loaded of these that has room for this database and has not refused it."""
    refused = draft.refusals_of(name)
    hosts: _Heap = []
    for worker in workers:
        if worker in refused:
            continue
        if draft.below_fair(worker) > 0:
            load = draft.loads[worker]
            hosts.append((load, worker))
    if not hosts:
        return None
    _, lightest = min(hosts)
    return lightest
