"""The two calls psycopg does not offer of the very libpq it loaded. For this package alone.

`be_verbose`: the SQLSTATE of a failed login stands in its text only then (psycopg's errors of
failed connections have none). `poll`: PQconnectPoll through ctypes lets other threads run while it
computes; psycopg's own holds the GIL, and a server chooses how long a SCRAM proof takes.
"""

import ctypes
import ctypes.util
import logging
from pathlib import Path
from typing import Any

from psycopg import pq
from psycopg.pq.abc import PGconn

log = logging.getLogger("feeler.libpq")

_VERBOSE = 2  # PQERRORS_VERBOSE


def _candidates() -> list[str]:
    """Name libpq files, the one mapped into this process first."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        lines = []
    mapped = {line[line.index("/") :] for line in lines if "/libpq" in line}
    packages = Path(pq.__file__).parents[2]
    bundled = packages.glob("psycopg_binary*/**/libpq*")  # .libs on Linux, .dylibs on macOS
    candidates = [*sorted(mapped), *map(str, bundled)]
    found = None if mapped else ctypes.util.find_library("pq")
    return [*candidates, found] if found else candidates


def _load() -> ctypes.CDLL | None:
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
            if library.PQlibVersion() == pq.version():
                break
        except (OSError, AttributeError):
            continue
    else:
        effect = "causes_by_start-up_bytes_alone"
        log.warning("action=libpq_not_found psycopg=%s effect=%s", pq.__impl__, effect)
        return None
    library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.PQconnectPoll.argtypes = [ctypes.c_void_p]
    return library


_library = _load()


def _pointer(pgconn: Any) -> int | None:
    """Return the PGconn behind psycopg's object; its protocol class does not tell of it."""
    pointer = pgconn.pgconn_ptr
    return None if pointer is None else int(pointer)


def be_verbose(pgconn: PGconn) -> None:
    """Have this connection's error texts carry the SQLSTATE."""
    if _library:
        _library.PQsetErrorVerbosity(_pointer(pgconn), _VERBOSE)


def poll(pgconn: PGconn) -> int:
    """Take one step of a login without holding the GIL; return a PollingStatus."""
    pointer = _pointer(pgconn)
    if _library and pointer:
        return int(_library.PQconnectPoll(pointer))
    return int(pgconn.connect_poll())
