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
            opened, text = os.fstat(file.fileno()), file.read()
        owners = {opened.st_uid, path.lstat().st_uid}  # of a link too
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError):
        fix = "look at its owner and mode, or remove it"
        raise InvalidInput("file", "cannot be read", fix, str(path)) from None
    if not owners <= {os.geteuid(), 0, *also}:
        fix = "remove it, or run as that user"
        raise InvalidInput("file", "belongs to another user", fix, str(path))
    if opened.st_mode & (OTHERS_TOUCH if secret else OTHERS_WRITE):
        what = "holds secrets and others may read it" if secret else "others may change it"
        raise InvalidInput("file", what, f"chmod 600 {path}", str(path))
    return text


def write(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file that its owner alone may read, in one step: no reader ever finds half of it.

    `owner` is a user and a group, else it is ours.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    if owner:
        os.chown(draft, *owner)
    draft.replace(path)


def is_trusted(path: Path) -> bool:
    """Say whether nobody but us and root may change a file that anybody may read."""
    found = path.stat()
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & OTHERS_WRITE
