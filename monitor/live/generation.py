"""Lives of Redis: nobody records before the leader has opened the generation. Workers and doors
import this.

A generation is named "life:term.counter" and stands in all 16 partitions. Another life (restart,
failover) or a missing key (FLUSHALL does not end a life) closes it; the counter makes every opening
a name of its own.
"""

import itertools
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from monitor.core.generation import Generation, Signature
from monitor.core.status import STATUS_FIELDS, Epoch, Status
from monitor.live import steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.fields import status_fields
from monitor.live.keys import PARTITIONS, database_key, partition, partition_key

log = logging.getLogger("feeler.live")

_NAMES = ("restore", "open", "close", "lead", "take_over")
_RESTORE, _OPEN, _CLOSE, _LEAD, _TAKE_OVER = map(steps.step, _NAMES)
_ROWS = 250  # of one script call: about 2 ms of Redis
_MERGED = (
    *STATUS_FIELDS,
    "batch",
    "restored",
)  # `batch` goes: it vouches for fields the merge may change
_NAME = re.compile(r"[0-9a-f]+:\d+\.\d+\Z")
_attempts = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a leader must know before it leads: the highest term seen in any partition, and whose
    they are.
    """

    term: int = 0
    signatures: frozenset[Signature] = frozenset()

    def holder(self, registry: str) -> str:
        """Return the registry that keeps this one from leading here, '' where none does."""
        return next(
            (one.registry for one in sorted(self.signatures) if one.registry not in ("", registry)),
            "",
        )

    @property
    def signature(self) -> Signature:
        return max(self.signatures, default=Signature())


@dataclass(frozen=True, slots=True)
class Restored:
    """What one reporter remembers of a database: `epoch` it last held itself, None where it never
    did (the leader).
    """

    database: str
    status: Status
    epoch: Epoch | None
    owner: str


async def generation(live: Live) -> Generation:
    """Look at the generation: open only when this life of the server has the same name in all
    partitions.
    """
    pipe = live.cache.pipeline(transaction=False)
    pipe.info("replication")
    for number in range(PARTITIONS):
        pipe.mget(partition_key(number, "generation"), partition_key(number, "registry"))
    with wrap_store_errors():
        info, *found = await pipe.execute()
    life, names = str(info["master_replid"]), {name for name, _ in found}
    name = names.pop() if len(names) == 1 else None
    signature = max(Signature.parse(text or "") for _, text in found)
    return Generation(
        name if name and _NAME.match(name) and name.startswith(f"{life}:") else "", life, signature
    )


async def lead(live: Live, term: int, registry: str) -> bool:
    """Make a new leader's term and registry known everywhere, so that others step down; False if a
    higher term is known, or another registry's name.

    Of two registries that claim one empty Redis at once the first partition chooses: the other
    claims no further.
    """
    keys = [
        [partition_key(number, kind) for kind in ("term", "registry")]
        for number in range(PARTITIONS)
    ]
    calls: list[steps.Call] = [(its, (term, registry)) for its in keys]
    return all(await steps.run(live.cache, _LEAD, calls[:1])) and all(
        await steps.run(live.cache, _LEAD, calls[1:])
    )


async def standing(live: Live) -> Standing:
    """Look at the terms and at whose they are."""
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.mget(partition_key(number, "term"), partition_key(number, "registry"))
    with wrap_store_errors():
        found = await pipe.execute()
    signatures = frozenset(Signature.parse(text or "") for _, text in found)
    return Standing(max(int(term or 0) for term, _ in found), signatures)


async def take_over(live: Live, registry: str, takeovers: int) -> bool:
    """Give this Redis to another registry, for the `takeovers`-th time; False when somebody else
    did meanwhile.
    """
    words: steps.Words = (registry, takeovers)
    calls = [([partition_key(number, "registry")], words) for number in range(PARTITIONS)]
    return all(await steps.run(live.cache, _TAKE_OVER, calls))


async def mark_complete(live: Live, lease: str) -> None:
    """Say, last of all, that Redis holds what the lease's holder wrote: all workers are known."""
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.set(partition_key(number, "complete"), lease)
    with wrap_store_errors():
        await pipe.execute()
        if live.bus is not live.cache:
            await live.bus.set(partition_key(0, "complete"), lease)


async def is_complete(live: Live, lease: str) -> bool:
    """Tell whether the lease's holder gave it up in order, and nothing it knew is missing here."""
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.get(partition_key(number, "complete"))
    with wrap_store_errors():
        return {*await pipe.execute(), await live.bus.get(partition_key(0, "complete"))} == {lease}


