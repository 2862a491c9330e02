"""Every key feeler keeps in Redis. Only live/ and tests import this.

{tag} is the hash tag of a database's partition (TAGS below): each Lua step touches one tag, so the
cache can be a Redis Cluster. Writers and readers are processes; D = database, W = worker id,
L = supervisor id.

CACHE_URL
key                        type    TTL   writer                      readers
feeler:{tag}:db:D          hash    -     owner (record), leader      web, worker, leader, historian
    The talk's `HSET db1 db_size 4213`.
    owner, epoch
    proven              an accepted beat under this epoch
    number              beats under this epoch
    batch               the sender's own count: drops late duplicates
    process             epoch, and the one process of the owner's id that records under it: twins
                        are fenced
    state and its kin   core/status.py
    asked               newest cannot_reach request: doubt, time
    observed_at sent_at seen_by cause duration_ms fresh_login services_available
    revision            of the target that was felt
    login_interval      seconds between routine proofs of a login, longer where they cost too much
    login_at            checksum of the address that the next three are about
    login_usual         seconds a login takes
    login_refused       cause, refusals in a row, when the next may be tried
    login_pooled        that checksum once more, where a pooler is between
    waited_ms           for a turn to log in at the address; absent: none
    dns_stale           the last known address was used, the name did not resolve
    family:<family>     "status observed_at code"; each gauge under its own name
    moved_for, moves    moves that answered a cannot_reach request: its doubt, the last three times
    claim_owner claim_epoch restored                only while Redis is being restored
feeler:{tag}:target:D      hash    -     leader                      worker (address),
                                                                     web (labels, policy)
    ciphertext, policy and labels (JSON), revision, term (of the leader that wrote it)
feeler:{tag}:index:W       hash    -     leader, with each assign    worker
    database -> "epoch revision": a hint kept beside the truth, which is the database's own hash
feeler:{tag}:reason:D      string  10 m  worker                      web
    while a database is not ok: cause, sqlstate, detail (the server's words, at most 200
    characters), worker (JSON)
feeler:{tag}:names         set     -     leader                      web, leader, historian
feeler:{tag}:generation    string  -     leader (open),              everybody
                                         worker (close)
    "instance:term.counter"; record needs it and the server's own replication id to agree
feeler:{tag}:term          string  -     leader, restoring workers   leader
    the highest term seen here
feeler:{tag}:registry      string  -     leader, restoring workers,  leader, historian, worker, web
                                         cli (adopt)
    "name takeovers": whose this Redis is; a leader of another registry is refused here
feeler:{tag}:complete      string  -     leader                      leader
    the lease of a leader that gave it up in order, set last of all: what it wrote is all here
feeler:{tag}:reports       hash    -     whoever restores            leader
    reporter -> "instance attempt busy|done"; what wipes the data wipes the report of it
feeler:{tag}:journal       stream  -     owner (record, replay)      groups: supervisor,
                                                                     historian, ...
    event (JSON), replayed ("1" or absent)
feeler:{tag}:dead          stream  -     every group                 cli (`feeler journal`)
    dead letters, at most 10,000: what a group could not read. group, entry (its id in the
    journal), event
feeler:{tag}:durable       zset    1 h   historian                   workers, who then forget the
                                                                     event
    "D identity" -> fleet seconds; pruned by trim
feeler:{tag}:counters      hash    -     every Lua step              web, tests
    beats, transitions, duplicates (beats that came twice or late and changed nothing),
    rejected_<reply>, replayed, trimmed, trimmed_unacknowledged, identity_conflicts (historian),
    dead_letters, unreadable_<kind> (rows set aside)

REDIS_URL (the bus: RQ lives here too, under rq:)
feeler:presence:W          string  7 s   worker                      everybody
feeler:claim:W             string  60 s  worker                      worker
    the process that goes by this id; another one that draws the id draws again
feeler:workers             zset    -     worker, leader              everybody
    W -> fleet seconds of the last announcement; kept after death until the leader forgets W
feeler:bus:L               string  60 s  leader                      leader
    run_id of the bus when this leader last looked; gone or other = the bus lost its memory
feeler:led                 string  20 s  leader                      worker, web
    the leader's id, set by each sweep it completes; nobody is believed to be the only worker
    where nobody leads
feeler:requests            stream  -     web, cli                    leader (group supervisor)
feeler:probe               string  1 s   web, supervisor             nobody
    shows whether writes are taken (by the bus and by the cache)
"""

from collections.abc import Callable, Iterable
from typing import TypeVar
from zlib import crc32

T = TypeVar("T")

# The partition's number and two letters, found such that CRC16(tag) % 16384, the hash slot, lies
# within 25 of number * 512 + 256: any number of equal shards of a Redis Cluster gets an even share
# of partitions. Neither the table nor partition() may ever change: all keys would be lost.
TAGS = (
    *("00kx", "01yy", "02lf", "03as", "04gu", "05ut", "06oj", "07rj"),
    *("08sb", "09ac", "10db", "11iw", "12zs", "13hr", "14ho", "15ez"),
    *("16fd", "17te", "18bt", "19pu", "20xl", "21jm", "22og", "23ms"),
    *("24ec", "25wb", "26rh", "27oh", "28pc", "29rw", "30hb", "31zc"),
)
PARTITIONS = len(TAGS)

WORKERS = "feeler:workers"
REQUESTS = "feeler:requests"
LED = "feeler:led"
PROBE = "feeler:probe"


def partition(name: str) -> int:
    """Return the partition of a database."""
    return crc32(name.encode()) % PARTITIONS


def by_partition(items: Iterable[T], name_of: Callable[[T], str]) -> dict[int, list[T]]:
    """Sort what there is of databases by their partitions."""
    found: dict[int, list[T]] = {}
    for item in items:
        number = partition(name_of(item))
        found.setdefault(number, []).append(item)
    return found


def partition_key(number: int, kind: str) -> str:
    """Return a key that a partition has once: its generation, term, names, journal and the like."""
    return f"feeler:{{{TAGS[number]}}}:{kind}"


def partition_keys(number: int, *kinds: str) -> list[str]:
    """Return several keys of one partition."""
    return [partition_key(number, kind) for kind in kinds]


def all_keys(kind: str) -> list[str]:
    """Return this key of every partition."""
    return [partition_key(number, kind) for number in range(PARTITIONS)]


def database_key(name: str) -> str:
    """Return the key of a database's hash."""
    return partition_key(partition(name), f"db:{name}")


def target_key(name: str) -> str:
    """Return the key of a database's address, policy and labels."""
    return partition_key(partition(name), f"target:{name}")


def reason_key(name: str) -> str:
    """Return the key of the error behind a database that is not ok."""
    return partition_key(partition(name), f"reason:{name}")


def index_key(number: int, worker: str) -> str:
    """Return the key of a worker's index in a partition; without a worker, what they begin with."""
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
