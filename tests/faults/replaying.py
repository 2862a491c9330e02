"""Late calls: records sent before the faults are sent again after them, and must change nothing but
a counter.

Those of an epoch that is over claim to be the newest of all, so that no batch number hides what the
fence lets through.

The lab taps its first worker's way to Redis for them; only lab.py imports this.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from monitor.core.beat import Reply
from monitor.live import steps
from tests.proxy import Proxy

CAPTURED = 200  # requests: those of the first minutes
# of a call: keys before the hashes, words before the rows, counted lists in a row
SHARED, HEAD, LISTS = 3, 4, 3
FIXED = 4  # words of a row before its lists, the epoch first
LATEST = str(1 << 52).encode()  # a batch number above all others
COUNTED = {str(verdict): f"rejected_{verdict}" for verdict in Reply} | {
    str(Reply.ACCEPTED): "duplicates"
}
# what is told under an epoch or a generation that is over
OVER = frozenset({Reply.FENCED, Reply.CLOSED})
STILL = OVER | {Reply.ACCEPTED, Reply.AHEAD}  # under one that lasts: that nothing is new
_RECORD = steps.step("record")
CALLED = _RECORD.sha.encode()  # stands in each call of the record step


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a call of the record step, as it was sent."""

    shared: tuple[bytes, ...]
    hash: bytes
    head: tuple[bytes, ...]
    row: tuple[bytes, ...]

    @property
    def changes_state(self) -> bool:
        return b"transition" in self.row

    def words(self, *, batch: bytes = b"") -> tuple[bytes, ...]:
        """Return the command for this row alone; under another batch number where one is given."""
        generation, worker, number, process = self.head
        keys = (*self.shared, self.hash)
        head = (generation, worker, batch or number, process)
        return (b"EVALSHA", CALLED, str(len(keys)).encode(), *keys, *head, *self.row)


def tap(port: int) -> Proxy:
    """Lead somebody to Redis and keep the records he sends first."""
    proxy = Proxy(port).start()
    proxy.capture(CALLED, CAPTURED)
    return proxy


def records(requests: Iterable[bytes]) -> list[Record]:
    """Return what is worth sending again: each epoch's first record, and first change."""
    found: dict[tuple[bytes, bytes, bool], Record] = {}
    for request in requests:
        for words in _commands(request):
            if words[:2] == (b"EVALSHA", CALLED):
                for one in _rows(words):
                    found.setdefault((one.hash, one.row[0], one.changes_state), one)
    return list(found.values())


def _rows(words: tuple[bytes, ...]) -> Iterator[Record]:
    """Take a call apart into its rows."""
    keys = words[3 : 3 + int(words[2])]
    rest = words[3 + len(keys) :]
    at = HEAD
    for key in keys[SHARED:]:
        began = at
        at += FIXED
        for _ in range(LISTS):
            at += 1 + int(rest[at])
        yield Record(keys[:SHARED], key, rest[:HEAD], rest[began:at])


def _commands(request: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield the whole commands of a piece of wire; pieces of commands at its ends are left out."""
    while request.startswith(b"*"):
        head, ended, request = request.partition(b"\r\n")
        if not ended:
            return
        words = []
        for _ in range(int(head[1:])):
            size, ended, rest = request.partition(b"\r\n")
            if not ended or len(rest) < int(size[1:]) + 2:
                return
            words.append(rest[: int(size[1:])])
            request = rest[int(size[1:]) + 2 :]
        yield tuple(words)


def send_again(url: str, late: Sequence[Record]) -> tuple[int, list[str]]:
    """Send records again on a connection of our own; return how many were of an epoch that is over,
    and what is wrong.

    Those claim to be the newest batch: nothing but the fence is in their way.
    """
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        client.script_load(_RECORD.text)
        over = [record for record in late if _is_over(client, record)]
        still = [record for record in late if record not in over]
        wrong = list[str]()
        for group, batch, expected in ((over, LATEST, OVER), (still, b"", STILL)):
            for one in group:
                texts = _send_again(client, one, batch, expected)
                wrong += [f"{one.hash!r}: {text}" for text in texts]
    return len(over), wrong


def _is_over(client: "redis.Redis[bytes]", record: Record) -> bool:
    """Tell whether another epoch or another generation came; neither ever comes back."""
    place = (client.hget(record.hash, "owner"), client.hget(record.hash, "epoch"))
    generation, worker, *_ = record.head
    return place != (worker, record.row[0]) or client.get(record.shared[0]) != generation


def _send_again(
    client: "redis.Redis[bytes]", record: Record, batch: bytes, expected: frozenset[Reply]
) -> Iterator[str]:
    with client.pipeline(transaction=True) as pipe:
        _look(pipe, record)
        pipe.execute_command(*record.words(batch=batch))
        _look(pipe, record)
        replies: list[Any] = pipe.execute()
    size = len(replies) // 2
    before, (word,), after = replies[:size], replies[size], replies[size + 1 :]
    verdict = Reply(word.decode())
    if verdict not in expected:
        yield f"was told {verdict}, not {', '.join(sorted(expected))}"
    if (risen := _risen(before[0], after[0])) != Counter([COUNTED[verdict]]):
        yield f"was told {verdict}, and counters rose by {dict(risen)}"
    if before[1:] != after[1:]:
        yield f"was told {verdict} and changed {before[1:]} to {after[1:]}"


def _look(pipe: Any, record: Record) -> None:
    _, counters, journal = record.shared
    pipe.hgetall(counters)
    pipe.xlen(journal)
    pipe.hgetall(record.hash)


def _risen(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> Counter[str]:
    changes = {
        key.decode(): int(after.get(key, 0)) - int(before.get(key, 0)) for key in before | after
    }
    return Counter({what: by for what, by in changes.items() if by})
