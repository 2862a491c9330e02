"""What a database's owner tells of it: its name, where it is, what is wanted. Anyone may import."""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from monitor.core.errors import InvalidInput
from monitor.core.foreign import OpenWord

ZONE = re.compile(r"[a-z0-9-]{0,32}\Z")
_LONGEST_URL = 8000  # characters; a cloud's token is a long password
_LONGEST_NAME = 253  # characters of a host, user or database
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_METHODS = ("scram-sha-256", "md5", "password", "none")
_OPTIONS = ("sslmode", "sslrootcert", "require_auth", "allow_cleartext")
_SHAPE = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


class DatabaseStatus(OpenWord):
    """What its owner wants of us; not to be mistaken for its state."""

    ACTIVE = "active"
    PAUSED = "paused"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is and how to enter. Its repr never shows the password."""

    host: str
    port: int
    dbname: str
    user: str
    password: str = field(default="", repr=False)
    sslmode: str = "prefer"
    sslrootcert: str = ""  # 'system' or the name of a file in our CA folder; never a path
    require_auth: str = ""  # as libpq takes it; '': any method that tells a stranger no password
    allow_cleartext: bool = False  # its owner lets the password go in clear to an unverified server

    @property
    def verified(self) -> bool:
        """Whether TLS proves who the server is before anything is told it."""
        if self.sslmode.startswith("verify") or self.sslrootcert == "system":
            return True
        return self.sslmode == "require" and bool(self.sslrootcert)

    @property
    def tells_password(self) -> bool:
        """Whether a server that asks for it may have the password in clear."""
        return self.verified or self.allow_cleartext

    def redacted(self) -> str:
        """Return the URL people may see."""
        user, dbname = quote(self.user, safe=""), quote(self.dbname, safe="")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{user}:***@{host}:{self.port}/{dbname}"


def check_name(name: str) -> str:
    """Return the name, or raise InvalidInput: it is immutable, stands in keys, URLs and metrics."""
    if not _NAME.match(name):
        fix = "use a-z, 0-9, _ and -, at most 63, starting with a-z or 0-9"
        raise InvalidInput("name", "not a usable name", fix)
    return name


def check_zone(zone: str) -> str:
    """Return the zone, '' for none, or raise InvalidInput."""
    if not ZONE.match(zone):
        raise InvalidInput("zone", "not a usable zone", "at most 32 of a-z, 0-9 and -")
    return zone


def parse_address(url: str) -> Address:
    """Read a postgresql:// URL by an allow-list of keywords; errors never echo any part of it.

    libpq would also take passfile=, service=, options= and socket folders: none of them may come
    from a user.
    """
    if len(url) > _LONGEST_URL:
        raise _unusable("too long", f"at most {_LONGEST_URL} characters")
    parts = _split(url.strip())
    if parts is None:
        raise _unusable("malformed URL", f"{_SHAPE}, special characters percent-encoded")
    if parts.scheme not in ("postgres", "postgresql"):
        raise _unusable("not a postgresql:// URL", _SHAPE)
    host, user, dbname = parts.host, parts.user, parts.dbname or parts.user
    if not host or not host.isprintable() or set(host) & set("/\\,@ "):
        fix = "sockets and host lists are not supported"
        raise _unusable("needs one host name or address", fix)
    if not user or "\x00" in parts.password or not (user + dbname).isprintable():
        raise _unusable("needs a user name and printable names", _SHAPE)
    if max(map(len, (host, user, dbname))) > _LONGEST_NAME:
        fix = f"at most {_LONGEST_NAME} characters each"
        raise _unusable("host, user or database is too long", fix)
    return Address(host, parts.port, dbname, user, parts.password, **_options(parts.query))


def _unusable(problem: str, fix: str) -> InvalidInput:
    return InvalidInput("url", problem, fix)


class _Parts(NamedTuple):
    scheme: str
    host: str
    port: int
    dbname: str
    user: str
    password: str
    query: str


def _split(url: str) -> _Parts | None:
    """Take a URL apart; None where it is malformed, for Python's own errors would echo it.

    A bare #, / or @ of a password cuts the URL elsewhere, and part of the password would be looked
    up as a host; tabs and line ends would vanish without a word.
    """
    if not url.isprintable() or " " in url or "#" in url:
        return None
    try:
        parts = urlsplit(url)
        port = 5432 if parts.port is None else parts.port
        path = parts.path.removeprefix("/")
        host = unquote(parts.hostname or "", errors="strict")
        dbname = unquote(path, errors="strict")
        user = unquote(parts.username or "", errors="strict")
        password = unquote(parts.password or "", errors="strict")
    except ValueError:
        return None
    if "/" in path or "@" in path or port == 0:
        return None
    return _Parts(parts.scheme, host, port, dbname, user, password, parts.query)


def _options(query: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        pairs = [("malformed", "")]
    options = dict(pairs)
    if len(options) != len(pairs) or not set(options) <= set(_OPTIONS):
        raise _unusable(f"only {', '.join(_OPTIONS)} may follow the ?", "each at most once")
    if options.get("sslmode", "prefer") not in _SSLMODES:
        raise _unusable("unknown sslmode", f"one of {', '.join(_SSLMODES)}")
    if not _REFERENCE.match(options.get("sslrootcert", "system")):
        problem = "sslrootcert is the name of a file in FEELER_CA_DIR or 'system'"
        raise _unusable(problem, "never a path")
    _check_methods(options.get("require_auth", "none"))
    cleartext = options.get("allow_cleartext")
    if cleartext not in (None, "0", "1"):
        fix = "1 lets the password go in clear to any server"
        raise _unusable("allow_cleartext is 0 or 1", fix)
    return options | {"allow_cleartext": cleartext == "1"}


def _check_methods(listed: str) -> None:
    """Refuse methods that libpq does not know, and a list of which only some are negated."""
    methods = listed.split(",")
    negated = {method.startswith("!") for method in methods}
    named = {method.lstrip("!") for method in methods}
    if len(negated) > 1 or not named <= set(_METHODS):
        fix = f"of {', '.join(_METHODS)}; all with a ! before, or none"
        raise _unusable("unknown require_auth", fix)
