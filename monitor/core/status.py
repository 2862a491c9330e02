"""What feeler believes of one database, and the flat fields it is kept as. Anyone may import this.

Times are fleet seconds, rounded to the millisecond wherever they are made. Encoded values stay
within 64 bytes each: one longer value turns Redis's listpack into a 3.5 times larger hashtable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from zlib import crc32

from monitor.core.cause import Cause
from monitor.core.errors import InvalidInput
from monitor.core.foreign import moment

MAX_WITNESSES = 4
MAX_ROUNDS = 9_999  # more say nothing new, and an encoded witness must stay within 64 bytes
MAX_UNREACHABLE_FROM = 2
MAX_TRIED = 7


class State(StrEnum):
    """The closed list of states; all else is an overlay beside the state."""

    NEW = "new"
    AVAILABLE = "available"
    UNCERTAIN = "uncertain"
    UNAVAILABLE = "unavailable"
    STARTING = "starting"
    REFUSING = "refusing"
    LOCKED_OUT = "locked_out"


class Epoch(NamedTuple):
    """A fencing token, one per assignment: the leader's term, its counter. Compares as a pair."""

    term: int
    counter: int

    def __str__(self) -> str:
        return f"{self.term}.{self.counter}"

    @classmethod
    def parse(cls, text: str) -> "Epoch":
        try:
            term, counter = text.split(".")
            return cls(int(term), int(counter))
        except ValueError:
            raise InvalidInput("epoch", f"{text[:40]!r} is not TERM.COUNTER") from None


class Identity(NamedTuple):
    """Which transition: its epoch and its number there, from 1. Compares as a triple."""

    epoch: Epoch
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.n}"

    @classmethod
    def parse(cls, text: str) -> "Identity":
        epoch, _, n = text.rpartition(".")
        try:
            return cls(Epoch.parse(epoch), int(n))
        except (ValueError, InvalidInput):
            raise InvalidInput("identity", f"{text[:40]!r} is not TERM.COUNTER.N") from None


Key = tuple[str, Identity]  # a database and its transition: names that one for ever


@dataclass(frozen=True, slots=True)
class Witness:
    """What one worker found in a doubt: how many feels it completed in it, and the newest."""

    worker: str
    rounds: int
    sent_at: float  # when its newest probe was sent
    at: float  # when its newest probe ended
    cause: Cause


