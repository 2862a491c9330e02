"""Dead letters: entries of the journal that a consumer could not read, kept for a version that can.

The journal buries them, `feeler journal` lists and revives them. Only live/ and the CLI import
this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitor.core import event as events
from monitor.core.errors import InvalidInput
from monitor.live import steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import PARTITIONS, partition_key

LIMIT = 10_000  # dead letters a partition keeps

_REPLAY = steps.step("replay")


@dataclass(frozen=True, slots=True)
class Letter:
    """An entry of the journal that some group could not read: its text, and the dead letters it
    became.
    """

    partition: int
    entry: str
    event: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def readable(self) -> bool:
        """Tell whether this version can read it."""
        try:
            events.decode(self.event)
        except InvalidInput:
            return False
        return True

    def merged(self, other: "Letter") -> "Letter":
        """Return one letter for both."""
        return replace(self, ids=self.ids + other.ids, groups=self.groups + other.groups)


async def bury(
    live: Live, group: str, number: int, rows: Sequence[tuple[str, dict[str, str]]]
) -> None:
    """Keep entries of a newer version, or damaged ones, for a process that can read them; then
    acknowledge them.
    """
    pipe = live.cache.pipeline(transaction=True)
    for id_, row in rows:
        letter: Any = {"group": group, "entry": id_, "event": row.get("event", "")}
        pipe.xadd(partition_key(number, "dead"), letter, maxlen=LIMIT, approximate=False)
        pipe.xack(partition_key(number, "journal"), group, id_)
    pipe.hincrby(partition_key(number, "counters"), "dead_letters", len(rows))
    with wrap_store_errors():
        await pipe.execute()


async def dead_letters(live: Live) -> list[Letter]:
    """Return the dead letters, oldest first; each entry of the journal once, whoever could not read
    it.
    """
    found: dict[tuple[int, str], Letter] = {}
    for number in range(PARTITIONS):
        with wrap_store_errors():
            rows: Any = await live.cache.xrange(partition_key(number, "dead"))
        for id_, row in rows:
            known = found.get((number, row["entry"]))
            letter = Letter(number, row["entry"], row["event"], (id_,), (row["group"],))
            found[number, letter.entry] = known.merged(letter) if known else letter
    return sorted(found.values(), key=lambda letter: int(letter.entry.partition("-")[0]))


async def revive(live: Live, generation: str, letters: Sequence[Letter]) -> bool:
    """Put these dead letters into the journal again, for all groups; False unless this generation
    is open.

    Consumers know an event by its identity: what a group has had before, and what is revived twice,
    changes nothing.
    """
    for letter in letters:
        keys = [
            partition_key(letter.partition, kind) for kind in ("generation", "counters", "journal")
        ]
        if not all(await steps.run(live.cache, _REPLAY, [(keys, (generation, letter.event))])):
            return False
        with wrap_store_errors():
            await live.cache.xdel(partition_key(letter.partition, "dead"), *letter.ids)
    return True
