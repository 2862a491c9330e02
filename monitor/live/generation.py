"""Lives of Redis: nobody records before the leader has opened the generation. Workers and doors import this.

A generation is named "life:term.counter" and stands in all 16 partitions. Another life (restart, failover) or a
missing key (FLUSHALL does not end a life) closes it; the counter makes every opening a name of its own.
"""

import itertools
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from monitor.core.status import STATUS_FIELDS, Epoch, Status
from monitor.live import steps
from monitor.live.connections import Live, unavailable
from monitor.live.fields import status_fields
from monitor.live.keys import PARTITIONS, REGISTRY, database_key, partition, partition_key

log = logging.getLogger("feeler.live")

_RESTORE, _OPEN, _LEAD = steps.step("restore"), steps.step("open"), steps.step("lead")
_ROWS = 250  # of one script call: about 2 ms of Redis
_MERGED = (*STATUS_FIELDS, "batch", "restored")  # `batch` goes: it vouches for fields the merge may change
_NAME = re.compile(r"[0-9a-f]+:\d+\.\d+\Z")
_attempts = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Generation:
    """What one look found; `name` is '' while closed."""

    name: str
    life: str

    @property
    def open(self) -> bool:
        return bool(self.name)

    @property
    def epoch(self) -> Epoch | None:
        """The leader's epoch that opened it: never go back to a generation with a lower one."""
        return Epoch.parse(self.name.partition(":")[2]) if self.name else None


@dataclass(frozen=True, slots=True)
class Restored:
    """What one reporter remembers of a database: `epoch` it last held itself, None where it never did (the leader)."""

    database: str
    status: Status
    epoch: Epoch | None
    owner: str


async def generation(live: Live) -> Generation:
    """Look at the generation: open only when this life of the server has the same name in all partitions."""
    pipe = live.cache.pipeline(transaction=False)
    pipe.info("replication")
    for number in range(PARTITIONS):
        pipe.get(partition_key(number, "generation"))
    with unavailable():
        info, *found = await pipe.execute()
    life, names = str(info["master_replid"]), set(found)
    name = names.pop() if len(names) == 1 else None
    return Generation(name if name and _NAME.match(name) and name.startswith(f"{life}:") else "", life)


async def lead(live: Live, term: int) -> bool:
    """Make a new leader's term known everywhere, so that an older one steps down; False if a higher one is known."""
    calls = [([partition_key(number, "term")], [term]) for number in range(PARTITIONS)]
    return all(await steps.run(live.cache, _LEAD, calls))


async def highest_term(live: Live) -> int:
    """Return the highest term any partition has seen, 0 for none."""
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.get(partition_key(number, "term"))
    with unavailable():
        return max(int(term or 0) for term in await pipe.execute())


async def sign(live: Live, registry: str) -> None:
    """Say of which registry the terms are that this Redis has seen."""
    with unavailable():
        await live.cache.set(REGISTRY, registry)


async def signature(live: Live) -> tuple[str, int]:
    """Return which registry gave the terms that Redis has seen, '' while nobody said so, and the highest of them."""
    with unavailable():
        registry = await live.cache.get(REGISTRY)
    return str(registry or ""), await highest_term(live)


async def restore(live: Live, worker: str, rows: Sequence[Restored], term: int) -> bool:
    """Merge what `worker` remembers into a closed generation and report it; into an open one only what is newer.

    False when Redis lost its memory meanwhile: restore again. With no rows it is a mark: the leader sets one when it
    begins to wait for the workers, and names it in `open_generation`.
    """
    life, attempt = (await generation(live)).life, next(_attempts)
    by_partition: dict[int, list[Restored]] = {number: [] for number in range(PARTITIONS)}
    for row in rows:
        by_partition[partition(row.database)].append(row)
    parts = {number: [[], *(list(steps.chunks(its, _ROWS)) or [[]])] for number, its in by_partition.items()}
    for i in range(max(map(len, parts.values()))):
        calls = [
            _call(number, (life, worker, attempt, _part(i, len(its)), term), its[i])
            for number, its in parts.items()
            if i < len(its)
        ]
        if not all(await steps.run(live.cache, _RESTORE, calls)):
            log.warning("action=restore_interrupted worker=%s life=%s", worker, life)
            return False
    return True


def _part(i: int, count: int) -> str:
    """Name a part: no request both begins a report and ends it, else one that comes late could stand for a new one."""
    return "first" if i == 0 else "last" if i == count - 1 else "middle"


def _call(number: int, head: steps.Words, rows: Sequence[Restored]) -> steps.Call:
    keys = [partition_key(number, kind) for kind in ("generation", "term", "names", "reports")]
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
    with unavailable():
        info, *parts = await pipe.execute()
    done = [{who for who, what in part.items() if _is_done(what, info["master_replid"])} for part in parts]
    return set.intersection(*done)


def _is_done(report: str, life: str) -> bool:
    return report.startswith(f"{life} ") and report.endswith(" done")


async def open_generation(live: Live, leader: Epoch, reports: Collection[str]) -> str | None:
    """Open all partitions under a new name and return it; None when a higher term or a loss of memory forbids it.

    `reports` names everybody whose memory this opening rests on, the leader's own mark among them: a partition in
    which one of them is missing was wiped since. Then wait anew. Opening again after an error is safe.
    """
    life = (await generation(live)).life
    name = f"{life}:{leader}"
    keys = [[partition_key(number, kind) for kind in ("generation", "term", "reports")] for number in range(PARTITIONS)]
    words: steps.Words = (name, life, leader.term, *sorted(reports))
    answers = await steps.run(live.cache, _OPEN, [(its, words) for its in keys])
    if set(answers) == {"opened"}:
        return name
    log.warning("action=open_refused name=%s answers=%s", name, ",".join(sorted(set(answers))))
    return None
