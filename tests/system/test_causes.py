"""A server that speaks is not down: each refusal of a real server has its own state, never `unavailable`."""

import time
from collections.abc import Callable
from typing import Any

from tests.system.cluster import Cluster, Watcher
from tests.system.targets import end_our_sessions, fill_slots, held_in_recovery
from tests.waiting import eventually

MakeCluster = Callable[..., Cluster]
StartPostgres = Callable[..., Any]
ROLE = "create role probe login password 'probe'"


async def becomes(cluster: Cluster, name: str, state: str, within: float = 20) -> None:
    await eventually(lambda: cluster.state(name) == state, within=within)


async def test_each_way_to_be_shut_out_is_locked_out(make_cluster: MakeCluster, start_postgres: StartPostgres) -> None:
    cluster, server = make_cluster(workers=2), start_postgres()
    server.execute(ROLE)
    server.execute("create role outsider nologin password 'probe'")
    server.execute("create database closed allow_connections false")
    good = server.url(user="probe", password="probe")
    cluster.add("good", good)
    cluster.add("wrong-password", server.url(user="probe", password="nope"))
    cluster.add("nologin", server.url(user="outsider", password="probe"))
    cluster.add("missing", server.url(dbname="nowhere", user="probe", password="probe"))
    cluster.add("closed", server.url(dbname="closed", user="probe", password="probe"))
    shut = ["wrong-password", "nologin", "missing", "closed"]
    with Watcher(cluster, shut) as watcher:
        await becomes(cluster, "good", "available")
        for name in shut:
            await becomes(cluster, name, "locked_out")
        server.execute("alter role probe password 'rotated'")
        assert end_our_sessions(server)
        await becomes(cluster, "good", "locked_out")
        server.execute("alter role probe password 'probe'")
        await becomes(cluster, "good", "available")
    for name in shut:
        assert "unavailable" not in watcher.states(name)
    await eventually(lambda: cluster.rules("good") == ["first_light", "answered", "reopened"], within=10, every=0.2)


async def test_a_full_server_is_refusing(make_cluster: MakeCluster, start_postgres: StartPostgres) -> None:
    cluster, server = make_cluster(workers=2), start_postgres(max_connections="12")
    server.execute(ROLE)
    cluster.add("full", server.url(user="probe", password="probe"))
    await becomes(cluster, "full", "available")
    with Watcher(cluster, ["full"]) as watcher:
        hogs = fill_slots(server, user="probe", password="probe")
        try:
            await becomes(cluster, "full", "refusing")
        finally:
            for hog in hogs:
                hog.close()
        await becomes(cluster, "full", "available")
    assert set(watcher.states("full")) <= {"available", "refusing"}


async def test_a_recovering_server_is_starting(make_cluster: MakeCluster, start_postgres: StartPostgres) -> None:
    cluster, server = make_cluster(workers=2), start_postgres(wal_level="replica")
    cluster.add("crashed", server.url())
    await becomes(cluster, "crashed", "available")
    with Watcher(cluster, ["crashed"]) as watcher:
        with held_in_recovery(server):
            await becomes(cluster, "crashed", "starting", within=30)
            time.sleep(2)
        await becomes(cluster, "crashed", "available")
    assert "unavailable" not in watcher.states("crashed")
