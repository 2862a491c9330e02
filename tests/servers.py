"""Throwaway PostgreSQL and Redis servers: real ones, quick to start, to kill and freeze."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg
import redis

from monitor.local.embedded import Postgres, Redis, Server
from monitor.local.machine import (
    HOST,
    command_line,
    drop_privileges,
    find_postgres,
    find_redis,
    own,
    port_is_free,
    shelter_postgres,
    shelter_redis,
)

PORTS = range(
    10_000, 15_000
)  # neither outgoing connections nor servers that feeler starts itself take these
ROOMY = 2 << 30  # bytes free in /dev/shm, below which the disk is taken
PREFIX = "feeler-tests-"
_reserved: list[IO[str]] = []
WHEEL = os.environ.get("FEELER_TEST_BINARIES") == "wheel"

# fsync is off, but synchronous_commit stays on: without it committed rows vanish with a killed
# postmaster.
QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "4MB",
    "max_connections": "30",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "min_wal_size": "2MB",
    "max_wal_size": "32MB",
}


def make_folder() -> Path:
    """Make the folder of this session's servers; remove those of sessions that were killed."""
    memory = Path("/dev/shm")
    base = (
        memory
        if memory.is_dir() and shutil.disk_usage(memory).free > ROOMY
        else Path(tempfile.gettempdir())
    )
    for old in base.glob(f"{PREFIX}*"):
        if not command_line(int(old.name.removeprefix(PREFIX).split("-")[0])):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
    folder.chmod(0o755)  # under root the servers are another user's
    return folder


def reserve_port() -> int:
    """Return a free port, ours as long as this process lives, its server up or down."""
    folder = Path(tempfile.gettempdir()) / f"feeler-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in random.sample(PORTS, len(PORTS)):
        lock = (folder / str(port)).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _reserved.append(lock)
        if port_is_free(port):
            return port
    raise AssertionError("no port is free")


def postgres_programs(folder: Path) -> Path:
    """Return the PostgreSQL programs; FEELER_TEST_BINARIES=wheel forces the wheel's."""
    return shelter_postgres(find_postgres(wheel=WHEEL), folder)


def redis_program(folder: Path) -> Path:
    """Return the Redis program to test with; FEELER_TEST_BINARIES=wheel forces the wheel's."""
    return shelter_redis(find_redis(wheel=WHEEL), folder)


def children(pid: int) -> list[int]:
    """Return the process ids of the living children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def send(signum: signal.Signals, pids: list[int]) -> None:
    """Signal processes, whether they still live or not."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


