"""`feeler up`: stores, migration, every role of the Procfile, the first observation. Only cli.py
imports this.

Nothing secret stays on a command line, nothing outlives it, and a second one on the same
FEELER_HOME is refused.
"""

import asyncio
import fcntl
import os
import re
import secrets
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from monitor import private
from monitor.config import RUNTIME_FILE, Settings, write_runtime
from monitor.core.database import check_name, parse_address
from monitor.core.errors import FeelerError, InvalidInput
from monitor.local.embedded import Postgres, Redis, Server
from monitor.local.first_run import Welcome
from monitor.local.machine import make_home, port_is_free, stores_folder
from monitor.local.processes import Child, say, start_command
from monitor.secrets import KEY_FILE, VARIABLE, has_keys, make_key

DESCRIPTOR = re.compile(
    r"@/dev/fd/(\d{1,6})\Z"
)  # how a nameless file comes: from `_start_over`, ./run, or a shell
PLACE = ("FEELER_HOME", "FEELER_HOME_FILE", "XDG_DATA_HOME", "HOME")


def up(databases: Sequence[str] = (), workers: int = 2, port: int | None = None) -> int:
    """Run everything on this machine until a signal comes; databases are NAME=URL or @FILE with
    such lines.
    """
    home = Settings.from_env(
        {name: os.environ[name] for name in PLACE if name in os.environ}, stores=False
    ).home
    make_home(home)
    if any("://" in text for text in databases):
        _start_over(databases, workers, port)
    wanted = dict(_database(line) for text in databases for line in _lines(text))
    with _only_one(home):
        return _Up(home, wanted, workers, port).run()


def _start_over(databases: Sequence[str], workers: int, port: int | None) -> None:
    """Become the same command without the URLs, so that no process list shows a password."""
    lines = "".join(f"{line}\n" for text in databases for line in _lines(text))
    if hasattr(os, "memfd_create"):
        nameless = os.memfd_create("databases")
    else:
        with tempfile.TemporaryFile() as file:  # no name leads to it either
            nameless = os.dup(file.fileno())
    os.write(nameless, lines.encode())
    os.lseek(nameless, 0, os.SEEK_SET)
    os.set_inheritable(nameless, True)
    command = [
        sys.executable,
        "-P",
        "-m",
        "monitor.local.up",
        f"@/dev/fd/{nameless}",
        str(workers),
        str(port or ""),
    ]
    os.execv(sys.executable, command)  # noqa: S606


