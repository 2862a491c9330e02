"""The last observation and the Status of every database. `record` is the only way in.

Doors and workers import this.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from monitor.core import access
from monitor.core import event as events
from monitor.core import status as statuses
from monitor.core.access import UNKNOWN, Access
from monitor.core.beat import Beat, Reply
from monitor.core.cause import Cause
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
    database_key,
    partition,
    partition_keys,
    target_key,
)
from monitor.live.presence import PROCESS
from monitor.live.quarantine import Rows

# Of a hash, and of its target: policy, labels, ciphertext.
_Stored = tuple[Mapping[str, str], str | None, str | None, str | None]

ROW_BYTES = 2_000  # of a beat with all gauges and no events, at most

_RECORD = steps.step("record")
_KEYS = [
    partition_keys(number, "generation", "counters", "journal") for number in range(PARTITIONS)
]
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
    if len({beat.database for beat in beats}) != len(beats):
        raise ValueError("a database may stand in a batch once only")
    by_partition: dict[int, list[Beat]] = {}
    for beat in beats:
        by_partition.setdefault(partition(beat.database), []).append(beat)
    head = (generation, worker, next(_batches), PROCESS)
    calls = [_call(number, head, its) for number, its in by_partition.items()]
    replies: dict[str, Reply] = {}
    answers = await steps.run(live.cache, _RECORD, calls)
    for its, texts in zip(by_partition.values(), answers, strict=True):
        for beat, text in zip(its, texts, strict=True):
            replies[beat.database] = Reply(text)
    return [replies[beat.database] for beat in beats]


def _call(number: int, head: steps.Args, beats: Sequence[Beat]) -> steps.Call:
    keys, args = [*_KEYS[number]], list[str | int](head)
    for beat in beats:
        keys.append(database_key(beat.database))
        _add_row(args, beat)
    return keys, args


def weight(beat: Beat) -> int:
    """Return about how many bytes a beat takes on the wire."""
    return ROW_BYTES + sum(len(events.encode(event)) for event in beat.events)


def _add_row(args: list[str | int], beat: Beat) -> None:
    """Add what a beat says, in the order record.lua tells.

    Cost: the largest part of what a beat costs a worker; each step of it runs once per field.
    """
    epoch = str(beat.epoch)
    status = fields.status_fields(beat.status)
    pairs: list[str | int] = ["number", 0, "batch", 0]  # the script puts its own values in
    pairs += ("proven", 1, "process", f"{epoch} {PROCESS}")
    gone: list[str] = []
    for name, value in (fields.observation_fields(beat.observation) | status).items():
        if value:
            pairs += (name, value)
        else:
            gone.append(name)
    journal: list[str] = []
    for event in beat.events:
        journal += _event_args(event)
    checksum = crc32(" ".join(gone).encode())
    args += (epoch, status["identity"], status["state"], checksum)
    args += (len(pairs), *pairs, len(gone), *gone, len(journal), *journal)


def _event_args(event: Event) -> tuple[str, str, str, str]:
    text = events.encode(event)
    if isinstance(event, Transition):
        return "transition", str(event.identity), str(event.prev or ""), text
    return "cannot_reach", str(event.doubt), f"{event.at:.3f}", text


async def latest(live: Live, names: Sequence[str]) -> Rows[Latest]:
    """Return what is known of these databases; unknown and unreadable ones are left out."""
    pipe = live.cache.pipeline(transaction=False)
    for name in names:
        pipe.hgetall(database_key(name))
        pipe.hmget(target_key(name), "policy", "labels", "ciphertext")
    with wrap_store_errors():
        replies = await pipe.execute()
    known = []
    for name, stored, target in zip(names, replies[::2], replies[1::2], strict=True):
        if stored:
            known.append((name, (stored, *target)))
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
        stored = {field: text for field, text in zip(_HELD, row, strict=True) if text}
        if stored:
            known.append((name, stored))
    return await quarantine.decode(live, "status", known, _held)


def _held(name: str, stored: Mapping[str, str]) -> Latest:
    return Latest(
        database=name,
        status=statuses.decode(stored),
        seeded="state" in stored,
        owner=stored.get("owner", ""),
        epoch=Epoch.parse(stored["epoch"]) if "epoch" in stored else None,
        access=access.decode(stored),
    )


def _latest(name: str, row: _Stored) -> Latest:
    stored, policy, labels, ciphertext = row

    def at(key: str) -> float | None:
        return moment(stored[key]) if key in stored else None

    return replace(
        _held(name, stored),
        worker=stored.get("seen_by", ""),
        sent_at=at("sent_at"),
        at=at("observed_at"),
        cause=Cause(stored["cause"]) if "cause" in stored else None,
        number=int(stored.get("number", 0)),
        fresh_login=stored.get("fresh_login") == "1",
        login_interval=at("login_interval"),
        waited_ms=int(stored.get("waited_ms", 0)),
        dns_stale="dns_stale" in stored,
        readings=fields.readings(stored),
        labels=targets.decode_labels(labels) if labels else {},
        policy=targets.decode_policy(policy) if policy else Policy(),
        ciphertext=ciphertext or "",
        revision=int(stored.get("revision", 0)),
    )


async def names(live: Live) -> list[str]:
    """Return every database Redis knows of, sorted."""
    pipe = live.cache.pipeline(transaction=False)
    for key in all_keys("names"):
        pipe.smembers(key)
    with wrap_store_errors():
        return sorted(set().union(*await pipe.execute()))


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
