"""What one process is told by its environment. Only doors and process loops import this.

No other module reads a variable; adapters take arguments. Order: variable, its _FILE twin,
FEELER_HOME/runtime.env (left by a running `feeler up`), default. Errors name the variable and the
fix, never the value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from monitor import private
from monitor.core.database import ZONE
from monitor.core.errors import InvalidInput
from monitor.core.timing import LEASE

RUNTIME_FILE = "runtime.env"
DEFAULT_PORT = 8000
LOOPBACK = "127.0.0.1"
_POSTGRES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")
_STORES = ("DATABASE_URL", "REDIS_URL", "CACHE_URL")
_DOOR = ("FEELER_URL", "FEELER_TOKEN")
_TOKEN = re.compile(r"[!-~]{12,512}\Z")
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}\Z")
_LEVEL = re.compile(r"(?i:debug|info|warn|warning|error|fatal|critical)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a process needs to know before it starts. Its repr shows no URL and no secret."""

    home: Path
    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)  # the bus
    # Observations; the same server unless told otherwise.
    cache_url: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    secret_keys: str = field(default="", repr=False)
    secret_keys_file: Path | None = None
    host: str = LOOPBACK
    port: int = DEFAULT_PORT
    url: str = field(default="", repr=False)  # where the CLI finds the web
    zone: str = ""
    capacity: int = 10_000
    ca_dir: Path = Path("ca")
    history_days: int = 400  # that transitions are kept; 0: for ever
    lease: float = LEASE  # seconds a leader leads without renewing
    log_level: str = "INFO"
    procfile: Path | None = None  # the roles of `feeler up`, where they are not ours

    @property
    def require_read_token(self) -> bool:
        """Say whether reading needs the token too: on anything but loopback."""
        return not is_loopback(self.host)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, stores: bool = True) -> "Settings":
        """Read the environment; `stores=False` is for clients that only speak HTTP."""
        source = _Source(environ, home_of(environ), clients=not stores)
        database_url = source.url("DATABASE_URL", _POSTGRES, required=stores)
        redis_url = source.url("REDIS_URL", _REDIS, required=stores)
        token = source.matching(
            "FEELER_TOKEN", _TOKEN, "12 to 512 printable characters without spaces"
        )
        port = source.number("PORT", DEFAULT_PORT, 0, 65_535)
        web = source.url("FEELER_URL", ("http", "https")) or f"http://{LOOPBACK}:{port}"
        level = source.matching("FEELER_LOG", _LEVEL, "debug, info, warning, error or critical")
        return cls(
            home=source.home,
            database_url=database_url,
            redis_url=redis_url,
            cache_url=source.url("CACHE_URL", _REDIS) or redis_url,
            token=token,
            secret_keys=source.plain("FEELER_SECRET_KEYS"),
            secret_keys_file=source.path("FEELER_SECRET_KEYS_FILE"),
            host=_host(source, token),
            port=port,
            url=web.rstrip("/"),
            zone=source.matching("FEELER_ZONE", ZONE, "at most 32 of a-z, 0-9 and -"),
            history_days=source.number("FEELER_HISTORY_DAYS", 400, 0, 100_000),
            capacity=source.number("FEELER_CAPACITY", 10_000, 1, 1_000_000),
            ca_dir=Path(source.text("FEELER_CA_DIR") or source.home / "ca").expanduser().absolute(),
            log_level=level.upper() or "INFO",
            procfile=source.path("FEELER_PROCFILE"),
        )

    @classmethod
    def for_up(cls, environ: Mapping[str, str], home: Path) -> "Settings":
        """Return what `feeler up` is told of its home; it makes the rest, so nothing is required.

        PORT opens its web to nobody, and neither does a token: FEELER_HOST alone does.
        """
        settled = ("FEELER_HOST", "FEELER_HOME")
        told: dict[str, str] = {}
        for name, value in environ.items():
            if not name.startswith(settled):
                told[name] = value
        told["FEELER_HOME"] = str(home)
        settings = cls.from_env(told, stores=False)
        host = environ.get("FEELER_HOST") or LOOPBACK
        return replace(settings, host=host)


def home_of(environ: Mapping[str, str]) -> Path:
    """Return FEELER_HOME, by default in the user's folder for data."""
    source = environ.get("FEELER_HOME", "").strip()
    twin = environ.get("FEELER_HOME_FILE", "").strip()
    if source and twin:
        raise _set_twice("FEELER_HOME")
    if twin:
        source = _file("FEELER_HOME_FILE", Path(twin))
    if source:
        return Path(source).expanduser().absolute()
    data = environ.get("XDG_DATA_HOME", "").strip()
    if data.startswith("/"):
        return Path(data) / "feeler"
    user = Path(environ.get("HOME") or Path.home())
    return user / ".local" / "share" / "feeler"


