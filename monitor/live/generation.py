"""Who may record into which Redis: nobody before the leader has opened a generation.

Workers and doors import this. A generation is named "instance:term.counter" and stands in all
partitions. An instance is what one start or promotion of a server makes of it (its replication id).
Another instance or a missing key closes the generation: FLUSHALL empties an instance and does not
end it, so the counter gives every opening a name of its own.
"""

import itertools
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from monitor.core.chunks import chunks
from monitor.core.generation import Generation, Signature
from monitor.core.status import STATUS_FIELDS, Epoch, Status
from monitor.live import steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.fields import status_fields
from monitor.live.keys import (
    PARTITIONS,
    all_keys,
    database_key,
    partition,
    partition_key,
    partition_keys,
)

log = logging.getLogger("feeler.live")

_RESTORE = steps.step("restore")
_OPEN = steps.step("open")
_CLOSE = steps.step("close")
_LEAD = steps.step("lead")
_TAKE_OVER = steps.step("take_over")
_ROWS = 250  # of one script call: about 2 ms of Redis
# `batch` goes with a merge: it vouches for fields that the merge may change.
_MERGED = (*STATUS_FIELDS, "batch", "restored")
_NAME = re.compile(r"[0-9a-f]+:\d+\.\d+\Z")
_attempts = itertools.count(1)  # of this process: parts of two reports are never taken for one


@dataclass(frozen=True, slots=True)
class Standing:
    """What a leader must know before it leads."""

    term: int = 0  # the highest seen in any partition
    signatures: frozenset[Signature] = frozenset()  # whose the terms are

    def holder(self, registry: str) -> str:
        """Return the registry that keeps this one from leading here, '' where none does."""
        for signature in sorted(self.signatures):
            if signature.registry not in ("", registry):
                return signature.registry
        return ""

    @property
    def signature(self) -> Signature:
        return max(self.signatures, default=Signature())


@dataclass(frozen=True, slots=True)
class Restored:
    """What one reporter remembers of a database."""

    database: str
    status: Status
    epoch: Epoch | None  # the last one it held itself; None where it never did (the leader)
    owner: str


# --- looking ---


async def generation(live: Live) -> Generation:
    """Look at the generation: open where all partitions hold one name, of this very instance."""
    pipe = live.cache.pipeline(transaction=False)
    pipe.info("replication")
    for number in range(PARTITIONS):
        pipe.mget(partition_keys(number, "generation", "registry"))
    with wrap_store_errors():
        info, *found = await pipe.execute()
    instance = str(info["master_replid"])
    names = {name for name, _ in found}
    signature = max(Signature.parse(text or "") for _, text in found)
    return Generation(_open_name(names, instance), instance, signature)


def _open_name(names: set[str | None], instance: str) -> str:
    name = names.pop() if len(names) == 1 else None
    if name and _NAME.match(name) and name.startswith(f"{instance}:"):
        return name
    return ""


async def standing(live: Live) -> Standing:
    """Look at the terms and at whose they are."""
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.mget(partition_keys(number, "term", "registry"))
    with wrap_store_errors():
        found = await pipe.execute()
    signatures = frozenset(Signature.parse(text or "") for _, text in found)
    return Standing(max(int(term or 0) for term, _ in found), signatures)


# --- whose this Redis is ---


async def lead(live: Live, term: int, registry: str) -> bool:
    """Make a new leader's term and registry known everywhere, so that others step down.

    False if a higher term is known, or another registry's name. Race: of two registries that claim
    one empty Redis at once the first partition chooses, the other claims no further.
    """
    calls = _calls((term, registry), "term", "registry")
    first = await steps.run(live.cache, _LEAD, calls[:1])
    return all(first) and all(await steps.run(live.cache, _LEAD, calls[1:]))


async def take_over(live: Live, registry: str, takeovers: int) -> bool:
    """Give this Redis to another registry, for the `takeovers`-th time.

    False when somebody else did meanwhile.
    """
    calls = _calls((registry, takeovers), "registry")
    return all(await steps.run(live.cache, _TAKE_OVER, calls))


async def mark_complete(live: Live, lease: str) -> None:
    """Say, last of all, that Redis holds what the lease's holder wrote: all workers are known.

    Race: all that was written before has been answered, so a loss of it takes the mark along.
    """
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("complete"):
        pipe.set(key, lease)
    with wrap_store_errors():
        await pipe.execute()
        if live.bus is not live.cache:
            await live.bus.set(partition_key(0, "complete"), lease)


async def is_complete(live: Live, lease: str) -> bool:
    """Tell whether the lease's holder gave it up in order, and nothing it knew is missing here."""
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("complete"):
        pipe.get(key)
    with wrap_store_errors():
        marks = set(await pipe.execute())
        marks.add(await live.bus.get(partition_key(0, "complete")))
    return marks == {lease}


# --- restoring what a closed Redis forgot ---


