"""One feel of one database: who looked, when, what was seen, and the table of gauges.

Anyone may import this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.core.access import UNKNOWN, Access
from monitor.core.cause import EVIDENCE, Cause, Evidence
from monitor.core.foreign import OpenWord

Value = bool | int | float | str


class ReadingStatus(OpenWord):
    """How a family of gauges came out; a missing privilege is `denied`, never a zero."""

    OK = "ok"
    UNSUPPORTED = "unsupported"
    DENIED = "denied"
    TIMED_OUT = "timed_out"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Gauge:
    """One line of the catalogue."""

    name: str
    family: str
    unit: str
    meaning: str

    @property
    def is_fraction(self) -> bool:
        """Whether its values are no whole numbers."""
        return self.unit in ("seconds", "percent", "transactions/s")


_CATALOGUE = (
    Gauge("connections", "connections", "connections", "client connections to the whole server"),
    Gauge(
        "connections_max", "connections", "connections", "max_connections less the reserved slots"
    ),
    Gauge("longest_transaction", "activity", "seconds", "age of the oldest open transaction"),
    Gauge(
        "longest_idle_in_transaction",
        "activity",
        "seconds",
        "longest wait of a session idle in a transaction",
    ),
    Gauge("blocked_sessions", "activity", "sessions", "sessions waiting for a lock"),
    Gauge(
        "cache_hit_rate",
        "database",
        "percent",
        "blocks found in the cache since the last beat (else since reset)",
    ),
    Gauge("xact_rate", "database", "transactions/s", "commits and rollbacks since the last beat"),
    Gauge("xid_age", "database", "transactions", "age of the oldest frozen transaction id"),
    Gauge("role", "database", "", "primary or standby"),
    Gauge(
        "replication_lag", "database", "seconds", "replay delay of a standby; absent on a primary"
    ),
    Gauge("server_version_num", "database", "", "server_version_num"),
    Gauge("row_count", "tables", "rows (estimate)", "live rows by the statistics views"),
    Gauge("table_count", "tables", "tables", "user tables"),
    Gauge("seq_scans", "tables", "scans", "sequential scans since reset"),
    Gauge("index_scans", "tables", "scans", "index scans since reset"),
    Gauge("db_size", "size", "bytes", "size of the database on disk"),
)
GAUGES: dict[str, Gauge] = {gauge.name: gauge for gauge in _CATALOGUE}
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(gauge.family for gauge in _CATALOGUE))
SLOW_FAMILIES = frozenset({"tables", "size"})  # taken every slow_interval


@dataclass(frozen=True, slots=True)
class Reading:
    """One family of gauges as last taken: values only when status is ok."""

    family: str
    observed_at: float
    status: ReadingStatus
    values: Mapping[str, Value] = field(default_factory=dict)
    code: str = ""  # the SQLSTATE of a failed family


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The outcome of one feel. Unreachable is data: a failed feel is an Observation too."""

    database: str
    worker: str
    sent_at: float  # fleet seconds when the first packet of the probe was sent
    at: float  # fleet seconds when the probe ended: the clock of the machine
    cause: Cause
    readings: tuple[Reading, ...] = ()
    fresh_login: bool = False  # a login was part of it
    login_interval: float = 0.0  # seconds between logins that are proved as a matter of routine
    access: Access = UNKNOWN  # what is known of logins after it
    detail: str = ""  # for people, at most 512 characters, controls stripped; decides nothing
    sqlstate: str = ""  # of the error that `detail` tells
    revision: int = 0  # of the target that was felt; 0 where nobody said
    # milliseconds by step: dns, connect, login, query
    steps: Mapping[str, float] = field(default_factory=dict)
    tried: tuple[str, ...] = ()  # the addresses it is about, where some were
    dns_stale: bool = False  # those were the last ones known: the name did not resolve
    waited: float = 0.0  # seconds its login waited for its turn among others at the same address

    @property
    def evidence(self) -> Evidence:
        return EVIDENCE[self.cause]
