"""Wall clocks that are wrong or set: no state and no lease goes by them."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from monitor.live.keys import presence_key
from monitor.local.machine import free_port
from tests.faults import injecting
from tests.faults.asserting import assert_unmoved, terms
from tests.faults.conftest import Row
from tests.faults.history import Bounds
from tests.faults.lab import Lab
from tests.faults.observed import Effect
from tests.proxy import shift_time
from tests.system.cluster import Role
from tests.waiting import eventually

HOUR = 3600
SLOW_INTERVAL = 60.0  # seconds: the default policy's, of gauges that cost more


def skewed(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose wall clock is wrong by so much."""
    return {"PYTHONPATH": str(Path(__file__).parent / "skewed"), "FEELER_TEST_SKEW": str(seconds)}


def start_skewed(lab: Lab, role: str) -> tuple[Role, Role]:
    """Start one process that is an hour ahead and one that is an hour behind."""
    return lab.launch(role, **skewed(HOUR)), lab.launch(role, **skewed(-HOUR))


async def assert_skewed(ahead: Role, behind: Role) -> None:
    """Wait for both to say that their clocks are wrong: each says so before anything else."""
    await eventually(lambda: ahead.text().startswith(f"skewed={HOUR}\n"), within=10)
    await eventually(lambda: behind.text().startswith(f"skewed=-{HOUR}\n"), within=10)


@pytest.mark.quick
@pytest.mark.row(
    "a worker's clock is an hour ahead, another's an hour behind",
    "observations are dated by the fleet's clock to 1 s; no state changes",
)
async def test_workers_skewed(row: Row) -> None:
    lab = row.make_lab(workers=1)
    ahead, behind = start_skewed(lab, "worker")
    names = lab.monitor_many(9, row.start_postgres())
    await lab.all_in(names, "available", within=30)
    await eventually(lambda: all(lab.owned_by(role, names) for role in (ahead, behind)), within=20)
    await assert_skewed(ahead, behind)
    await lab.observed_again(names, within=15)
    found = max(abs(error) for name in names for error in misdated(lab, name))
    row.figure("furthest date from its sight", found, most=1)
    assert_unmoved(lab, names)


def misdated(lab: Lab, name: str) -> list[float]:
    """Return by how much each observation's date differs from when it was first seen."""
    first: dict[float, float] = {}
    for sight in lab.eye.sights[name]:
        if "observed_at" in sight.fields:
            first.setdefault(float(sight.fields["observed_at"]), sight.at)
    return [seen - dated for dated, seen in first.items()]


@pytest.mark.quick
@pytest.mark.row(
    "a leader's clock is an hour ahead, the standby's an hour behind; the leader is killed",
    "no term passes before; the standby leads within 12 s; no state changes",
)
async def test_supervisors_skewed(row: Row) -> None:
    lab = row.make_lab(workers=2, supervisors=0)
    ahead, behind = start_skewed(lab, "supervisor")
    names = lab.monitor_many(4, row.start_postgres())
    await lab.all_in(names, "available", within=30)
    await assert_skewed(ahead, behind)
    assert len(terms(lab)) == 1
    injecting.killed(lab, lab.leader())
    began = time.monotonic()
    await eventually(lambda: len(terms(lab)) == 2, within=30)
    row.figure("takeover after", time.monotonic() - began, most=12)
    await lab.observed_again(names, within=15)
    assert_unmoved(lab, names)


@pytest.mark.row(
    "Redis's clock is set an hour ahead, then two hours back, then right",
    "observed by the new clock within 10 s and not told to be stale, slow gauges within 70 s; no "
    "state changes, no new leader",
)
async def test_redis_clock_set(row: Row) -> None:
    server = row.start_redis()
    proxy = row.start_proxy(urlsplit(server.url).port)
    everybody = {"REDIS_URL": proxy.url(server.url)}
    lab = row.make_lab(server=server, environment=everybody)
    names = lab.monitor_many(6, row.start_postgres())
    port = free_port()
    lab.launch("web", PORT=str(port), FEELER_HOST="127.0.0.1", **everybody)
    await lab.all_in(names, "available", within=30)
    for seconds in (HOUR, -HOUR, 0):
        with lab.fault(f"Redis's clock {seconds:+} s", Effect.CLOCK):
            proxy.rewrite_replies(shift_time(seconds))
            took = await observed_by(lab, names, seconds)
            row.figure(f"observed at {seconds:+} s after", took, most=10)
            row.figure("not told to be stale after", await nothing_stale(port, names), most=10)
            if seconds == HOUR:
                took = await nothing_stale(port, names, gauges=True)
                row.figure("nor is any slow gauge after", took, most=SLOW_INTERVAL + 10)
    assert len(terms(lab)) == 1
    assert_unmoved(lab, names)


