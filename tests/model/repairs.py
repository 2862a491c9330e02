"""The repairs of the protocol: without each, the search must find what it is there for."""

from collections.abc import Set
from enum import StrEnum


class Repair(StrEnum):
    """What the protocol must do; the value says it in words."""

    ASSIGN_FENCED = (
        "assign is refused below the stored term, and unless its epoch is above the stored one"
    )
    TERM_EACH = "every acquisition of the lease takes a new term, one's own after expiry too"
    IDENTITY = "a transition is named by (epoch, n), not by a running version"
    GATED = "nothing is recorded before the generation is open"
    INSTANCE = "record compares the instance of the very master that runs it with the generation's"
    REPLICATION_ID = (
        "the replication id names an instance, new at each promotion: a run id comes back"
    )
    FRESH_EPOCHS = (
        "a generation is opened only once every old epoch in it was replaced by a fresh one"
    )
    RENAMED = "the name of a generation changes on FLUSHALL, which keeps the instance"
    BEGUN = "open needs the mark that begin left in this very instance of Redis"
    ASKED = "a report names the instance it was made in: in another one workers restore anew"
    WAITED = (
        "who has not restored is passed over after the time-out only; a new leader waits it out"
    )
    CONFIRMED = "open needs the lease confirmed since begin, or the report of every worker known"
    RESTORED = "workers restore what they accepted into an empty or older Redis"
    LEARNED = "workers restore what they learned, too: who sent it may not know it was accepted"
    RELEASED = "workers restore the databases they released, too"
    TERM_RESTORED = "workers restore the highest term they saw"
    MERGED = "restore merges by the highest identity instead of overwriting"
    LATE_MERGED = "a restore that comes after the opening still merges status and term"
    ENTERED = "a worker learns only in an open generation, after it restored and replayed into it"
    SEEDED = "the leader seeds from the last row in Postgres before it opens"
    TENTATIVE = "a Status advances only with accepted events"
    SAME_AGAIN = "the same event again is accepted, by record, and taken for accepted by learn"
    FOUND_REPLAYED = (
        "an event learn finds accepted is retained and replayed, as if its reply had come"
    )
    INSTALLED = (
        "a hash that is absent, or behind what its owner builds on, is brought up by any beat"
    )
    WITH_EVENTS = "it is brought up by a beat with pending events too"
    ONE_STEP = "hash and journal are written in one step, for carried events too"
    RETAINED = "accepted events are retained and replayed into a new generation"
    REPLAYED = "replay goes past the epoch check"
    ACKNOWLEDGED = "events are acknowledged by identity, not up to a number"
    TRIMMED = "the journal is trimmed of acknowledged entries only, not by length"
    GROUPED = "nothing is trimmed before the historian's group exists in the journal"
    ACKED_LAST = "an entry is acknowledged to the journal after its identity was to the workers"
    REPEATED = (
        "what a worker retains for an hour is replayed: trimmed by force, or forgotten durable"
    )
    HANDSHAKE = (
        "a report is begun by a request of its own: none that is late both begins and ends one"
    )
    ATTEMPTS = "the parts of a report count only while the attempt they belong to stands in Redis"
    NONE_FLYING = "a worker restores and replays with no beat on its way"
    REPLIED_LATE = "a reply after the release counts: what it accepted is retained, and restored"
    GIVEN_UP = "who gives a database up looks in the hash for what was accepted without a reply"
    KEPT = "a worker that knows a newer accepted transition than the hash goes on from its own"
    UNOWNED = "a restore that comes late counts in a hash without an owner, too"
    MET = "a leader new to its workers waits the time-out out: Redis may know an older set of them"
    MARKED_COMPLETE = (
        "a leader's last word vouches for Redis's contents to the very next leader only"
    )
    NEVER_BACK = "a worker never enters a generation older than the newest it has entered"
    OUTLIVED = "it has such a generation closed: who leads opens another, above all terms seen"
    SIGNED = "a leader acts only where the name of its registry stands beside the term, or none"
    NAME_RESTORED = "workers restore that name with the term"
    BOUND = "the first beat under an epoch binds it to its process: a twin of the same id shows"
    PROVEN = "no planned move before the owner's first accepted beat"


Without = Set[Repair]
