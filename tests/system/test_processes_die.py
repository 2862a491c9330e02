"""Workers, leaders and links die; no database's state may move for it."""

import itertools
import time
from collections.abc import Callable
from typing import Any

from monitor.core.status import Epoch
from tests.system.cluster import Cluster, Watcher
from tests.waiting import eventually

MakeCluster = Callable[..., Cluster]
StartPostgres = Callable[..., Any]


def owners(cluster: Cluster, names: list[str]) -> dict[str, str]:
    return {name: cluster.hash(name).get("owner", "") for name in names}


async def fleet_of(cluster: Cluster, server: Any, count: int) -> list[str]:
    """Monitor `count` databases of one server."""
    names = [f"db-{i}" for i in range(count)]
    for name in names:
        server.execute(f'create database "{name}"')
        cluster.add(name, server.url(dbname=name))
    await eventually(lambda: all(cluster.state(name) == "available" for name in names), within=40)
    return names


async def test_a_killed_workers_databases_are_observed_by_others(
    make_cluster: MakeCluster, start_postgres: StartPostgres
) -> None:
    cluster = make_cluster(workers=3)
    names = await fleet_of(cluster, start_postgres(), 9)
    victim = cluster.worker_of(cluster.hash(names[0])["owner"])
    victim_id = cluster.id_of(victim)
    orphans = [name for name, owner in owners(cluster, names).items() if owner == victim_id]
    with Watcher(cluster, names) as watcher:
        killed = time.time()
        victim.kill()

        def adopted() -> bool:
            rows = [cluster.hash(name) for name in orphans]
            return all(row["seen_by"] != victim_id and float(row["observed_at"]) > killed for row in rows)

        await eventually(adopted, within=20)
        print(f"{len(orphans)} databases observed by others after {time.time() - killed:.1f} s")
    assert all(watcher.states(name) == ["available"] for name in names)
    assert all(cluster.rules(name) == ["first_light"] for name in names)


async def test_a_standby_takes_over_from_a_killed_leader(
    make_cluster: MakeCluster, start_postgres: StartPostgres
) -> None:
    cluster = make_cluster(workers=2, supervisors=2)
    names = await fleet_of(cluster, start_postgres(), 6)
    leader = await eventually(cluster.leader)
    victim = cluster.worker_of(cluster.hash(names[0])["owner"])
    with Watcher(cluster, names) as watcher:
        killed = time.time()
        leader.kill()
        await eventually(lambda: (now := cluster.leader()) is not None and now is not leader, within=24)
        print(f"takeover after {time.time() - killed:.1f} s")
        victim.kill()
        survivor = next(role for role in cluster.roles if role.name == "worker" and role is not victim)
        survivor_id = cluster.id_of(survivor)
        await eventually(lambda: set(owners(cluster, names).values()) == {survivor_id}, within=30)
        time.sleep(1)
    for name in names:
        epochs = [Epoch.parse(sight.fields["epoch"]) for sight in watcher.seen[name]]
        assert epochs == sorted(epochs)
        owned = {(sight.fields["epoch"], sight.fields["owner"]) for sight in watcher.seen[name]}
        assert len(owned) == len({epoch for epoch, _ in owned}), "two owners under one epoch"
        assert cluster.rules(name) == ["first_light"]


async def test_a_worker_told_to_stop_hands_over_first(make_cluster: MakeCluster, start_postgres: StartPostgres) -> None:
    cluster = make_cluster(workers=2)
    names = await fleet_of(cluster, start_postgres(), 4)
    leaving = cluster.worker_of(cluster.hash(names[0])["owner"])
    leaving_id = cluster.id_of(leaving)
    with Watcher(cluster, names) as watcher:
        assert leaving.terminate(within=10) == 0
        assert leaving_id not in owners(cluster, names).values()
        time.sleep(6)
    for name in names:
        moments = watcher.observed(name)
        assert max(b - a for a, b in itertools.pairwise(moments)) <= 6.5


async def test_a_worker_stops_in_time_without_redis(make_cluster: MakeCluster, start_postgres: StartPostgres) -> None:
    cluster = make_cluster(workers=1)
    await fleet_of(cluster, start_postgres(), 1)
    cluster.server.freeze()
    try:
        worker = next(role for role in cluster.roles if role.name == "worker")
        assert worker.terminate(within=10) == 0
    finally:
        cluster.server.thaw()
