"""The queries of `queries/*.sql` and the readings their rows become. Pure but for reading the files
at import.

For this package alone. A row comes from a server that may lie: what does not fit its gauge makes
the family an error.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from monitor.core.observation import FAMILIES, GAUGES, Gauge, Reading, ReadingStatus, Value

_LONGEST = 2**63

Row = Mapping[bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Query:
    """One file: the families it serves, how often, and the least server version it is for."""

    name: str
    families: tuple[str, ...]
    slow: bool
    least: int
    sql: bytes


@dataclass(frozen=True, slots=True)
class Counters:
    """What the database counted so far, and when (monotonic seconds) we looked."""

    at: float
    transactions: int
    hits: int
    reads: int
    reset_at: float


def load() -> tuple[Query, ...]:
    """Read every query; for one purpose the file of the highest `least` comes first."""
    found = [
        _parse(path.name, path.read_text())
        for path in files(__package__).joinpath("queries").iterdir()
    ]
    return tuple(sorted(found, key=lambda query: (query.families, -query.least)))


def _parse(filename: str, text: str) -> Query:
    head = dict(
        line[3:].split(":", 1)
        for line in text.splitlines()
        if line.startswith("-- ") and ":" in line
    )
    sql = " ".join(line.strip() for line in text.splitlines() if not line.startswith("--"))
    return Query(
        name=filename.removesuffix(".sql"),
        families=tuple(head["families"].split()),
        slow=head["cadence"].strip() == "slow",
        least=int(head["least"]),
        sql=sql.encode(),
    )


QUERIES = load()


@cache
def queries(server_version: int, *, slow: bool) -> tuple[Query, ...]:
    """Return the queries of a tier for a server: one for each purpose, those it is too old for left
    out.
    """
    chosen: dict[tuple[str, ...], Query] = {}
    for query in QUERIES:
        if query.slow == slow and query.least <= server_version:
            chosen.setdefault(query.families, query)
    return tuple(chosen.values())


@cache
def _lacking(server_version: int, *, slow: bool) -> tuple[str, ...]:
    served = {family for query in queries(server_version, slow=slow) for family in query.families}
    wanted = dict.fromkeys(
        family for query in QUERIES if query.slow == slow for family in query.families
    )
    return tuple(family for family in wanted if family not in served)


def unsupported(server_version: int, at: float, *, slow: bool) -> tuple[Reading, ...]:
    """Return the readings of families this server is too old for."""
    lacking = _lacking(server_version, slow=slow)
    return tuple(Reading(family, at, ReadingStatus.UNSUPPORTED) for family in lacking)


def status_of_sqlstate(sqlstate: str) -> ReadingStatus:
    """Say how a family came out whose query met this error."""
    if sqlstate == "42501":  # insufficient_privilege
        return ReadingStatus.DENIED
    if sqlstate in ("57014", "55P03"):  # statement_timeout, lock_timeout
        return ReadingStatus.TIMED_OUT
    # No such function, table, column, type, setting, feature: another version, or something that is
    # like Postgres.
    if sqlstate in ("42883", "42P01", "42703", "42704", "0A000"):
        return ReadingStatus.UNSUPPORTED
    return ReadingStatus.ERROR


def failed(query: Query, at: float, status: ReadingStatus, code: str = "") -> tuple[Reading, ...]:
    """Return the readings of a query that met an error."""
    return tuple(Reading(family, at, status, code=code) for family in query.families)


def readings(query: Query, row: Row, at: float, rates: Mapping[str, Value]) -> tuple[Reading, ...]:
    """Return the readings of a query's row; raise ValueError when a value is none of its gauge."""
    return tuple(_reading(family, row, at, rates) for family in query.families)


def _reading(family: str, row: Row, at: float, rates: Mapping[str, Value]) -> Reading:
    if family == "activity" and row.get(b"visible") != b"t":
        return Reading(family, at, ReadingStatus.DENIED, code="42501")
    values = {
        name: convert(text)
        for name, key, convert in _COLUMNS[family]
        if (text := row.get(key)) is not None
    }
    if family == "database":
        values |= rates
    return Reading(family, at, ReadingStatus.OK, values)


def _whole(text: bytes) -> int:
    value = int(text[:24])
    if not -_LONGEST <= value < _LONGEST:
        raise ValueError("no bigint")
    return value


def _fraction(text: bytes) -> float:
    value = float(text[:64])
    if not math.isfinite(value):
        raise ValueError("not finite")
    return round(value, 3)


def _role(text: bytes) -> str:
    if text not in (b"primary", b"standby"):
        raise ValueError("no role")
    return text.decode()


def _converter(gauge: Gauge) -> Callable[[bytes], Value]:
    if gauge.name == "role":
        return _role
    return _fraction if gauge.is_fraction else _whole


_COLUMNS = {
    family: [
        (gauge.name, gauge.name.encode(), _converter(gauge))
        for gauge in GAUGES.values()
        if gauge.family == family
    ]
    for family in FAMILIES
}


def counters(row: Row, at: float) -> Counters:
    """Read what `rates` compares; raise ValueError when the row does not have it."""
    transactions, hits, reads = (
        _whole(row.get(name) or b"") for name in (b"transactions", b"hits", b"reads")
    )
    return Counters(at, transactions, hits, reads, _fraction(row.get(b"reset_at") or b"0"))


def rates(before: Counters | None, now: Counters) -> dict[str, Value]:
    """Return what the counters did since `before`; a rate nobody can know (first look, reset) is
    absent.
    """
    found: dict[str, Value] = {}
    same = (
        before is not None
        and before.reset_at == now.reset_at
        and before.transactions <= now.transactions
    )
    if before and same and now.at > before.at:
        found["xact_rate"] = round(
            (now.transactions - before.transactions) / (now.at - before.at), 3
        )
    hits, reads = now.hits, now.reads
    if before and same and now.hits + now.reads > before.hits + before.reads:
        hits, reads = now.hits - before.hits, now.reads - before.reads
    if hits + reads > 0 and hits >= 0 and reads >= 0:
        found["cache_hit_rate"] = round(100 * hits / (hits + reads), 3)
    return found


def has_room(found: Sequence[Reading]) -> bool:
    """Say whether the server is known to have a slot that is not reserved."""
    return any(
        reading.family == "connections" and reading.values for reading in found
    ) and not slots_full(found)


def slots_full(found: Sequence[Reading]) -> bool:
    """Say whether sessions have taken every slot that is not reserved."""
    values = next((reading.values for reading in found if reading.family == "connections"), {})
    taken, slots = values.get("connections"), values.get("connections_max")
    return isinstance(taken, int) and isinstance(slots, int) and taken >= slots
