"""`feeler up`: stores, migration, every role of the Procfile, the first observation.

Only cli.py imports this. Nothing secret stays on a command line, nothing outlives it, and a second
one on the same FEELER_HOME is refused.
"""

import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monitor.config import LOOPBACK, RUNTIME_FILE, Settings, home_of, write_runtime
from monitor.core.errors import FeelerError, InvalidInput
from monitor.local.first_run import FirstRun
from monitor.local.home import has_token, keep_token, locked, make_home, stores_folder
from monitor.local.machine import port_is_free
from monitor.local.processes import say, start_command
from monitor.local.roles import RELEASE, is_worker, read_procfile, role_processes
from monitor.local.stores import Stores
from monitor.registration.given import parse_databases, read_lines
from monitor.secrets import KEY_FILE, VARIABLE, has_keys, make_key


def up(
    environ: Mapping[str, str],
    databases: Sequence[str] = (),
    workers: int = 2,
    port: int | None = None,
) -> int:
    """Run everything on this machine until a signal comes; return the exit code.

    Databases are NAME=URL, or @FILE with such lines.
    """
    home = home_of(environ)
    make_home(home)
    if any("://" in text for text in databases):
        _restart_without_urls(databases, workers, port)
    wanted = {one.name: one.url for one in parse_databases(databases)}
    with locked(home):
        return Up(environ, home, wanted, workers, port).run()


def _restart_without_urls(databases: Sequence[str], workers: int, port: int | None) -> None:
    """Become the same command without the URLs, so that no process list shows a password."""
    lines = [f"{line}\n" for text in databases for line in read_lines(text)]
    if hasattr(os, "memfd_create"):
        nameless = os.memfd_create("databases")
    else:
        with tempfile.TemporaryFile() as file:  # no name leads to it either
            nameless = os.dup(file.fileno())
    os.write(nameless, "".join(lines).encode())
    os.lseek(nameless, 0, os.SEEK_SET)
    os.set_inheritable(nameless, True)
    command = [sys.executable, "-P", "-m", "monitor.cli", "up", f"@/dev/fd/{nameless}"]
    command += ["--workers", str(workers)]
    command += ["--port", str(port)] if port else []
    os.execv(sys.executable, command)  # noqa: S606


class Up:
    """One run, from the first store to the last."""

    def __init__(
        self,
        environ: Mapping[str, str],
        home: Path,
        databases: Mapping[str, str],
        workers: int,
        port: int | None,
    ) -> None:
        self.environ, self.home = environ, home
        self.databases, self.workers = databases, workers
        self.began_at, self.began = time.time(), time.monotonic()
        # An older run's, dead now: its stores are not to be used.
        (home / RUNTIME_FILE).unlink(missing_ok=True)
        given = Settings.for_up(environ, home)
        port = port or given.port
        if not port_is_free(port):
            raise InvalidInput("port", f"{port} is taken", "feeler up --port N")
        self.new_token = not given.token and not has_token(home)
        token = given.token or keep_token(home)
        self.settings = replace(given, port=port, url=f"http://{LOOPBACK}:{port}", token=token)
        self.commands = read_procfile(given.procfile)
        self.stores = Stores(stores_folder(home), given)

    def run(self) -> int:
        """Start everything, keep it running, stop it."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.stores.start()
            self.settings = self.stores.addressed(self.settings)
            self._migrate()
            self._have_key()
            write_runtime(self.home, self._runtime())
            asyncio.run(self._keep())
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        finally:
            (self.home / RUNTIME_FILE).unlink(missing_ok=True)
            self.stores.stop()
        return 0

    def _migrate(self) -> None:
        began = time.monotonic()
        process = start_command(RELEASE, self.commands[RELEASE], self._environment())
        try:
            code = process.wait()
        finally:
            process.kill()
        if code:
            raise FeelerError(f"the migration ended with exit code {code}")
        say("up", f"migrated in {time.monotonic() - began:.1f} s")

    def _have_key(self) -> None:
        """Make the key that seals addresses where none is needed to open those that are kept."""
        settings = self.settings
        if has_keys(self.home, settings.secret_keys, settings.secret_keys_file):
            return
        kept = self._count_sealed()
        if kept:
            lost = f"its key is not here ({kept} addresses are sealed in the registry)"
            fix = f"set {VARIABLE} to it, or put {KEY_FILE} back into {self.home}"
            raise InvalidInput(VARIABLE, lost, fix)
        make_key(self.home)

    def _count_sealed(self) -> int:
        # Imported here, for the first run alone: it costs a second of every start.
        from monitor.registry import fleet
        from monitor.registry.store import open_store

        store = open_store(self.settings.database_url)
        try:
            return fleet.count_sealed(store)
        finally:
            store.close()

    def _runtime(self) -> dict[str, str]:
        """Return what CLI calls beside this run are told."""
        settings = self.settings
        return {
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "CACHE_URL": settings.cache_url,
            "FEELER_TOKEN": settings.token,
            "FEELER_URL": settings.url,
        }

    def _environment(self) -> dict[str, str]:
        """Return what the roles are told: ours over what we were told, and nothing twice."""
        ours = {
            **self._runtime(),
            "FEELER_HOME": str(self.home),
            "FEELER_HOST": self.settings.host,
            "PORT": str(self.settings.port),
            "PYTHONSAFEPATH": "1",  # the folder we stand in is no place to import from
            "PYTHONUNBUFFERED": "1",
        }
        told = dict(ours)
        for name, value in self.environ.items():
            if name.removesuffix("_FILE") not in ours:
                told[name] = value
        return told

    async def _keep(self) -> None:
        """Keep stores and roles alive until a signal comes; then stop the roles first."""
        stopping = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
        stores = self.stores.processes()
        roles = role_processes(self.commands, self.workers, self._environment())
        keepers = [asyncio.create_task(process.keep()) for process in (*stores, *roles)]
        threading.Thread(target=self._first_run().run, daemon=True).start()
        await stopping.wait()
        say("up", "stopping")
        # Workers first: their last transitions want a historian, and all of them want the stores.
        workers = [process for process in roles if is_worker(process)]
        for layer in (workers, roles, stores):
            await asyncio.gather(*(process.stop() for process in layer))
        await asyncio.gather(*keepers)

    def _first_run(self) -> FirstRun:
        return FirstRun(self.settings, self.databases, self.began, self.began_at, self.new_token)
