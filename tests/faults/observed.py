"""What a run leaves behind: the faults that were injected and everything that was seen. Values
only.

The lab fills it, `history` judges it. Moments are unix seconds of the one machine all parties run
on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from monitor.core.event import Transition
from monitor.registry.rows import TransitionRow


class Effect(StrEnum):
    """What a fault really does, whoever injects it."""

    ABSENT = "absent"  # targets: the host answers, the service does not
    SILENT = "silent"  # targets: nothing answers
    SPEAKS = "speaks"  # targets: the server refuses, starts or locks us out: it is not down
    HIDDEN = "hidden"  # targets: some workers (`parties`) cannot reach them, the others can
    # targets: down where they are about to leave, or have just come to: it may be seen, need not
    EITHER = "either"
    UNWATCHED = "unwatched"  # targets: nobody is to watch them
    HARMLESS = "harmless"  # targets: sessions ended, replies slow: nothing that may change a state
    KILLED = "killed"  # processes: dead from `began` on
    FROZEN = "frozen"  # processes: stopped from `began` to `ended`
    # Redis: memory lost at some moment between `began` and `ended`, all of it or the newest part
    FORGOT = "forgot"
    # Postgres: what became durable between `began` and `ended` is gone, an older copy is back
    RESTORED = "restored"
    CLOCK = "clock"  # Redis: its clock was set, and everybody's with it
    AWAY = "away"  # stores: some or all processes cannot reach one; everything may take longer


@dataclass(frozen=True, slots=True)
class Fault:
    """One injected fault; `ended` is None for what lasts to the end of the run."""

    name: str
    effect: Effect
    began: float
    ended: float | None = None
    databases: frozenset[str] = frozenset()
    parties: frozenset[str] = frozenset()  # worker and supervisor ids, "redis", "postgres"
    port: int = 0  # of the server that is hurt, whose databases may come and go


@dataclass(frozen=True, slots=True)
class Change:
    """The registry was told where a database lives from now on: at a port, or nowhere."""

    database: str
    began: float
    ended: float
    port: int | None


@dataclass(frozen=True, slots=True)
class Sight:
    """One database's hash as seen at one moment; `fields` is empty while there is no hash."""

    at: float
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stall:
    """How long a worker's loop stood still, and how much of it for want of a processor."""

    at: float
    worker: str
    seconds: float
    starved: float


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections one worker held to the port of a target at one moment."""

    at: float
    worker: str
    port: int
    count: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A transition a worker logged once Redis had accepted it."""

    at: float
    worker: str
    database: str
    identity: str


@dataclass(frozen=True, slots=True)
class Journaled:
    """A transition as it came by in the journal; `replayed` ones may have come before."""

    at: float
    transition: Transition
    replayed: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """Redis's counters at one moment, summed over partitions."""

    at: float
    counters: Mapping[str, int]


@dataclass(slots=True)
class History:
    """Everything the checker reads. Lists are in order of time."""

    began: float
    ended: float
    faults: list[Fault] = field(default_factory=list)
    changes: list[Change] = field(
        default_factory=list
    )  # of databases that move, or come and go; the first is the start
    rows: dict[str, list[TransitionRow]] = field(
        default_factory=dict
    )  # durable, by identity, superseded ones too
    conflicts: int = 0  # rows of transition_conflicts
    journal: list[Journaled] = field(
        default_factory=list
    )  # as seen live, in order of the stream of each database
    generations: list[tuple[float, str]] = field(
        default_factory=list
    )  # each name when it was first seen, "" for none
    accepted: list[Accepted] = field(default_factory=list)
    cache: dict[str, Mapping[str, str]] = field(default_factory=dict)  # the hashes at the end
    sights: dict[str, list[Sight]] = field(
        default_factory=dict
    )  # looked at 10 times a second, kept when changed
    counted: list[Counted] = field(default_factory=list)
    connections: list[Connections] = field(default_factory=list)  # counts above zero
    stalls: list[Stall] = field(default_factory=list)
    terms: list[tuple[float, str, int]] = field(
        default_factory=list
    )  # who took the lead when, with which term
    ports: dict[str, int] = field(default_factory=dict)  # database -> the port of its server
    written: dict[str, bytes] = field(default_factory=dict)  # place -> every byte found there
    secrets: tuple[bytes, ...] = ()