def is_loopback(host: str) -> bool:
    """Say whether a host name or address can only mean this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def write_runtime(home: Path, values: Mapping[str, str]) -> None:
    """Leave KEY=VALUE lines for CLI calls beside a running `up`, readable by this user only."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [f"{key}={value}\n" for key, value in values.items()]
    text = "".join(lines)
    private.write(home / RUNTIME_FILE, text)


def read_runtime(home: Path) -> dict[str, str]:
    """Return what a running `up` left; nothing when there is none."""
    try:
        lines = private.read(home / RUNTIME_FILE).splitlines()
    except FileNotFoundError:
        return {}
    values = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[key.strip()] = value.strip()
    return values


class _Source:
    """The places a value may come from, in order."""

    def __init__(self, environ: Mapping[str, str], home: Path, *, clients: bool) -> None:
        self.environ, self.home = environ, home
        self.runtime: dict[str, str] = {}
        left = read_runtime(home)
        # Whole groups only: a token never travels to another URL, a registry never meets another
        # fleet's Redis.
        if not self._is_set("DATABASE_URL") and not self._is_set("REDIS_URL"):
            self.runtime |= _pick(left, _STORES)
        wants_door = clients or self.runtime
        if wants_door and not self._is_set("FEELER_URL"):
            self.runtime |= _pick(left, _DOOR)

    def plain(self, name: str) -> str:
        """Return the variable alone, with surrounding blanks removed."""
        return self.environ.get(name, "").strip()

    def path(self, name: str) -> Path | None:
        """Return the file a variable names, which is read by whoever needs it."""
        given = self.plain(name)
        return Path(given) if given else None

    def text(self, name: str) -> str:
        """Return the value with surrounding blanks removed; an empty one counts as not set."""
        value = self.plain(name)
        twin = self.plain(f"{name}_FILE")
        if value and twin:
            raise _set_twice(name)
        if twin:
            return _file(f"{name}_FILE", Path(twin))
        return value or self.runtime.get(name, "")

    def url(self, name: str, schemes: tuple[str, ...], *, required: bool = False) -> str:
        """Return a URL of one of the schemes."""
        value = self.text(name)
        example = " or ".join(f"{scheme}://..." for scheme in schemes[:2])
        if not value and required:
            fix = f"set it to {example}, or start `feeler up`"
            raise InvalidInput(name, "not set", fix, "environment")
        if value and not _usable(value, schemes):
            fix = f"{example}; percent-encode special characters of the password"
            raise InvalidInput(name, "not a usable URL", fix, "environment")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value = self.text(name)
        if not value:
            return default
        is_number = value.isascii() and value.isdigit() and len(value) < 10
        if not is_number or not least <= int(value) <= most:
            fix = f"a whole number from {least} to {most}"
            raise InvalidInput(name, "not a usable number", fix, "environment")
        return int(value)

    def matching(self, name: str, pattern: re.Pattern[str], rule: str) -> str:
        """Return a text the pattern accepts whole."""
        value = self.text(name)
        if value and not pattern.match(value):
            raise InvalidInput(name, "not usable", rule, "environment")
        return value

    def _is_set(self, name: str) -> bool:
        value = self.environ.get(name)
        twin = self.environ.get(f"{name}_FILE")
        return bool(value or twin)


def _pick(values: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    picked: dict[str, str] = {}
    for name in names:
        if name in values:
            picked[name] = values[name]
    return picked


def _usable(url: str, schemes: tuple[str, ...]) -> bool:
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.netloc or parts.path) and port != 0


def _host(source: _Source, token: str) -> str:
    host = source.matching("FEELER_HOST", _HOST, "a host name or an address")
    if not host:
        # PORT alone says that a platform routes to us; without a token we must not answer it.
        routed = bool(source.environ.get("PORT")) and bool(token)
        host = "0.0.0.0" if routed else LOOPBACK  # noqa: S104
    if not token and not is_loopback(host):
        problem = "not set while FEELER_HOST is not loopback"
        raise InvalidInput("FEELER_TOKEN", problem, "set it", "environment")
    return host


def _set_twice(name: str) -> InvalidInput:
    problem = f"set together with {name}_FILE"
    return InvalidInput(name, problem, "unset one of them", "environment")


def _file(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        problem = "names a file that cannot be read"
        raise InvalidInput(name, problem, "check path and permissions", "environment") from None
