"""Files whose word we take: ours alone, or refused. Standard library only; anyone in monitor may
import this.
"""

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
        raise InvalidInput(
            "file", "cannot be read", "look at its owner and mode, or remove it", str(path)
        ) from None
    if not owners <= {os.geteuid(), 0, *also}:
        raise InvalidInput(
            "file", "belongs to another user", "remove it, or run as that user", str(path)
        )
    if opened.st_mode & (OTHERS_TOUCH if secret else OTHERS_WRITE):
        what = "holds secrets and others may read it" if secret else "others may change it"
        raise InvalidInput("file", what, f"chmod 600 {path}", str(path))
    return text


def is_trusted(path: Path) -> bool:
    """Say whether nobody but us and root may change a file that anybody may read."""
    found = path.stat()
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & OTHERS_WRITE
