"""A Redis, fake databases and a real worker that watches them: judged from outside."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from bench.measure import OURS, THEIRS, cpu_seconds, pin, python, wait_until
from monitor.core.assignment import Assignment
from monitor.core.chunks import chunks
from monitor.core.policy import Policy
from monitor.core.status import Epoch, Status
from monitor.live import assignments, connections, generation, presence, targets
from monitor.live.connections import Live
from monitor.live.keys import all_keys, database_key
from monitor.live.targets import Target
from monitor.local.embedded import Redis
from monitor.secrets import SecretBox, load_keys, make_key

TERM, REGISTRY, PASSWORD = 1, "bench", "sesame-open-long"
AT_ONCE = 30  # databases given at once: a client has 32 connections


@dataclass(slots=True)
class Lab:
    """Everything a worker needs but a supervisor: the bench gives it its databases."""

    folder: Path
    server: Redis
    port: int  # of the fake databases
    addresses: int
    client: "redis.Redis[str]"
    worker: subprocess.Popen[str] | None = None
    box: SecretBox = field(init=False)

    def __post_init__(self) -> None:
        make_key(self.folder)
        self.box = SecretBox(load_keys(self.folder))

    def start_worker(self, **environment: str) -> None:
        """Start a worker on its own processor and wait until it has announced itself."""
        self.stop_worker()
        settings = {
            "FEELER_HOME": str(self.folder),
            "REDIS_URL": self.server.url(),
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",  # a worker never asks it
            "FEELER_LOG": "warning",
            **environment,
        }
        self.worker = python(
            ["-m", "workers.worker.process"], processor=OURS, env={**os.environ, **settings}
        )
        wait_until(self.worker_id)

    def stop_worker(self) -> None:
        if self.worker:
            self.worker.kill()
            self.worker.wait()
            self.worker = None
            self.client.flushall()

    def worker_id(self) -> str:
        """Return the id of the worker that lives, '' before it has said so."""
        for key in self.client.scan_iter("*presence*"):
            return str(key).rpartition(":")[2]
        return ""

    def watch(self, count: int, policy: Policy, *, database: str = "db") -> list[str]:
        """Have the worker watch so many databases, evenly over the addresses."""
        return asyncio.run(self._watch(count, policy, database))

    async def _watch(self, count: int, policy: Policy, database: str) -> list[str]:
        live = connections.connect(self.server.url())
        await open_generation(live)
        [worker] = [one.worker for one in (await presence.present(live)).values()]
        names = [f"{database}{i}" for i in range(count)]
        for part in chunks(names, AT_ONCE):
            await asyncio.gather(*(self._give(live, worker, name, policy) for name in part))
        await connections.close(live)
        return names

    async def _give(self, live: Live, worker: str, name: str, policy: Policy) -> None:
        number = int(name.lstrip("abcdefghijklmnopqrstuvwxyz-"))
        i = number % self.addresses
        host = f"127.0.{1 + i // 250}.{1 + i % 250}"
        url = f"postgresql://feeler:{PASSWORD}@{host}:{self.port}/{name}"
        target = Target(self.box.seal(name, url), policy, {}, 1)
        assert await targets.publish(live, name, target, TERM, REGISTRY)
        epoch = Epoch(TERM, number + 1)
        given = Assignment(name, worker, epoch)
        await assignments.assign(
            live, given, planned=False, now=time.time(), seed=Status(), registry=REGISTRY
        )

    def beats(self) -> int:
        """Return how many beats Redis has accepted in all, by its own count."""
        counts = [self.client.hget(key, "beats") for key in all_keys("counters")]
        return sum(int(count) for count in counts if count)

    def numbers(self, names: list[str]) -> int:
        """Return the sum of the databases' sequence numbers: what was accepted of each."""
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.hget(database_key(name), "number")
        return sum(int(number or 0) for number in pipe.execute())

    def observed(self, names: list[str]) -> int:
        """Return how many of these have been observed."""
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.hexists(database_key(name), "observed_at")
        return sum(pipe.execute())

    def cost(self, seconds: float, *, warm_up: float = 0.0) -> tuple[float, float]:
        """Watch the worker for so long: beats per second, and microseconds of its CPU per beat."""
        assert self.worker
        time.sleep(warm_up)
        pin(self.worker.pid, OURS)  # threads that came up since, too
        beats, spent, began = self.beats(), cpu_seconds(self.worker.pid), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        done = self.beats() - beats
        used = cpu_seconds(self.worker.pid) - spent
        return done / took, used / max(done, 1) * 1e6


async def open_generation(live: Live) -> None:
    """Open the cache for recording, as a leader would."""
    if (await generation.generation(live)).open:
        return
    await generation.lead(live, TERM, REGISTRY)
    await generation.restore(live, "bench", [], TERM, REGISTRY)
    assert await generation.open_generation(live, Epoch(TERM, 1), ["bench"], REGISTRY)


@contextmanager
def lab(*, addresses: int = 50, password: bool = False, delay: float = 0.0) -> Iterator[Lab]:
    """Start a Redis without persistence and fake databases, all on the other processor."""
    with tempfile.TemporaryDirectory(prefix="feeler-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = Redis(folder / "redis", settings={"appendonly": "no", "save": ""})
        server.prepare()
        server.start()
        words = ["-m", "monitor.local.fake_server", "--addresses", str(addresses)]
        words += ["--delay", str(delay), *(["--password", PASSWORD] if password else [])]
        fake = python(words, processor=THEIRS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            server.wait_ready()
            pin(server.pid, THEIRS)
            assert fake.stdout
            port = int(fake.stdout.readline())
            client = redis.Redis.from_url(server.url(), decode_responses=True)
            found = Lab(folder, server, port, addresses, client)
            try:
                yield found
            finally:
                found.stop_worker()
        finally:
            fake.kill()
            fake.wait()
            server.stop()
