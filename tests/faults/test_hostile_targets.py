"""Many targets lie, stall, vanish or die at once: workers live, others do not notice."""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import cutting, injecting
from tests.faults.asserting import assert_available, longest_probe
from tests.faults.conftest import Row
from tests.faults.demands import STANDARD
from tests.faults.history import lateness
from tests.faults.lab import Lab
from tests.faults.observed import Effect, History
from tests.feeler import hostile
from tests.servers import PostgresServer
from tests.system.cluster import Role
from tests.waiting import eventually

DEADLINE, GRACE = 2.0, 0.1  # seconds of a probe
LOGIN_DEADLINE = 5.0  # seconds of a login at a server that has let us in never
LATE = 1.0  # seconds an observation of a healthy database may be late
STALL = 0.25  # seconds a loop may stand still by itself
GROWTH = 64.0  # megabytes
TEXT = 512  # bytes of one stored value
PROOFS = 40  # servers that ask for endless proofs: more than the logins that may be proved at once

SILENT = {"silent", "drip", "ask_again_and_again", "never_answer"}
ABSENT = {"no_postgres", "hang_up"}
HONEST = {"lie"}  # its gauges are nonsense, its answers are not


def watch(lab: Lab, ports: dict[str, int]) -> None:
    """Have servers that are no PostgreSQL monitored."""
    for name, port in ports.items():
        lab.monitor(name, None, f"postgresql://u:secret-word@127.0.0.1:{port}/db?sslmode=disable")


def late(lab: Lab, names: Iterable[str], began: float) -> list[float]:
    """Return by how much each observation since `began` was late."""
    now = time.time()
    return lateness(History(lab.began, now, sights=lab.eye.sights), names, (began, now))


