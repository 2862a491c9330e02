"""Which transitions are durable, and giving those that are not to the journal again.

Imported by workers/ alone: the historian marks, the owners that retain transitions ask and replay.
"""

from collections.abc import Sequence

from monitor.core import event as events
from monitor.core.chunks import chunks
from monitor.core.event import Transition
from monitor.core.status import Key
from monitor.live import steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import partition, partition_key, partition_keys

_REPLAY = steps.step("replay")
_ROWS = 500  # of one script call


async def mark_durable(live: Live, transitions: Sequence[Key], now: float) -> None:
    """Say that these are durable: the workers that retain them may forget them."""
    pipe = live.cache.pipeline(transaction=False)
    for database, identity in transitions:
        key = partition_key(partition(database), "durable")
        pipe.zadd(key, {f"{database} {identity}": now})
    with wrap_store_errors():
        await pipe.execute()


async def durable(live: Live, transitions: Sequence[Key]) -> set[Key]:
    """Return which of these are known to be durable."""
    pipe = live.cache.pipeline(transaction=False)
    for database, identity in transitions:
        key = partition_key(partition(database), "durable")
        pipe.zscore(key, f"{database} {identity}")
    with wrap_store_errors():
        scores = await pipe.execute()
    found = zip(transitions, scores, strict=True)
    return {key for key, score in found if score is not None}


async def replay(live: Live, generation: str, transitions: Sequence[Transition]) -> bool:
    """Give accepted transitions to the journal again.

    False unless this generation is open in every partition concerned; some may be in it then.
    """
    by_partition: dict[int, list[str]] = {}
    for one in transitions:
        by_partition.setdefault(partition(one.database), []).append(events.encode(one))
    calls: list[steps.Call] = []
    for number, texts in by_partition.items():
        keys = partition_keys(number, "generation", "counters", "journal")
        for part in chunks(texts, _ROWS):
            calls.append((keys, (generation, *part)))
    return all(await steps.run(live.cache, _REPLAY, calls))


async def count_conflicts(live: Live, conflicts: int) -> None:
    """Count transitions that Postgres holds under the same identity with other content."""
    with wrap_store_errors():
        await live.cache.hincrby(partition_key(0, "counters"), "identity_conflicts", conflicts)
