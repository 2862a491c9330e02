"""How everybody reaches Redis: explicit deadlines, no retries of side effects, one kind of error.
Only live/'s modules use the clients; others hold a `Live` and pass it on.

redis-py's own defaults (10 retries, 5 s each) keep one command on a hung server for a minute and
may run it twice.
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
from monitor.core.timing import READ_BLOCK_MOST, REDIS_TIMEOUT
from monitor.live.keys import PROBE

RqConnection = redis.Redis

CONNECTIONS = 32  # per client and process: more calls at once than that wait in line
WAIT_FOR_CONNECTION = 1.0  # seconds in that line
PROBE_LIVES = 1000  # milliseconds
QUIET = 15  # seconds of silence after which a kept connection is asked before it is used

_UNAVAILABLE: tuple[tuple[type[Exception], str], ...] = (  # subclasses before their parents
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
_OF_PIPELINE = "caused error: "  # what redis-py puts before it, and a tuple around it
_UNAVAILABLE_WORDS = {
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
    """The two Redis servers (often one): the bus that RQ shares, and the cache. `blocking` is the
    cache too.
    """

    bus: Redis
    cache: Redis
    blocking: Redis  # for reads that wait: its deadline is longer than any of them
    aside: Aside = field(
        default_factory=Aside, compare=False, repr=False
    )  # rows that could not be read


@contextmanager
def wrap_store_errors() -> Iterator[None]:
    """Turn every way in which Redis fails us into StoreUnavailable; bugs of our own stay what they
    are.
    """
    try:
        yield
    except (exceptions.RedisError, OSError) as exc:
        if kind := _kind(exc):
            raise StoreUnavailable("redis", kind) from exc
        raise


def trouble(error: BaseException | None) -> str:
    """Say in a word how Redis failed us, '' for any other error."""
    return _kind(error) if isinstance(error, exceptions.RedisError | OSError) else ""


def _kind(exc: Exception) -> str:
    for family, kind in _UNAVAILABLE:
        if isinstance(exc, family):
            return kind
    told = str(exc).rpartition(_OF_PIPELINE)[2].lstrip("('\"")
    return _UNAVAILABLE_WORDS.get(told.partition(" ")[0], "")


def connect(redis_url: str, cache_url: str = "", *, part: str = "live") -> Live:
    """Make the clients; nothing is contacted yet. `part` names this process in CLIENT LIST."""
    bus = _client(redis_url, part, REDIS_TIMEOUT)
    one = cache_url in ("", redis_url)
    cache = bus if one else _client(cache_url, part, REDIS_TIMEOUT)
    return Live(
        bus,
        cache,
        _client(cache_url or redis_url, f"{part}-blocking", READ_BLOCK_MOST + REDIS_TIMEOUT),
    )


async def close(live: Live) -> None:
    """Close every connection."""
    for client in {live.bus, live.cache, live.blocking}:
        await client.aclose()


def rq_connection(redis_url: str) -> RqConnection:
    """Make the synchronous client RQ wants; RQ overwrites its timeouts, so nobody else may share
    it.
    """
    with _usable():
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
    """Raise StoreUnavailable also where a server answers and takes no writes: full, a replica,
    cannot persist.
    """
    for client in {live.bus, live.cache}:
        with wrap_store_errors():
            await client.set(PROBE, "", px=PROBE_LIVES)


def _client(url: str, part: str, timeout: float) -> Redis:
    with _usable():
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=WAIT_FOR_CONNECTION,
            protocol=2,
            decode_responses=True,
            # bytes that are no text spoil their own row, not the whole reply
            encoding_errors="replace",
            socket_timeout=timeout,
            socket_connect_timeout=REDIS_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=QUIET,
            client_name=f"feeler/{part}",
            driver_info=None,
        )
        pool.connection_class(
            **pool.connection_kwargs
        )  # refuses unknown options now, not at the first command
    return Redis.from_pool(pool)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError):
        fix = "redis://[:PASSWORD@]HOST:PORT/0, or rediss:// with ?ssl_ca_certs=FILE"
        raise InvalidInput(
            "redis_url", "not a usable Redis URL", fix
        ) from None  # never the text: it has a password
