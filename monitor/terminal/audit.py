"""A line for every change that a person makes past the web: who, what, from where.

Whatever in terminal/ changes a store imports this.
"""

import os
import pwd
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from monitor.core.errors import InvalidInput

_PLAIN = re.compile(r"[A-Za-z0-9_.:@-]{1,100}\Z")


@contextmanager
def audited(what: str) -> Iterator[None]:
    """Tell of a change when it is made, refused or failed; on stderr, like the lines of a log."""
    result = "failed"
    try:
        yield
        result = "done"
    except InvalidInput:
        result = "refused"
        raise
    finally:
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        fields = f"who={_who()} what={what} result={result} from={_from()}"
        sys.stderr.write(f"{moment} I feeler.audit action=audit {fields}\n")


def _who() -> str:
    """Return the user of this process, and who became that user by sudo."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user may have no name
        user = str(os.geteuid())
    before = os.environ.get("SUDO_USER", "")
    return f"{_plain(user)},sudo:{_plain(before)}" if before else _plain(user)


def _from() -> str:
    """Return this host, and the address that a session on it came from."""
    remote = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    host = f"{_plain(socket.gethostname())}:{os.getpid()}"
    return f"{host},ssh:{_plain(remote)}" if remote else host


def _plain(text: str) -> str:
    return text if _PLAIN.match(text) else "*"
