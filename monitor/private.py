"""Files whose word we take: ours alone, or refused. Anyone in monitor may import this."""

import os
import stat
from collections.abc import Collection
from pathlib import Path

from monitor.core.errors import InvalidInput

OTHERS_TOUCH = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read(path: Path, *, also: Collection[int] = (), secret: bool = True) -> str:
    """Return the text of a file of ours; FileNotFoundError where there is none.

    Whoever else owned it would choose where our passwords and tokens go. `also` are users whose
    word we take.
    """
    try:
        with path.open(encoding="utf-8") as file:
            opened = os.fstat(file.fileno())
            text = file.read()
        found = path.lstat()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError):
        fix = "look at its owner and mode, or remove it"
        raise _untrusted(path, "cannot be read", fix) from None
    owners = {opened.st_uid, found.st_uid}  # a link has its own
    trusted = {os.geteuid(), 0, *also}
    if not owners <= trusted:
        fix = "remove it, or run as that user"
        raise _untrusted(path, "belongs to another user", fix)
    fix = f"chmod 600 {path}"
    if opened.st_mode & OTHERS_WRITE and not secret:
        raise _untrusted(path, "others may change it", fix)
    if opened.st_mode & OTHERS_TOUCH and secret:
        raise _untrusted(path, "holds secrets and others may read it", fix)
    return text


def _untrusted(path: Path, problem: str, fix: str) -> InvalidInput:
    return InvalidInput("file", problem, fix, str(path))


def write(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file that its owner alone may read, in one step: no reader ever finds half of it.

    `owner` is a user and a group, else it is ours.
    """
    name = f".{path.name}.{os.getpid()}"
    draft = path.with_name(name)
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = os.open(draft, flags, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    if owner:
        os.chown(draft, *owner)
    draft.replace(path)


def is_trusted(path: Path) -> bool:
    """Say whether nobody but us and root may change a file that anybody may read."""
    found = path.stat()
    trusted = (os.geteuid(), 0)
    if found.st_uid not in trusted:
        return False
    return not found.st_mode & OTHERS_WRITE
