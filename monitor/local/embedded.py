"""PostgreSQL and Redis servers of our own: set up once, started, stopped.

Standard library only; `monitor.local.stores` and the tests import this. A server listens on
loopback alone, under a random password kept in a 0600 file beside its data, never on a command
line. Under root it runs as `postgres`, else `nobody`.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

from monitor import private
from monitor.core.errors import StoreUnavailable
from monitor.local.machine import (
    ENVIRONMENT,
    HOST,
    Maker,
    command_line,
    die_with_parent,
    drop_privileges,
    find_postgres,
    find_redis,
    free_port,
    is_alive,
    own,
    port_is_free,
    redis_maker,
    server_account,
    shelter_postgres,
    shelter_redis,
)

LOG_LIMIT = 5_000_000  # bytes; a longer log starts afresh with the server


class Server:
    """One server of ours: a folder for its data, password, port and log, and a process at times."""

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    pid_file: Path

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        password: str | None = None,
        binaries: Path | None = None,
    ) -> None:
        self.folder, self.settings, self.binaries = folder, dict(settings or {}), binaries
        self.wanted_port, self.port, self.password = port, port or 0, password or ""
        self.log = folder / "server.log"
        self.made_by = ""  # the program that wrote the files that are here already
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running server's process id, 0 when there is none."""
        return self.process.pid if self.process and self.process.poll() is None else 0

    def prepare(self) -> None:
        """Make the folder ready to start on: password, port, data.

        Waits for a server that an earlier life left on it.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own(self.folder)
        self.password = self._keep("password", self.password or secrets.token_urlsafe(24))
        self._evict()
        kept = int(self._keep("port", str(self.wanted_port or free_port())))
        self.port = self.wanted_port or (kept if port_is_free(kept) else free_port())
        self._write("port", str(self.port))
        self._set_up()

    def _set_up(self) -> None:
        raise NotImplementedError

    def argv(self) -> list[str]:
        """Return the command line; no secret stands in it."""
        raise NotImplementedError

    def ready(self, pid: int) -> bool:
        """Say whether the server with this process id takes connections."""
        raise NotImplementedError

    def options(self, log: IO[bytes]) -> dict[str, Any]:
        """Return Popen's keywords: another user, a session of its own, gone when we are."""
        if log.tell() > LOG_LIMIT:
            log.truncate(0)
        return {
            "env": ENVIRONMENT,
            "cwd": "/",
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": log,
            "start_new_session": True,
            "preexec_fn": die_with_parent(self.stop_signal),
            **drop_privileges(),
        }

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the prepared server; `wait_ready` says when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv(), **self.options(log))
        return self.process

    def wait_ready(self, within: float = 30.0) -> None:
        """Return once the server takes connections."""
        deadline = time.monotonic() + within
        while not (self.pid and self.ready(self.pid)):
            if not self.pid or time.monotonic() > deadline:
                raise self._failed("the server did not start")
            time.sleep(0.005)

    def stop(self, within: float = 10.0) -> None:
        """Stop the server, in the end by force."""
        if not self.process or not self.pid:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_line(self) -> str:
        """Return the last line of the server's log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "no log")[:300]

    def _failed(self, what: str) -> StoreUnavailable:
        return StoreUnavailable(self.kind, f"{what}: {self.last_line()} (see {self.log})")

    def _keep(self, name: str, first: str) -> str:
        """Return what stands in this file of ours, written now where there is none."""
        path = self.folder / name
        if not path.exists():
            self._write(name, first)
        account = server_account()
        owners = account[:1] if account else ()
        return private.read(path, also=owners, secret=name == "password").strip()

    def _write(self, name: str, text: str) -> None:
        private.write(self.folder / name, f"{text}\n", owner=server_account())

    def _evict(self, within: float = 10.0) -> None:
        """Wait until a server that outlived its parent has left this folder.

        A pid that is another's now is forgotten.
        """
        try:
            pid = int(self.pid_file.read_text().split(maxsplit=1)[0])
        except (OSError, ValueError, IndexError):
            return
        deadline = time.monotonic() + within
        while str(self.folder) in command_line(pid):
            patient = time.monotonic() < deadline
            os.kill(pid, self.stop_signal if patient else signal.SIGKILL)
            time.sleep(0.05)
        if is_alive(pid):  # after a reboot, or in a container, the number belongs to somebody else
            self.pid_file.unlink(missing_ok=True)


class Postgres(Server):
    """A PostgreSQL server: loopback TCP alone, no Unix socket, scram-sha-256 for everybody."""

    kind = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint
    user = "postgres"
    initdb_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.data = folder / "data"
        self.pid_file = self.data / "postmaster.pid"

    def url(self, dbname: str = "postgres", user: str = "", password: str = "") -> str:
        """Return the address of a database, the superuser's unless another is named."""
        account = f"{user or self.user}:{password or self.password}"
        return f"postgresql://{account}@{HOST}:{self.port}/{dbname}"

    def _set_up(self) -> None:
        made = self.data / "PG_VERSION"
        major = made.read_text().strip() if made.exists() else ""
        self.made_by = f"postgres {major}" if major else ""
        if not self.binaries:
            self.binaries = shelter_postgres(find_postgres(major=major), self.folder.parent)
        if not major:
            self._initdb(self.binaries / "initdb")

    def _initdb(self, program: Path) -> None:
        # Renamed when whole: an interrupted initdb leaves nothing half made behind.
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        argv = [str(program), "-D", str(draft), "-U", self.user, "-A", "scram-sha-256"]
        argv += ["-E", "UTF8", "--no-locale", "--pwfile", str(self.folder / "password")]
        argv += self.initdb_options
        with self.log.open("ab") as log:
            options = self.options(log) | {"preexec_fn": die_with_parent(signal.SIGKILL)}
            if subprocess.run(argv, **options, check=False).returncode:
                raise self._failed("initdb failed")
        draft.rename(self.data)

    def argv(self) -> list[str]:
        """Return the command line; no secret stands in it."""
        fixed = {"listen_addresses": HOST, "port": str(self.port), "unix_socket_directories": ""}
        settings = {"synchronous_commit": "on", "log_checkpoints": "off", **self.settings, **fixed}
        argv = [f"{self.binaries}/postgres", "-D", str(self.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return argv

    def ready(self, pid: int) -> bool:
        """Say whether this very server is ready: a crash leaves a postmaster.pid that says so."""
        try:
            lines = self.pid_file.read_text().splitlines()
            return int(lines[0]) == pid and lines[7].strip() == "ready"
        except (OSError, ValueError, IndexError):
            return False


class Redis(Server):
    """A Redis or Valkey server: append-only file, loopback alone, a password for everybody."""

    kind = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.pid_file = folder / "redis.pid"

    def url(self) -> str:
        """Return the address of the server's first database."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def _set_up(self) -> None:
        made = self._made()
        self.made_by = str(made or "")
        if not self.binaries:
            self.binaries = shelter_redis(find_redis(made=made), self.folder.parent)
        changeable = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "loglevel": "warning",
        }
        fixed = {
            "bind": HOST,
            "port": str(self.port),
            "dir": f'"{self.folder}"',
            "pidfile": f'"{self.pid_file}"',
            "requirepass": self.password,
            "set-proc-title": "no",
            "daemonize": "no",
        }
        settings = {**changeable, **self.settings, **fixed}
        lines = [f"{name} {value}" for name, value in settings.items()]
        self._write("redis.conf", "\n".join(lines))

    def _made(self) -> Maker | None:
        """Return what wrote the files here: a base of the append-only file begins with it."""
        for base in sorted((self.folder / "appendonlydir").glob("*.base.rdb"), reverse=True):
            with base.open("rb") as file:
                return redis_maker(file.read(100))
        return None

    def argv(self) -> list[str]:
        """Return the command line; the password stands in the file it names."""
        return [str(self.binaries), str(self.folder / "redis.conf")]

    def ready(self, pid: int) -> bool:
        """Say whether the server under our password has this process id and has read its data."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as talk:
                talk.sendall(f"AUTH {self.password}\r\nINFO server\r\nPING\r\nQUIT\r\n".encode())
                answer = b"".join(iter(lambda: talk.recv(65536), b""))
        except OSError:
            return False
        return f"process_id:{pid}\r".encode() in answer and b"+PONG" in answer
