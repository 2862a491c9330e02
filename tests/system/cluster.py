"""A feeler of real processes on real stores, and a watcher that looks at Redis from outside."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from monitor.live.keys import PARTITIONS, database_key, partition_key
from monitor.registry import fleet
from monitor.registry.store import open_store
from monitor.registry.transitions import read_transitions
from monitor.secrets import SecretBox
from tests.servers import RedisServer

KEY = "0" * 43 + "="
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Role:
    """One process of ours and where its output goes."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self, within: float = 10.0) -> int:
        self.process.terminate()
        return self.process.wait(within)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Cluster:
    """Stores by URL, roles as child processes, targets added by name."""

    home: Path
    database_url: str
    server: RedisServer
    roles: list[Role] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.redis_url = self.server.url
        self.store = open_store(self.database_url)
        self.box = SecretBox([KEY])
        self.redis = redis.Redis.from_url(self.redis_url, decode_responses=True, socket_timeout=2)

    def environment(self, **more: str) -> dict[str, str]:
        return os.environ | {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "FEELER_HOME": str(self.home),
            "FEELER_SECRET_KEYS": KEY,
            "FEELER_TOKEN": "token-for-tests",
            "PYTHONUNBUFFERED": "1",
            **more,
        }

    def start(self, role: str, enter: Callable[[], None] | None = None, **more: str) -> Role:
        """Start a process of ours; `enter` runs in it first, before the program."""
        log = self.home / f"{role}-{len(self.roles)}.log"
        argv = [sys.executable, "-m", f"workers.{role}.process"]
        if role == "web":
            argv = [sys.executable, "-m", "monitor.cli", "run", "web"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv,
                env=self.environment(**more),
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=enter,  # noqa: PLW1509
            )
        started = Role(role, process, log)
        self.roles.append(started)
        return started

    def worker_of(self, worker_id: str) -> Role:
        """Return the process that calls itself `worker_id`."""
        return next(
            role
            for role in self.roles
            if role.name == "worker" and f"worker={worker_id} " in role.text()
        )

    def id_of(self, role: Role) -> str:
        return (
            next(line for line in role.text().splitlines() if "action=worker_started" in line)
            .split("worker=")[1]
            .split()[0]
        )

    def leader(self) -> Role | None:
        """Return the supervisor that took the lead last and lives."""
        led = [
            (term, role)
            for role in self.roles
            if role.process.poll() is None and (term := _term(role))
        ]
        return max(led, key=lambda pair: pair[0])[1] if led else None

    def add(self, name: str, url: str, **policy: Any) -> None:
        fleet.add(self.store, name, self.box.seal(name, url), labels={}, policy="default")

    def hash(self, name: str) -> dict[str, str]:
        return self.redis.hgetall(database_key(name))

    def state(self, name: str) -> str:
        return self.redis.hget(database_key(name), "state") or ""

    def transitions(self, name: str) -> list[Any]:
        """Return the durable transitions, oldest first."""
        return list(reversed(read_transitions(self.store, name, limit=1000)))

    def rules(self, name: str) -> list[str]:
        return [row.transition.rule for row in self.transitions(name)]

    def counters(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for number in range(PARTITIONS):
            for key, value in self.redis.hgetall(partition_key(number, "counters")).items():
                total[key] = total.get(key, 0) + int(value)
        return total

    def close(self) -> None:
        for role in self.roles:
            if role.process.poll() is None:
                os.killpg(role.pid, signal.SIGKILL)
                role.process.wait()
        self.redis.close()
        self.store.close()


def _term(role: Role) -> int:
    terms = [
        line.split("term=")[1].split()[0]
        for line in role.text().splitlines()
        if "action=leading" in line
    ]
    return int(terms[-1]) if terms else 0


@dataclass(frozen=True)
class Sight:
    """What the watcher saw of one database at one moment (unix seconds of this machine)."""

    at: float
    fields: dict[str, str]


class Watcher:
    """Polls hashes at 10 Hz from outside and keeps what it saw."""

    FIELDS = ("owner", "epoch", "state", "observed_at", "seen_by")

    def __init__(self, cluster: Cluster, names: Sequence[str]) -> None:
        self._client = redis.Redis.from_url(
            cluster.redis_url, decode_responses=True, socket_timeout=1
        )
        self.seen: dict[str, list[Sight]] = {name: [] for name in names}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            pipe = self._client.pipeline(transaction=False)
            for name in self.seen:
                pipe.hmget(database_key(name), self.FIELDS)
            at = time.time()
            try:
                rows = pipe.execute()
            except redis.RedisError:
                continue
            for name, row in zip(self.seen, rows, strict=True):
                fields = {
                    field: value
                    for field, value in zip(self.FIELDS, row, strict=True)
                    if value is not None
                }
                self.seen[name].append(Sight(at, fields))

    def observed(self, name: str) -> list[float]:
        """Return the distinct observed_at in order of appearance."""
        moments = [
            float(sight.fields["observed_at"])
            for sight in self.seen[name]
            if "observed_at" in sight.fields
        ]
        return list(dict.fromkeys(moments))

    def first(self, name: str, test: Callable[[dict[str, str]], bool]) -> float | None:
        """Return when a condition was first seen to hold."""
        return next((sight.at for sight in self.seen[name] if test(sight.fields)), None)

    def states(self, name: str) -> list[str]:
        states = [sight.fields["state"] for sight in self.seen[name] if "state" in sight.fields]
        return [state for i, state in enumerate(states) if i == 0 or state != states[i - 1]]
