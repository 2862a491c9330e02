"""The repairs of the protocol: each can be left out, to see that the search finds what it is there for."""

from collections.abc import Set
from enum import StrEnum


class Repair(StrEnum):
    """What the protocol must do; the value says it in words."""

    ASSIGN_FENCED = "assign is refused below the stored term and unless its epoch is higher than the stored one"
    TERM_EACH = "every acquisition of the lease takes a new term, one's own after expiry too"
    IDENTITY = "a transition is named by (epoch, n), not by a running version"
    GATED = "nothing is recorded before the generation is open"
    LIFE = "record compares the life of the very master that runs it with the generation's name"
    REPLICATION_ID = "a life is named by the replication id, new at each promotion: a run id can come back"
    FRESH_EPOCHS = "a generation is opened only after every old epoch in it was replaced by a fresh one"
    RENAMED = "the name of a generation changes on FLUSHALL, which keeps the life"
    BEGUN = "open needs the mark that begin left in this very life of Redis"
    ASKED = "begin clears the reports: workers restore anew for each opening"
    WAITED = "who has not restored is passed over only after the time-out, which a leader new to its workers waits out"
    CONFIRMED = "open needs the lease confirmed in Postgres since begin, or the report of every worker known"
    RESTORED = "workers restore what they accepted into an empty or older Redis"
    RELEASED = "workers restore the databases they released, too"
    TERM_RESTORED = "workers restore the highest term they saw"
    MERGED = "restore merges by the highest identity instead of overwriting"
    LATE_MERGED = "a restore that comes after the opening still merges status and term"
    ENTERED = "a worker learns only in an open generation, after it restored and replayed into it"
    SEEDED = "the leader seeds from the last row in Postgres before it opens"
    TENTATIVE = "a Status advances only with accepted events"
    SAME_AGAIN = "the same event again is accepted, by record, and taken for accepted by learn"
    FOUND_REPLAYED = "an event learn finds accepted is retained and replayed, like one whose reply came"
    INSTALLED = "a hash that is absent, or behind what its owner builds on, is brought up by any beat"
    WITH_EVENTS = "it is brought up by a beat with pending events too"
    ONE_STEP = "hash and journal are written in one step, for carried events too"
    RETAINED = "accepted events are retained and replayed into a new generation"
    REPLAYED = "replay goes past the epoch check"
    ACKNOWLEDGED = "events are acknowledged by identity, not up to a number"
    TRIMMED = "the journal is trimmed of acknowledged entries only, not by length"
    PROVEN = "no planned move before the owner's first accepted beat"


Without = Set[Repair]
