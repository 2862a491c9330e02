"""Which transitions are durable, and giving those that are not to the journal again.

Imported by workers/ alone: the historian marks, the owners that retain transitions ask and replay.
"""

from collections.abc import Sequence
from operator import attrgetter

from monitor.core import event as events
from monitor.core.chunks import chunks
from monitor.core.event import Transition
from monitor.core.status import Key
from monitor.live import steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import by_partition, partition, partition_key, partition_keys

_REPLAY = steps.step("replay")
_ROWS = 500  # of one script call


async def mark_durable(live: Live, transitions: Sequence[Key], now: float) -> None:
    """Say that these are durable: the workers that retain them may forget them."""
    pipe = live.cache.pipeline(transaction=False)
    for transition in transitions:
        key, member = _place(transition)
        pipe.zadd(key, {member: now})
    with wrap_store_errors():
        await pipe.execute()


async def durable(live: Live, transitions: Sequence[Key]) -> set[Key]:
    """Return which of these are known to be durable."""
    pipe = live.cache.pipeline(transaction=False)
    for transition in transitions:
        key, member = _place(transition)
        pipe.zscore(key, member)
    with wrap_store_errors():
        scores = await pipe.execute()
    found = set()
    for transition, score in zip(transitions, scores, strict=True):
        if score is not None:
            found.add(transition)
    return found


def _place(transition: Key) -> tuple[str, str]:
    """Return the sorted set in which a durable transition stands, and what stands there for it."""
    database, identity = transition
    key = partition_key(partition(database), "durable")
    return key, f"{database} {identity}"


async def replay(live: Live, generation: str, transitions: Sequence[Transition]) -> bool:
    """Give accepted transitions to the journal again.

    False unless this generation is open in every partition concerned; some may be in it then.
    """
    parts = by_partition(transitions, attrgetter("database"))
    calls: list[steps.Call] = []
    for number, its in parts.items():
        keys = partition_keys(number, "generation", "counters", "journal")
        for chunk in chunks(its, _ROWS):
            texts = map(events.encode, chunk)
            args = (generation, *texts)
            calls.append((keys, args))
    replayed = await steps.run(live.cache, _REPLAY, calls)
    return all(replayed)


async def count_conflicts(live: Live, conflicts: int) -> None:
    """Count transitions that Postgres holds under the same identity with other content."""
    counters = partition_key(0, "counters")
    with wrap_store_errors():
        await live.cache.hincrby(counters, "identity_conflicts", conflicts)
