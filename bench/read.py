"""A read: GET /last_observation/{database}, 64 connections, guard and token check included."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import urlopen

from bench.lab import Lab, lab
from bench.measure import OURS, THEIRS, Figure, cpu_seconds, pin, python, wait_until
from monitor.core.policy import Policy
from monitor.local.machine import free_port

DATABASES, CONNECTIONS, ROUNDS, SECONDS = 1_000, 64, 5, 6.0
TOKEN = "bench-token-of-no-use"


@dataclass(slots=True)
class Server:
    """One HTTP server under test."""

    process: "subprocess.Popen[str]"
    port: int

    def asked(self, prefix: str, names: Sequence[str]) -> tuple[float, float]:
        """Return microseconds of processor time per request, and the 99th percentile in ms."""
        paths = [f"{prefix}/{name}" for name in names[:200]]
        words = [sys.executable, "-m", "bench.load", str(self.port), str(CONNECTIONS)]
        load = subprocess.Popen(
            [*words, str(SECONDS), TOKEN, *paths], stdout=subprocess.PIPE, text=True
        )
        pin(load.pid, THEIRS)
        pin(self.process.pid, OURS)
        before = cpu_seconds(self.process.pid)
        output, _ = load.communicate(timeout=120)
        spent = cpu_seconds(self.process.pid) - before
        told = json.loads(output)
        assert set(told["statuses"]) == {"200"}, told["statuses"]
        return spent / (told["rate"] * SECONDS) * 1e6, told["p99"]


def run() -> list[Figure]:
    """Measure reads; must: <= 60 us, >= 4 x the baseline, p99 <= a quarter of the baseline's."""
    with lab() as one:
        one.start_worker()
        names = one.watch(DATABASES, Policy(interval=5.0))
        wait_until(lambda: one.observed(names) == len(names))
        with ours(one) as feeler, theirs(one) as fastapi:
            rounds = [_round(feeler, fastapi, names) for _ in range(ROUNDS)]
    cost, late, other_cost, other_late = (sorted(c)[ROUNDS // 2] for c in zip(*rounds, strict=True))
    beside = "FastAPI, pydantic, redis.asyncio"
    return [
        Figure(
            name="GET one, 64 connections",
            value=cost,
            unit="us",
            baseline=beside,
            baseline_value=other_cost,
        ),
        Figure(
            name="GET one, 64 connections, p99",
            value=late,
            unit="ms",
            baseline=beside,
            baseline_value=other_late,
        ),
    ]


def _round(feeler: Server, fastapi: Server, names: Sequence[str]) -> tuple[float, ...]:
    return (
        *feeler.asked("/last_observation", names),
        *fastapi.asked("/last_observation", names),
    )


@contextmanager
def ours(one: Lab) -> Iterator[Server]:
    """Start feeler's web process on the lab's Redis."""
    port = free_port()
    settings = {
        "FEELER_HOME": str(one.folder),
        "FEELER_TOKEN": TOKEN,
        "FEELER_HOST": "127.0.0.1",
        "PORT": str(port),
        "REDIS_URL": one.server.url(),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",  # no read asks it
        "FEELER_LOG": "warning",
    }
    with _served(["-m", "monitor.cli", "run", "web"], port, settings) as server:
        yield server


@contextmanager
def theirs(one: Lab) -> Iterator[Server]:
    """Start the baseline under the same server, with what makes it fastest."""
    port = free_port()
    words = ["-m", "uvicorn", "bench.fastapi_app:app", "--port", str(port)]
    words += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    words += ["--log-level", "warning"]
    with _served(words, port, {"REDIS_URL": one.server.url()}) as server:
        yield server


@contextmanager
def _served(words: Sequence[str], port: int, settings: dict[str, str]) -> Iterator[Server]:
    process = python(words, processor=OURS, env={**os.environ, **settings})
    try:
        wait_until(lambda: _answers(port))
        time.sleep(1)
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=2):
            return True
    except HTTPError:
        return True
    except OSError:
        return False