async def restore(
    live: Live, worker: str, rows: Sequence[Restored], term: int, signature: Signature | str
) -> bool:
    """Merge what `worker` remembers into a closed generation and report it; into an open one only
    what is newer.

    `signature` is what a worker remembers, or the bare name of the registry a leader leads for.
    False when Redis lost its memory meanwhile: restore again. With no rows it is a mark: the leader
    sets one when it begins to wait for the workers, and names it in `open_generation`.
    """
    life, attempt = (await generation(live)).life, next(_attempts)
    by_partition: dict[int, list[Restored]] = {number: [] for number in range(PARTITIONS)}
    for row in rows:
        by_partition[partition(row.database)].append(row)
    parts = {
        number: [[], *(list(steps.chunks(its, _ROWS)) or [[]])]
        for number, its in by_partition.items()
    }
    for i in range(max(map(len, parts.values()))):
        calls = [
            _call(number, (life, worker, attempt, _part(i, len(its)), term, str(signature)), its[i])
            for number, its in parts.items()
            if i < len(its)
        ]
        if not all(await steps.run(live.cache, _RESTORE, calls)):
            log.warning("action=restore_interrupted worker=%s life=%s", worker, life)
            return False
    return True


def _part(i: int, count: int) -> str:
    """Name a part: no request both begins a report and ends it, else one that comes late could
    stand for a new one.
    """
    return "first" if i == 0 else "last" if i == count - 1 else "middle"


def _call(number: int, head: steps.Words, rows: Sequence[Restored]) -> steps.Call:
    keys = [
        partition_key(number, kind)
        for kind in ("generation", "term", "names", "reports", "registry")
    ]
    words = [*head, len(_MERGED), *_MERGED]
    for row in rows:
        status, epoch = status_fields(row.status), str(row.epoch or "")
        keys.append(database_key(row.database))
        words += (row.database, row.owner if epoch else "", epoch, status["identity"])
        words += (*(status[name] for name in STATUS_FIELDS), "", epoch)
    return keys, words


async def reported(live: Live) -> set[str]:
    """Return who has restored all it remembers into this life of the server."""
    pipe = live.cache.pipeline(transaction=False)
    pipe.info("replication")
    for number in range(PARTITIONS):
        pipe.hgetall(partition_key(number, "reports"))
    with wrap_store_errors():
        info, *parts = await pipe.execute()
    done = [
        {who for who, what in part.items() if _is_done(what, info["master_replid"])}
        for part in parts
    ]
    return set.intersection(*done)


async def withdraw(live: Live, worker: str) -> None:
    """Take a report back: all partitions are open, nobody waits for it, and nothing else would
    clear it away.
    """
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.hdel(partition_key(number, "reports"), worker)
    with wrap_store_errors():
        await pipe.execute()


def _is_done(report: str, life: str) -> bool:
    return report.startswith(f"{life} ") and report.endswith(" done")


async def open_generation(
    live: Live, leader: Epoch, reports: Collection[str], registry: str
) -> str | None:
    """Open all partitions under a new name and return it; None when a higher term, another registry
    or a loss of memory forbids it.

    `reports` names everybody whose memory this opening rests on, the leader's own mark among them:
    a partition in which one of them is missing was wiped since. Then wait anew. Opening again after
    an error is safe.
    """
    life = (await generation(live)).life
    name = f"{life}:{leader}"
    kinds = ("generation", "term", "reports", "registry")
    keys = [[partition_key(number, kind) for kind in kinds] for number in range(PARTITIONS)]
    words: steps.Words = (name, life, leader.term, registry, *sorted(reports))
    answers = await steps.run(live.cache, _OPEN, [(its, words) for its in keys])
    if set(answers) == {"opened"}:
        return name
    log.warning("action=open_refused name=%s answers=%s", name, ",".join(sorted(set(answers))))
    return None


async def close_generation(live: Live, entered: Epoch, term: int) -> None:
    """End a generation older than the one that `entered` opened: no worker that knows a newer one
    may go back to it.

    At a server that was left behind nobody opens another; else the leader does, above all terms
    seen.
    """
    keys = [
        [partition_key(number, kind) for kind in ("generation", "term")]
        for number in range(PARTITIONS)
    ]
    await steps.run(live.cache, _CLOSE, [(its, (str(entered), term)) for its in keys])
