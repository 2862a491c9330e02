"""What doors ask of the leader: they never talk to RQ themselves. web/ and cli ask, it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from redis.exceptions import ResponseError

from monitor.core.errors import InvalidInput
from monitor.live import quarantine
from monitor.live.connections import Live, wrap_store_errors
from monitor.live.keys import REQUESTS

Kind = Literal["observe", "fleet_changed"]

_GROUP = "supervisor"
_MOST = 10_000  # requests kept while nobody leads


@dataclass(frozen=True, slots=True)
class Request:
    """Feel a database now, or look at the registry now."""

    kind: Kind
    database: str
    id: str


async def ask(live: Live, kind: Kind, database: str = "") -> str:
    """Leave a request; return its id.

    It may get lost: both kinds only hasten what happens anyway.
    """
    row: Any = {"kind": kind, "database": database}
    with wrap_store_errors():
        id_ = await live.bus.xadd(REQUESTS, row, maxlen=_MOST)
    return str(id_)


async def take(live: Live, consumer: str, *, count: int = 100) -> list[Request]:
    """Take requests nobody has taken; those not known here are dropped, as all may get lost."""
    with wrap_store_errors():
        try:
            rows = await _read(live, consumer, count)
        except ResponseError as exc:
            if not str(exc).startswith("NOGROUP"):
                raise
            await _create(live)
            rows = await _read(live, consumer, count)
        if rows:
            await live.bus.xdel(REQUESTS, *(id_ for id_, _ in rows))
    found = await quarantine.decode(live, "request", rows, _request)
    return list(found.values())


def _request(id_: str, row: Mapping[str, str]) -> Request:
    kind: Kind
    for kind in get_args(Kind):
        if row["kind"] == kind:
            return Request(kind, row["database"], id_)
    raise InvalidInput("kind", "of a request not known here")


async def _read(live: Live, consumer: str, count: int) -> list[tuple[str, dict[str, str]]]:
    news: Any = {REQUESTS: ">"}
    found: Any = await live.bus.xreadgroup(_GROUP, consumer, news, count=count, noack=True)
    if not found:
        return []
    [(_, rows)] = found
    return list(rows)


async def _create(live: Live) -> None:
    try:
        await live.bus.xgroup_create(REQUESTS, _GROUP, id="0", mkstream=True)
    except ResponseError as exc:
        if not str(exc).startswith("BUSYGROUP"):
            raise
