"""Late calls: records sent before the faults are sent again after them, and must change nothing but a counter.

The lab taps its first worker's way to Redis for them; only lab.py imports this.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from monitor.live import steps
from monitor.live.observations import Verdict
from tests.proxy import Proxy

CAPTURED = 200  # requests: those of the first minutes
BEFORE_ROWS = 3  # keys: generation, counters, journal; one hash for each row follows
DROPPED = {"accepted": "duplicates"}  # by verdict, what is counted; a refusal counts itself
REFUSED = {str(verdict): f"rejected_{verdict}" for verdict in (Verdict.FENCED, Verdict.CLOSED, Verdict.AHEAD)}
_RECORD = steps.step("record")


@dataclass(frozen=True, slots=True)
class Record:
    """One call of the record step, word by word as it was sent."""

    words: tuple[bytes, ...]

    @property
    def keys(self) -> tuple[bytes, ...]:
        return self.words[3 : 3 + int(self.words[2])]

    @property
    def hashes(self) -> tuple[bytes, ...]:
        return self.keys[BEFORE_ROWS:]

    @property
    def changes_state(self) -> bool:
        return b"transition" in self.words


def tap(port: int) -> Proxy:
    """Lead somebody to Redis and keep the records he sends first."""
    proxy = Proxy(port).start()
    proxy.capture(_RECORD.sha.encode(), CAPTURED)
    return proxy


def records(requests: Iterable[bytes]) -> list[Record]:
    """Return what is worth sending again: of each database its first record, and the first that changes its state."""
    found, known = [], set[tuple[bytes, bool]]()
    for request in requests:
        for words in _commands(request):
            if words[:2] != (b"EVALSHA", _RECORD.sha.encode()):
                continue
            record = Record(words)
            news = {(key, record.changes_state) for key in record.hashes} - known
            if news:
                known |= news
                found.append(record)
    return found


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


def send_again(url: str, late: Sequence[Record]) -> list[str]:
    """Send records again on a connection of our own; return what is wrong with what they did."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        client.script_load(_RECORD.text)
        return [f"{record.hashes}: {text}" for record in late for text in _send_again(client, record)]


def _send_again(client: "redis.Redis[bytes]", record: Record) -> Iterator[str]:
    with client.pipeline(transaction=True) as pipe:
        _look(pipe, record)
        pipe.execute_command(*record.words)
        _look(pipe, record)
        replies: list[Any] = pipe.execute()
    size = len(replies) // 2
    before, verdicts, after = replies[:size], [word.decode() for word in replies[size]], replies[size + 1 :]
    if strange := [word for word in verdicts if word not in DROPPED | REFUSED]:
        yield f"was told {strange}"
    wanted = Counter((DROPPED | REFUSED).get(word, word) for word in verdicts)
    if (risen := _risen(before[0], after[0])) != wanted:
        yield f"counters rose by {dict(risen)}, not by {dict(wanted)}"
    if before[1:] != after[1:]:
        yield f"was told {verdicts} and changed {before[1:]} to {after[1:]}"


def _look(pipe: Any, record: Record) -> None:
    pipe.hgetall(record.keys[1])
    pipe.xlen(record.keys[2])
    for key in record.hashes:
        pipe.hgetall(key)


def _risen(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> Counter[str]:
    changes = {key.decode(): int(after.get(key, 0)) - int(before.get(key, 0)) for key in before | after}
    return Counter({what: by for what, by in changes.items() if by})
