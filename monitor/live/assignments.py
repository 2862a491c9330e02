"""Who watches what. The truth is `owner` and `epoch` in each database's hash.

Indexes are kept beside it, one per worker and partition. Imported by workers/ alone: the leader
assigns, workers look.
"""

from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter

from monitor.core.assignment import Assignment
from monitor.core.chunks import chunks
from monitor.core.placement import Assigned, Place
from monitor.core.status import Epoch, Identity, State, Status
from monitor.live import quarantine, steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.fields import status_fields
from monitor.live.keys import (
    PARTITIONS,
    by_partition,
    database_key,
    index_key,
    partition,
    partition_key,
    partition_keys,
    target_key,
)

_Indexed = tuple[str, str]  # a database, and the worker whose index may name it

_ASSIGN = steps.step("assign")
_UNASSIGN = steps.step("unassign")
_REINDEX = steps.step("reindex")
_ROWS = 500  # of one script call: about 1 ms of Redis
_PLACE = (
    *("owner", "epoch", "proven", "state", "identity", "doubt"),
    *("claim_owner", "claim_epoch", "moved_for", "moves"),
)


async def assign(
    live: Live,
    assignment: Assignment,
    *,
    planned: bool,
    now: float,
    registry: str,
    doubt: Identity | None = None,
    seed: Status | None = None,
) -> Assigned:
    """Give a database to a worker, in one fenced step.

    `planned`: its present owner lives. `doubt`: of the cannot_reach request this move answers; it
    is remembered in `moved_for` and `moves`. `seed`: the Status where the hash has none. `now`:
    fleet seconds.
    """
    name = assignment.database
    number = partition(name)
    keys = (
        database_key(name),
        *partition_keys(number, "generation", "term", "names"),
        target_key(name),
        index_key(number, ""),
        partition_key(number, "registry"),
    )
    epoch = assignment.epoch
    args: list[str | int] = [name, assignment.owner]
    args += (str(epoch), epoch.term, int(planned))
    args += (str(doubt or ""), int(now), registry)
    if seed is not None:
        args += _seeding(seed)
    call = (keys, args)
    [answer] = await steps.run(live.cache, _ASSIGN, [call])
    return Assigned(answer)


def _seeding(seed: Status) -> list[str]:
    args: list[str] = []
    for field, text in status_fields(seed).items():
        if text:
            args += (field, text)
    return args


async def unassign(live: Live, database: str, term: int, registry: str) -> bool:
    """Take a paused database from its owner; False for a deposed leader.

    Its hash stays, its target goes.
    """
    return await _unassign(live, database, term, registry, forget=False)


async def forget(live: Live, database: str, term: int, registry: str) -> bool:
    """Remove all Redis knows of a retired database; False for a deposed leader."""
    return await _unassign(live, database, term, registry, forget=True)


async def _unassign(live: Live, database: str, term: int, registry: str, *, forget: bool) -> bool:
    number = partition(database)
    keys = (
        database_key(database),
        *partition_keys(number, "term", "names"),
        target_key(database),
        index_key(number, ""),
        partition_key(number, "registry"),
    )
    args = (database, term, int(forget), registry)
    call = (keys, args)
    [done] = await steps.run(live.cache, _UNASSIGN, [call])
    return bool(done)


async def places(live: Live, databases: Sequence[str]) -> dict[str, Place]:
    """Return the place of each database, an empty one where Redis knows nothing.

    Of one that cannot be read the owner counts all the same: it is neither free for the taking nor
    lost with its owner.
    """
    pipe = live.cache.pipeline(transaction=False)
    for name in databases:
        pipe.hmget(database_key(name), *_PLACE)
    with wrap_store_errors():
        replies = await pipe.execute()
    rows = dict(zip(databases, replies, strict=True))
    found = await quarantine.decode(live, "place", rows.items(), _place)
    known: dict[str, Place] = {}
    for name, row in rows.items():
        known[name] = found.get(name) or _owned(name, row)
    return known


def _place(name: str, row: Sequence[str | None]) -> Place:
    owner, epoch, proven, state, identity, doubt, *moving = row
    claimant, claim, moved_for, moves = moving
    moved_at = (moves or "").split()
    return Place(
        database=name,
        owner=owner or "",
        epoch=_epoch(epoch),
        proven=bool(proven),
        state=State(state or State.NEW),
        seeded=state is not None,
        identity=_identity(identity),
        doubt=_identity(doubt),
        claimant=claimant or "",
        claim=_epoch(claim),
        moved_for=_identity(moved_for),
        moves=tuple(map(float, moved_at)),
    )


def _epoch(text: str | None) -> Epoch | None:
    return Epoch.parse(text) if text else None


def _identity(text: str | None) -> Identity | None:
    """Read an identity; what follows it, as in a doubt, is left out."""
    if not text:
        return None
    identity, *_ = text.split()
    return Identity.parse(identity)


def _owned(name: str, row: Sequence[str | None]) -> Place:
    owner, _, proven, *_ = row
    return Place(
        database=name,
        owner=owner or "",
        proven=bool(proven),
        seeded=True,
    )


async def mine(live: Live, worker: str) -> dict[str, str]:
    """Return a worker's index: database -> "epoch revision".

    The text changes whenever there is something to learn.
    """
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.hgetall(index_key(number, worker))
    with wrap_store_errors():
        parts = await pipe.execute()
    index: dict[str, str] = {}
    for part in parts:
        index |= part
    return index


async def rewrite_indexes(live: Live, databases: Iterable[str], workers: Collection[str]) -> None:
    """Make the indexes of these workers say what the hashes of these databases say.

    They hold nothing else then. Name dead workers too: an index nobody names stays for ever.
    """
    rows: list[_Indexed] = [(name, "") for name in databases]
    for worker in workers:
        index = await mine(live, worker)
        rows += [(name, worker) for name in index]
    parts = by_partition(rows, itemgetter(0))
    for number, its in parts.items():
        for chunk in chunks(its, _ROWS):
            call = _reindex_call(number, chunk)
            await steps.run(live.cache, _REINDEX, [call])


def _reindex_call(number: int, rows: Sequence[_Indexed]) -> steps.Call:
    keys = [index_key(number, "")]
    args: list[str] = []
    for name, worker in rows:
        keys += (database_key(name), target_key(name))
        args += (name, worker)
    return keys, args
