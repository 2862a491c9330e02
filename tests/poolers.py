"""Throwaway pgbouncers before throwaway PostgreSQL servers, to exhaust, kill and freeze."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from monitor.core.errors import StoreUnavailable
from monitor.local.machine import HOST
from tests.servers import OneProcess, PostgresServer

ONE_SERVER_CONNECTION = {"default_pool_size": "1", "min_pool_size": "0", "reserve_pool_size": "0"}


def pgbouncer_program() -> Path:
    """Return the pgbouncer to test with: Debian's stands where plain users do not look."""
    found = shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    if not found:
        raise StoreUnavailable("pgbouncer", "no program here: apt-get install pgbouncer")
    return Path(found)


class PgBouncer(OneProcess):
    """A pgbouncer that lends one connection to a server's databases, unless set otherwise."""

    kind = "pgbouncer"
    stop_signal = signal.SIGTERM  # at once

    def __init__(self, folder: Path, behind: PostgresServer, **options: Any) -> None:
        super().__init__(folder, **options)
        self.behind, self.pid_file = behind, folder / "pgbouncer.pid"

    def url(self, dbname: str = "postgres") -> str:
        """Return the way to a database of the server, as its superuser."""
        return urlsplit(self.behind.url(dbname))._replace(netloc=self._place).geturl()

    @property
    def _place(self) -> str:
        return f"{self.behind.user}:{self.behind.password}@{HOST}:{self.port}"

    def _set_up(self) -> None:
        user, password = self.behind.user, self.behind.password
        self._write("users.txt", f'"{user}" "{password}"')
        fixed = {
            "listen_addr": HOST,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_file": str(self.folder / "users.txt"),
        }
        fixed |= {"admin_users": user, "pidfile": str(self.pid_file)}
        kept = {"auth_type": "scram-sha-256", "pool_mode": "transaction", **ONE_SERVER_CONNECTION}
        lines = [f"{name} = {value}" for name, value in {**kept, **self.settings, **fixed}.items()]
        way = f"* = host={HOST} port={self.behind.port}"
        self._write("pgbouncer.ini", "\n".join(["[databases]", way, "[pgbouncer]", *lines]))

    def argv(self) -> list[str]:
        """Return the command line; the passwords stand in files."""
        return [str(self.binaries), str(self.folder / "pgbouncer.ini")]

    def ready(self, pid: int) -> bool:
        """Say whether it takes commands."""
        try:
            self.command("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True

    def command(self, words: str) -> None:
        """Give a command to its console: `PAUSE`, `RESUME`, `RELOAD`."""
        with psycopg.connect(self.url("pgbouncer"), autocommit=True, connect_timeout=5) as console:
            psycopg.ClientCursor(console).execute(words.encode())
