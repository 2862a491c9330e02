"""Who watches what. The truth is `owner` and `epoch` in each database's hash; indexes are kept
beside it.

Imported by workers/ alone: the leader assigns, workers look.
"""

from collections.abc import Collection, Iterable, Sequence

from monitor.core.assignment import Assignment
from monitor.core.placement import Assigned, Place
from monitor.core.status import Epoch, Identity, State, Status
from monitor.live import quarantine, steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.fields import status_fields
from monitor.live.keys import (
    PARTITIONS,
    database_key,
    index_key,
    partition,
    partition_key,
    target_key,
)

_ASSIGN, _UNASSIGN, _REINDEX = steps.step("assign"), steps.step("unassign"), steps.step("reindex")
_ROWS = 500  # of one script call: about 1 ms of Redis
_PLACE = (
    "owner", "epoch", "proven", "state", "identity", "doubt", "claim_owner", "claim_epoch", "moved_for", "moves",
)  # fmt: skip


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
    """Give a database to a worker, in one fenced step. `planned`: its present owner lives. `doubt`:
    the cannot_reach this move answers, remembered in `moved_for` and `moves`. `seed`: the Status
    where the hash has none.
    """
    name, number = assignment.database, partition(assignment.database)
    kinds = [partition_key(number, kind) for kind in ("generation", "term", "names")]
    keys = (
        database_key(name),
        *kinds,
        target_key(name),
        index_key(number, ""),
        partition_key(number, "registry"),
    )
    words: list[str | int] = [name, assignment.owner, str(assignment.epoch), assignment.epoch.term]
    words += (int(planned), str(doubt or ""), int(now), registry)
    if seed is not None:
        words += (word for pair in status_fields(seed).items() if pair[1] for word in pair)
    [answer] = await steps.run(live.cache, _ASSIGN, [(keys, words)])
    return Assigned(answer)


async def unassign(live: Live, database: str, term: int, registry: str) -> bool:
    """Take a paused database from its owner: its hash stays, its target goes; False for a deposed
    leader.
    """
    return await _unassign(live, database, term, registry, forget=False)


async def forget(live: Live, database: str, term: int, registry: str) -> bool:
    """Remove all Redis knows of a retired database; False for a deposed leader."""
    return await _unassign(live, database, term, registry, forget=True)


async def _unassign(live: Live, database: str, term: int, registry: str, *, forget: bool) -> bool:
    number = partition(database)
    term_key, names_key, registry_key = (
        partition_key(number, kind) for kind in ("term", "names", "registry")
    )
    keys = (
        database_key(database),
        term_key,
        names_key,
        target_key(database),
        index_key(number, ""),
        registry_key,
    )
    [done] = await steps.run(
        live.cache, _UNASSIGN, [(keys, (database, term, int(forget), registry))]
    )
    return bool(done)


async def places(live: Live, databases: Sequence[str]) -> dict[str, Place]:
    """Return the place of each database, an empty one where Redis knows nothing.

    Of one that cannot be read only its owner is told: it is neither free for the taking nor lost
    with its owner.
    """
    pipe = live.cache.pipeline(transaction=False)
    for name in databases:
        pipe.hmget(database_key(name), *_PLACE)
    with wrap_store_errors():
        rows = await pipe.execute()
    told = dict(zip(databases, rows, strict=True))
    found = await quarantine.decode(live, "place", told.items(), _place)
    return {name: found.get(name) or _owned(name, row) for name, row in told.items()}


def _place(name: str, row: Sequence[str | None]) -> Place:
    owner, epoch, proven, state, identity, doubt, claimant, claim, moved_for, moves = row
    return Place(
        name,
        owner or "",
        Epoch.parse(epoch) if epoch else None,
        bool(proven),
        State(state or State.NEW),
        state is not None,
        Identity.parse(identity) if identity else None,
        Identity.parse(doubt.split()[0]) if doubt else None,
        claimant or "",
        Epoch.parse(claim) if claim else None,
        Identity.parse(moved_for) if moved_for else None,
        tuple(map(float, (moves or "").split())),
    )


def _owned(name: str, row: Sequence[str | None]) -> Place:
    owner, _, proven, *_ = row
    return Place(name, owner or "", proven=bool(proven), seeded=True)


async def mine(live: Live, worker: str) -> dict[str, str]:
    """Return a worker's index: database -> "epoch revision"; it changes whenever there is something
    to learn.
    """
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.hgetall(index_key(number, worker))
    index: dict[str, str] = {}
    with wrap_store_errors():
        for part in await pipe.execute():
            index |= part
    return index


async def rewrite_indexes(live: Live, databases: Iterable[str], workers: Collection[str]) -> None:
    """Make the indexes agree with the hashes of these databases, and the indexes of these workers
    hold nothing else.

    Name dead workers too: an index nobody names stays for ever.
    """
    rows = [(name, "") for name in databases]
    for worker in workers:
        rows += [(name, worker) for name in await mine(live, worker)]
    by_partition: dict[int, list[tuple[str, str]]] = {}
    for row in rows:
        by_partition.setdefault(partition(row[0]), []).append(row)
    for number, its in by_partition.items():
        for part in steps.chunks(its, _ROWS):
            await steps.run(live.cache, _REINDEX, [_reindex(number, part)])


def _reindex(number: int, rows: Sequence[tuple[str, str]]) -> steps.Call:
    keys = [index_key(number, "")]
    for name, _ in rows:
        keys += (database_key(name), target_key(name))
    return keys, [word for row in rows for word in row]