def lives(pid: int) -> bool:
    """Say whether a process has memory: one that ends may have lost its command line alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_gone(pids: list[int], within: float = 5.0) -> None:
    """Return when these processes have ended; end them by force when that takes too long."""
    deadline = time.monotonic() + within
    while left := [pid for pid in pids if lives(pid)]:
        if time.monotonic() > deadline:
            send(signal.SIGKILL, left)
        time.sleep(0.005)


class OneProcess(Server):
    """A server of one process that tests may kill and freeze."""

    host = HOST

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **{"port": reserve_port(), **options})

    def start(self) -> Any:
        """Start; return when it answers."""
        if not (self.folder / "port").exists():
            self.prepare()
        process = super().start()
        self.wait_ready()
        return process

    def stop(self, within: float = 5.0) -> None:
        """Stop it as its kind is stopped, frozen or not."""
        self.thaw()
        super().stop(within)

    def kill(self) -> None:
        """SIGKILL it."""
        if self.process and self.pid:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """Stop it in its tracks: its port still accepts, nothing answers."""
        send(signal.SIGSTOP, [self.pid] if self.pid else [])

    def thaw(self) -> None:
        """Let it go on."""
        send(signal.SIGCONT, [self.pid] if self.pid else [])


class PostgresServer(Postgres):
    """A PostgreSQL server that tests may treat as badly as they like."""

    host = HOST
    stop_signal = signal.SIGQUIT  # "immediate": nothing here is worth a checkpoint
    initdb_options = ("--no-sync", "--wal-segsize=1")

    def __init__(self, folder: Path, *, template: "Path | None" = None, **options: Any) -> None:
        super().__init__(folder, **{"port": reserve_port(), **options})
        self.settings = QUICK | self.settings
        self.template, self.left = template, list[int]()

    def prepare(self) -> None:
        """Make the folder, from the template if there is one: five times quicker than initdb."""
        if self.template and not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            own(self.folder)
            sources = [str(self.template / name) for name in ("data", "password")]
            subprocess.run(
                ["cp", "-a", *sources, str(self.folder)], check=True, **drop_privileges()
            )
        super().prepare()
        if int((self.data / "PG_VERSION").read_text()) >= 18:
            self.settings.setdefault("io_method", "sync")  # three processes fewer

    def start(self) -> None:
        """Start, also on what a killed server left; return when it answers."""
        wait_gone(self.left)  # orphans hold the shared memory of the old life
        self.left = []
        if not (self.folder / "port").exists():
            self.prepare()
        super().start()
        self.wait_ready()

    def demote(self) -> None:
        """Start again as a standby (needs `wal_level` replica): it answers, and takes no writes."""
        self.execute("checkpoint")
        self.stop()
        signal_file = self.data / "standby.signal"
        signal_file.touch()
        own(signal_file)
        Postgres.start(self)
        deadline = time.monotonic() + 20
        while "ready to accept read-only" not in self.log.read_text(errors="replace"):
            assert time.monotonic() < deadline, self.last_line()
            time.sleep(0.02)

    def stop(self, within: float = 5.0) -> None:
        """Stop at once, frozen or not."""
        self.thaw()
        family = self.pids()
        super().stop(within)
        wait_gone(family + self.left)

    def superuser_url(self, dbname: str = "postgres") -> str:
        """Return the address of a database for the superuser."""
        return self.url(dbname)

    def execute(self, sql: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL as the superuser, autocommitted; return its rows."""
        with psycopg.connect(self.url(dbname), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def pids(self) -> list[int]:
        """Return the postmaster's process id and its children's."""
        return [self.pid, *children(self.pid)] if self.pid else []

    def kill_postmaster(self) -> None:
        """SIGKILL the postmaster alone, as for want of memory: sessions notice later."""
        self._kill(len(self.pids()[:1]))

    def kill_all(self) -> None:
        """SIGKILL the postmaster and every child at once, as a machine that loses power would."""
        self._kill(len(self.pids()))

    def _kill(self, count: int) -> None:
        if not count:
            return
        postmaster = self.pid
        send(signal.SIGSTOP, [postmaster])  # no child is born between listing and killing
        family = self.pids()
        send(signal.SIGKILL, family[:1] if count == 1 else family)
        self.process.wait()
        self.left = family[1:]
        if count > 1:
            wait_gone(self.left)

    def freeze(self) -> None:
        """Stop every process in its tracks: the port still accepts, nothing answers."""
        send(signal.SIGSTOP, [self.pid] if self.pid else [])
        send(signal.SIGSTOP, self.pids())

    def thaw(self) -> None:
        """Let a frozen server go on."""
        send(signal.SIGCONT, self.pids() + self.left)

    @contextmanager
    def postmaster_frozen(self) -> Iterator[None]:
        """Stop the postmaster alone: sessions go on, nobody new is served."""
        send(signal.SIGSTOP, [self.pid])
        try:
            yield
        finally:
            self.thaw()


class RedisServer(OneProcess, Redis):
    """A Redis server that tests may treat as badly as they like."""

    @property
    def url(self) -> str:
        """The address of the server's first database."""
        return super().url()

    def start(self, empty: bool = False) -> None:
        """Start, with the data of the last life or without; return when it answers."""
        if empty:
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        super().start()

    def run_id(self) -> str:
        """Return the name of this life of the server, as INFO tells it."""
        with redis.Redis.from_url(self.url) as client:
            return client.info("server")["run_id"]
