"""`feeler up` for real: all runs, what is killed comes back, nothing stays behind."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from monitor.config import read_runtime
from monitor.local.home import stores_folder
from monitor.local.machine import command_line, free_port
from monitor.secrets import KEY_FILE
from tests.servers import PostgresServer, children
from tests.system.cluster import KEY
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
CANARY = "Kanarienvogel-7"

# Roles that need no product: each says what it was told and waits.
STUBS = """release: echo migrating
web: sh -c 'echo port $PORT home $FEELER_HOME; exec sleep 600'
worker: sh -c 'echo database $DATABASE_URL redis $REDIS_URL; exec sleep 600'
"""


class Up:
    """A running `feeler up` and what it said."""

    def __init__(
        self,
        home: Path,
        port: int,
        log: Path,
        arguments: Sequence[str],
        environment: dict[str, str],
    ) -> None:
        self.home, self.port, self.log = home, port, log
        argv = [sys.executable, "-m", "monitor.cli", "up", *arguments, "--port", str(port)]
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FEELER", "DATABASE_URL"))
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                argv,
                env={**clean, "FEELER_HOME": str(home), **environment},
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self, pattern: str) -> re.Match[str] | None:
        """Return the first match in what was said, and fail when it ended without."""
        found = re.search(pattern, self.log.read_text())
        assert found or self.process.poll() is None, self.log.read_text()[-3000:]
        return found

    async def says(self, pattern: str, within: float = 60) -> re.Match[str]:
        return await eventually(lambda: self.said(pattern), within=within)

    def family(self) -> list[int]:
        """Return every process it started, and theirs."""
        pids, found = [self.process.pid], list[int]()
        while pids:
            below = children(pids.pop())
            pids += below
            found += below
        return found

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def home(servers_folder: Path) -> Path:
    place = servers_folder / f"up-{free_port()}"
    place.mkdir(mode=0o711)
    return place


@pytest.fixture
def start_up(home: Path, tmp_path: Path) -> Iterator[Callable[..., Up]]:
    procfile = tmp_path / "Procfile"
    procfile.write_text(STUBS)
    with ExitStack() as stack:

        def start(*arguments: str, stubs: bool = True, port: int = 0, **environment: str) -> Up:
            if stubs:
                environment["FEELER_PROCFILE"] = str(procfile)
                environment["FEELER_SECRET_KEYS"] = (
                    KEY  # their migration makes no tables to look for sealed rows in
                )
            log = tmp_path / f"up-{free_port()}.log"
            run = Up(home, port or free_port(), log, arguments, environment)
            stack.callback(lambda: run.process.poll() is None and run.stop())
            return run

        yield start


async def test_roles_are_told_where_everything_is(start_up: Callable[..., Up]) -> None:
    run = start_up("--workers", "2")
    told = read_runtime(run.home) if await run.says(r"worker\.2 +\| database \S+ redis \S+") else {}
    assert run.said(r"release +\| migrating")
    assert run.said(rf"web +\| port {run.port} home {run.home}")
    ways = re.escape(f"database {told['DATABASE_URL']} redis {told['REDIS_URL']}")
    assert run.said(rf"worker\.1 +\| {ways}")
    assert told["FEELER_URL"] == f"http://127.0.0.1:{run.port}"
    family = run.family()
    assert len(family) >= 5
    assert run.stop() == 0
    assert not any(command_line(pid) for pid in family)
    assert not (run.home / "runtime.env").exists()


async def test_stores_and_token_stay_from_one_run_to_the_next(start_up: Callable[..., Up]) -> None:
    first = start_up()
    await first.says(r"worker\.1 +\| database")
    told = read_runtime(first.home)
    assert first.stop() == 0
    second = start_up(port=first.port)
    await second.says(r"worker\.1 +\| database")
    assert read_runtime(second.home) == told


async def test_a_second_one_on_the_same_home_is_refused(start_up: Callable[..., Up]) -> None:
    first = start_up()
    await first.says(r"worker\.1 +\| database")
    second = start_up()
    assert second.process.wait(20) == 1
    assert f"as process {first.process.pid}" in second.log.read_text()
    assert read_runtime(first.home)


async def test_what_is_killed_comes_back(start_up: Callable[..., Up]) -> None:
    run = start_up()
    await run.says(r"worker\.1 +\| database")
    url = read_runtime(run.home)["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    folder = str(stores_folder(run.home))
    for pid in run.family():
        if folder in command_line(pid) or "sleep 600" in command_line(pid).replace("\0", " "):
            os.kill(pid, signal.SIGKILL)
    for name in ("postgres", "redis", "web", r"worker\.1"):
        await run.says(rf"{name} +\| ended with SIGKILL; starts again in 0\.2 s")

    def kept() -> bool:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                return connection.execute("SELECT n FROM kept").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    await eventually(kept, within=15)


async def test_nothing_outlives_a_killed_up_and_the_next_one_starts(
    start_up: Callable[..., Up],
) -> None:
    run = start_up()
    await run.says(r"worker\.1 +\| database")
    family = run.family()
    assert len(family) >= 4
    run.process.kill()
    run.process.wait()
    again = start_up(port=run.port)
    await again.says(r"worker\.1 +\| database")
    assert not any(command_line(pid) for pid in family)


async def test_a_failed_migration_ends_it(start_up: Callable[..., Up], tmp_path: Path) -> None:
    broken = tmp_path / "Broken"
    broken.write_text("release: false\nweb: sleep 600\n")
    run = start_up(stubs=False, FEELER_PROCFILE=str(broken))
    assert run.process.wait(20) == 1
    assert "the migration ended with exit code 1" in run.log.read_text()
    assert not run.family()


async def test_given_stores_are_used(start_up: Callable[..., Up], redis_url: str) -> None:
    run = start_up(DATABASE_URL="postgresql://somebody@db.example/x", REDIS_URL=redis_url)
    await run.says(r"database postgresql://somebody@db.example/x redis " + re.escape(redis_url))
    assert not list(stores_folder(run.home).iterdir())


async def test_no_process_list_ever_shows_a_password(start_up: Callable[..., Up]) -> None:
    run = start_up(f"orders=postgresql://app:{CANARY}@127.0.0.1:1/orders")
    await eventually(lambda: CANARY not in command_line(run.process.pid), within=5)
    await run.says(r"worker\.1 +\| database")
    told = read_runtime(run.home)
    secrets = [
        CANARY,
        told["FEELER_TOKEN"],
        told["DATABASE_URL"].split("@")[0],
        told["REDIS_URL"].split("@")[0],
    ]
    lines = [command_line(pid) for pid in (run.process.pid, *run.family())]
    assert not [line for line in lines for secret in secrets if secret in line]
    assert not [
        file
        for file in run.home.glob("*")
        if file.is_file() and CANARY in file.read_text(errors="replace")
    ]
    for name in ("runtime.env", "token"):
        assert (run.home / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "given",
    [
        "orders",
        f"orders=mysql://u:{CANARY}@h/d",
        f"Orders!=postgresql://u:{CANARY}@h/d",
        f"postgresql://u:{CANARY}@h/d",
        "@/nowhere",
        "@/dev/fd/99",
    ],
)
def test_what_cannot_be_a_database_is_refused_before_anything_starts(
    start_up: Callable[..., Up], given: str
) -> None:
    run = start_up(given)
    assert run.process.wait(20) in (1, 2)
    assert run.log.read_text().startswith("feeler: ")
    assert CANARY not in run.log.read_text()
    assert not (run.home / "stores").exists()
    assert not list(run.home.iterdir())


@pytest.mark.slow
async def test_the_first_observation_comes_by_itself(start_up: Callable[..., Up]) -> None:
    cold = start_up(stubs=False)
    await cold.says(r"first observation \S+ s after the start: feeler-metadata is available")
    with urllib.request.urlopen(f"http://127.0.0.1:{cold.port}/last_observation") as answer:
        assert b"feeler-metadata" in answer.read()
    assert cold.stop() == 0
    warm = start_up(stubs=False)
    took = await warm.says(
        r"first observation (\S+) s after the start: feeler-metadata is available"
    )
    assert float(took[1]) < 15
    assert f"FEELER_TOKEN={(cold.home / 'token').read_text()}" in cold.log.read_text()
    assert "FEELER_TOKEN=" not in warm.log.read_text(), "the token is shown once"


@pytest.mark.slow
async def test_given_databases_are_seen_and_a_changed_password_is_taken(
    start_up: Callable[..., Up], postgres_server: PostgresServer
) -> None:
    role = "rotated_beside_up"
    postgres_server.execute(f"create role {role} login password 'right'")
    url = postgres_server.url(user=role, password="{}")
    gone = "gone=postgresql://u@127.0.0.1:1/x"
    first = start_up(f"orders={url.format('wrong')}", gone, stubs=False)
    await first.says("registered orders")
    await first.says("registered gone")

    def told(up: Up, text: bytes) -> bool:
        url = f"http://127.0.0.1:{up.port}/last_observation/orders"
        with urllib.request.urlopen(url) as answer:
            return text in answer.read()

    await first.says(r"first observation \S+ s after the start: (orders|gone) is ")
    await eventually(lambda: told(first, b'"cause":"wrong_password"'), within=30)
    assert first.stop() == 0
    again = start_up(f"orders={url.format('right')}", stubs=False)
    await again.says("orders has a new address or password, which is taken from now on")
    await eventually(lambda: told(again, b'"state":"available"'), within=30)
    assert again.stop() == 0
    postgres_server.execute(f"drop role {role}")


@pytest.mark.slow
async def test_no_new_key_is_made_over_sealed_addresses(start_up: Callable[..., Up]) -> None:
    first = start_up("orders=postgresql://u@127.0.0.1:1/x", stubs=False)
    await first.says("registered orders")
    assert first.stop() == 0
    (first.home / KEY_FILE).rename(first.home / "mislaid")
    refused = start_up(stubs=False)
    assert refused.process.wait(60) == 2
    assert "(1 addresses are sealed in the registry)" in refused.log.read_text()
    assert not (first.home / KEY_FILE).exists()
    (first.home / "mislaid").rename(first.home / KEY_FILE)
    again = start_up(stubs=False)
    await again.says(r"first observation \S+ s after the start: orders is ")
    assert again.stop() == 0
