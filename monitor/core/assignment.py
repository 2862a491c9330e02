"""Who watches what: `plan` says which databases should change hands. Pure; anyone may import this.

What matters more comes first:
1. total: every database has an owner while any worker lives;
2. exclusion: a worker that could not reach a database within the last minute does not get it, nor
   one that could only say void of it within the last ten, unless all could not (then it goes to the
   one whose refusal is longest ago, void the last; where all could only say void it stays);
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

from monitor.core.status import Epoch
from monitor.core.timing import FAULTS_AWAY, REFUSED_FOR

_Rank = tuple[
    bool, float
]  # of a refusal: void or not, when; the lowest is the first to be asked again
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
    void: bool = False  # by a fault of the worker's own: it knows nothing of the database

    def counts(self, now: float) -> bool:
        """Tell whether it still bars the worker; one of the future does not: the clock was set
        back.
        """
        return 0 <= now - self.at < (FAULTS_AWAY if self.void else REFUSED_FOR)


@dataclass(frozen=True, slots=True)
class Move:
    """One change of hands, and why: unowned, owner_lost, cannot_reach, overloaded (above its share)
    or zone.
    """

    database: str
    source: str | None
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """How many databases a worker should hold: filled from below `low` to `fair`, relieved above
    `limit`.
    """

    low: int
    fair: int
    limit: int


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


def shares(capacities: Mapping[str, int], total: int) -> dict[str, Share]:
    """Divide this many databases fairly: what a small worker cannot hold falls to the others in
    equal parts.
    """
    room = sum(capacities.values())
    if room < total:  # too little for all: every capacity is overdrawn in proportion
        size = len(capacities)
        capacities = {
            worker: -(-total * capacity // room) if room else -(-total // size)
            for worker, capacity in capacities.items()
        }
    level, parts = total, len(capacities)  # the fair share is level / parts
    for capacity in sorted(capacities.values()):
        if capacity * parts >= level:
            break
        level, parts = level - capacity, parts - 1
    low = max(3 * level // (4 * parts), 1 if level >= parts else 0)
    fair, limit = level // parts, -(-5 * level // (4 * parts))
    return {
        worker: Share(min(low, capacity), min(fair, capacity), min(limit, capacity))
        for worker, capacity in capacities.items()
    }


class _Draft:
    """The fleet as the plan would leave it."""

    def __init__(
        self,
        databases: Mapping[str, str],
        workers: Collection[Worker],
        current: Mapping[str, str],
        refused: Mapping[str, Mapping[str, _Rank]],
    ) -> None:
        self.wanted, self.refused = databases, refused
        self.zones = {worker.id: worker.zone for worker in workers}
        self.shares = shares({worker.id: worker.capacity for worker in workers}, len(databases))
        self.owners = {
            name: owner for name in databases if (owner := current.get(name)) in self.zones
        }
        self.loads = Counter(self.owners.values())
        self.reasons: dict[str, str] = {
            name: "owner_lost" if current.get(name) else "unowned"
            for name in databases.keys() - self.owners.keys()
        }
        self.heaps: dict[str, list[tuple[int, str]]] = defaultdict(
            list
        )  # by zone, '' is all: (load, worker)
        for worker in self.zones:
            for zone in {"", self.zones[worker]}:
                self.heaps[zone].append((self.loads[worker], worker))
        for heap in self.heaps.values():
            heapify(heap)

    def give(self, name: str, target: str, reason: str) -> None:
        """Hand a database over; the first reason stays."""
        source = self.owners.get(name)
        self.owners[name] = target
        self.reasons.setdefault(name, reason)
        for worker, change in ((source, -1), (target, 1)):
            if worker is not None:
                self.loads[worker] += change
                for zone in {"", self.zones[worker]}:
                    heappush(self.heaps[zone], (self.loads[worker], worker))

    def roomiest(self, name: str) -> str | None:
        """Return the least loaded worker below its limit that may have this database, of its zone
        if there is one.
        """
        refused, wanted = self.refused.get(name, {}), self.wanted[name]
        home = self._least_loaded(wanted, refused) if wanted else None
        return home or self._least_loaded("", refused)

    def _least_loaded(self, zone: str, refused: Mapping[str, _Rank]) -> str | None:
        heap = self.heaps.get(zone, [])
        aside: list[tuple[int, str]] = []
        while heap:
            load, worker = heap[0]
            if (
                load == self.loads[worker]
                and load < self.shares[worker].limit
                and worker not in refused
            ):
                break
            entry = heappop(
                heap
            )  # outdated or full ones are dropped: a lighter load pushes a new entry
            if worker in refused and load == self.loads[worker]:
                aside.append(entry)
        found = heap[0][1] if heap else None
        for entry in aside:
            heappush(heap, entry)
        return found

    def held(self) -> dict[str, list[str]]:
        """Return every worker's databases."""
        held: dict[str, list[str]] = {worker: [] for worker in self.zones}
        for name, owner in self.owners.items():
            held[owner].append(name)
        return held

    def is_home(self, name: str, worker: str) -> bool:
        """Tell whether this worker is in the zone this database is wanted in."""
        return bool(self.wanted[name]) and self.wanted[name] == self.zones[worker]

    def moves(self, current: Mapping[str, str]) -> tuple[Move, ...]:
        """Return what differs from the current owners."""
        changed = (name for name in self.reasons if self.owners[name] != current.get(name))
        moves = (
            Move(name, current.get(name) or None, self.owners[name], self.reasons[name])
            for name in changed
        )
        return tuple(sorted(moves, key=lambda move: (_URGENCY.index(move.reason), move.database)))


