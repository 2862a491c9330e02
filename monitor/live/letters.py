"""Dead letters: entries of the journal that a consumer could not read, kept for a version that can.

Only live/ and the CLI import this: the journal buries them, `feeler journal` lists and revives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitor.core import event as events
from monitor.core.errors import InvalidInput
from monitor.live import steps
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import all_keys, partition_key, partition_keys

LIMIT = 5_000  # dead letters a partition keeps

_Row = tuple[str, dict[str, str]]  # an id in a stream, and the fields of the entry

_REPLAY = steps.step("replay")


@dataclass(frozen=True, slots=True)
class Letter:
    """An entry of the journal that some group could not read."""

    partition: int
    entry: str  # its id in the journal
    event: str  # its text
    ids: tuple[str, ...]  # of the dead letters it became
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
        ids = self.ids + other.ids
        groups = self.groups + other.groups
        return replace(self, ids=ids, groups=groups)


async def bury(live: Live, group: str, number: int, rows: Sequence[_Row]) -> None:
    """Keep entries of a newer version, or damaged ones; acknowledge them in one step with that.

    Race: a process that dies in between would leave them in neither, or in both.
    """
    dead, journal, counters = partition_keys(number, "dead", "journal", "counters")
    pipe = live.cache.pipeline(transaction=True)
    for id_, row in rows:
        event = row.get("event", "")
        letter: Any = {"group": group, "entry": id_, "event": event}
        pipe.xadd(dead, letter, maxlen=LIMIT, approximate=False)
        pipe.xack(journal, group, id_)
    pipe.hincrby(counters, "dead_letters", len(rows))
    with wrap_store_errors():
        await pipe.execute()


async def dead_letters(live: Live) -> list[Letter]:
    """Return the dead letters, oldest first; an entry that several groups could not read once."""
    found: list[Letter] = []
    for number, key in enumerate(all_keys("dead")):
        with wrap_store_errors():
            rows: Any = await live.cache.xrange(key)
        found += _of_entries(number, rows)
    return sorted(found, key=_written_at)


def _of_entries(number: int, rows: Sequence[_Row]) -> Iterable[Letter]:
    """Make one letter for each entry of a partition's journal, however often it was buried."""
    found: dict[str, Letter] = {}
    for id_, row in rows:
        entry = row["entry"]
        letter = Letter(
            partition=number,
            entry=entry,
            event=row["event"],
            ids=(id_,),
            groups=(row["group"],),
        )
        known = found.get(entry)
        found[entry] = known.merged(letter) if known else letter
    return found.values()


def _written_at(letter: Letter) -> int:
    milliseconds, _, _ = letter.entry.partition("-")
    return int(milliseconds)


async def revive(live: Live, generation: str, letters: Sequence[Letter]) -> bool:
    """Put these dead letters into the journal again, for all groups.

    False unless this generation is open. Consumers know an event by its identity: what a group has
    had before, and what is revived twice, changes nothing.
    """
    for letter in letters:
        keys = partition_keys(letter.partition, "generation", "counters", "journal")
        call = (keys, (generation, letter.event))
        [done] = await steps.run(live.cache, _REPLAY, [call])
        if not done:
            return False
        dead = partition_key(letter.partition, "dead")
        with wrap_store_errors():
            await live.cache.xdel(dead, *letter.ids)
    return True
