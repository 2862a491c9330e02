"""RQ as feeler uses it: one queue per worker, JSON jobs from an allow-list, no command channel.
Sole user of rq.

RQ carries nudges only: a lost, doubled, late or reordered job changes nothing. Traps this module
answers: pickled jobs and `enqueue('os.system', ...)`, callbacks and webhooks by name, pub/sub
commands that stop a worker, signal handlers in threads, a worker that quits on anything but a
ConnectionError.
"""

import itertools
import logging
import queue
import random
import threading
import time
from collections.abc import Sequence
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
TELL_EVERY = 60.0  # seconds between two lines about the same trouble
NUDGE_TTL = 60  # seconds after which a nudge nobody took is worth nothing


class ForbiddenJob(Exception):
    """A job names a function, an object or a callback that is not ours."""


class AllowedJob(Job):
    """A job that can name nothing but the functions in ALLOWED."""

    def restore(self, raw_data: Any) -> Any:
        """Read a job from Redis without its callbacks and webhooks: ours have none."""
        result = super().restore(raw_data)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = (
            None
        )
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


class Nudger:
    """Sends nudges from a thread of its own: RQ is synchronous, and no sweep waits for a nudge."""

    def __init__(self, connection: RqConnection) -> None:
        self._connection = connection
        self._orders: queue.SimpleQueue[tuple[str, str, tuple[str, ...]]] = queue.SimpleQueue()
        threading.Thread(target=self._send, name="nudger", daemon=True).start()

    def nudge(self, worker: str, function: str, databases: Sequence[str]) -> None:
        """Call `workers.worker.jobs.<function>` in a worker, soon; an order that cannot be sent is
        dropped.
        """
        self._orders.put((worker, function, tuple(databases)))

    def remove(self, worker: str) -> None:
        """Delete the queue of a worker that is gone, with its jobs."""
        self._orders.put((worker, "", ()))

    def _send(self) -> None:
        while True:
            worker, function, databases = self._orders.get()
            try:
                if function:
                    enqueue(self._connection, worker, function, databases)
                else:
                    forget(self._connection, worker)
            except Exception as exc:
                log.warning(
                    "action=nudge_lost worker=%s function=%s error=%s",
                    worker,
                    function,
                    type(exc).__name__,
                )


def forget(connection: RqConnection, worker: str) -> None:
    """Delete a worker's queue with its jobs, and what RQ remembers of its lives: none of that has
    an end of its own.
    """
    mine = _queue(connection, worker)
    mine.delete(delete_jobs=True)
    connection.delete(mine.intermediate_queue_key, mine.failed_job_registry.key)
    if lives := connection.smembers(WORKERS_BY_QUEUE_KEY % mine.name):
        connection.srem(REDIS_WORKER_KEYS, *lives)
        connection.delete(WORKERS_BY_QUEUE_KEY % mine.name, *lives)


def enqueue(connection: RqConnection, worker: str, function: str, databases: Sequence[str]) -> None:
    """Put one nudge on a worker's queue."""
    _queue(connection, worker).enqueue(
        f"workers.worker.jobs.{function}",
        list(databases),
        job_timeout=JOB_SECONDS,
        ttl=NUDGE_TTL,
        result_ttl=0,
        failure_ttl=3600,
    )


def listen(connection: RqConnection, worker: str) -> None:
    """Take nudges for ever, in a daemon thread; outlives whatever ends RQ's own loop (time-outs,
    failovers, OOM).
    """
    ends = _Ends()
    logging.getLogger("rq.worker").addFilter(ends)
    told, told_at = "", 0.0
    for life in itertools.count(1):
        ends.error = "none"
        try:
            _live(connection, worker, life)
        except Exception as exc:
            ends.error = trouble(exc) or type(exc).__name__
        if ends.error != told or time.monotonic() - told_at > TELL_EVERY:
            log.warning("action=nudges_interrupted worker=%s error=%s", worker, ends.error)
            told, told_at = ends.error, time.monotonic()
        time.sleep(random.uniform(0.2, 2.0))


def _live(connection: RqConnection, worker: str, life: int) -> None:
    rq = NudgeWorker(
        [_queue(connection, worker)],
        name=f"{worker}-{life}",  # a name is taken for minutes after a crash
        connection=connection,
        serializer=JSONSerializer,
        worker_ttl=30,
    )
    rq.work(logging_level="WARNING")


class _Ends(logging.Filter):
    """Takes over what RQ says, traceback and all, when a Redis that refuses or is away ends its
    loop.
    """

    error = "none"

    def filter(self, record: logging.LogRecord) -> bool:
        """Let all else through."""
        kind = trouble(record.exc_info[1]) if record.exc_info else ""
        if record.msg.endswith("Redis connection timeout, quitting..."):
            kind = "timeout"
        self.error = kind or self.error
        return not kind
