"""The queries of `queries/*.sql` and the readings their rows become.

Pure but for reading the files at import; for this package alone. A row comes from a server that may
lie: what does not fit its gauge makes the family an error.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from monitor.core.observation import FAMILIES, GAUGES, Gauge, Reading, ReadingStatus, Value

_BIGINT = 2**63
_ROLES = (b"primary", b"standby")

INSUFFICIENT_PRIVILEGE = "42501"
_STATUS_OF_SQLSTATE = {
    INSUFFICIENT_PRIVILEGE: ReadingStatus.DENIED,
    "57014": ReadingStatus.TIMED_OUT,  # statement_timeout
    "55P03": ReadingStatus.TIMED_OUT,  # lock_timeout
    # another version, or something that is like Postgres
    "42883": ReadingStatus.UNSUPPORTED,  # no such function
    "42P01": ReadingStatus.UNSUPPORTED,  # no such table
    "42703": ReadingStatus.UNSUPPORTED,  # no such column
    "42704": ReadingStatus.UNSUPPORTED,  # no such type or setting
    "0A000": ReadingStatus.UNSUPPORTED,  # no such feature
}

Row = Mapping[bytes | None, bytes | None]
Values = Mapping[str, Value]
Readings = tuple[Reading, ...]
Convert = Callable[[bytes], Value]


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


# --- the queries ----------------------------------------------------------------------------------


def load() -> tuple[Query, ...]:
    """Read every query; for one purpose the file of the highest `least` comes first."""
    folder = files(__package__).joinpath("queries")
    found = [_parse(path.name, path.read_text()) for path in folder.iterdir()]
    return tuple(sorted(found, key=_newest_first))


def _newest_first(query: Query) -> tuple[tuple[str, ...], int]:
    return query.families, -query.least


def _parse(filename: str, text: str) -> Query:
    head: dict[str, str] = {}
    sql: list[str] = []
    for line in text.splitlines():
        if not line.startswith("--"):
            sql.append(line.strip())
        elif line.startswith("-- ") and ":" in line:
            key, value = line[3:].split(":", 1)
            head[key] = value
    return Query(
        name=filename.removesuffix(".sql"),
        families=tuple(head["families"].split()),
        slow=head["cadence"].strip() == "slow",
        least=int(head["least"]),
        sql=" ".join(sql).encode(),
    )


QUERIES = load()


@cache
def queries(server_version: int, *, slow: bool) -> tuple[Query, ...]:
    """Return the queries of a tier for a server: the newest for each purpose that it can answer."""
    chosen: dict[tuple[str, ...], Query] = {}
    for query in QUERIES:
        is_served = query.least <= server_version
        if query.slow == slow and is_served:
            chosen.setdefault(query.families, query)
    return tuple(chosen.values())


@cache
def _lacking(server_version: int, *, slow: bool) -> tuple[str, ...]:
    served: set[str] = set()
    for query in queries(server_version, slow=slow):
        served.update(query.families)
    lacking: list[str] = []
    for query in QUERIES:
        if query.slow != slow:
            continue
        for family in query.families:
            if family not in served and family not in lacking:
                lacking.append(family)
    return tuple(lacking)


# --- what becomes of a query ----------------------------------------------------------------------


def unsupported(server_version: int, at: float, *, slow: bool) -> Readings:
    """Return the readings of families this server is too old for."""
    lacking = _lacking(server_version, slow=slow)
    return tuple(Reading(family, at, ReadingStatus.UNSUPPORTED) for family in lacking)


def status_of_sqlstate(sqlstate: str) -> ReadingStatus:
    """Say how a family came out whose query met this error."""
    return _STATUS_OF_SQLSTATE.get(sqlstate, ReadingStatus.ERROR)


def failed(query: Query, at: float, status: ReadingStatus, code: str = "") -> Readings:
    """Return the readings of a query that met an error."""
    return tuple(Reading(family, at, status, code=code) for family in query.families)


def readings(query: Query, row: Row, at: float, rates: Values) -> Readings:
    """Return the readings of a query's row; raise ValueError when a value is none of its gauge."""
    return tuple(_reading(family, row, at, rates) for family in query.families)


def _reading(family: str, row: Row, at: float, rates: Values) -> Reading:
    if family == "activity" and row.get(b"visible") != b"t":
        return Reading(family, at, ReadingStatus.DENIED, code=INSUFFICIENT_PRIVILEGE)
    values: dict[str, Value] = {}
    for name, key, convert in _COLUMNS[family]:
        text = row.get(key)
        if text is not None:
            values[name] = convert(text)
    if family == "database":
        values |= rates
    return Reading(family, at, ReadingStatus.OK, values)


def _whole(text: bytes) -> int:
    value = int(text[:24])
    if not -_BIGINT <= value < _BIGINT:
        raise ValueError("no bigint")
    return value


def _fraction(text: bytes) -> float:
    value = float(text[:64])
    if not math.isfinite(value):
        raise ValueError("not finite")
    return round(value, 3)


def _role(text: bytes) -> str:
    if text not in _ROLES:
        raise ValueError("no role")
    return text.decode()


def _converter(gauge: Gauge) -> Convert:
    if gauge.name == "role":
        return _role
    return _fraction if gauge.is_fraction else _whole


def _columns() -> dict[str, list[tuple[str, bytes, Convert]]]:
    """Return for each family its gauges: name, column, and how its text becomes a value."""
    columns: dict[str, list[tuple[str, bytes, Convert]]] = {family: [] for family in FAMILIES}
    for gauge in GAUGES.values():
        column = gauge.name, gauge.name.encode(), _converter(gauge)
        columns[gauge.family].append(column)
    return columns


_COLUMNS = _columns()


# --- rates and slots ------------------------------------------------------------------------------


def counters(row: Row, at: float) -> Counters:
    """Read what `rates` compares; raise ValueError when the row does not have it."""
    return Counters(
        at,
        transactions=_whole(row.get(b"transactions") or b""),
        hits=_whole(row.get(b"hits") or b""),
        reads=_whole(row.get(b"reads") or b""),
        reset_at=_fraction(row.get(b"reset_at") or b"0"),
    )


def rates(before: Counters | None, now: Counters) -> dict[str, Value]:
    """Return what the counters did since `before`; a rate nobody can know is absent."""
    if before and _was_reset(before, now):
        before = None
    found: dict[str, Value] = {}
    if before and now.at > before.at:
        seconds = now.at - before.at
        transactions = now.transactions - before.transactions
        found["xact_rate"] = round(transactions / seconds, 3)
    hits, blocks = now.hits, now.hits + now.reads
    if before and blocks > before.hits + before.reads:
        hits -= before.hits
        blocks -= before.hits + before.reads
    if 0 <= hits <= blocks and blocks > 0:
        found["cache_hit_rate"] = round(100 * hits / blocks, 3)
    return found


def _was_reset(before: Counters, now: Counters) -> bool:
    return before.reset_at != now.reset_at or before.transactions > now.transactions


def has_room(found: Sequence[Reading]) -> bool:
    """Say whether the server is known to have a slot that is not reserved."""
    return bool(_slots(found)) and not slots_full(found)


def slots_full(found: Sequence[Reading]) -> bool:
    """Say whether sessions have taken every slot that is not reserved."""
    values = _slots(found)
    taken = values.get("connections")
    slots = values.get("connections_max")
    if not (isinstance(taken, int) and isinstance(slots, int)):
        return False
    return taken >= slots


def _slots(found: Sequence[Reading]) -> Values:
    for reading in found:
        if reading.family == "connections":
            return reading.values
    return {}
