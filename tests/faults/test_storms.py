"""Many databases of one server: our own logins at once are no evidence against it."""

import time

import pytest

from monitor.live.keys import REQUESTS
from tests.faults import injecting
from tests.faults.asserting import durable
from tests.faults.conftest import Row
from tests.faults.history import Bounds
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.faults.test_logins import PASSWORD, USER, first_failed_proof
from tests.servers import PostgresServer
from tests.waiting import eventually

OTHER = "guest"


def monitor(lab: Lab, server: PostgresServer, count: int, user: str = USER) -> list[str]:
    """Have so many databases of a server monitored, as this role."""
    server.execute(f"create role {user} login password '{PASSWORD}'")
    names = [f"{user}-{number:03}" for number in range(count)]
    for name in names:
        lab.monitor(name, server, user=user, password=PASSWORD)
    return names


def worst_after_first_failure(lab: Lab, names: list[str], since: float) -> float:
    """Return the seconds from the first failed proof to the last database known as refusing."""
    worst = 0.0
    for owner in {lab.owner(name) for name in names}:
        owned = [name for name in names if lab.owner(name) == owner]
        first = min(first_failed_proof(lab, name, since) for name in owned)
        worst = max(worst, max(float(lab.hash(name)["since"]) for name in owned) - first)
    return worst


@pytest.mark.timeout(300)
@pytest.mark.row(
    "50 databases of one server as two roles, their kept sessions alive, the postmaster frozen; "
    "then one role locked",
    "each `refusing` (`login_failing`) within 40 s, all of a worker's within 10 s of its first "
    "failed proof; `available` within 10 s of the thaw; the other role's stay `available`",
)
async def test_a_postmaster_of_many_frozen(row: Row) -> None:
    lab = row.make_lab(workers=2, bounds=Bounds(settled=90))
    server = row.start_postgres(max_connections="100")
    names, others = monitor(lab, server, 25), monitor(lab, server, 25, OTHER)
    await lab.all_in(names + others, "available", within=30)
    began = time.time()
    with lab.fault("postmaster frozen", Effect.SPEAKS, names + others), server.postmaster_frozen():
        seconds = await lab.all_in(names + others, "refusing", within=100)
        row.figure("all refusing after", seconds, most=40)
        causes = {lab.hash(name)["cause"] for name in names + others}
        assert causes <= {"login_failing", "login_not_proved"}
        found = worst_after_first_failure(lab, names + others, began)
        row.figure("after the first failed proof", found, most=10)
    row.figure("available after", await lab.all_in(names + others, "available", within=60), most=10)
    with lab.fault("role locked", Effect.SPEAKS, others):
        server.execute(f"alter role {OTHER} nologin")
        injecting.sessions_ended(lab, server)
        row.figure("locked out after", await lab.all_in(others, "locked_out", within=60), most=20)
        await lab.observed_again(names, within=20)
        server.execute(f"alter role {OTHER} login")
    assert all(lab.state(name) == "available" for name in names)
    for name in names:
        await durable(lab, name, "first_ok", "answered", "reopened")
    for name in others:
        lab.redis.xadd(REQUESTS, {"kind": "observe", "database": name})
    await lab.all_in(others, "available", within=60)


@pytest.mark.alone
@pytest.mark.timeout(400)
@pytest.mark.row(
    "300 databases of a server with room for 307: all are added, a worker is killed, another "
    "comes, all sessions end, the server is killed",
    "never `refusing`, and `uncertain` while the server is away alone; observed again within 20 s "
    "of each, all `available` within 30 s of being added and of the server's start",
)
async def test_our_own_storm(row: Row) -> None:
    lab = row.make_lab(workers=2)
    server = row.start_postgres(max_connections="310", superuser_reserved_connections="3")
    names = monitor(lab, server, 300)
    row.figure("available after", await lab.all_in(names, "available", within=60), most=30)
    killed = lab.workers()[0]
    injecting.killed(lab, killed)
    seconds = await lab.observed_by_others(names, killed, within=40)
    row.figure("observed by the other after", seconds, most=20)
    lab.launch("worker")
    await eventually(lambda: len({lab.owner(name) for name in names}) == 2, within=60, every=0.5)
    row.figure("after a hand-over", await lab.observed_again(names, within=40), most=20)
    injecting.sessions_ended(lab, server)
    row.figure("after the end of all sessions", await lab.observed_again(names, within=40), most=20)
    # new and available
    assert not any(len(set(lab.eye.states(name))) > 2 for name in names)
    with injecting.target_killed(lab, server):
        await eventually(lambda: any(lab.state(name) == "uncertain" for name in names), within=10)
    seconds = await lab.all_in(names, "available", within=60)
    row.figure("available after a restart", seconds, most=30)
    assert not any("refusing" in lab.eye.states(name) for name in names)


@pytest.mark.row(
    "60 databases added at a server whose slots others have taken",
    "all `refusing` within 15 s, never `uncertain`; all `available` within 15 s of the first free "
    "slot",
)
async def test_a_storm_at_a_full_server(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres(max_connections="90")
    server.execute(f"create role {OTHER} login password '{PASSWORD}'")
    with injecting.target_full(lab, server, OTHER, PASSWORD):
        names = monitor(lab, server, 60)
        row.figure("refusing after", await lab.all_in(names, "refusing", within=60), most=15)
    lab.note("no slot left", Effect.SPEAKS, names, began=lab.began, ended=time.time())
    row.figure("available after", await lab.all_in(names, "available", within=60), most=15)
    for name in names:
        await eventually(lambda name=name: lab.eye.states(name)[-1] == "available")
        assert lab.eye.states(name) == ["new", "refusing", "available"]
