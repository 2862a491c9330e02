"""The main job, end to end and undisturbed: real servers, real processes, watched from outside."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.fixtures import StartPostgres
from tests.system.cluster import Cluster, Watcher
from tests.waiting import eventually

INTERVAL = 5.0
MakeCluster = Callable[..., Cluster]


async def all_in(cluster: Cluster, names: list[str], state: str, within: float) -> None:
    await eventually(lambda: all(cluster.state(name) == state for name in names), within=within)


def check_history(cluster: Cluster, name: str) -> list[Any]:
    """Assert dense versions, an unbroken chain, and the cache at its end."""
    rows = cluster.transitions(name)
    assert [row.version for row in rows] == list(range(1, len(rows) + 1))
    assert not any(row.superseded for row in rows)
    for before, after in itertools.pairwise(rows):
        assert after.transition.source == before.transition.target
        assert after.transition.prev == before.transition.identity
    assert rows[-1].transition.target == cluster.state(name)
    return rows


@pytest.mark.slow
async def test_twenty_servers_are_observed_on_time(
    make_cluster: MakeCluster, start_postgres: StartPostgres
) -> None:
    cluster, seconds = make_cluster(workers=3), 60.0
    names = [f"db-{i:02}" for i in range(20)]
    for name in names:
        cluster.add(name, start_postgres().url())
    await all_in(cluster, names, "available", within=60)
    time.sleep(2 * INTERVAL)  # all beats have found their rhythm
    with Watcher(cluster, names) as watcher:
        time.sleep(seconds)  # as long as nothing may happen
    gaps = []
    for name in names:
        moments = watcher.observed(name)
        gaps += [b - a for a, b in itertools.pairwise(moments)]
        assert len(moments) >= 0.98 * seconds / INTERVAL - 1, f"{name}: {len(moments)} observations"
        assert cluster.rules(name) == ["first_ok"]
    late = [gap for gap in gaps if gap > INTERVAL + 1]
    print(f"gaps: max {max(gaps):.2f} s, {len(late)} of {len(gaps)} over {INTERVAL + 1} s")
    assert len(late) <= 0.01 * len(gaps)
    loads = Counter(cluster.hash(name)["owner"] for name in names)
    print(f"loads: {sorted(loads.values())}")
    assert len(loads) == 3
    assert max(loads.values()) <= math.ceil(1.25 * len(names) / 3)
