"""How everybody reaches Redis: explicit deadlines, no retries of side effects, one kind of error.

Only live/'s modules use the clients; others hold a `Live` and pass it on. redis-py's own defaults
(10 retries, 5 s each) keep one command on a hung server for a minute and may run it twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from monitor.core.aside import Aside
from monitor.core.errors import InvalidInput, StoreUnavailable
from monitor.core.timing import JOURNAL_TIMEOUT, REDIS_TIMEOUT
from monitor.live.keys import PROBE

RqConnection = redis.Redis

CONNECTIONS = 32  # per client and process: more calls at once than that wait in line
WAIT_FOR_CONNECTION = 1.0  # seconds in that line
PROBE_TTL = 1000  # milliseconds
CHECK_AFTER = 15  # seconds of silence after which a kept connection is asked before it is used

# Subclasses stand before their parents.
_KIND_OF_ERROR: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.MaxConnectionsError, "too_many_connections"),
    (exceptions.AuthenticationError, "authentication"),
    (exceptions.NoPermissionError, "no_permission"),
    (exceptions.ReadOnlyError, "read_only"),
    (exceptions.OutOfMemoryError, "out_of_memory"),
    (exceptions.ClusterDownError, "cluster_down"),
    (exceptions.TimeoutError, "timeout"),
    (exceptions.ConnectionError, "connection"),
    (OSError, "connection"),
)
_OF_PIPELINE = "caused error: "  # what redis-py puts before a reply, and a tuple around both
_KIND_OF_PREFIX = {
    "LOADING": "loading",
    "READONLY": "read_only",
    "OOM": "out_of_memory",
    "MISCONF": "cannot_persist",
    "NOREPLICAS": "no_replicas",
    "BUSY": "busy",
    "MASTERDOWN": "master_down",
    "CLUSTERDOWN": "cluster_down",
    "TRYAGAIN": "cluster_down",
    "UNBLOCKED": "failover",
    "NOAUTH": "authentication",
    "NOPERM": "no_permission",
}


@dataclass(frozen=True, slots=True)
class Live:
    """The two Redis servers, often one: the bus that RQ shares, and the cache.

    `journal` is the cache, too, for reads that take: they outwait a stall of the server.
    """

    bus: Redis
    cache: Redis
    journal: Redis
    # Rows that could not be read, told of once.
    aside: Aside = field(default_factory=Aside, compare=False, repr=False)


@contextmanager
def wrap_store_errors() -> Iterator[None]:
    """Turn every way in which Redis fails us into StoreUnavailable; our own bugs stay bugs."""
    try:
        yield
    except (exceptions.RedisError, OSError) as exc:
        if kind := _kind(exc):
            raise StoreUnavailable("redis", kind) from exc
        raise


def trouble(error: BaseException | None) -> str:
    """Return the kind of failure of Redis that this error is, '' for any other error."""
    return _kind(error) if isinstance(error, exceptions.RedisError | OSError) else ""


def _kind(exc: Exception) -> str:
    for family, kind in _KIND_OF_ERROR:
        if isinstance(exc, family):
            return kind
    reply = str(exc).rpartition(_OF_PIPELINE)[2].lstrip("('\"")
    prefix = reply.partition(" ")[0]
    return _KIND_OF_PREFIX.get(prefix, "")


def connect(redis_url: str, cache_url: str = "", *, part: str = "live") -> Live:
    """Make the clients; nothing is contacted yet. `part` names this process in CLIENT LIST."""
    cache_url = cache_url or redis_url
    bus = _client(redis_url, part)
    cache = bus if cache_url == redis_url else _client(cache_url, part)
    journal = _client(cache_url, f"{part}-journal", patience=JOURNAL_TIMEOUT)
    return Live(bus, cache, journal)


async def close(live: Live) -> None:
    """Close every connection."""
    for client in {live.bus, live.cache, live.journal}:
        await client.aclose()


def rq_connection(redis_url: str) -> RqConnection:
    """Make RQ's own synchronous client: RQ overwrites its timeouts, nobody else may share it."""
    with _naming_no_url():
        pool = redis.ConnectionPool.from_url(
            redis_url,
            protocol=2,
            socket_timeout=5,
            socket_connect_timeout=REDIS_TIMEOUT,
            retry=SyncRetry(NoBackoff(), 0),
            client_name="feeler/rq",
        )
        pool.connection_class(**pool.connection_kwargs)
    return redis.Redis.from_pool(pool)


async def now(live: Live) -> float:
    """Return fleet seconds: the cache's clock, to the millisecond."""
    with wrap_store_errors():
        seconds, microseconds = await live.cache.time()
    return round(seconds + microseconds / 1e6, 3)


async def check_writes(live: Live) -> None:
    """Raise StoreUnavailable also where a server answers and takes no writes.

    It is full, a replica, or cannot persist.
    """
    for client in {live.bus, live.cache}:
        with wrap_store_errors():
            await client.set(PROBE, "", px=PROBE_TTL)


def _client(url: str, part: str, patience: float = REDIS_TIMEOUT) -> Redis:
    with _naming_no_url():
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=WAIT_FOR_CONNECTION,
            protocol=2,
            decode_responses=True,
            # Bytes that are no text spoil their own row, not the whole reply.
            encoding_errors="replace",
            socket_timeout=patience,
            socket_connect_timeout=REDIS_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=CHECK_AFTER,
            client_name=f"feeler/{part}",
            driver_info=None,
        )
        # Unknown options are refused now, not at the first command.
        pool.connection_class(**pool.connection_kwargs)
    return Redis.from_pool(pool)


@contextmanager
def _naming_no_url() -> Iterator[None]:
    """Refuse a URL nobody can use without its text: it has a password."""
    try:
        yield
    except (ValueError, TypeError):
        fix = "redis://[:PASSWORD@]HOST:PORT/0, or rediss:// with ?ssl_ca_certs=FILE"
        raise InvalidInput("redis_url", "not a usable Redis URL", fix) from None
