"""What one process is told by its environment. Only doors and process loops import this; adapters
take arguments.

Order: variable, its _FILE twin, FEELER_HOME/runtime.env (left by a running `feeler up`), default.
Errors name the variable and the fix, never the value.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from monitor import private
from monitor.core.database import ZONE
from monitor.core.errors import InvalidInput
from monitor.core.timing import LEASE

RUNTIME_FILE = "runtime.env"
DEFAULT_PORT = 8000
_POSTGRES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")
_STORES = ("DATABASE_URL", "REDIS_URL", "CACHE_URL")
_DOOR = ("FEELER_URL", "FEELER_TOKEN")
_TOKEN = re.compile(r"[!-~]{12,512}\Z")
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a door or a process needs to know before it starts. Its repr shows no URL and no
    token.
    """

    home: Path
    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)  # the bus
    cache_url: str = field(
        default="", repr=False
    )  # observations; the same server unless told otherwise
    token: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    url: str = field(default="", repr=False)  # where the CLI finds the web
    zone: str = ""
    capacity: int = 10_000
    ca_dir: Path = Path("ca")
    history_days: int = 400  # that transitions are kept; 0: for ever
    lease: float = LEASE  # seconds a leader leads without renewing

    @property
    def require_read_token(self) -> bool:
        """Say whether reading needs the token too: on anything but loopback."""
        return not is_loopback(self.host)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, stores: bool = True) -> "Settings":
        """Read the environment; `stores=False` is for clients that only speak HTTP."""
        source = _Source(environ, _home(environ), clients=not stores)
        database_url = source.url("DATABASE_URL", _POSTGRES, required=stores)
        redis_url = source.url("REDIS_URL", _REDIS, required=stores)
        token = source.matching(
            "FEELER_TOKEN", _TOKEN, "12 to 512 printable characters without spaces"
        )
        port = source.number("PORT", DEFAULT_PORT, 0, 65_535)
        return cls(
            home=source.home,
            database_url=database_url,
            redis_url=redis_url,
            cache_url=source.url("CACHE_URL", _REDIS) or redis_url,
            token=token,
            host=_host(source, token),
            port=port,
            url=source.url("FEELER_URL", ("http", "https")).rstrip("/")
            or f"http://127.0.0.1:{port}",
            zone=source.matching("FEELER_ZONE", ZONE, "at most 32 of a-z, 0-9 and -"),
            history_days=source.number("FEELER_HISTORY_DAYS", 400, 0, 100_000),
            capacity=source.number("FEELER_CAPACITY", 10_000, 1, 1_000_000),
            ca_dir=Path(source.text("FEELER_CA_DIR") or source.home / "ca").expanduser().absolute(),
        )


def is_loopback(host: str) -> bool:
    """Say whether a host name or address can only mean this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def write_runtime(home: Path, values: Mapping[str, str]) -> None:
    """Leave KEY=VALUE lines for CLI calls beside a running `up`, readable by this user only, in one
    step.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = home / f".{RUNTIME_FILE}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.writelines(f"{key}={value}\n" for key, value in values.items())
    draft.replace(home / RUNTIME_FILE)


def read_runtime(home: Path) -> dict[str, str]:
    """Return what a running `up` left; nothing when there is none."""
    try:
        lines = private.read(home / RUNTIME_FILE).splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


class _Source:
    """The places a value may come from, in order."""

    def __init__(self, environ: Mapping[str, str], home: Path, *, clients: bool) -> None:
        self.environ, self.home = environ, home
        runtime = read_runtime(home)
        # Whole groups only: a token never travels to another URL, a registry never meets another
        # fleet's Redis.
        stores = {} if self._any("DATABASE_URL", "REDIS_URL") else _pick(runtime, _STORES)
        door = _pick(runtime, _DOOR) if (clients or stores) and not self._any("FEELER_URL") else {}
        self.runtime = stores | door

    def text(self, name: str) -> str:
        """Return the value with surrounding blanks removed; an empty one counts as not set."""
        value, twin = (
            self.environ.get(name, "").strip(),
            self.environ.get(f"{name}_FILE", "").strip(),
        )
        if value and twin:
            raise InvalidInput(
                name, f"set together with {name}_FILE", "unset one of them", "environment"
            )
        if twin:
            return _file(f"{name}_FILE", Path(twin))
        return value or self.runtime.get(name, "")

    def url(self, name: str, schemes: tuple[str, ...], *, required: bool = False) -> str:
        """Return a URL of one of the schemes."""
        value, example = self.text(name), " or ".join(f"{scheme}://..." for scheme in schemes[:2])
        if not value:
            if required:
                raise InvalidInput(
                    name, "not set", f"set it to {example}, or start `feeler up`", "environment"
                )
            return ""
        try:
            parts = urlsplit(value)
            usable = (
                parts.scheme in schemes and bool(parts.netloc or parts.path) and parts.port != 0
            )
        except ValueError:
            usable = False
        if not usable or not value.isprintable() or " " in value:
            fix = f"{example}; percent-encode special characters of the password"
            raise InvalidInput(name, "not a usable URL", fix, "environment")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value = self.text(name)
        if not value:
            return default
        if not (
            value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most
        ):
            raise InvalidInput(
                name, "not a usable number", f"a whole number from {least} to {most}", "environment"
            )
        return int(value)

    def matching(self, name: str, pattern: re.Pattern[str], rule: str) -> str:
        """Return a text the pattern accepts whole."""
        value = self.text(name)
        if value and not pattern.match(value):
            raise InvalidInput(name, "not usable", rule, "environment")
        return value

    def _any(self, *names: str) -> bool:
        return any(self.environ.get(name) or self.environ.get(f"{name}_FILE") for name in names)


def _pick(values: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: values[name] for name in names if name in values}


def _home(environ: Mapping[str, str]) -> Path:
    source = environ.get("FEELER_HOME", "").strip()
    if twin := environ.get("FEELER_HOME_FILE", "").strip():
        if source:
            raise InvalidInput(
                "FEELER_HOME",
                "set together with FEELER_HOME_FILE",
                "unset one of them",
                "environment",
            )
        source = _file("FEELER_HOME_FILE", Path(twin))
    if source:
        return Path(source).expanduser().absolute()
    data = environ.get("XDG_DATA_HOME", "").strip()
    base = (
        Path(data)
        if data.startswith("/")
        else Path(environ.get("HOME") or Path.home()) / ".local" / "share"
    )
    return base / "feeler"


def _host(source: _Source, token: str) -> str:
    given = source.matching("FEELER_HOST", _HOST, "a host name or an address")
    # PORT alone says that a platform routes to us; without a token we must not answer it.
    host = given or ("0.0.0.0" if source.environ.get("PORT") and token else "127.0.0.1")  # noqa: S104
    if not token and not is_loopback(host):
        raise InvalidInput(
            "FEELER_TOKEN", "not set while FEELER_HOST is not loopback", "set it", "environment"
        )
    return host


def _file(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(
            name, "names a file that cannot be read", "check path and permissions", "environment"
        ) from None
