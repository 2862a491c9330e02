"""Redis loses its memory; no transition may be invented, lost or doubled for it."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.cluster import Cluster, Watcher
from tests.system.test_spine import all_in, check_history
from tests.waiting import eventually

MakeCluster = Callable[..., Cluster]
StartPostgres = Callable[..., Any]


@pytest.mark.parametrize("how", ["flushall", "killed_and_empty"])
async def test_recording_resumes_in_the_new_generation(
    how: str, make_cluster: MakeCluster, start_postgres: StartPostgres
) -> None:
    cluster = make_cluster(workers=2)
    servers = {f"db-{i}": start_postgres() for i in range(3)}
    for name, server in servers.items():
        cluster.add(name, server.url())
    await all_in(cluster, list(servers), "available", within=30)
    servers["db-0"].kill_all()
    await all_in(cluster, ["db-0"], "unavailable", within=12)
    epochs = {name: cluster.hash(name)["epoch"] for name in servers}
    lost = time.time()
    if how == "flushall":
        cluster.redis.flushall()
    else:
        cluster.server.kill()
        cluster.server.start(empty=True)

    def resumed() -> bool:
        rows = [cluster.hash(name) for name in servers]
        return all(float(row.get("observed_at", 0)) > lost and row["epoch"] not in epochs.values() for row in rows)

    await eventually(resumed, within=20)
    print(f"{how}: recording again after {time.time() - lost:.1f} s")
    assert cluster.state("db-0") == "unavailable"
    servers["db-0"].start()
    await all_in(cluster, list(servers), "available", within=14)
    await eventually(lambda: cluster.rules("db-0")[-1] in ("recovered", "reopened"), within=10, every=0.2)
    rules = [row.transition.rule for row in check_history(cluster, "db-0")]
    assert rules[:3] == ["first_light", "doubt", "confirm_absent"]
    assert rules[3:] in (["recovered"], ["answered", "reopened"])
    for name in ("db-1", "db-2"):
        assert [row.transition.rule for row in check_history(cluster, name)] == ["first_light"]


async def test_a_crash_while_redis_is_away_is_told_in_order_afterwards(
    make_cluster: MakeCluster, start_postgres: StartPostgres
) -> None:
    cluster, server = make_cluster(workers=2), start_postgres()
    cluster.add("orders", server.url())
    await all_in(cluster, ["orders"], "available", within=30)
    with Watcher(cluster, ["orders"]):
        cluster.server.kill()
        killed = time.time()
        server.kill_all()
        time.sleep(3)
        cluster.server.start(empty=True)
        await all_in(cluster, ["orders"], "unavailable", within=25)
    await eventually(lambda: len(cluster.rules("orders")) == 3, within=10, every=0.2)
    rows = check_history(cluster, "orders")
    assert [row.transition.rule for row in rows] == ["first_light", "doubt", "confirm_absent"]
    assert rows[1].transition.at - killed < 3
