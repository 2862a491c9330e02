"""From a lab that has come to rest to a history: rows, logs, and every byte that was written."""

import re
import time
from typing import TYPE_CHECKING, Any

import redis
from sqlalchemy import text

from monitor.core.errors import StoreUnavailable
from monitor.registry.rows import TransitionRow
from monitor.registry.store import Store
from monitor.registry.transitions import read_transitions
from tests.faults import moving
from tests.faults.observed import Accepted, History, Stall
from tests.system.cluster import Role

if TYPE_CHECKING:
    from tests.faults.lab import Lab

AWAY = (redis.RedisError, StoreUnavailable, OSError)
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ")
_PARTY = {
    "worker": "action=worker_started worker=",
    "supervisor": "action=supervisor_started supervisor=",
}
PAGE = 1000


def party(role: Role) -> str:
    """Return the id a process gave itself, "" while it has not."""
    words = role.text().partition(_PARTY.get(role.name, "\0"))[2].split(maxsplit=1)
    return words[0] if words else ""


def gather(lab: "Lab") -> History:
    """Read everything the checker wants."""
    eye = lab.eye
    made = History(
        began=lab.began, ended=time.time(), faults=sorted(lab.faults, key=lambda fault: fault.began)
    )
    made.sights, made.counted, made.connections = eye.sights, eye.counted, eye.connections
    made.journal, made.generations = eye.journal, eye.generations
    made.ports, made.changes = dict(lab.ports), list(lab.changes)
    made.faults = moving.resolved(made)
    made.rows = {name: transitions(lab.store, name) for name in lab.targets}
    made.conflicts = _count(lab.store, "transition_conflicts")
    made.cache = {name: lab.hash(name) for name in lab.targets if name not in lab.retired}
    for role in lab.roles:
        _read_log(made, role)
    made.accepted.sort(key=lambda one: one.at)
    made.stalls.sort(key=lambda one: one.at)
    made.terms.sort()
    made.written = written(lab)
    made.secrets = tuple(secret.encode() for secret in sorted(lab.secrets))
    return made


def transitions(store: Store, name: str) -> list[TransitionRow]:
    """Return all durable transitions of a database, by identity."""
    rows: list[TransitionRow] = []
    while page := read_transitions(store, name, limit=PAGE, before=rows[-1].id if rows else None):
        rows += page
    return rows[::-1]


def _count(store: Store, table: str) -> int:
    with store.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def _read_log(made: History, role: Role) -> None:
    who = party(role)
    for line in role.text().splitlines():
        stamp = _STAMP.match(line)
        if not stamp:
            continue
        at = time.mktime(time.strptime(stamp[1], "%Y-%m-%d %H:%M:%S")) + int(stamp[2]) / 1000
        words: dict[str, str] = dict(word.split("=", 1) for word in line.split() if "=" in word)
        action = words.get("action")
        if action == "transition":
            made.accepted.append(Accepted(at, who, words["database"], words["identity"]))
        elif action == "loop_stalled":
            made.stalls.append(Stall(at, who, float(words["seconds"]), float(words["starved"])))
        elif action == "leading":
            made.terms.append((at, who, int(words["term"])))


def written(lab: "Lab") -> dict[str, bytes]:
    """Return every byte the run left: logs, Redis's keys and files, Postgres's rows."""
    places = {f"log of {role.name} {i}": role.log.read_bytes() for i, role in enumerate(lab.roles)}
    places["redis keys"] = redis_dump(lab.server.url)
    for path in lab.server.folder.rglob("*"):
        if path.is_file() and path.suffix in (".aof", ".rdb", ".log"):
            places[f"redis {path.name}"] = path.read_bytes()
    places["postgres"] = _postgres_dump(lab.store)
    return places


def redis_dump(url: str) -> bytes:
    """Return every key and value of a Redis."""
    dump = b""
    with redis.Redis.from_url(url) as client:
        readers: dict[bytes, Any] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"stream": client.xrange,
        }
        for key in client.scan_iter(count=1000):
            kind = client.type(key)
            if kind != b"none":
                dump += key + repr(readers[kind](key)).encode() + b"\n"
    return dump


def _postgres_dump(store: Store) -> bytes:
    with store.begin() as connection:
        named = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables, rows = connection.execute(named).scalars().all(), list[str]()
        for table in tables:
            rows += connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars()
    return "\n".join(rows).encode()