async def restore(
    live: Live, reporter: str, rows: Sequence[Restored], term: int, signature: Signature | str
) -> bool:
    """Merge what `reporter` remembers into a closed generation and report it there.

    Into an open one only what is newer is merged. `term` is the highest it has seen, `signature`
    what a worker remembers, or the bare name of the registry a leader leads for. False when Redis
    lost its memory meanwhile: restore again.

    With no rows it is a mark: the leader sets one when it begins to wait for the workers, and names
    it in `open_generation`.
    """
    instance = (await generation(live)).instance
    report = (instance, reporter, next(_attempts))
    seen = (term, str(signature))
    parts = _parts(rows)
    for i in range(max(map(len, parts.values()))):
        calls = []
        for number, its in parts.items():
            if i < len(its):
                head = (*report, _part_name(i, len(its)), *seen)
                calls.append(_restore_call(number, head, its[i]))
        if not all(await steps.run(live.cache, _RESTORE, calls)):
            log.warning("action=restore_interrupted worker=%s instance=%s", reporter, instance)
            return False
    return True


def _parts(rows: Sequence[Restored]) -> dict[int, list[Sequence[Restored]]]:
    """Cut a report by partition: a first part without rows, then others, the last maybe without."""
    by_partition: dict[int, list[Restored]] = {number: [] for number in range(PARTITIONS)}
    for row in rows:
        by_partition[partition(row.database)].append(row)
    parts: dict[int, list[Sequence[Restored]]] = {}
    for number, its in by_partition.items():
        parts[number] = [(), *chunks(its, _ROWS)]
        if not its:
            parts[number].append(())
    return parts


def _part_name(i: int, count: int) -> str:
    """Name a part.

    Race: no request both begins a report and ends it, else one that comes late, in the next closed
    generation, would stand for a new report.
    """
    if i == 0:
        return "first"
    return "last" if i == count - 1 else "middle"


def _restore_call(number: int, head: steps.Args, rows: Sequence[Restored]) -> steps.Call:
    keys = partition_keys(number, "generation", "term", "names", "reports", "registry")
    args = [*head, len(_MERGED), *_MERGED]
    for row in rows:
        keys.append(database_key(row.database))
        status, epoch = status_fields(row.status), str(row.epoch or "")
        claimant = row.owner if epoch else ""
        args += (row.database, claimant, epoch, status["identity"])
        args += (status[name] for name in STATUS_FIELDS)
        args += ("", epoch)  # of `batch` and `restored`
    return keys, args


async def reported(live: Live) -> set[str]:
    """Return who has restored all it remembers into this instance."""
    pipe = live.cache.pipeline(transaction=False)
    pipe.info("replication")
    for key in all_keys("reports"):
        pipe.hgetall(key)
    with wrap_store_errors():
        info, *parts = await pipe.execute()
    instance = info["master_replid"]
    done = [_reporters(part, instance) for part in parts]
    return set.intersection(*done)


def _reporters(reports: Mapping[str, str], instance: str) -> set[str]:
    return {who for who, report in reports.items() if _is_done(report, instance)}


def _is_done(report: str, instance: str) -> bool:
    return report.startswith(f"{instance} ") and report.endswith(" done")


async def withdraw(live: Live, reporter: str) -> None:
    """Take a report back: the generation is open, and nothing else would clear it away."""
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("reports"):
        pipe.hdel(key, reporter)
    with wrap_store_errors():
        await pipe.execute()


# --- opening and closing ---


async def open_generation(
    live: Live, leader: Epoch, reports: Collection[str], registry: str
) -> str | None:
    """Open all partitions under a new name and return it.

    None when a higher term, another registry or a loss of memory forbids it; opening again after an
    error is safe. `reports` names everybody whose memory this opening rests on, the leader's own
    mark among them. Race: a partition in which one of them is missing was wiped since; wait anew.
    """
    instance = (await generation(live)).instance
    name = f"{instance}:{leader}"
    args: steps.Args = (name, instance, leader.term, registry, *sorted(reports))
    calls = _calls(args, "generation", "term", "reports", "registry")
    answers = set(await steps.run(live.cache, _OPEN, calls))
    if answers == {"opened"}:
        return name
    log.warning("action=open_refused name=%s answers=%s", name, ",".join(sorted(answers)))
    return None


async def close_generation(live: Live, entered: Epoch, term: int) -> None:
    """End a generation older than the one that `entered` opened.

    Race: a worker that knows a newer one must never go back. At a server that was left behind
    nobody opens another; else the leader does, above all terms seen: `term` is the highest.
    """
    calls = _calls((str(entered), term), "generation", "term")
    await steps.run(live.cache, _CLOSE, calls)


def _calls(args: steps.Args, *kinds: str) -> list[steps.Call]:
    """Make one call for each partition, with its keys of these kinds."""
    return [(partition_keys(number, *kinds), args) for number in range(PARTITIONS)]
