"""Faults at random, overlapping, under load: whatever comes together, the history holds."""

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.faults import nemesis
from tests.faults.conftest import Figures, Row
from tests.faults.lab import Lab, new_registry
from tests.faults.nemesis import FOREIGN, MOVED, RETIRED, Nemesis, Subject
from tests.servers import PostgresServer

CALM = 40  # databases that nothing is done to
CALLED = 2  # outages a minute, at least, that had to be called in time
AT_ONCE = 3  # moves of one database in ten minutes that are made at once


def everywhere(lab: Lab, name: str, home: PostgresServer, away: PostgresServer) -> str:
    """Have a database monitored that lives on two servers."""
    for server in (home, away):
        server.execute(f'create database "{name}"')
    lab.monitor(name, home, home.url(name))
    return name


def hurt(lab: Lab, metadata: PostgresServer, victims: Sequence[PostgresServer]) -> list[Subject]:
    """Return what is done to a fleet, its stores and its processes; each worker may lose sight of
    another server.
    """
    workers = lab.workers()
    sights = dict(zip((role.pid for role in workers), victims, strict=False))
    return [
        *(
            nemesis.of_process(lab, role, f"{role.name}-{i}", sights.get(role.pid))
            for i, role in enumerate(lab.roles)
        ),
        nemesis.of_redis(lab),
        nemesis.of_network(lab, victims[:2]),
        nemesis.of_metadata(lab, metadata),
        *(nemesis.of_target(lab, server, f"victim-{i}") for i, server in enumerate(victims)),
        nemesis.of_mover(lab, everywhere(lab, "mover", *victims[2:]), *victims[2:]),
        nemesis.of_guest(lab, *lab.monitor_many(1, victims[3], prefix="guest")),
    ]


def spare(lab: Lab, servers: Sequence[PostgresServer], foreign: str) -> list[Subject]:
    """Return what is done to a fleet whose stores and workers are left alone: it has no excuse."""
    busy, *others, home, away = servers
    for number, server in enumerate((busy, *others)):
        lab.monitor_many(2, server, prefix=f"spared-{number}")
    return [
        nemesis.of_busy(lab, busy, "spared-0"),
        *(nemesis.of_spared(lab, server, f"spared-{i}") for i, server in enumerate(others, 1)),
        *(
            nemesis.of_spared(lab, server, f"spared-{name}")
            for name, server in (("home", home), ("away", away))
        ),
        nemesis.of_mover(lab, everywhere(lab, "spared-mover", home, away), home, away),
        nemesis.of_guest(lab, *lab.monitor_many(1, others[0], prefix="spared-guest")),
        nemesis.of_foreigner(lab, foreign),
    ]


@pytest.mark.timeout(1200)
@pytest.mark.row(
    "workers, supervisors, Redis, its metadata and the databases hurt at random, overlapping, "
    "under load; addresses changed, databases retired and added again meanwhile",
    "everybody well 90 s after the last fault; the whole history holds; beside it a fleet whose "
    "stores and workers are left alone, and which another registry's supervisor finds: every "
    "outage called in time, two a minute at least, more than three of one database",
)
async def test_random_faults(
    row: Row, postgres_server: PostgresServer, pytestconfig: pytest.Config
) -> None:
    seed, minutes = pytestconfig.getoption("--seed"), pytestconfig.getoption("--minutes")
    metadata = row.start_postgres()
    lab = row.make_lab(workers=3, supervisors=2, metadata=new_registry(metadata))
    lab.monitor_many(CALM, row.start_postgres(max_connections="150"), prefix="calm")
    victims = [row.start_postgres() for _ in range(4)]
    for number, server in enumerate(victims):
        lab.monitor_many(2, server, prefix=f"victim-{number}")
    processes = Counter(role.name for role in lab.roles)
    subjects = hurt(lab, metadata, victims)
    await lab.all_in(list(lab.targets), "available", within=60)
    spared = row.make_lab(workers=2)
    subjects += spare(
        spared, [row.start_postgres() for _ in range(5)], new_registry(postgres_server, "stranger")
    )
    await spared.all_in(list(spared.targets), "available", within=60)
    injected = Nemesis(seed, subjects)
    await injected.run(minutes * 60)
    seconds = await lab.all_in(list(lab.targets), "available", within=120)
    row.figure("everybody well after", seconds, most=90)
    await spared.all_in(list(spared.targets), "available", within=30)
    tell(row.figure, seed, minutes, injected, lab, spared)
    assert processes == Counter(role.name for role in lab.roles if role.alive)


def tell(
    figure: Figures, seed: int, minutes: float, injected: Nemesis, lab: Lab, spared: Lab
) -> None:
    """Tell what was done and seen; too little of it proves nothing."""
    called = Counter(outage.database for outage in spared.outages())
    most = max(called.values())
    figure("outages that had to be called in time", called.total(), "")
    figure("of one database", most, "")
    figure("besides those that overlapped faults of ours", len(lab.outages()), "")
    figure(f"seed {seed}, {minutes:g} min, faults", len(injected.injected), "")
    for what in (MOVED, RETIRED, FOREIGN):
        figure(f"of these: {what}", injected.injected.count(what), "")
    found = sum(len(one.transitions(name)) for one in (lab, spared) for name in one.targets)
    figure("transitions", found, "")
    counters = lab.counters()
    found = sum(count for what, count in counters.items() if what.startswith("rejected"))
    figure("late writes refused", found, "")
    assert called.total() >= CALLED * minutes
    assert most > min(AT_ONCE, CALLED * minutes - 1)
    assert {MOVED, RETIRED, FOREIGN} <= set(injected.injected)