def _fresh(refusals: Collection[Refusal], now: float) -> dict[str, dict[str, _Rank]]:
    fresh: dict[str, dict[str, _Rank]] = {}
    for refusal in refusals:
        if refusal.counts(now):
            by_worker = fresh.setdefault(refusal.database, {})
            rank = (refusal.void, refusal.at)
            by_worker[refusal.worker] = max(rank, by_worker.get(refusal.worker, rank))
    return fresh


def _place(draft: _Draft) -> None:
    """Give every database that has no owner, or one that cannot reach it, to one that may have
    it.
    """
    cannot_reach = {
        name for name, by_worker in draft.refused.items() if draft.owners.get(name) in by_worker
    }
    homeless = draft.reasons.keys() | cannot_reach
    for name in sorted(
        homeless, key=lambda name: (not draft.wanted[name], name)
    ):  # a zone's room is for its own
        refused = draft.refused.get(name, {})
        allowed = (
            [worker for worker in draft.zones if worker not in refused] if refused else draft.zones
        )
        if not allowed:
            target = _last_resort(draft, name)
        else:
            target = draft.roomiest(name) or min(
                allowed,
                key=lambda worker: (draft.loads[worker] - draft.shares[worker].limit, worker),
            )
        if target != draft.owners.get(name):
            draft.give(name, target, "cannot_reach")


def _last_resort(draft: _Draft, name: str) -> str:
    """Return who gets what all have refused: where nobody can look, moving it about would help
    nobody.
    """
    refused, owner = draft.refused[name], draft.owners.get(name)
    if owner and all(refused[worker][0] for worker in draft.zones):
        return owner
    return min(draft.zones, key=lambda worker: (refused[worker], worker))


def _fill(draft: _Draft) -> int:
    """Bring every worker that holds far too little up to its fair share; return how many databases
    moved.
    """
    needy = sorted(
        worker for worker in draft.zones if draft.loads[worker] < draft.shares[worker].low
    )
    if not needy:
        return 0
    spare, moved = _Spare(draft), 0
    for worker in needy:
        missing = draft.shares[worker].fair - draft.loads[worker]
        for _, name in zip(range(missing), spare.for_worker(worker), strict=False):
            draft.give(name, worker, "overloaded")
            moved += 1
    return moved


class _Spare:
    """What workers hold beyond their fair share."""

    def __init__(self, draft: _Draft) -> None:
        self.draft, self.held = draft, draft.held()
        self.ordered: dict[
            tuple[str, str], list[str]
        ] = {}  # by donor and the zone it would give to

    def for_worker(self, worker: str) -> Iterator[str]:
        """Yield what others can spare for this worker, always from the one furthest above its fair
        share.
        """
        excess = {
            other: self.draft.loads[other] - share.fair
            for other, share in self.draft.shares.items()
        }
        donors = [(-count, other) for other, count in excess.items() if count > 0]
        heapify(donors)
        offers = {donor: self._offers(donor, worker) for _, donor in donors}
        while donors:
            count, donor = heappop(donors)
            if name := next(offers[donor], None):
                yield name
                if count + 1 < 0:
                    heappush(donors, (count + 1, donor))

    def _offers(self, donor: str, worker: str) -> Iterator[str]:
        draft, key = self.draft, (donor, self.draft.zones[worker])
        if key not in self.ordered:
            self.ordered[key] = sorted(
                self.held[donor],
                key=lambda name: (
                    not draft.is_home(name, worker),
                    draft.is_home(name, donor),
                    name,
                ),
            )
        for name in self.ordered[key]:
            if draft.owners[name] == donor and worker not in draft.refused.get(name, {}):
                yield name


def _relieve(draft: _Draft) -> int:
    """Bring every worker down to its limit; return how many databases moved."""
    above = sorted(
        worker for worker in draft.zones if draft.loads[worker] > draft.shares[worker].limit
    )
    held = draft.held() if above else {}
    moved = 0
    for worker in above:
        for name in sorted(held[worker], key=lambda name: (draft.is_home(name, worker), name)):
            if draft.loads[worker] <= draft.shares[worker].limit:
                break
            if target := draft.roomiest(name):
                draft.give(name, target, "overloaded")
                moved += 1
    return moved


def _bring_home(draft: _Draft) -> int:
    """Move databases to their wanted zone where a worker there is below its fair share; return how
    many moved.
    """
    room: dict[str, list[str]] = defaultdict(list)
    for worker, zone in draft.zones.items():
        if zone and draft.loads[worker] < draft.shares[worker].fair:
            room[zone].append(worker)
    if not room:
        return 0
    strangers = sorted(
        name
        for name, zone in draft.wanted.items()
        if zone in room and draft.zones[draft.owners[name]] != zone
    )
    moved = 0
    for name in strangers:
        owner, refused = draft.owners[name], draft.refused.get(name, {})
        open_workers = [
            worker
            for worker in room[draft.wanted[name]]
            if draft.loads[worker] < draft.shares[worker].fair and worker not in refused
        ]
        if open_workers and draft.loads[owner] > draft.shares[owner].low:
            draft.give(
                name, min(open_workers, key=lambda worker: (draft.loads[worker], worker)), "zone"
            )
            moved += 1
    return moved
