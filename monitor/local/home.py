"""What FEELER_HOME holds of `feeler up`: its lock, its token, and the folder of its stores.

`monitor.local.up` and the tests import this.
"""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monitor import private
from monitor.core.errors import FeelerError, StoreUnavailable
from monitor.local.machine import reachable, server_account

OUTSIDE = Path("/var/lib/feeler")
TOKEN_FILE = "token"  # noqa: S105 - a name


def make_home(home: Path) -> None:
    """Make FEELER_HOME. Under root others may walk through it, to the stores, but list nothing."""
    home.mkdir(mode=0o711 if server_account() else 0o700, parents=True, exist_ok=True)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold this home's lock; the kernel gives it back however we end."""
    with (home / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FeelerError(
                f"`feeler up` runs on {home} already, as process {file.read().strip()};"
                " set FEELER_HOME for another"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def has_token(home: Path) -> bool:
    """Say whether an earlier run made this home's token."""
    return (home / TOKEN_FILE).exists()


def keep_token(home: Path) -> str:
    """Return the token of this home, made at the first run; call it under the home's lock."""
    if not has_token(home):
        private.write(home / TOKEN_FILE, secrets.token_urlsafe(24))
    return private.read(home / TOKEN_FILE).strip()


def stores_folder(home: Path) -> Path:
    """Return where the stores of this home keep their data: `home/stores`.

    Under root that is a link to a folder outside when another user cannot walk into the home (as
    into /root): the link remembers the place, and nobody's home is opened.
    """
    make_home(home)
    inside = home / "stores"
    if inside.is_symlink() and not inside.exists():  # starting on empty stores would hide the loss
        gone = f"{inside} leads to {inside.readlink()}, which is gone"
        raise StoreUnavailable("postgres", f"{gone}; remove the link to begin with empty stores")
    if inside.is_dir() and reachable(inside):
        return inside.resolve()
    inside.unlink(missing_ok=True)
    if reachable(home):
        inside.mkdir(mode=0o711)
        return inside
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
