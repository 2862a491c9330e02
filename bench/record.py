"""What a fenced beat costs, next to a plain pipelined HSET: `python bench/record.py [URL]`.

Prints microseconds of CPU per beat (client, server) for batches of 1, 10 and 100, medians of
interleaved rounds. Without a URL it starts a Redis of its own, without persistence.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import uvloop

from monitor.core.assignment import Assignment
from monitor.core.beat import Beat, Reply
from monitor.core.cause import Cause
from monitor.core.observation import FAMILIES, GAUGES, Observation, Reading, ReadingStatus
from monitor.core.status import Epoch, Identity, State, Status
from monitor.live import assignments, connections, fields, generation, observations
from monitor.live.connections import Live
from monitor.live.keys import database_key
from monitor.local.embedded import Redis

DATABASES, BEATS, ROUNDS = 500, 5000, 7
EPOCH, WORKER = Epoch(1, 1), "bench-0a1b2c"
STATUS = Status(State.AVAILABLE, 1.7e9, Identity(EPOCH, 1), "first_ok")
FAST = tuple(family for family in FAMILIES if family in ("activity", "database"))

Write = Callable[[Live, str, list[Beat]], Awaitable[None]]


def beat(name: str, families: tuple[str, ...]) -> Beat:
    readings = tuple(
        Reading(
            f, 1.7e9, ReadingStatus.OK, {g.name: 42.5 for g in GAUGES.values() if g.family == f}
        )
        for f in families
    )
    seen = Observation(
        database=name,
        worker=WORKER,
        sent_at=1.7e9,
        at=1.7e9 + 0.01,
        cause=Cause.OK,
        readings=readings,
    )
    return Beat(name, EPOCH, STATUS, seen)


async def fenced(live: Live, opened: str, beats: list[Beat]) -> None:
    replies = await observations.record(live, opened, WORKER, beats)
    assert set(replies) == {Reply.ACCEPTED}


async def plain(live: Live, _: str, beats: list[Beat]) -> None:
    pipe = live.cache.pipeline(transaction=False)
    for one in beats:
        stored = fields.observation_fields(one.observation) | fields.status_fields(one.status)
        filled = {name: value for name, value in stored.items() if value}
        pipe.hset(database_key(one.database), mapping=filled)
    await pipe.execute()


async def server_cpu(live: Live) -> float:
    info = await live.cache.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def measure(
    live: Live, opened: str, write: Write, batch: int, beats: list[Beat]
) -> tuple[float, float]:
    client, server = time.process_time(), await server_cpu(live)
    rounds = range(0, BEATS if batch > 1 else BEATS // 5, batch)
    for start in rounds:
        await write(live, opened, [beats[(start + i) % DATABASES] for i in range(batch)])
    done = len(rounds) * batch
    return (time.process_time() - client) * 1e6 / done, (
        await server_cpu(live) - server
    ) * 1e6 / done


async def fresh(live: Live) -> str:
    """Empty Redis and open a generation; return its name."""
    await live.cache.flushall()
    await generation.restore(live, "bench", [], 1, "")
    opened = await generation.open_generation(live, EPOCH, ["bench"], "")
    assert opened
    return opened


async def assigned(live: Live) -> list[str]:
    """Give databases to the worker and return their names."""
    names = [f"db{i}" for i in range(DATABASES)]
    for name in names:
        await assignments.assign(
            live, Assignment(name, WORKER, EPOCH), planned=False, now=0, seed=Status(), registry=""
        )
    return names


async def main(url: str) -> None:
    live = connections.connect(url)
    opened = await fresh(live)
    names = await assigned(live)
    beats = [beat(name, FAST) for name in names]
    await fenced(live, opened, [beat(name, FAMILIES) for name in names])
    print(
        "us of CPU per beat   record client/server   plain HSET client/server   ratio client/server"
    )
    for batch in (1, 10, 100):
        rows = []
        for _ in range(ROUNDS):
            one = await measure(live, opened, fenced, batch, beats)
            rows.append((*one, *await measure(live, opened, plain, batch, beats)))
        a, b, c, d = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = f"{a / c:.2f} / {b / d:.2f}"
        print(
            f"batch {batch:<4}           {a:8.1f} / {b:5.1f}       {c:8.1f} / {d:5.1f}            "
            f"{ratio}"
        )
    size = await live.cache.memory_usage(database_key(names[0]))
    print(
        f"bytes per database   {size}   encoding "
        f"{await live.cache.object('encoding', database_key(names[0]))}"
    )
    await connections.close(live)


def serve(main: Callable[[str], Coroutine[None, None, None]]) -> None:
    """Run this on the Redis named on the command line, or on one of our own."""
    if len(sys.argv) > 1:
        uvloop.run(main(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            server = Redis(Path(folder) / "redis", settings={"appendonly": "no"})
            server.prepare()
            server.start()
            try:
                server.wait_ready()
                uvloop.run(main(server.url()))
            finally:
                server.stop()


if __name__ == "__main__":
    serve(main)