@dataclass(frozen=True, slots=True)
class Doubt:
    """An open question: named by the transition that raised it, carried through moves."""

    identity: Identity
    sent_at: float  # send time of the first failed probe
    asked_at: float  # when cannot_reach was last said
    witnesses: tuple[Witness, ...]
    # The newest findings that are absents in a row: send time of the first, how many, by anybody.
    absent_since: float | None = None
    absent_rounds: int = 0
    revision: int = 0  # of the address that the witnesses speak of; 0: not known
    tried: tuple[str, ...] = ()  # `mark`s of the addresses found wanting, as they came up


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one database and what the next tick needs to know of the past."""

    state: State = State.NEW
    since: float = 0.0  # the observation time of the last transition
    identity: Identity | None = None  # the last transition; None before the first
    rule: str = ""
    doubt: Doubt | None = None  # only while uncertain
    ok_since: float | None = None  # first ok of a recovery under way
    ok_rounds: int = 0
    alive: Cause | None = None  # one `alive` seen, a second one decides
    unreachable_from: tuple[str, ...] = ()  # workers that could not reach it while its owner can
    unreachable_at: float = 0.0
    errors: int = 0  # server_errors since the server last said anything else


_WITNESS_FIELDS = tuple(f"witness_{i}" for i in range(1, MAX_WITNESSES + 1))
STATUS_FIELDS = (
    "state",
    "since",
    "identity",
    "rule",
    "doubt",
    "ok_since",
    "ok_rounds",
    "alive",
    "errors",
    "unreachable_from",
    "unreachable_at",
    "tried",
    "absent",
    "doubt_revision",
    *_WITNESS_FIELDS,
)


def encode(status: Status) -> dict[str, str]:
    """Return every status field as text of at most 64 bytes; an empty text says there is none."""
    fields = dict.fromkeys(STATUS_FIELDS, "")
    fields["state"] = status.state.value
    fields["since"] = f"{status.since:.3f}"
    fields["identity"] = str(status.identity or "")
    fields["rule"] = status.rule
    fields["ok_rounds"] = str(status.ok_rounds)
    fields["errors"] = str(status.errors)
    fields["unreachable_from"] = " ".join(status.unreachable_from)
    fields["unreachable_at"] = f"{status.unreachable_at:.3f}"
    if status.ok_since is not None:
        fields["ok_since"] = f"{status.ok_since:.3f}"
    if status.alive:
        fields["alive"] = status.alive.value
    if status.doubt:
        _encode_doubt(status.doubt, fields)
    return fields


def _encode_doubt(doubt: Doubt, fields: dict[str, str]) -> None:
    fields["doubt"] = f"{doubt.identity} {doubt.sent_at:.3f} {doubt.asked_at:.3f}"
    fields["tried"] = " ".join(doubt.tried)
    if doubt.absent_since is not None:
        fields["absent"] = f"{doubt.absent_since:.3f} {doubt.absent_rounds}"
    if doubt.revision:
        fields["doubt_revision"] = str(doubt.revision)
    for name, witness in zip(_WITNESS_FIELDS, doubt.witnesses, strict=False):
        fields[name] = _encode_witness(witness, doubt.sent_at)


def _encode_witness(witness: Witness, origin: float) -> str:
    sent = round((witness.sent_at - origin) * 1000)  # ms since the doubt began, in few digits
    at = round((witness.at - origin) * 1000)
    return f"{witness.worker} {witness.rounds} {sent} {at - sent} {witness.cause}"


def decode(fields: Mapping[str, str]) -> Status:
    """Read what `encode` wrote; a missing field means its default."""
    identity = fields.get("identity")
    ok_since = fields.get("ok_since")
    alive = fields.get("alive")
    return Status(
        state=State(fields.get("state") or State.NEW),
        since=moment(fields.get("since") or 0),
        identity=Identity.parse(identity) if identity else None,
        rule=fields.get("rule", ""),
        doubt=_decode_doubt(fields) if fields.get("doubt") else None,
        ok_since=moment(ok_since) if ok_since else None,
        ok_rounds=int(fields.get("ok_rounds") or 0),
        alive=Cause(alive) if alive else None,
        errors=int(fields.get("errors") or 0),
        unreachable_from=tuple(fields.get("unreachable_from", "").split()),
        unreachable_at=moment(fields.get("unreachable_at") or 0),
    )


def _decode_doubt(fields: Mapping[str, str]) -> Doubt:
    identity, sent_at, asked_at = fields["doubt"].split()
    origin = moment(sent_at)
    witnesses = []
    for name in _WITNESS_FIELDS:
        if text := fields.get(name):
            witnesses.append(_decode_witness(text, origin))
    absent_since, absent_rounds = (fields.get("absent") or " 0").split(" ")
    return Doubt(
        Identity.parse(identity),
        origin,
        moment(asked_at),
        tuple(witnesses),
        moment(absent_since) if absent_since else None,
        int(absent_rounds),
        int(fields.get("doubt_revision") or 0),
        tuple(fields.get("tried", "").split()),
    )


def _decode_witness(text: str, origin: float) -> Witness:
    worker, rounds, sent, took, cause = text.split()
    sent_at = _after(origin, int(sent))
    at = _after(origin, int(sent) + int(took))
    return Witness(worker, int(rounds), sent_at, at, Cause(cause))


def _after(origin: float, milliseconds: int) -> float:
    return round(origin + milliseconds / 1000, 3)


def mark(address: str) -> str:
    """Return what an address is known by in a doubt: seven of them must fit into one field."""
    return f"{crc32(address.encode()):08x}"
