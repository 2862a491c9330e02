"""Every key feeler keeps in Redis. Only live/ and tests import this.

{pNN} is the partition of a database, crc32(name) % 16: each Lua step touches one hash tag, so the
cache can be a Redis Cluster. Writers and readers are processes; D = database, W = worker id, L =
supervisor id.

CACHE_URL key                          type    TTL  writer                       readers
feeler:{pNN}:db:D            hash    -    owner (record), leader       web, worker, leader,
historian
    the talk's `HSET db1 db_size 4213`. owner, epoch, proven (an accepted beat under this epoch),
    number (beats under this epoch), batch (sender's own count, drops late duplicates), process
    (epoch, and the one process of the owner's id that records under it: twins are fenced), state
    and its kin (core/status.py), asked (newest cannot_reach: doubt, time), observed_at sent_at
    seen_by cause revision (of the target that was felt) duration_ms fresh_login login_interval
    (seconds between routine proofs of a login, stretched where they cost too much), login_at
    (checksum of the address that the next three are about), login_usual (seconds a login takes),
    login_refused (cause, refusals in a row, when the next may be tried), login_pooled (that
    checksum once more, where a pooler is between), waited_ms (for a turn to log in at the address;
    absent: none), dns_stale (the last known address was used, the name did not resolve),
    services_available, family:<family> ("status observed_at code"), each gauge under its own name,
    moved_for and moves (cannot_reach moves: the doubt, the last three times), claim_owner
    claim_epoch restored (only while Redis is being restored)
feeler:{pNN}:target:D        hash    -    leader                       worker (address), web
(labels, policy)
    ciphertext, policy and labels (JSON), revision, term (of the leader that wrote it)
feeler:{pNN}:index:W         hash    -    leader, with each assign     worker
    database -> "epoch revision": a hint kept beside the truth, which is the database's own hash
feeler:{pNN}:reason:D        string  10 m worker                       web
    while a database is not ok: cause, sqlstate, detail (the server's words, at most 200
    characters), worker (JSON)
feeler:{pNN}:names           set     -    leader                       web, leader, historian
feeler:{pNN}:generation      string  -    leader (open), worker (close) everybody
    "life:term.counter"; record needs it and the server's own life (replication id) to agree
feeler:{pNN}:term            string  -    leader, restoring workers    leader
    the highest term seen here
feeler:{pNN}:registry        string  -    leader, restoring workers,   leader, historian, worker,
web
                                          cli (adopt)
    "name takeovers": whose this Redis is; a leader of another registry is refused here
feeler:{pNN}:rest            string  -    leader                       leader
    the lease of a leader that gave it up in order, its last word: this memory is no older than that
feeler:{pNN}:reports         hash    -    whoever restores             leader
    reporter -> "life attempt busy|done"; data that vanishes takes the report of it along
feeler:{pNN}:journal         stream  -    owner (record, replay)       groups: supervisor,
historian, ...
    event (JSON), replayed ("1" or absent)
feeler:{pNN}:dead            stream  -    every group                  cli (`feeler journal`)
    dead letters, at most 10,000: what a group could not read. group, entry (its id in the journal),
    event
feeler:{pNN}:durable         zset    1 h  historian                    workers, who then forget the
event
    "D identity" -> fleet seconds; pruned by trim
feeler:{pNN}:counters        hash    -    every Lua step               web, tests
    beats, transitions, duplicates (beats that came twice or late and changed nothing),
    rejected_<verdict>, replayed, trimmed, trimmed_unacknowledged, identity_conflicts (historian),
    dead_letters, unreadable_<kind> (rows set aside)

REDIS_URL (the bus: RQ lives here too, under rq:)
feeler:presence:W            string  7 s  worker                       everybody
feeler:claim:W               string  60 s worker                       worker
    the process that goes by this id; another one that draws the id draws again
feeler:workers               zset    -    worker, leader               everybody
    W -> fleet seconds of the last announcement; kept after death until the leader forgets W
feeler:bus:L                 string  60 s leader                       leader
    run_id of the bus when this leader last looked; gone or other = the bus lost its memory
feeler:led                   string  20 s leader                       worker, web
    the leader's id, set by each sweep it completes; nobody is believed to be the only worker where
    nobody leads
feeler:requests              stream  -    web, cli                     leader (group supervisor)
feeler:probe                 string  1 s  web, supervisor              nobody: shows whether writes
are taken (both)
"""

from zlib import crc32

PARTITIONS = 16

WORKERS = "feeler:workers"
REQUESTS = "feeler:requests"
LED = "feeler:led"
PROBE = "feeler:probe"


def partition(name: str) -> int:
    """Return the partition of a database."""
    return crc32(name.encode()) % PARTITIONS


def partition_key(number: int, kind: str) -> str:
    """Return a key that a partition has once: generation, term, registry, reports, names, journal
    and the like.
    """
    return f"feeler:{{p{number:02}}}:{kind}"


def database_key(name: str) -> str:
    """Return the key of a database's hash."""
    return partition_key(partition(name), f"db:{name}")


def target_key(name: str) -> str:
    """Return the key of a database's address, policy and labels."""
    return partition_key(partition(name), f"target:{name}")


def reason_key(name: str) -> str:
    """Return the key of what was said of a database that is not ok."""
    return partition_key(partition(name), f"reason:{name}")


def index_key(number: int, worker: str) -> str:
    """Return the key of a worker's index in a partition; with no worker, what all of them begin
    with.
    """
    return partition_key(number, f"index:{worker}")


def presence_key(worker: str) -> str:
    """Return the key that lives while a worker does."""
    return f"feeler:presence:{worker}"


def claim_key(worker: str) -> str:
    """Return the key by which one process holds a worker's id."""
    return f"feeler:claim:{worker}"


def bus_key(leader: str) -> str:
    """Return the key by which a leader notices that the bus lost its memory."""
    return f"feeler:bus:{leader}"
