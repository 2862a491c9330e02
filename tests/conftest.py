"""Fixtures every test may use: real servers, started when first asked for."""

import itertools
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

sys.path.insert(0, str(Path(__file__).parents[1]))

from monitor.core.errors import StoreUnavailable
from monitor.live import observations, presence
from tests.fixtures import Become, StartPgBouncer, StartPostgres, StartProxy, StartRedis
from tests.poolers import PgBouncer, pgbouncer_program
from tests.proxy import Proxy
from tests.servers import PostgresServer, RedisServer, make_folder, postgres_programs, redis_program

REQUIRE_ALL = os.environ.get("FEELER_REQUIRE_ALL") == "1"
numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Rows of the fault matrix that take long are left out unless asked for."""
    faults = parser.getgroup("faults")
    faults.addoption(
        "--all-rows",
        action="store_true",
        help="run every row of the fault matrix, the long ones too",
    )
    faults.addoption(
        "--report", metavar="FILE", help="write what the rows must hold to and the figures seen"
    )
    faults.addoption("--seed", type=int, default=1, help="of the random faults (default 1)")
    faults.addoption(
        "--minutes", type=float, default=2.0, help="that random faults are injected for (default 2)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let servers start by fork: Python 3.12 warns of it where a client library has threads."""
    config.addinivalue_line(
        "filterwarnings", "ignore:This process .* is multi-threaded:DeprecationWarning"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: at the end all others would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Turn a skip into a failure where everything must be there to be tested."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = (
            "failed",
            f"skipped, but FEELER_REQUIRE_ALL=1: {report.longrepr}",
        )
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a whole module that skips itself."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        report.outcome, report.longrepr = (
            "failed",
            f"skipped, but FEELER_REQUIRE_ALL=1: {report.longrepr}",
        )
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """The folder of this session's servers."""
    folder = make_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_template(servers_folder: Path) -> PostgresServer:
    """A prepared PostgreSQL server that is never started, only copied."""
    try:
        template = PostgresServer(
            servers_folder / "template", binaries=postgres_programs(servers_folder)
        )
    except StoreUnavailable as absent:
        pytest.skip(str(absent))
    template.prepare()
    return template


@pytest.fixture(scope="session")
def redis_binary(servers_folder: Path) -> Path:
    """The Redis or Valkey program to test with."""
    try:
        return redis_program(servers_folder)
    except StoreUnavailable as absent:
        pytest.skip(str(absent))


def new_postgres(template: PostgresServer, settings: dict[str, str]) -> PostgresServer:
    """Start a copy of the template."""
    folder = template.folder.with_name(f"postgres-{next(numbers)}")
    server = PostgresServer(
        folder, template=template.folder, binaries=template.binaries, settings=settings
    )
    server.start()
    return server


def new_redis(folder: Path, binary: Path, settings: dict[str, str]) -> RedisServer:
    """Start an empty Redis server."""
    words = {name.replace("_", "-"): value for name, value in settings.items()}
    server = RedisServer(folder / f"redis-{next(numbers)}", binaries=binary, settings=words)
    server.start()
    return server


@pytest.fixture(scope="session")
def postgres_server(postgres_template: PostgresServer) -> Iterator[PostgresServer]:
    """The session's PostgreSQL server; who wants to hurt one takes `start_postgres`."""
    server = new_postgres(postgres_template, {"max_connections": "100"})
    yield server
    server.stop()


@pytest.fixture
def start_postgres(postgres_template: PostgresServer) -> Iterator[StartPostgres]:
    """Start PostgreSQL servers of one's own: `start_postgres(max_connections="5")`; they stop with
    the test.
    """
    with ExitStack() as stack:

        def start(**settings: str) -> PostgresServer:
            server = new_postgres(postgres_template, settings)
            stack.callback(shutil.rmtree, server.folder, ignore_errors=True)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path, redis_binary: Path) -> Iterator[RedisServer]:
    """The session's Redis server; who wants to hurt one takes `start_redis`."""
    server = new_redis(servers_folder, redis_binary, {})
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def start_redis(servers_folder: Path, redis_binary: Path) -> Iterator[StartRedis]:
    """Start Redis servers of one's own: `start_redis(maxmemory="2mb")`; they stop with the test."""
    with ExitStack() as stack:

        def start(**settings: str) -> RedisServer:
            server = new_redis(servers_folder, redis_binary, settings)
            stack.callback(shutil.rmtree, server.folder, ignore_errors=True)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database that every `database_url` is a copy of."""
    from monitor.registry import store

    postgres_server.execute("CREATE DATABASE feeler_template")
    store.migrate(postgres_server.url("feeler_template"))
    return "feeler_template"


@pytest.fixture
def database_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """The address of a fresh, migrated database of ours."""
    name = f"feeler_{next(numbers)}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store(database_url: str) -> Iterator[Any]:
    """A Store on a fresh, migrated database of ours."""
    from monitor.registry.store import open_store

    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Go on as another process of ours: `become("twin")`."""

    def become(process: str) -> None:
        for module in (presence, observations):
            monkeypatch.setattr(module, "PROCESS", process)

    return become


@pytest.fixture
def start_proxy() -> Iterator[StartProxy]:
    """Start proxies to a loopback port: `start_proxy(server.port)`; they stop with the test."""
    with ExitStack() as stack:

        def start(port: int, **options: bool) -> Proxy:
            proxy = Proxy(port, **options).start()
            stack.callback(proxy.stop)
            return proxy

        yield start


@pytest.fixture
def start_pgbouncer(servers_folder: Path) -> Iterator[StartPgBouncer]:
    """Start pgbouncers of one connection: `start_pgbouncer(server, pool_mode="session")`; they stop
    with the test.
    """
    with ExitStack() as stack:

        def start(behind: PostgresServer, **settings: str) -> PgBouncer:
            try:
                program = pgbouncer_program()
            except StoreUnavailable as absent:
                pytest.skip(str(absent))
            folder = servers_folder / f"pgbouncer-{next(numbers)}"
            pooler = PgBouncer(folder, behind, binaries=program, settings=settings)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(pooler.stop)
            pooler.start()
            return pooler

        yield start


@contextmanager
def _listener(backlog: int, fillers: int = 0) -> Iterator[int]:
    """Listen and never answer; a full backlog drops every further SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server, ExitStack() as stack:
        for _ in range(fillers):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with _listener(4096) as port:
        yield port


@pytest.fixture
def dropping() -> Iterator[int]:
    """The port of a server that takes no connection and refuses none."""
    with _listener(0, fillers=4) as port:
        yield port
