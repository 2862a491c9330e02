"""Faults at random, overlapping, under load: whatever comes together, the history holds."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from monitor.registry import store
from tests.faults import nemesis
from tests.faults.conftest import Figures, MakeLab
from tests.faults.nemesis import Nemesis

StartPostgres = Callable[..., Any]
CALM = 40  # databases that nothing is done to
CALLED = 2  # outages a minute, at least, that had to be called in time


@pytest.mark.timeout(1200)
@pytest.mark.row(
    "workers, supervisors, Redis, its metadata and the databases hurt at random, overlapping, under load",
    "everybody well 90 s after the last fault; the whole history holds; beside it a fleet whose stores and workers are "
    "left alone: every outage called in time, two a minute at least",
)
async def test_random_faults(
    make_lab: MakeLab, start_postgres: StartPostgres, figure: Figures, pytestconfig: pytest.Config
) -> None:
    seed, minutes = pytestconfig.getoption("--seed"), pytestconfig.getoption("--minutes")
    metadata = start_postgres()
    metadata.execute("CREATE DATABASE feeler")
    store.migrate(metadata.url("feeler"))
    lab = make_lab(workers=3, supervisors=2, metadata=metadata.url("feeler"))
    lab.monitor_many(CALM, start_postgres(max_connections="150"), prefix="calm")
    victims = [start_postgres() for _ in range(4)]
    for number, server in enumerate(victims):
        lab.monitor_many(2, server, prefix=f"victim-{number}")
    await lab.all_in(list(lab.targets), "available", within=60)
    processes = Counter(role.name for role in lab.roles)
    workers = lab.workers()
    sights = dict(zip((role.pid for role in workers), victims, strict=False))  # each may lose sight of another one
    subjects = [
        *(nemesis.of_process(lab, role, f"{role.name}-{i}", sights.get(role.pid)) for i, role in enumerate(lab.roles)),
        nemesis.of_redis(lab),
        nemesis.of_network(lab, victims[:2]),
        nemesis.of_metadata(lab, metadata),
        *(nemesis.of_target(lab, server, f"victim-{i}") for i, server in enumerate(victims)),
    ]
    spared, servers = make_lab(workers=2), [start_postgres() for _ in range(3)]
    for number, server in enumerate(servers):
        spared.monitor_many(2, server, prefix=f"spared-{number}")
    await spared.all_in(list(spared.targets), "available", within=60)
    subjects += [nemesis.of_spared(spared, server, f"spared-{i}") for i, server in enumerate(servers)]
    injected = Nemesis(seed, subjects)
    await injected.run(minutes * 60)
    figure("everybody well after", await lab.all_in(list(lab.targets), "available", within=120), most=90)
    await spared.all_in(list(spared.targets), "available", within=30)
    figure("outages that had to be called in time", len(spared.outages()), "")
    figure("besides those that overlapped faults of ours", len(lab.outages()), "")
    assert len(spared.outages()) >= CALLED * minutes
    figure(f"seed {seed}, {minutes:g} min, faults", len(injected.injected), "")
    figure("transitions", sum(len(lab.transitions(name)) for name in lab.targets), "")
    counters = lab.counters()
    figure("late writes refused", sum(count for what, count in counters.items() if what.startswith("rejected")), "")
    assert processes == Counter(role.name for role in lab.roles if role.alive)
