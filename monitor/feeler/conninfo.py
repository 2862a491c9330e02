"""What libpq is told of an address: every keyword, so that no environment and no file has a say.

For this package alone.
"""

import os
import ssl
from collections.abc import MutableMapping
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo

from monitor import private
from monitor.core.cause import Cause
from monitor.core.database import Address
from monitor.feeler.causes import NOT_IN_CLEAR, Failed

# libpq falls back to files in the home folder where a path is empty
_NOWHERE = "/nonexistent/feeler"
_OURS = "!gss,!sspi"  # methods of ours: all but these
_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_FIXED = {
    "client_encoding": "UTF8",
    "gssencmode": "disable",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
    "channel_binding": "prefer",
    "sslcertmode": "disable",
    "sslnegotiation": "postgres",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "connect_timeout": "0",  # deadlines are ours
    "passfile": _NOWHERE,
    "sslcert": _NOWHERE,
    "sslkey": _NOWHERE,
    "sslcrl": _NOWHERE,
    "sslcrldir": _NOWHERE,
}


_OPTIONS = pq.Conninfo.get_defaults()
_KNOWN = {option.keyword.decode() for option in _OPTIONS}  # an older libpq knows fewer keywords
_READS_A_FILE = (b"service", b"servicefile")  # where they are named at all


def _defaults() -> dict[str, str]:
    """Return what libpq would take from the environment, as it is without one."""
    defaults: dict[str, str] = {}
    for option in _OPTIONS:
        if option.envvar and option.keyword not in _READS_A_FILE:
            defaults[option.keyword.decode()] = (option.compiled or b"").decode()
    return defaults


_DEFAULTS = _defaults()


def strip_pg_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Remove every PG* variable: none of them may change what a database is felt with."""
    for name in [name for name in environ if name.startswith("PG")]:
        del environ[name]


def conninfo(address: Address, hostaddr: str, worker: str, ca_dir: Path | None) -> bytes:
    """Return the connection string for one address of the host.

    Raise Failed where a file it needs is missing.
    """
    sslmode, roots = _trust(address, ca_dir)
    methods = _OURS if address.tells_password else NOT_IN_CLEAR
    wanted = {
        "host": address.host,
        "hostaddr": hostaddr,
        "port": str(address.port),
        "dbname": address.dbname,
        "user": address.user,
        "password": address.password if _may_tell(address) else "",
        "require_auth": address.require_auth or methods,
        "application_name": f"feeler/{worker}",
        "sslmode": sslmode,
        "sslrootcert": roots,
    }
    keywords = {**_DEFAULTS, **_FIXED, **wanted}
    known = {name: value for name, value in keywords.items() if name in _KNOWN}
    return make_conninfo("", **known).encode()


def _may_tell(address: Address) -> bool:
    """Say whether libpq may know the password.

    One that knows no require_auth tells it to any server that asks.
    """
    return "require_auth" in _KNOWN or address.tells_password


def _trust(address: Address, ca_dir: Path | None) -> tuple[str, str]:
    """Return sslmode and the file of trusted roots: the system's, where none is named."""
    name, mode = address.sslrootcert, address.sslmode
    if name == "system" or (not name and mode.startswith("verify")):
        return "verify-full", str(_existing(*_system_roots()))
    if not name:
        return mode, _NOWHERE
    if ca_dir is None or Path(name).name != name:
        raise Failed(Cause.MISSING_FILE, f"no CA folder for sslrootcert={name}")
    roots = _existing(ca_dir / name)
    if not private.is_trusted(roots):
        detail = f"others may change {name}: it must be ours or root's, chmod 644"
        raise Failed(Cause.MISSING_FILE, detail)
    return mode, str(roots)


def _system_roots() -> tuple[Path, ...]:
    own = ssl.get_default_verify_paths().cafile
    return tuple(map(Path, filter(None, (own, *_SYSTEM_ROOTS))))


def _existing(*paths: Path) -> Path:
    for path in paths:
        if os.access(path, os.R_OK) and path.is_file():
            return path
    raise Failed(Cause.MISSING_FILE, f"cannot read {paths[-1].name}")
