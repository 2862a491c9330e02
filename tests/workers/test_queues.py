"""What may come in through RQ: nudges, and nothing else."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq import Queue
from rq.job import Callback, Job
from rq.serializers import JSONSerializer

from monitor.live import connections
from monitor.live.connections import RqConnection
from tests.fixtures import StartRedis
from tests.waiting import eventually
from workers import nudges
from workers.worker import jobs

WORKER = "here-000001"


@pytest.fixture
def connection(redis_url: str) -> Iterator[RqConnection]:
    connection = connections.rq_connection(redis_url)
    yield connection
    connection.close()


@pytest.fixture
def taken() -> list[tuple[str, tuple[str, ...]]]:
    taken: list[tuple[str, tuple[str, ...]]] = []
    jobs.host(lambda kind, names: taken.append((kind, names)))
    return taken


def work(connection: RqConnection) -> None:
    """Run everything on the worker's queue, as the worker would."""
    mine = Queue(
        nudges.queue_name(WORKER),
        connection=connection,
        serializer=JSONSerializer,
        job_class=nudges.AllowedJob,
    )
    worker = nudges.NudgeWorker(
        [mine], name=f"{WORKER}-1", connection=connection, serializer=JSONSerializer
    )
    worker.work(burst=True, logging_level="CRITICAL")


def strangers_queue(connection: RqConnection) -> Queue:
    """Somebody who can write to Redis, with RQ's own means."""
    return Queue(nudges.queue_name(WORKER), connection=connection, serializer=JSONSerializer)


def test_a_nudge_reaches_the_patrol(
    connection: RqConnection, taken: list[tuple[str, tuple[str, ...]]]
) -> None:
    nudges.enqueue(connection, WORKER, "watch", ["orders", "ledger"])
    nudges.enqueue(connection, WORKER, "observe_now", ["orders"])
    work(connection)
    assert taken == [("watch", ("orders", "ledger")), ("observe_now", ("orders",))]


def test_a_function_that_is_not_ours_does_not_run(connection: RqConnection, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    job = strangers_queue(connection).enqueue("os.system", f"touch {mark}")
    work(connection)
    assert not mark.exists()
    assert (
        Job.fetch(job.id, connection=connection, serializer=JSONSerializer).get_status() == "failed"
    )


def test_a_method_of_an_object_does_not_run(connection: RqConnection, tmp_path: Path) -> None:
    queue = strangers_queue(connection)
    job = queue.enqueue("workers.worker.jobs.watch", [])
    job._instance, job._func_name = "text", "upper"  # what RQ stores for a bound method
    job._data = JSONSerializer.dumps(("upper", "text", [], {}))
    job.save()
    work(connection)
    assert (
        Job.fetch(job.id, connection=connection, serializer=JSONSerializer).get_status() == "failed"
    )


@pytest.mark.parametrize("fails", [False, True])
def test_a_callback_does_not_run(
    connection: RqConnection, taken: list[tuple[str, tuple[str, ...]]], tmp_path: Path, fails: bool
) -> None:
    called = Callback("os.abort")  # would end this very process
    function = "os.getcwd" if fails else "workers.worker.jobs.watch"
    strangers_queue(connection).enqueue(
        function, *([] if fails else [["orders"]]), on_success=called, on_failure=called
    )
    work(connection)
    assert taken == ([] if fails else [("watch", ("orders",))])


def test_arguments_that_are_no_names_are_dropped(
    connection: RqConnection, taken: list[tuple[str, tuple[str, ...]]]
) -> None:
    strangers_queue(connection).enqueue("workers.worker.jobs.watch", [1, None, {"a": 1}, "orders"])
    work(connection)
    assert taken == [("watch", ("orders",))]


async def test_a_nudger_sends_and_cleans_up(connection: RqConnection) -> None:
    nudger = nudges.Nudger(connection)
    nudger.nudge(WORKER, "watch", ["orders"])
    key = f"rq:queue:{nudges.queue_name(WORKER)}"
    await eventually(lambda: connection.llen(key) == 1)
    nudger.remove(WORKER)
    await eventually(lambda: not connection.exists(key))
    assert not [key for key in connection.scan_iter("rq:job:*")]


async def test_a_redis_that_refuses_is_told_in_a_line(
    start_redis: StartRedis,
    caplog: pytest.LogCaptureFixture,
    taken: list[tuple[str, tuple[str, ...]]],
) -> None:
    connection = connections.rq_connection(
        start_redis().url
    )  # the listener never ends: nobody else's Redis
    thread = threading.Thread(target=nudges.listen, args=(connection, WORKER), daemon=True)
    connection.config_set("min-replicas-to-write", 1)
    thread.start()
    await eventually(lambda: "nudges_interrupted" in caplog.text, within=20)
    await asyncio.sleep(5)  # some lives later
    connection.config_set("min-replicas-to-write", 0)
    nudges.enqueue(connection, WORKER, "watch", ["orders"])
    await eventually(lambda: taken == [("watch", ("orders",))], within=20)
    assert "Traceback" not in caplog.text
    assert caplog.text.count("error=no_replicas") == 1


def test_nothing_of_a_worker_that_is_gone_stays(connection: RqConnection) -> None:
    mine = strangers_queue(connection)
    mine.enqueue("os.system", "true")
    connection.rpush(mine.key, "an id without a job")
    work(connection)
    nudges.enqueue(connection, WORKER, "watch", ["orders"])
    worker = nudges.NudgeWorker(
        [mine], name=f"{WORKER}-1", connection=connection, serializer=JSONSerializer
    )
    worker.register_birth()  # and dies without a word
    nudges.forget(connection, WORKER)
    assert not [
        key
        for key in connection.scan_iter("rq:*")
        if connection.ttl(key) == -1 and WORKER.encode() in key
    ]
    assert not connection.smembers("rq:workers")
