"""Nudges: hints to a worker to look at its assignments now. Sole user of rq; for both processes.

A lost, doubled, late or reordered nudge changes nothing: workers look every few seconds anyway.

RQ as feeler uses it has one queue per worker, JSON jobs from an allow-list and no command channel.
That answers pickled jobs and `enqueue('os.system', ...)`, callbacks and webhooks by name, pub/sub
commands that stop a worker, signal handlers in threads, and a worker that quits on anything but a
ConnectionError.
"""

import itertools
import logging
import queue
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from monitor.live.connections import RqConnection, trouble

log = logging.getLogger("feeler.queues")

ALLOWED = frozenset(
    {
        "workers.worker.jobs.watch",
        "workers.worker.jobs.release",
        "workers.worker.jobs.observe_now",
    }
)
JOB_SECONDS = 10
NUDGE_TTL = 60  # seconds after which a nudge nobody took is worth nothing
FAILED_TTL = 3600  # seconds for which people can look at a job that failed
LOG_EVERY = 60.0  # seconds between two lines about the same trouble


class ForbiddenJob(Exception):
    """A job names a function, an object or a callback that is not ours."""


class AllowedJob(Job):
    """A job that can name nothing but the functions in ALLOWED."""

    def restore(self, raw_data: Any) -> Any:
        """Read a job from Redis without its callbacks and webhooks: ours have none."""
        result = super().restore(raw_data)
        self._success_callback_name = None
        self._failure_callback_name = None
        self._stopped_callback_name = None
        self.webhooks = []
        return result

    @property
    def func(self) -> Any:
        if self.instance is not None or self.func_name not in ALLOWED:
            raise ForbiddenJob("not on the allow-list")
        return super().func


class NudgeWorker(SimpleWorker):
    """An RQ worker that lives in a thread of ours and takes orders from its queue alone."""

    job_class = AllowedJob
    death_penalty_class = TimerDeathPenalty
    log_result_lifespan = False

    def _install_signal_handlers(self) -> None:
        """Signals belong to the process, not to RQ."""

    def subscribe(self) -> None:
        """No command channel: any publisher could stop us through it."""

    def unsubscribe(self) -> None:
        """Nothing was subscribed."""

    def procline(self, message: str) -> None:
        """Keep the process title."""


def queue_name(worker: str) -> str:
    """Return the name of a worker's own queue."""
    return f"feeler-{worker}"


def _queue(connection: RqConnection, worker: str) -> Queue:
    return Queue(
        queue_name(worker), connection=connection, serializer=JSONSerializer, job_class=AllowedJob
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """A nudge to send; without a function, a queue to delete."""

    worker: str
    function: str = ""
    databases: tuple[str, ...] = ()


class Nudger:
    """Sends nudges from a thread of its own: RQ is synchronous, and no sweep waits for a nudge."""

    def __init__(self, connection: RqConnection) -> None:
        self._connection = connection
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        threading.Thread(target=self._send_all, name="nudger", daemon=True).start()

    def nudge(self, worker: str, function: str, databases: Sequence[str]) -> None:
        """Call `workers.worker.jobs.<function>` in a worker; what cannot be sent is dropped."""
        self._orders.put(_Order(worker, function, tuple(databases)))

    def remove(self, worker: str) -> None:
        """Delete the queue of a worker that is gone, with its jobs."""
        self._orders.put(_Order(worker))

    def _send_all(self) -> None:
        while True:
            order = self._orders.get()
            try:
                self._send(order)
            except Exception as exc:
                log.warning(
                    "action=nudge_lost worker=%s function=%s error=%s",
                    order.worker,
                    order.function,
                    type(exc).__name__,
                )

    def _send(self, order: _Order) -> None:
        if order.function:
            enqueue(self._connection, order.worker, order.function, order.databases)
        else:
            forget(self._connection, order.worker)


def forget(connection: RqConnection, worker: str) -> None:
    """Delete a worker's queue, its jobs and what RQ keeps of its runs: none of it ever expires."""
    mine = _queue(connection, worker)
    mine.delete(delete_jobs=True)
    connection.delete(mine.intermediate_queue_key, mine.failed_job_registry.key)
    runs_key = WORKERS_BY_QUEUE_KEY % mine.name
    if runs := connection.smembers(runs_key):
        connection.srem(REDIS_WORKER_KEYS, *runs)
        connection.delete(runs_key, *runs)


def enqueue(connection: RqConnection, worker: str, function: str, databases: Sequence[str]) -> None:
    """Put one nudge on a worker's queue."""
    _queue(connection, worker).enqueue(
        f"workers.worker.jobs.{function}",
        list(databases),
        job_timeout=JOB_SECONDS,
        ttl=NUDGE_TTL,
        result_ttl=0,
        failure_ttl=FAILED_TTL,
    )


def listen(connection: RqConnection, worker: str) -> None:
    """Take nudges for ever, in a daemon thread, whatever ends RQ's own loop.

    That may be a time-out, a failover or a Redis out of memory: RQ returns or raises, and we begin
    again.
    """
    reasons = _EndReasons()
    logging.getLogger("rq.worker").addFilter(reasons)
    logged, logged_at = "", 0.0
    for run in itertools.count(1):
        reasons.latest = "none"
        try:
            _work(connection, worker, run)
        except Exception as exc:
            reasons.latest = trouble(exc) or type(exc).__name__
        if reasons.latest != logged or time.monotonic() - logged_at > LOG_EVERY:
            logged, logged_at = reasons.latest, time.monotonic()
            log.warning("action=nudges_interrupted worker=%s error=%s", worker, logged)
        time.sleep(random.uniform(0.2, 2.0))  # workers need not all come back at once


def _work(connection: RqConnection, worker: str, run: int) -> None:
    rq = NudgeWorker(
        [_queue(connection, worker)],
        name=f"{worker}-{run}",  # RQ keeps a name taken for minutes after a crash
        connection=connection,
        serializer=JSONSerializer,
        worker_ttl=30,
    )
    rq.work(logging_level="WARNING")


class _EndReasons(logging.Filter):
    """Keeps why RQ's loop ended last, in place of its traceback, where Redis was the reason."""

    latest = "none"

    def filter(self, record: logging.LogRecord) -> bool:
        """Let all else through."""
        kind = trouble(record.exc_info[1]) if record.exc_info else ""
        if record.msg.endswith("Redis connection timeout, quitting..."):
            kind = "timeout"
        self.latest = kind or self.latest
        return not kind
