"""The main job, end to end: real servers, real processes, real kills; watched from outside."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.cluster import Cluster, Watcher
from tests.system.targets import OUR_SESSIONS, end_our_sessions
from tests.waiting import eventually

INTERVAL = 5.0
MakeCluster = Callable[..., Cluster]
StartPostgres = Callable[..., Any]


async def all_in(cluster: Cluster, names: list[str], state: str, within: float) -> None:
    await eventually(lambda: all(cluster.state(name) == state for name in names), within=within)


def check_history(cluster: Cluster, name: str) -> list[Any]:
    """Assert what must hold of every history: dense versions, an unbroken chain, the cache at its end."""
    rows = cluster.transitions(name)
    assert [row.version for row in rows] == list(range(1, len(rows) + 1))
    assert not any(row.superseded for row in rows)
    for before, after in itertools.pairwise(rows):
        assert after.transition.source == before.transition.target
        assert after.transition.prev == before.transition.identity
    assert rows[-1].transition.target == cluster.state(name)
    return rows


async def history_says(cluster: Cluster, name: str, rules: list[str]) -> list[Any]:
    await eventually(lambda: cluster.rules(name) == rules, within=10, every=0.2)
    return check_history(cluster, name)


@pytest.mark.slow
async def test_twenty_servers_are_observed_on_time(make_cluster: MakeCluster, start_postgres: StartPostgres) -> None:
    cluster, seconds = make_cluster(workers=3), 120.0
    names = [f"db-{i:02}" for i in range(20)]
    for name in names:
        cluster.add(name, start_postgres().url())
    await all_in(cluster, names, "available", within=60)
    time.sleep(2 * INTERVAL)
    with Watcher(cluster, names) as watcher:
        time.sleep(seconds)
    gaps = []
    for name in names:
        moments = watcher.observed(name)
        gaps += [b - a for a, b in itertools.pairwise(moments)]
        assert len(moments) >= 0.98 * seconds / INTERVAL - 1, f"{name}: {len(moments)} observations"
        assert cluster.rules(name) == ["first_light"]
    late = [gap for gap in gaps if gap > INTERVAL + 1]
    print(f"gaps: max {max(gaps):.2f} s, {len(late)} of {len(gaps)} over {INTERVAL + 1} s")
    assert len(late) <= 0.01 * len(gaps)
    loads = Counter(cluster.hash(name)["owner"] for name in names)
    print(f"loads: {sorted(loads.values())}")
    assert len(loads) == 3
    assert max(loads.values()) <= math.ceil(1.25 * len(names) / 3)


@pytest.mark.parametrize("how", ["kill_postmaster", "kill_all"])
async def test_a_killed_server_is_unavailable_by_two_observers(
    how: str, make_cluster: MakeCluster, start_postgres: StartPostgres
) -> None:
    cluster = make_cluster()
    server, other = start_postgres(), start_postgres()
    cluster.add("orders", server.url())
    cluster.add("ledger", other.url())
    await all_in(cluster, ["orders", "ledger"], "available", within=30)
    with Watcher(cluster, ["orders", "ledger"]) as watcher:
        killed = time.time()
        getattr(server, how)()
        await all_in(cluster, ["orders"], "unavailable", within=10)
        time.sleep(3)
        started = time.time()
        server.start()
        await all_in(cluster, ["orders"], "available", within=14)
        back = time.time() - started
        time.sleep(1)
    uncertain = watcher.first("orders", lambda fields: fields.get("state") == "uncertain")
    unavailable = watcher.first("orders", lambda fields: fields.get("state") == "unavailable")
    assert uncertain
    assert unavailable
    print(f"{how}: uncertain {uncertain - killed:.2f} s, unavailable {unavailable - killed:.2f} s, back {back:.2f} s")
    assert uncertain - killed <= 2
    assert unavailable - killed <= 10
    await eventually(lambda: cluster.rules("orders")[-1:] in (["recovered"], ["reopened"]), within=10)
    rows = check_history(cluster, "orders")
    rules = [row.transition.rule for row in rows]
    assert rules[:3] == ["first_light", "doubt", "confirm_absent"]
    assert rules[3:] in (["recovered"], ["answered", "reopened"])
    verdict = rows[2].transition
    assert len(set(verdict.observers)) >= 2
    assert all(seen.sent_at > killed - 0.1 and seen.at > killed - 0.1 for seen in verdict.evidence)
    assert cluster.rules("ledger") == ["first_light"]


async def test_a_frozen_server_is_unavailable_and_hurts_no_other(
    make_cluster: MakeCluster, start_postgres: StartPostgres
) -> None:
    cluster = make_cluster()
    server, others = start_postgres(), [start_postgres() for _ in range(3)]
    names = ["calm-0", "calm-1", "calm-2"]
    cluster.add("frozen", server.url())
    for name, other in zip(names, others, strict=True):
        cluster.add(name, other.url())
    await all_in(cluster, ["frozen", *names], "available", within=30)
    with Watcher(cluster, ["frozen", *names]) as watcher:
        frozen = time.time()
        server.freeze()
        try:
            await all_in(cluster, ["frozen"], "unavailable", within=34)
        finally:
            server.thaw()
        await all_in(cluster, ["frozen"], "available", within=14)
    unavailable = watcher.first("frozen", lambda fields: fields.get("state") == "unavailable")
    assert unavailable
    print(f"frozen: unavailable after {unavailable - frozen:.2f} s")
    assert unavailable - frozen <= 34
    for name in names:
        moments = watcher.observed(name)
        assert max(b - a for a, b in itertools.pairwise(moments)) <= INTERVAL + 1
        assert cluster.rules(name) == ["first_light"]
    await history_says(cluster, "frozen", ["first_light", "doubt", "confirm_silent", "recovered"])
    for seen in cluster.transitions("frozen")[2].transition.evidence:
        assert seen.at - seen.sent_at <= 2.2


async def test_losing_our_session_is_no_evidence(make_cluster: MakeCluster, start_postgres: StartPostgres) -> None:
    cluster, server = make_cluster(workers=2), start_postgres()
    cluster.add("orders", server.url())
    await all_in(cluster, ["orders"], "available", within=30)
    sessions = f"select count(*) from pg_stat_activity where {OUR_SESSIONS}"
    assert end_our_sessions(server)
    before = float(cluster.hash("orders")["observed_at"])
    await eventually(lambda: float(cluster.hash("orders")["observed_at"]) > before, within=2)
    await eventually(lambda: server.execute(sessions)[0][0] == 1, within=2)
    await eventually(lambda: float(cluster.hash("orders")["observed_at"]) > before + INTERVAL, within=2 * INTERVAL)
    assert cluster.rules("orders") == ["first_light"]
