"""What partitions cost a beat: `python bench/partitions.py [URL]`.

Prints microseconds of CPU per beat (client, server) of the record step over 16 and over all
partitions, and their ratio: medians of interleaved rounds, batches of random databases of one size
each. Without a URL it starts a Redis of its own, without persistence.
"""

import random
import statistics
import time
from collections.abc import Sequence

from record import FAMILIES, FAST, assigned, beat, fenced, fresh, serve, server_cpu

from monitor.core.beat import Beat
from monitor.live import connections, keys
from monitor.live.connections import Live

FEW, ALL = 16, keys.PARTITIONS
BEATS, ROUNDS = 3000, 15
SIZES = (1, 10, 50, 500)


async def measure(
    live: Live, opened: str, partitions: int, batches: Sequence[list[Beat]]
) -> tuple[float, float]:
    """Return the CPU seconds of this process and of the server for these batches."""
    keys.PARTITIONS = partitions  # partition() reads it; the other modules open and read them all
    client, server = time.process_time(), await server_cpu(live)
    for batch in batches:
        await fenced(live, opened, batch)
    return time.process_time() - client, await server_cpu(live) - server


def ratio(columns: Sequence[tuple[float, ...]], few: int, many: int) -> float:
    """Return the median of what each round found: neighbours share the noise of the machine."""
    return statistics.median(row[many] / row[few] for row in columns)


async def main(url: str) -> None:
    live = connections.connect(url)
    opened = await fresh(live)
    for partitions in (FEW, ALL):
        keys.PARTITIONS = partitions
        names = await assigned(live)
        await fenced(live, opened, [beat(name, FAMILIES) for name in names])
    beats = [beat(name, FAST) for name in names]
    print(
        f"us of CPU per beat   {FEW} partitions   {ALL} partitions   ratio (client, server, both)"
    )
    for size in SIZES:
        rows = []
        count = max(1, (BEATS if size > 1 else BEATS // 3) // size)
        for turn in range(ROUNDS):
            batches = [random.sample(beats, size) for _ in range(count)]
            found = {}
            for partitions in (FEW, ALL) if turn % 2 else (ALL, FEW):
                found[partitions] = await measure(live, opened, partitions, batches)
            few, many = found[FEW], found[ALL]
            rows.append((*few, sum(few), *many, sum(many)))
        a, b, _, c, d, _ = (
            statistics.median(column) * 1e6 / (count * size) for column in zip(*rows, strict=True)
        )
        ratios = ", ".join(f"{ratio(rows, i, i + 3):.3f}" for i in range(3))
        print(f"batch {size:<4} {a:13.1f} / {b:4.1f}   {c:7.1f} / {d:4.1f}   {ratios}")
    await connections.close(live)


if __name__ == "__main__":
    serve(main)