@pytest.mark.timeout(300)
@pytest.mark.row(
    "Redis's clock is set back by an hour while a server is frozen; with one worker and with two",
    "`unavailable` within 25 s of the step: by the one alone (it was for 30 s), or by two "
    "observers",
)
@pytest.mark.parametrize("workers", [1, 2])
async def test_redis_clock_set_back_in_an_outage(workers: int, row: Row) -> None:
    store, server = row.start_redis(), row.start_postgres()
    proxy = row.start_proxy(urlsplit(store.url).port)
    proxy.rewrite_replies(shift_time(HOUR))
    everybody = {"REDIS_URL": proxy.url(store.url)}
    bounds = Bounds(silent=60, ahead=HOUR)
    lab = row.make_lab(workers=workers, server=store, environment=everybody, bounds=bounds)
    names = lab.monitor_many(1, server)
    await lab.all_in(names, "available", within=30)
    await asyncio.sleep(max(0.0, lab.began + 30 - time.time()))  # alone for 30 s
    with injecting.target_frozen(lab, server):
        await lab.all_in(names, "uncertain", within=10)
        if workers > 1:  # a move that the new clock finds in the future
            await eventually(lambda: lab.hash(names[0]).get("moves"), within=10, every=0.01)
        with lab.fault("Redis's clock set back", Effect.CLOCK):
            proxy.rewrite_replies(shift_time(0))
            seconds = await lab.all_in(names, "unavailable", within=60)
            row.figure("unavailable after", seconds, most=25)
    assert lab.hash(names[0])["rule"] == ("single_observer" if workers == 1 else "confirm_silent")
    await lab.all_in(names, "available", within=30)


@pytest.mark.timeout(300)
@pytest.mark.row(
    "a worker dies just before Redis's own clock goes back by an hour: its presence stays so "
    "long; then a server dies",
    "its databases are watched by the other <= 16 s; the one that is left knows that it is alone: "
    "`unavailable` by the rule `single_observer` <= 45 s",
)
async def test_presence_outlives_its_worker(row: Row) -> None:
    lab, server = row.make_lab(workers=2, bounds=Bounds(absent=60)), row.start_postgres()
    names = lab.monitor_many(4, server)
    await lab.all_in(names, "available", within=30)
    await lab.settle()
    victim = lab.owner_of(names[0])
    lost = lab.owned_by(victim, names)
    with lab.fault("a presence that stays for an hour", Effect.CLOCK):
        injecting.killed(lab, victim)
        assert lab.redis.pexpire(presence_key(lab.party(victim)), HOUR * 1000)
        took = await lab.observed_by_others(lost, victim, within=40)
        row.figure("watched by the other after", took, most=16)
        with injecting.target_killed(lab, server):
            seconds = await lab.all_in(names, "unavailable", within=90)
            row.figure("unavailable after", seconds, most=45)
        assert {lab.hash(name)["rule"] for name in names} == {"single_observer"}
        assert lab.redis.delete(presence_key(lab.party(victim))), "it stood there all the time"
        await lab.all_in(names, "available", within=30)


async def observed_by(lab: Lab, names: Sequence[str], shift: int) -> float:
    """Wait until each database is observed by a clock wrong by `shift`; return the seconds."""
    began = time.time()

    def observed() -> bool:
        ages = [time.time() + shift - float(lab.hash(name)["observed_at"]) for name in names]
        return all(-1 < age < time.time() - began for age in ages)

    await eventually(observed, within=30, every=0.05)
    return time.time() - began


async def nothing_stale(port: int, names: Sequence[str], *, gauges: bool = False) -> float:
    """Wait until no database and no gauge is stale for automation; return the seconds."""
    began = time.monotonic()

    def fresh() -> bool:
        url = f"http://127.0.0.1:{port}/api/v1/last_observation"
        with urllib.request.urlopen(url, timeout=5) as answer:
            told = json.load(answer)["data"]
        seen = [one["observation"] for one in told]
        parts = [family for one in seen for family in one["families"].values()] if gauges else []
        return len(seen) == len(names) and not any(one["stale"] for one in (*seen, *parts))

    await eventually(lambda: asyncio.to_thread(fresh), within=90, every=0.2)
    return time.monotonic() - began