def _lines(text: str) -> list[str]:
    if not text.startswith("@"):
        return [text]
    nameless = DESCRIPTOR.match(text)
    try:
        with open(int(nameless[1]) if nameless else text[1:], encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(
            "databases", f"cannot read {text[1:]}", "@FILE has a line NAME=URL for each"
        ) from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _database(line: str) -> tuple[str, str]:
    name, equals, url = line.partition("=")
    if not equals or "://" in name:
        raise InvalidInput(
            "databases", "not NAME=URL", "feeler up orders=postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    parse_address(url)
    return check_name(name), url


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold this home's lock; the kernel gives it back however we end."""
    with (home / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            message = f"`feeler up` runs on {home} already, as process {file.read().strip()}; set FEELER_HOME for another"
            raise FeelerError(message) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def procfile() -> dict[str, str]:
    """Return the commands of the Procfile by role; `feeler` in them is this very installation."""
    here = Path(__file__).parents[1]
    shipped = here / "_procfile"
    path = Path(
        os.environ.get("FEELER_PROCFILE")
        or (shipped if shipped.exists() else here.parent / "Procfile")
    )
    roles = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        role, colon, command = line.partition(":")
        if colon and not line.startswith("#"):
            word, _, rest = command.strip().partition(" ")
            program = f"{shlex.quote(sys.executable)} -m monitor.cli" if word == "feeler" else word
            roles[role.strip()] = f"{program} {rest}"
    return roles


class _Up:
    """One run, from the first store to the last."""

    def __init__(
        self, home: Path, databases: Mapping[str, str], workers: int, port: int | None
    ) -> None:
        self.home, self.databases, self.workers = home, databases, workers
        self.began_at, self.began = time.time(), time.monotonic()
        self.stores: list[Server] = []
        (home / RUNTIME_FILE).unlink(
            missing_ok=True
        )  # an older run's, dead now: its stores are not to be used
        given = {
            name: value for name, value in os.environ.items() if not name.startswith("FEELER_HOST")
        }
        settings = Settings.from_env({**given, "FEELER_HOME": str(home)}, stores=False)
        port = port or settings.port
        if not port_is_free(port):
            raise InvalidInput("port", f"{port} is taken", "feeler up --port N")
        token_file = home / "token"
        self.new_token = not settings.token and not token_file.exists()
        token = settings.token or _token(token_file)
        self.settings = replace(settings, port=port, url=f"http://127.0.0.1:{port}", token=token)

    def run(self) -> int:
        """Start everything, keep it running, stop it."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._start_stores()
            self._migrate()
            self._have_key()
            write_runtime(self.home, self._runtime())
            asyncio.run(self._keep())
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        finally:
            (self.home / RUNTIME_FILE).unlink(missing_ok=True)
            for store in self.stores:
                store.stop()
        return 0

    def _start_stores(self) -> None:
        folder = stores_folder(self.home)
        settings, began = self.settings, time.monotonic()
        postgres, redis = Postgres(folder / "postgres"), Redis(folder / "redis")
        if not settings.database_url:
            self.stores.append(postgres)
        if not settings.redis_url:
            self.stores.append(redis)
        for store in self.stores:
            store.prepare()
            made = f", made by {store.made_by}" if store.made_by else ""
            say("up", f"{store.kind}: {store.binaries}, data in {store.folder}{made}")
        prepared = time.monotonic()
        for store in self.stores:
            store.start()
        for store in self.stores:
            store.wait_ready()
        say(
            "up",
            f"stores answer: {prepared - began:.1f} s to set up, {time.monotonic() - prepared:.1f} s to start",
        )
        redis_url = settings.redis_url or redis.url()
        database_url, cache_url = (
            settings.database_url or postgres.url(),
            settings.cache_url or redis_url,
        )
        self.settings = replace(
            settings, database_url=database_url, redis_url=redis_url, cache_url=cache_url
        )

    def _migrate(self) -> None:
        began = time.monotonic()
        process = start_command("release", procfile()["release"], self._environment())
        try:
            code = process.wait()
        finally:
            process.kill()
        if code:
            raise FeelerError(f"the migration ended with exit code {code}")
        say("up", f"migrated in {time.monotonic() - began:.1f} s")

    def _have_key(self) -> None:
        """Make the key that seals addresses, at the first run only: a new one would open none that
        are kept.
        """
        if has_keys(os.environ, self.home):
            return
        from monitor.registry import (
            fleet,
        )  # here, for the first run alone: it costs a second of every start
        from monitor.registry.store import open_store

        store = open_store(self.settings.database_url)
        try:
            kept = fleet.sealed(store)
        finally:
            store.close()
        if kept:
            lost = f"its key is not here ({kept} addresses are sealed in the registry)"
            fix = f"set {VARIABLE} to it, or put {KEY_FILE} back into {self.home}"
            raise InvalidInput(VARIABLE, lost, fix)
        make_key(self.home)

    def _runtime(self) -> dict[str, str]:
        settings = self.settings
        return {
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "CACHE_URL": settings.cache_url,
            "FEELER_TOKEN": settings.token,
            "FEELER_URL": settings.url,
        }

    def _environment(self) -> dict[str, str]:
        """Return what the programs are told: ours over what we were told, and no second source of
        the same.
        """
        ours = {
            **self._runtime(),
            "FEELER_HOME": str(self.home),
            "FEELER_HOST": os.environ.get("FEELER_HOST") or "127.0.0.1",
            "PORT": str(self.settings.port),
            "PYTHONSAFEPATH": "1",  # the folder we stand in is no place to import from
            "PYTHONUNBUFFERED": "1",
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name.removesuffix("_FILE") not in ours
        }
        return inherited | ours

    async def _keep(self) -> None:
        """Keep stores and programs alive until a signal comes; then stop the programs before the
        stores.
        """
        stopping = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
        stores = [
            Child(
                store.kind,
                store.start,
                store.stop_signal,
                last_words=store.last_words,
                process=store.process,
            )
            for store in self.stores
        ]
        programs = self._programs()
        keepers = [asyncio.create_task(child.keep()) for child in (*stores, *programs)]
        welcome = Welcome(self.settings, self.databases, self.began, self.began_at, self.new_token)
        threading.Thread(target=welcome.run, daemon=True).start()
        await stopping.wait()
        say("up", "stopping")
        workers = [child for child in programs if child.name.startswith("worker")]
        for layer in (
            workers,
            programs,
            stores,
        ):  # workers first: their last transitions want a historian
            await asyncio.gather(*(child.stop() for child in layer))
        await asyncio.gather(*keepers)

    def _programs(self) -> list[Child]:
        environment = self._environment()
        programs = []
        for role, command in procfile().items():
            count = self.workers if role == "worker" else 0 if role == "release" else 1
            names = [role] if count == 1 else [f"{role}.{number + 1}" for number in range(count)]
            programs += [
                Child(name, partial(start_command, name, command, environment)) for name in names
            ]
        return programs


def _token(path: Path) -> str:
    """Return the token that stays the same from one run to the next."""
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
    return private.read(path).strip()


def main() -> None:
    """Go on where `_start_over` left off."""
    file, workers, port = sys.argv[1:]
    try:
        sys.exit(up([file], int(workers), int(port) if port else None))
    except FeelerError as error:
        sys.exit(f"feeler: {error}")


if __name__ == "__main__":
    main()
