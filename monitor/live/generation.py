"""Who may record into which Redis: nobody before the leader has opened a generation.

Workers and doors import this. A generation is named "instance:term.counter" and stands in all
partitions. An instance is what one start or promotion of a server makes of it (its replication id).
Another instance or a missing key closes the generation: FLUSHALL empties an instance and does not
end it, so the counter gives every opening a name of its own.
"""

import itertools
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from monitor.core.chunks import chunks
from monitor.core.generation import Generation, Signature
from monitor.core.status import STATUS_FIELDS, Epoch, Status
from monitor.live import steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.fields import status_fields
from monitor.live.keys import (
    PARTITIONS,
    all_keys,
    by_partition,
    database_key,
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


_Part = tuple[int, str, Sequence[Restored]]  # a partition, the part's name, what is remembered


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
    names: set[str] = set()
    signatures: set[Signature] = set()
    for name, signature in found:
        names.add(name or "")
        signatures.add(Signature.parse(signature or ""))
    return Generation(_open_name(names, instance), instance, max(signatures))


def _open_name(names: set[str], instance: str) -> str:
    if len(names) != 1:
        return ""
    [name] = names
    well_formed = _NAME.match(name)
    of_this_instance = name.startswith(f"{instance}:")
    return name if well_formed and of_this_instance else ""


async def standing(live: Live) -> Standing:
    """Look at the terms and at whose they are."""
    pipe = live.cache.pipeline(transaction=False)
    for number in range(PARTITIONS):
        pipe.mget(partition_keys(number, "term", "registry"))
    with wrap_store_errors():
        found = await pipe.execute()
    highest = 0
    signatures: set[Signature] = set()
    for term, signature in found:
        highest = max(highest, int(term or 0))
        signatures.add(Signature.parse(signature or ""))
    return Standing(highest, frozenset(signatures))


# --- whose this Redis is ---


async def lead(live: Live, term: int, registry: str) -> bool:
    """Make a new leader's term and registry known everywhere, so that others step down.

    False if a higher term is known, or another registry's name. Race: of two registries that claim
    one empty Redis at once the first partition chooses, the other claims no further.
    """
    args = (term, registry)
    first, *others = _calls(args, "term", "registry")
    [chosen] = await steps.run(live.cache, _LEAD, [first])
    if not chosen:
        return False
    followed = await steps.run(live.cache, _LEAD, others)
    return all(followed)


async def take_over(live: Live, registry: str, takeovers: int) -> bool:
    """Give this Redis to another registry, for the `takeovers`-th time.

    False when somebody else did meanwhile.
    """
    args = (registry, takeovers)
    calls = _calls(args, "registry")
    given = await steps.run(live.cache, _TAKE_OVER, calls)
    return all(given)


async def mark_complete(live: Live, lease: str) -> None:
    """Say, last of all, that Redis holds what the lease's holder wrote: all workers are known.

    Race: all that was written before has been answered, so a loss of it takes the mark along.
    """
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("complete"):
        pipe.set(key, lease)
    key_on_bus = partition_key(0, "complete")
    with wrap_store_errors():
        await pipe.execute()
        if live.bus is not live.cache:
            await live.bus.set(key_on_bus, lease)


async def is_complete(live: Live, lease: str) -> bool:
    """Tell whether the lease's holder gave it up in order, and nothing it knew is missing here."""
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("complete"):
        pipe.get(key)
    key_on_bus = partition_key(0, "complete")
    with wrap_store_errors():
        marks = await pipe.execute()
        mark_on_bus = await live.bus.get(key_on_bus)
    return {*marks, mark_on_bus} == {lease}


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
    for parts in _rounds(rows):
        calls = []
        for number, name, its in parts:
            head = (*report, name, *seen)
            calls.append(_restore_call(number, head, its))
        merged = await steps.run(live.cache, _RESTORE, calls)
        if not all(merged):
            log.warning("action=restore_interrupted worker=%s instance=%s", reporter, instance)
            return False
    return True


def _rounds(rows: Sequence[Restored]) -> Iterator[list[_Part]]:
    """Cut a report into parts of one partition each, and return those that go out together."""
    remembered = by_partition(rows, attrgetter("database"))
    reports = []
    for number in range(PARTITIONS):
        its = remembered.get(number, [])
        reports.append(_parts(number, its))
    for parts in itertools.zip_longest(*reports):
        yield [part for part in parts if part]


def _parts(number: int, rows: Sequence[Restored]) -> Iterator[_Part]:
    """Cut the report of one partition: a first part without rows, the last maybe without.

    Race: no request both begins a report and ends it, else one that comes late, in the next closed
    generation, would stand for a new report.
    """
    yield number, "first", ()
    *middle, last = list(chunks(rows, _ROWS)) or [()]
    for chunk in middle:
        yield number, "middle", chunk
    yield number, "last", last


def _restore_call(number: int, head: steps.Args, rows: Sequence[Restored]) -> steps.Call:
    keys = partition_keys(number, "generation", "term", "names", "reports", "registry")
    args = [*head, len(_MERGED), *_MERGED]
    for row in rows:
        keys.append(database_key(row.database))
        args += _remembered(row)
    return keys, args


def _remembered(row: Restored) -> list[str]:
    """Return what restore.lua takes of a database: its row, and a text for each of _MERGED."""
    status = status_fields(row.status)
    epoch = str(row.epoch or "")
    claimant = row.owner if epoch else ""
    merged = status | {"batch": "", "restored": epoch}
    texts = [merged[name] for name in _MERGED]
    return [row.database, claimant, epoch, status["identity"], *texts]


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
    done = set()
    for reporter, report in reports.items():
        if _is_done(report, instance):
            done.add(reporter)
    return done


def _is_done(report: str, instance: str) -> bool:
    of_this_instance = report.startswith(f"{instance} ")
    return of_this_instance and report.endswith(" done")


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
    replies = await steps.run(live.cache, _OPEN, calls)
    answers = sorted(set(replies))
    if answers == ["opened"]:
        return name
    refusal = ",".join(answers)
    log.warning("action=open_refused name=%s answers=%s", name, refusal)
    return None


async def close_generation(live: Live, entered: Epoch, term: int) -> None:
    """End a generation older than the one that `entered` opened.

    Race: a worker that knows a newer one must never go back. At a server that was left behind
    nobody opens another; else the leader does, above all terms seen: `term` is the highest.
    """
    args = (str(entered), term)
    calls = _calls(args, "generation", "term")
    await steps.run(live.cache, _CLOSE, calls)


def _calls(args: steps.Args, *kinds: str) -> list[steps.Call]:
    """Make one call for each partition, with its keys of these kinds."""
    calls: list[steps.Call] = []
    for number in range(PARTITIONS):
        keys = partition_keys(number, *kinds)
        calls.append((keys, args))
    return calls
