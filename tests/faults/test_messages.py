"""RQ's jobs are lost, doubled, forged, a flood: they are nudges, and nothing needs them."""

import asyncio
import os
import pickle
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from tests.faults import injecting
from tests.faults.asserting import assert_unmoved, gaps
from tests.faults.conftest import Row
from tests.faults.lab import INTERVAL, Lab
from tests.faults.observed import Effect
from tests.servers import PostgresServer
from tests.system.cluster import Role
from tests.waiting import again_and_again, eventually
from workers.nudges import queue_name

RECONCILE = 2.0  # seconds between two looks of a worker at its assignments
WATCH, RELEASE = "workers.worker.jobs.watch", "workers.worker.jobs.release"
OBSERVE_NOW = "workers.worker.jobs.observe_now"


class Stranger:
    """Somebody who may write to Redis and has RQ's own means."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.client = redis.Redis.from_url(lab.redis_url)  # decodes nothing, as RQ wants it

    def queue(self, role: Role) -> Queue:
        """Return the queue of a worker."""
        name = queue_name(self._lab.id_of(role))
        return Queue(name, connection=self.client, serializer=JSONSerializer)

    def job(self, role: Role, function: Any, *arguments: Any, **fields: Any) -> str:
        """Write a job without queueing it, with fields of its hash replaced; return its id."""
        job = self.queue(role).create_job(function, arguments)
        job.save()
        if fields:
            self.client.hset(job.key, mapping=fields)
        return job.id

    def push(self, role: Role, *ids: str | bytes) -> None:
        """Queue jobs by id, in this order."""
        self.client.rpush(self.queue(role).key, *ids)

    def waiting(self) -> int:
        """Return how many jobs wait."""
        return sum(self.client.llen(self.queue(role).key) for role in self._lab.workers())


@pytest.fixture
def make_stranger() -> Iterator[Callable[[Lab], Stranger]]:
    strangers: list[Stranger] = []

    def make(lab: Lab) -> Stranger:
        strangers.append(Stranger(lab))
        return strangers[-1]

    yield make
    for stranger in strangers:
        stranger.client.close()


MakeStranger = Callable[[Lab], Stranger]


async def observed_fleet(lab: Lab, server: PostgresServer) -> list[str]:
    names = lab.monitor_many(9, server)
    await lab.all_in(names, "available", within=30)
    await eventually(lambda: all(lab.owned_by(role, names) for role in lab.workers()), within=20)
    return names


def owners(lab: Lab, names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return who owns each database under which epoch."""
    rows = {name: lab.hash(name) for name in names}
    return {name: (row["owner"], row["epoch"]) for name, row in rows.items()}


async def assert_undisturbed(
    row: Row, lab: Lab, before: dict[str, tuple[str, str]], workers: int
) -> None:
    """Fail unless each database keeps its owner, is observed on in time, and all workers live."""
    assert owners(lab, before) == before
    row.figure("observed on after", await lab.observed_again(before, within=10), most=INTERVAL + 1)
    assert len(lab.workers()) == workers
    assert_unmoved(lab, before)


async def all_taken(lab: Lab, stranger: Stranger, within: float) -> float:
    """Wait until no job waits and effects had time to show; return the seconds to the last."""
    began = time.monotonic()
    await eventually(lambda: not stranger.waiting(), within=within, every=0.05)
    took = time.monotonic() - began
    await asyncio.sleep(RECONCILE + 0.5)  # as long as an effect may take
    return took


# --- lost -----------------------------------------------------------------------------------------


@contextmanager
def jobs_lost(lab: Lab, stranger: Stranger) -> Iterator[list[bytes]]:
    """Lose every job: none may be taken, all are deleted as they come; yield the lost."""
    client, lost = stranger.client, list[bytes]()

    def delete() -> None:
        for key in client.scan_iter("rq:queue:feeler-*"):
            lost.extend(client.lrange(key, 0, -1))
            client.delete(key)

    with lab.fault("RQ's jobs lost", Effect.HARMLESS):
        client.execute_command("ACL", "SETUSER", "default", "-lmove", "-blmove")
        for one in client.client_list():
            if one["cmd"] == "blmove":
                client.client_kill_filter(_id=one["id"])  # it waits with the right it had
        try:
            with again_and_again(delete, every=0.01):
                yield lost
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+lmove", "+blmove")


