"""What a user would run instead of feeler; each returns microseconds of processor time for one."""

import subprocess
import sys

from bench.lab import PASSWORD
from bench.measure import OURS, pin

_RQ = """
import sys, time
from redis import Redis
from rq import Queue, SimpleWorker
from bench.baselines import nothing
connection = Redis.from_url(sys.argv[1])
queue = Queue("bench-baseline", connection=connection)
queue.enqueue_many([Queue.prepare_data(nothing) for _ in range(int(sys.argv[2]))])
worker = SimpleWorker([queue], connection=connection)
before = time.process_time()
worker.work(burst=True, logging_level="ERROR")
print((time.process_time() - before) / int(sys.argv[2]) * 1e6)
"""
_FRESH = """
import sys, time
import psycopg
from monitor.feeler.gauges import queries
before = time.process_time()
for i in range(int(sys.argv[2])):
    url = f"postgresql://feeler:{sys.argv[3]}@127.0.1.1:{sys.argv[1]}/db{i}"
    with psycopg.connect(url, autocommit=True, sslmode="disable") as connection:
        for query in queries(160004, slow=False):
            connection.execute(query.sql).fetchone()
print((time.process_time() - before) / int(sys.argv[2]) * 1e6)
"""


def nothing() -> None:
    """Do nothing: what is left is what the queue costs."""


def rq_jobs(redis_url: str, count: int) -> float:
    """Return what one empty job costs an RQ worker that does not fork."""
    return _told(_RQ, redis_url, str(count))


def fresh_connections(port: int, count: int) -> float:
    """Return what a check costs that connects anew each time, as a cron job or a plugin does."""
    return _told(_FRESH, str(port), str(count), PASSWORD)


def _told(script: str, *arguments: str) -> float:
    words = [sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    pin(process.pid, OURS)
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError("the baseline failed")
    return float(output.splitlines()[-1])