def memory(role: Role, field: str) -> float:
    """Return VmRSS or VmHWM (its peak) of a process, in megabytes."""
    text = Path(f"/proc/{role.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) / 1024


def stall(lab: Lab) -> float:
    """Return how long a worker's loop stood still, besides its waits for a processor."""
    texts = "".join(role.text() for role in lab.workers())
    found = re.findall(r"loop_stalled seconds=(\S+) starved=(\S+)", texts)
    return max((float(seconds) - float(starved) for seconds, starved in found), default=0.0)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


async def up(lab: Lab, names: Sequence[str], within: float = 60) -> None:
    """Wait until all are available and each beats on its own grid."""
    await lab.all_in(names, "available", within=within)
    await lab.observed_again(names, within=15)


@contextmanager
def all_killed(lab: Lab, servers: Sequence[PostgresServer]) -> Iterator[None]:
    """SIGKILL servers at the same time; they are started again when the block ends.

    By this thread: a server dies with the one that started it.
    """
    blocks = [injecting.target_killed(lab, server) for server in servers]
    with ThreadPoolExecutor(len(blocks)) as threads:
        list(threads.map(lambda block: block.__enter__(), blocks))
    yield
    for block in blocks:
        block.__exit__(None, None, None)


# --- hostile --------------------------------------------------------------------------------------


@pytest.fixture
def attackers() -> Iterator[dict[str, int]]:
    with hostile.all_at_once(proofs=PROOFS) as ports:
        yield ports


def note_truth(lab: Lab, names: Iterable[str]) -> None:
    """Say what each hostile server really is; those that only attack us may change nothing."""
    others = set(names) - SILENT - ABSENT - HONEST
    truth = {Effect.SILENT: SILENT, Effect.ABSENT: ABSENT, Effect.SPEAKS: others}
    for effect, kinds in truth.items():
        lab.note("hostile", effect, kinds)


@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.row(
    "57 hostile servers at once: silent, dripping, flooding, lying, one row of 400 MB, 40 endless "
    "SCRAM proofs",
    "honest databases of the same worker observed at most 1 s late, new ones available within 10 "
    "s; memory grows by 64 MB at most, the loop stands still for 0.25 s at most; no probe longer "
    "than the deadline of a first login, 5 s + 0.1 s; no state from what proves nothing",
)
async def test_every_attack_at_once(attackers: dict[str, int], row: Row) -> None:
    # A single worker's word counts after 30 s; who asks for proofs without end costs our own time,
    # so some is void.
    lone = replace(STANDARD, silent=120.0, absent=60.0)
    lab, server = row.make_lab(workers=1, bounds=lone), row.start_postgres(max_connections="60")
    names = lab.monitor_many(8, server)
    await up(lab, names)
    (worker,) = lab.workers()
    before, began = memory(worker, "VmRSS"), time.time()
    note_truth(lab, attackers)
    watch(lab, attackers)
    await eventually(lambda: all(lab.hash(name).get("cause") for name in attackers), within=20)
    since = time.monotonic()
    newcomers = lab.monitor_many(8, server, prefix="newcomer")
    seconds = await lab.all_in(newcomers, "available", within=30)
    row.figure("newcomers available after", seconds, most=10)
    await asyncio.sleep(max(0.0, since + 22 - time.monotonic()))  # each attack and its next probe
    row.figure("honest databases late by", max(late(lab, names, began)), most=LATE)
    row.figure("memory grew by", memory(worker, "VmHWM") - before, "MB", most=GROWTH)
    row.figure("loop stood still for", stall(lab), most=STALL)
    row.figure("longest probe", longest_probe(lab, attackers, began), most=LOGIN_DEADLINE + GRACE)
    found = max(len(v.encode()) for n in attackers for v in lab.hash(n).values())
    row.figure("longest value", found, "bytes", most=TEXT)
    assert worker.alive
    attacks = set(attackers) - SILENT - ABSENT - HONEST
    causes = {name: lab.hash(name)["cause"] for name in attacks}
    assert set(causes.values()) <= {"byte_budget", "severed", "server_error"}
    # they speak: refusing in the end
    erring = {name for name in attacks if causes[name] == "server_error"}
    assert {state for name in attacks - erring for state in lab.eye.states(name)} <= {"new"}
    assert {state for name in erring for state in lab.eye.states(name)} <= {"new", "refusing"}
    assert_available(lab, [*names, *newcomers, *HONEST])
    for name in {*attacks, "ask_again_and_again"}:  # may have no history to be judged by
        lab.retire(name)


@pytest.mark.quick
@pytest.mark.row(
    "a server answers one byte every 50 ms",
    "`unavailable` within 22 s by confirm_silent; no probe longer than its deadline of 2 s + 0.1 "
    "s; its neighbours observed at most 1 s late; `available` within 7 s after",
)
async def test_dripping_answers(row: Row) -> None:
    lab, server = row.make_lab(workers=2), row.start_postgres()
    proxy = row.start_proxy(server.port)
    names = lab.monitor_many(3, server)
    lab.monitor("orders", server, proxy.url(server.url()))
    await up(lab, [*names, "orders"])
    began = time.time()
    with lab.fault("answers drip", Effect.SILENT, ["orders"]):
        proxy.drip = 0.05
        seconds = await lab.all_in(["orders"], "unavailable", within=40)
        row.figure("unavailable after", seconds, most=22)
        proxy.drip = 0.0
    seconds = await lab.all_in(["orders"], "available", within=30)
    row.figure("available again after", seconds, most=7)
    row.figure("longest probe", longest_probe(lab, ["orders"], began), most=DEADLINE + GRACE)
    row.figure("others late by", max(late(lab, names, began)), most=LATE)
    assert_available(lab, names)


# --- many at once ---------------------------------------------------------------------------------


@pytest.fixture
def crowd() -> Iterator[dict[str, int]]:
    """300 cheap servers in one process."""
    with hostile.many_honest(300) as ports:
        yield {f"crowd-{number:03}": port for number, port in enumerate(ports)}


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.row(
    "90 of 300 servers black-holed at once, two workers",
    "the 210 others observed at most 1 s late (p99) all the while and untouched; all 90 "
    "`unavailable` within 60 s",
)
async def test_a_third_black_holed(crowd: dict[str, int], row: Row) -> None:
    if reason := cutting.why_not():
        pytest.skip(reason)
    lab = row.make_lab(workers=2)
    watch(lab, crowd)
    names = list(crowd)
    lost, healthy = names[:90], names[90:]
    await up(lab, names, within=90)
    began = time.time()
    ports = f"{crowd[lost[0]]}:{crowd[lost[-1]]}"
    with lab.fault("black hole", Effect.SILENT, lost), cutting.closed(ports, cutting.DROP) as rule:
        seconds = await lab.all_in(lost, "unavailable", within=90)
        row.figure("all unavailable after", seconds, most=60)
        await asyncio.sleep(max(0.0, began + 40 - time.time()))  # the others, on and on
        lateness_of_healthy = late(lab, healthy, began)
        assert rule.packets()
    row.figure("healthy late by (p99)", percentile(lateness_of_healthy, 0.99), most=LATE)
    row.figure("healthy late by (worst)", max(lateness_of_healthy))
    row.figure("loop stood still for", stall(lab), most=STALL)
    row.figure("longest probe", longest_probe(lab, names, began), most=DEADLINE + GRACE)
    seconds = await lab.all_in(names, "available", within=60)
    row.figure("all available again after", seconds, most=30)
    assert_available(lab, healthy)


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.row(
    "20 servers of 10 databases each SIGKILLed at once",
    "all 200 `unavailable` within 30 s, `available` within 30 s of the restart; databases of "
    "another server untouched and observed at most 1 s late",
)
async def test_two_hundred_die_at_once(row: Row) -> None:
    lab = row.make_lab(workers=3)
    servers = [row.start_postgres(max_connections="60") for _ in range(20)]
    neighbours = lab.monitor_many(5, row.start_postgres(), prefix="neighbour")
    with ThreadPoolExecutor(4) as threads:
        prefixes = [f"server-{number:02}" for number in range(20)]
        parts = threads.map(lab.monitor_many, [10] * 20, servers, prefixes)
        names = [name for some in parts for name in some]
    await up(lab, [*names, *neighbours], within=90)
    began = time.time()
    with all_killed(lab, servers):
        await lab.all_in(names, "unavailable", within=60)
        row.figure("all 200 unavailable after", time.time() - began, most=30)
        killed_late = late(lab, neighbours, began)
    seconds = await lab.all_in(names, "available", within=60)
    row.figure("all 200 available again after", seconds, most=30)
    row.figure("neighbours late by", max(*killed_late, *late(lab, neighbours, began)), most=LATE)
    assert_available(lab, neighbours)
