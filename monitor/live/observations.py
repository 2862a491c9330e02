"""The last observation and the Status of every database. `record` is the only way in.

Doors and workers import this.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from zlib import crc32

from monitor.core import access
from monitor.core import event as events
from monitor.core import status as statuses
from monitor.core.access import UNKNOWN, Access
from monitor.core.beat import Beat, Reply
from monitor.core.cause import Cause
from monitor.core.chunks import chunks
from monitor.core.event import Event, Transition
from monitor.core.foreign import moment
from monitor.core.observation import Reading
from monitor.core.policy import Policy
from monitor.core.status import STATUS_FIELDS, Epoch, Status
from monitor.live import fields, quarantine, steps, targets
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import (
    PARTITIONS,
    all_keys,
    by_partition,
    database_key,
    partition_keys,
    target_key,
)
from monitor.live.presence import PROCESS
from monitor.live.quarantine import Rows

_Text = str | None
_Stored = tuple[Mapping[str, str], _Text, _Text, _Text]  # a hash; policy, labels, ciphertext

ROW_BYTES = 2_000  # of a beat with all gauges and no events, at most

_RECORD = steps.step("record")
_KEYS: list[list[str]] = []
for _number in range(PARTITIONS):
    _KEYS.append(partition_keys(_number, "generation", "counters", "journal"))
_HELD = ("owner", "epoch", *STATUS_FIELDS, *access.ACCESS_FIELDS)
_batches = itertools.count(1)  # of this process: one that arrives after a later one is late


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """What Redis holds of one database."""

    database: str
    status: Status
    seeded: bool = True  # False: nobody has said yet what its Status is
    owner: str = ""
    epoch: Epoch | None = None
    worker: str = ""  # who made the observation
    sent_at: float | None = None
    at: float | None = None
    cause: Cause | None = None
    number: int = 0  # beats accepted under this epoch
    fresh_login: bool = False
    login_interval: float | None = None  # seconds between logins proved as a matter of routine
    waited_ms: int = 0
    access: Access = UNKNOWN
    dns_stale: bool = False
    readings: tuple[Reading, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    ciphertext: str = field(default="", repr=False)  # of the address
    revision: int = 0  # of the target that the observation is about


async def record(live: Live, generation: str, worker: str, beats: Sequence[Beat]) -> list[Reply]:
    """Write beats and journal their events, each row in one fenced step; return a reply per beat.

    Beats of a partition share a script call; each has a database of its own. After StoreUnavailable
    any part may have been written: record again.
    """
    databases = {beat.database for beat in beats}
    if len(databases) != len(beats):
        raise ValueError("a database may stand in a batch once only")
    batches = by_partition(beats, attrgetter("database"))
    head = (generation, worker, next(_batches), PROCESS)
    calls: list[steps.Call] = []
    for number, its in batches.items():
        calls.append(_call(number, head, its))
    answers = await steps.run(live.cache, _RECORD, calls)
    replies: dict[str, Reply] = {}
    for its, texts in zip(batches.values(), answers, strict=True):
        for beat, text in zip(its, texts, strict=True):
            replies[beat.database] = Reply(text)
    return [replies[beat.database] for beat in beats]


def _call(number: int, head: steps.Args, beats: Sequence[Beat]) -> steps.Call:
    keys = list(_KEYS[number])
    args = list(head)
    for beat in beats:
        keys.append(database_key(beat.database))
        _add_row(args, beat)
    return keys, args


def weight(beat: Beat) -> int:
    """Return about how many bytes a beat takes on the wire."""
    total = ROW_BYTES
    for event in beat.events:
        total += len(events.encode(event))
    return total


def _add_row(args: list[str | int], beat: Beat) -> None:
    """Add what a beat says, in the order record.lua tells.

    Cost: the largest part of what a beat costs a worker; each step of it runs once per field.
    """
    epoch = str(beat.epoch)
    status = fields.status_fields(beat.status)
    row = fields.observation_fields(beat.observation)
    row |= status
    pairs: list[str | int] = ["number", 0, "batch", 0]  # the script puts its own values in
    process = f"{epoch} {PROCESS}"
    pairs += ("proven", 1, "process", process)
    gone: list[str] = []
    for name, value in row.items():
        if value:
            pairs += (name, value)
        else:
            gone.append(name)
    journal: list[str] = []
    for event in beat.events:
        journal += _event_args(event)
    checksum = crc32(" ".join(gone).encode())
    args += (epoch, status["identity"], status["state"], checksum)
    for part in (pairs, gone, journal):
        args.append(len(part))
        args += part


def _event_args(event: Event) -> tuple[str, str, str, str]:
    text = events.encode(event)
    if isinstance(event, Transition):
        identity = str(event.identity)
        prev = str(event.prev or "")
        return "transition", identity, prev, text
    doubt = str(event.doubt)
    at = f"{event.at:.3f}"
    return "cannot_reach", doubt, at, text


async def latest(live: Live, names: Sequence[str]) -> Rows[Latest]:
    """Return what is known of these databases; unknown and unreadable ones are left out."""
    pipe = live.cache.pipeline(transaction=False)
    for name in names:
        pipe.hgetall(database_key(name))
        pipe.hmget(target_key(name), "policy", "labels", "ciphertext")
    with wrap_store_errors():
        replies = await pipe.execute()
    known = []
    for name, (stored, target) in zip(names, chunks(replies, 2), strict=True):
        if stored:
            row = (stored, *target)
            known.append((name, row))
    return await quarantine.decode(live, "database", known, _latest)


async def held(live: Live, names: Sequence[str]) -> Rows[Latest]:
    """Return what an owner learns from the hash: owner, epoch, Status; the rest its beats renew."""
    pipe = live.cache.pipeline(transaction=False)
    for name in names:
        pipe.hmget(database_key(name), *_HELD)
    with wrap_store_errors():
        replies = await pipe.execute()
    known = []
    for name, row in zip(names, replies, strict=True):
        texts = zip(_HELD, row, strict=True)
        stored = {field: text for field, text in texts if text}
        if stored:
            known.append((name, stored))
    return await quarantine.decode(live, "status", known, _held)


def _held(name: str, stored: Mapping[str, str]) -> Latest:
    epoch = stored.get("epoch")
    return Latest(
        database=name,
        status=statuses.decode(stored),
        seeded="state" in stored,
        owner=stored.get("owner", ""),
        epoch=None if epoch is None else Epoch.parse(epoch),
        access=access.decode(stored),
    )


def _latest(name: str, row: _Stored) -> Latest:
    stored, policy, labels, ciphertext = row
    cause = stored.get("cause")
    return replace(
        _held(name, stored),
        worker=stored.get("seen_by", ""),
        sent_at=_seconds(stored, "sent_at"),
        at=_seconds(stored, "observed_at"),
        cause=None if cause is None else Cause(cause),
        number=int(stored.get("number", 0)),
        fresh_login=stored.get("fresh_login") == "1",
        login_interval=_seconds(stored, "login_interval"),
        waited_ms=int(stored.get("waited_ms", 0)),
        dns_stale="dns_stale" in stored,
        readings=fields.readings(stored),
        labels=targets.decode_labels(labels) if labels else {},
        policy=targets.decode_policy(policy) if policy else Policy(),
        ciphertext=ciphertext or "",
        revision=int(stored.get("revision", 0)),
    )


def _seconds(stored: Mapping[str, str], name: str) -> float | None:
    text = stored.get(name)
    return None if text is None else moment(text)


async def names(live: Live) -> list[str]:
    """Return every database Redis knows of, sorted."""
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("names"):
        pipe.smembers(key)
    with wrap_store_errors():
        parts: list[set[str]] = await pipe.execute()
    return sorted(set().union(*parts))


async def counters(live: Live) -> dict[str, int]:
    """Return what the steps counted, summed over partitions; keys.py names them."""
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("counters"):
        pipe.hgetall(key)
    with wrap_store_errors():
        parts = await pipe.execute()
    total: Counter[str] = Counter()
    for part in parts:
        for name, value in part.items():
            if value.isdecimal():
                total[name] += int(value)
    return dict(total)
