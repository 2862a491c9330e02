"""The eye: looks at Redis and at workers' sockets, at nothing of ours, ten times a second."""

import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from monitor.core.errors import InvalidInput
from monitor.core.event import Transition, decode
from monitor.live.keys import PARTITIONS, database_key, partition_key
from tests.faults.observed import Connections, Counted, Journaled, Sight

if TYPE_CHECKING:
    from tests.faults.lab import Lab

EVERY = 0.1  # seconds between two looks
SOCKETS_EVERY = 5  # looks
FIELDS = ("owner", "epoch", "state", "identity", "number")
FIELDS += ("observed_at", "sent_at", "seen_by", "cause", "unreachable_from")
LIVE_STATES = {"01", "02", "08"}  # of /proc/net/tcp: established, SYN sent, CLOSE_WAIT


class Eye:
    """Keeps what it saw; a sight only where it differs from the one before."""

    def __init__(self, lab: "Lab") -> None:
        self._lab = lab
        self._client = redis.Redis.from_url(lab.server.url, decode_responses=True, socket_timeout=1)
        self.sights: dict[str, list[Sight]] = {}
        self.counted: list[Counted] = []
        self.journal: list[Journaled] = []
        self.generations: list[tuple[float, str]] = []
        self.connections: list[Connections] = []
        self._cursors = {partition_key(number, "journal"): "0" for number in range(PARTITIONS)}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="eye", daemon=True)
        self._thread.start()

    def watch(self, name: str) -> None:
        """Look at this database too."""
        self.sights = {**self.sights, name: []}

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()
        self._client.close()

    def first(self, name: str, **fields: str) -> float:
        """Return when a database was first seen with these values, infinity for never."""
        wanted = fields.items()
        return min(
            (sight.at for sight in self.sights[name] if wanted <= sight.fields.items()),
            default=math.inf,
        )

    def states(self, name: str) -> list[str]:
        """Return the states a database was seen in, in order."""
        states = [sight.fields["state"] for sight in self.sights[name] if "state" in sight.fields]
        return [state for i, state in enumerate(states) if i == 0 or state != states[i - 1]]

    def _look_on(self) -> None:
        looks = 0
        while not self._over.wait(EVERY):
            looks += 1
            with contextlib.suppress(redis.RedisError):
                self._look()
            if looks % SOCKETS_EVERY == 0:
                self._look_at_sockets()

    def _look(self) -> None:
        names, at = list(self.sights), time.time()
        pipe = self._client.pipeline(transaction=False)
        pipe.get(partition_key(0, "generation"))
        for name in names:
            pipe.hmget(database_key(name), FIELDS)
        for number in range(PARTITIONS):
            pipe.hgetall(partition_key(number, "counters"))
        for key, cursor in self._cursors.items():
            pipe.xrange(key, f"({cursor}" if cursor != "0" else "-", "+")
        generation, *rest = pipe.execute()
        self._note_generation(at, generation or "")
        for name, row in zip(names, rest, strict=False):
            fields = {
                field: value for field, value in zip(FIELDS, row, strict=True) if value is not None
            }
            if not self.sights[name] or self.sights[name][-1].fields != fields:
                self.sights[name].append(Sight(at, fields))
        self._note_counters(at, rest[len(names) : len(names) + PARTITIONS])
        for key, entries in zip(self._cursors, rest[-PARTITIONS:], strict=True):
            self._note_entries(at, key, entries)

    def _note_generation(self, at: float, name: str) -> None:
        if not self.generations or self.generations[-1][1] != name:
            self.generations.append((at, name))

    def _note_counters(self, at: float, parts: list[dict[str, str]]) -> None:
        total: dict[str, int] = {}
        for part in parts:
            for what, count in part.items():
                total[what] = total.get(what, 0) + int(count)
        if not self.counted or self.counted[-1].counters != total:
            self.counted.append(Counted(at, total))

    def _note_entries(self, at: float, key: str, entries: list[Any]) -> None:
        for number, fields in entries:
            self._cursors[key] = number
            with contextlib.suppress(InvalidInput):  # a newer version's
                event = decode(fields["event"])
                if isinstance(event, Transition):
                    self.journal.append(Journaled(at, event, "replayed" in fields))

    def _look_at_sockets(self) -> None:
        ports = {*self._lab.ports.values(), *(one.port or 0 for one in self._lab.changes)}
        at, inodes = time.time(), _client_sockets(ports)
        for role in list(self._lab.roles):
            if role.name == "worker" and role.alive:
                counts: dict[int, int] = {}
                for inode in set(_inodes(role.pid)):  # a copied descriptor is no second connection
                    if port := inodes.get(inode):
                        counts[port] = counts.get(port, 0) + 1
                worker = self._lab.party(role) if counts else ""
                self.connections += [
                    Connections(at, worker, port, count) for port, count in counts.items()
                ]


def _client_sockets(ports: set[int]) -> dict[str, int]:
    """Return the remote port of each TCP socket here that leads to one of `ports`, by inode."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        port = int(words[2].partition(":")[2], 16)
        if port in ports and words[3] in LIVE_STATES:
            found[words[9]] = port
    return found


def _inodes(pid: int) -> list[str]:
    """Return the inodes of a process's sockets."""
    inodes = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    inodes.append(target[8:-1])
    return inodes


class Ear:
    """Hears each write to some hashes, in Redis's order, also what is gone by the next look."""

    def __init__(self, url: str, names: Sequence[str]) -> None:
        self._names = {database_key(name): name for name in names}
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._owners = {key: self._client.hget(key, "owner") for key in self._names}
        self.records = 0
        self.strangers: list[str] = []
        self._monitor = self._client.monitor()
        self._over = False
        self._thread = threading.Thread(target=self._listen, name="ear", daemon=True)

    def __enter__(self) -> "Ear":
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._client.ping()  # something to hear
        self._thread.join()
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _listen(self) -> None:
        for told in self._monitor.listen():
            if self._over:
                return
            if told["client_type"] == "lua":
                self._note(told["command"].split(" "))

    def _note(self, words: list[str]) -> None:
        """Note a command that a script gave: an assignment names the owner, a record who saw it."""
        if words[0].upper() != "HSET" or words[1] not in self._names:
            return
        fields = dict(itertools.pairwise(words[2:]))
        if words[2] == "owner":
            self._owners[words[1]] = fields["owner"]
        elif words[2] == "number":
            self.records += 1
            if fields["seen_by"] != self._owners[words[1]]:
                self.strangers.append(
                    f"{fields['seen_by']} wrote {self._names[words[1]]} of {self._owners[words[1]]}"
                )