@pytest.mark.quick
@pytest.mark.row(
    "every RQ job is lost for 10 s, a worker is killed",
    "others observe its databases within 16 s + one reconcile (2 s)",
)
async def test_jobs_lost(row: Row, make_stranger: MakeStranger) -> None:
    lab = row.make_lab()
    stranger, names = make_stranger(lab), await observed_fleet(lab, row.start_postgres())
    victim = lab.owner_of(names[0])
    orphans = lab.owned_by(victim, names)
    with jobs_lost(lab, stranger) as lost:
        over = time.monotonic() + 10
        injecting.killed(lab, victim)
        took = await lab.observed_again(orphans, within=30)
        await asyncio.sleep(over - time.monotonic())  # 10 s in all
    row.figure("observed by others after", took, most=16 + RECONCILE)
    row.figure("jobs lost", len(lost), "")
    assert lost
    worker = lab.workers()[0]
    stranger.push(worker, stranger.job(worker, WATCH, []))
    row.figure("jobs taken again after", await all_taken(lab, stranger, within=20), most=10)
    assert len(lab.workers()) == 2
    assert_unmoved(lab, names)


# --- doubled, reordered, old ----------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.row(
    "RQ jobs twice, in the wrong order, a week old, for databases of others",
    "each database keeps its one owner and is observed on",
)
async def test_jobs_doubled(row: Row, make_stranger: MakeStranger) -> None:
    lab = row.make_lab()
    stranger, names = make_stranger(lab), await observed_fleet(lab, row.start_postgres())
    before, week_ago = owners(lab, names), utcformat(datetime.now(UTC) - timedelta(days=7))
    for role in lab.workers():
        watch, release = (stranger.job(role, function, names) for function in (WATCH, RELEASE))
        old = [
            stranger.job(role, function, names, created_at=week_ago)
            for function in (RELEASE, WATCH, OBSERVE_NOW)
        ]
        stranger.push(role, release, watch, watch, release, *old, watch, *old, release)
    row.figure("all taken after", await all_taken(lab, stranger, within=20), most=10)
    await assert_undisturbed(row, lab, before, workers=3)


# --- forged ---------------------------------------------------------------------------------------


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def forgeries(stranger: Stranger, role: Role, mark: Path) -> list[str | bytes]:
    """Write jobs that want a file made, and jobs nobody can read; return their ids."""
    touch = f"touch {mark}"
    ids: list[str | bytes] = [
        stranger.job(role, "os.system", touch),
        stranger.job(role, "subprocess.check_call", ["touch", str(mark)]),
        stranger.job(role, "workers.worker.jobs.host", None),
        stranger.job(role, "workers.worker.jobs._pass", "watch", []),
        stranger.job(role, "workers.worker.jobs.nothing_of_that_name"),
        stranger.job(role, WATCH, {"a": [1, None]}, 7),
        stranger.job(role, OBSERVE_NOW, ["\0", "x" * 100_000, 1, None]),
        b"\xff\xfe no hash",
    ]
    odd = {"created_at": b"\xff", "timeout": "many", "status": "?"}
    ids += [stranger.job(role, WATCH, [], **odd, data=data) for data in (b"\xff\0garbage", b"")]
    ids += [stranger.job(role, WATCH, [], data=pickle.dumps(Bomb(touch)))]
    # RQ's default: all of it pickled
    pickled = Job.create(os.system, (touch,), connection=stranger.client)
    pickled.save()
    return [*ids, pickled.id]


@pytest.mark.quick
@pytest.mark.row(
    "RQ jobs that name os.system or functions not ours, pickles, garbage",
    "nothing of it runs, workers live, jobs are taken again within 30 s, one owner each",
)
async def test_jobs_forged(row: Row, make_stranger: MakeStranger, tmp_path: Path) -> None:
    lab, mark = row.make_lab(workers=2), tmp_path / "mark"
    stranger, names = make_stranger(lab), await observed_fleet(lab, row.start_postgres())
    before = owners(lab, names)
    for role in lab.workers():
        stranger.push(role, *forgeries(stranger, role, mark), stranger.job(role, WATCH, []))
    row.figure("all taken after", await all_taken(lab, stranger, within=60), most=30)
    assert not mark.exists()
    await assert_undisturbed(row, lab, before, workers=2)


@pytest.mark.row(
    "1,000 RQ jobs at once for one worker, a tenth of them forged",
    "it lives and observes on in time; nothing of another runs, one owner each",
)
async def test_flood(row: Row, make_stranger: MakeStranger, tmp_path: Path) -> None:
    lab, mark = row.make_lab(), tmp_path / "mark"
    stranger, names = make_stranger(lab), await observed_fleet(lab, row.start_postgres())
    before, role = owners(lab, names), lab.workers()[0]
    its = lab.owned_by(role, names)
    kinds = (WATCH, RELEASE, OBSERVE_NOW) * 3
    jobs = [
        *(stranger.job(role, kinds[number % 9], names) for number in range(900)),
        *(stranger.job(role, "os.system", f"touch {mark}") for _ in range(100)),
    ]
    began = time.time()
    stranger.push(role, *(job for start in range(7) for job in jobs[start::7]))
    row.figure("all taken after", await all_taken(lab, stranger, within=90), most=60)
    assert not mark.exists()
    await assert_undisturbed(row, lab, before, workers=3)
    row.figure("longest gap", max(max(gaps(lab, name, began)) for name in its), most=INTERVAL + 1)
