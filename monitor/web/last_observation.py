"""GET /last_observation: what automation asks. Reads Redis, never the databases; of a name that
Redis does not know the registry says whether it exists.
"""

import asyncio
import json
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from starlette.concurrency import run_in_threadpool

from monitor.core.database import parse_address
from monitor.core.errors import InvalidInput, StoreUnavailable, Unreadable
from monitor.core.overlay import age
from monitor.core.status import State, Status
from monitor.live import generation, observations, reasons, targets, watched
from monitor.live.connections import Live, now
from monitor.live.observations import Latest
from monitor.live.reasons import Reason
from monitor.secrets import SecretBox
from monitor.shapes import LastObservationShape, ObservationsShape
from monitor.web.answers import Told, etag, last_observation, meta
from monitor.web.parameters import (
    MAX_PAGE,
    STRICT,
    BoxOf,
    Cursor,
    Limit,
    LiveOf,
    Name,
    Registry,
    RegistryOf,
    decode_cursor,
    encode_cursor,
)
from monitor.web.problems import (
    DOCUMENTED,
    Problem,
    quotable,
    rebuilding,
    unknown_database,
    unreadable_database,
)

CHUNK = 100  # databases read at once: about 10 ms of the loop
MAX_SCAN = 20_000  # databases looked at for one page; a rarer state takes more pages

router = APIRouter(tags=["last observation"], dependencies=[STRICT], responses=DOCUMENTED)


@router.get("/last_observation/{name}", response_model=LastObservationShape)
async def one(
    live: LiveOf,
    box: BoxOf,
    registry: RegistryOf,
    name: Name,
    if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Return the last observation and the state of one database."""
    found, at = await asyncio.gather(observations.latest(live, [name]), now(live))
    if name in found.unreadable:
        raise unreadable_database(name)
    latest = found.get(name) or (await _unobserved(live, [name], registry)).get(name)
    if latest is None:
        raise unknown_database(name)
    tag = etag(latest, at)
    headers = {
        "ETag": tag,
        "Cache-Control": "private, max-age=1",
    }  # with Age: ask again, a 304 is cheap
    if latest.at is not None:
        headers |= {
            "Last-Modified": formatdate(latest.at, usegmt=True),
            "Age": str(int(age(latest.at, at))),
        }
    if _matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    reason = (await reasons.reasons(live, [latest])).get(name)
    return _json(last_observation(latest, at, _told(box, latest, reason)), headers)


@router.get("/last_observation", response_model=ObservationsShape)
async def many(
    live: LiveOf,
    box: BoxOf,
    registry: RegistryOf,
    database: Annotated[list[str] | None, Query(max_length=MAX_PAGE)] = None,
    state: Annotated[list[State] | None, Query()] = None,
    limit: Limit = MAX_PAGE,
    cursor: Cursor = "",
) -> Response:
    """Return the last observations of all databases, of those named, or of those in a state; sorted
    by name.
    """
    after = decode_cursor(cursor)
    names = sorted(set(map(_asked, database))) if database else await observations.names(live)
    rest = [name for name in names if name > after]
    ask = partial(_tolerantly, registry) if database else None
    page, missing, unreadable, following = await _page(
        live, rest, frozenset(state or State), limit, ask
    )
    why, trouble, at = await asyncio.gather(reasons.reasons(live, page), _trouble(live), now(live))

    def answer() -> Response:
        told = (_told(box, latest, why.get(latest.database)) for latest in page)
        data = [last_observation(latest, at, more) for latest, more in zip(page, told, strict=True)]
        body: ObservationsShape = {
            "data": data,
            "meta": meta(data, len(names), trouble),
            "missing": missing if database else [],
            "unreadable": unreadable,
            "next_cursor": encode_cursor(following) if following else None,
        }
        return _json(body, {"Cache-Control": "private, no-cache"})

    return await run_in_threadpool(answer)  # 0.1 ms for each database: the loop has others to serve


async def _trouble(live: Live) -> tuple[str, ...]:
    """Return why observations may not be coming or not be here; the bus may be another Redis, and
    away.
    """
    opened = (await generation.generation(live)).open
    lost = () if opened else ("Redis is being rebuilt: databases may be missing here",)
    try:
        return lost + (await watched.watchers(live)).troubles
    except StoreUnavailable as error:
        return (
            f"nobody knows who watches: the Redis of REDIS_URL does not answer ({error.detail})",
        )


async def _page(
    live: Live,
    names: Sequence[str],
    states: frozenset[State],
    limit: int,
    registry: Registry | None,
) -> tuple[list[Latest], list[str], list[str], str]:
    """Return the matches, the names nobody can tell of, those of them whose row this version cannot
    read, and the name to continue after (empty at the end)."""
    page: list[Latest] = []
    missing: list[str] = []
    unreadable: list[str] = []
    for start in range(0, min(len(names), MAX_SCAN), CHUNK):
        chunk = names[start : start + CHUNK]
        found = await observations.latest(live, chunk)
        broken = found.unreadable
        unheard = [name for name in chunk if name not in found and name not in broken]
        found |= await _unobserved(live, unheard, registry)
        for name in chunk:
            if name not in found:
                missing.append(name)
                unreadable += [name] if name in broken else []
            elif found[name].status.state in states:
                if len(page) == limit:
                    return page, missing, unreadable, page[-1].database
                page.append(found[name])
    return page, missing, unreadable, names[MAX_SCAN - 1] if len(names) > MAX_SCAN else ""


async def _tolerantly(registry: Registry, names: Sequence[str]) -> dict[str, Latest]:
    """Ask the registry; while it is away the others of a list are answered all the same."""
    try:
        return await registry(names)
    except (StoreUnavailable, Unreadable):
        return {}


async def _unobserved(
    live: Live, names: Sequence[str], registry: Registry | None
) -> dict[str, Latest]:
    """Return those that nobody was given to watch yet: known by their target, or by the registry
    alone.
    """
    found = await _published(live, names)
    rest = [name for name in names if name not in found]
    if not rest or registry is None:
        return found
    if not (await generation.generation(live)).open:
        raise rebuilding()
    return found | await registry(rest)


async def _published(live: Live, names: Sequence[str]) -> dict[str, Latest]:
    known = await targets.targets(live, names) if names else {}
    return {
        name: Latest(
            database=name,
            status=Status(),
            labels=target.labels,
            policy=target.policy,
            ciphertext=target.ciphertext,
        )
        for name, target in known.items()
    }


def _told(box: SecretBox, latest: Latest, reason: Reason | None) -> Told:
    address, user = _address(box, latest.database, latest.ciphertext)
    return Told(address, user, reason)


@lru_cache(maxsize=10_000)  # 70 us each to open
def _address(box: SecretBox, name: str, ciphertext: str) -> tuple[str, str]:
    """Return the URL without its password, and the user; nothing where no key of ours opens it."""
    try:
        address = parse_address(box.open(name, ciphertext))
    except InvalidInput:
        return "", ""
    return address.redacted(), address.user


def _asked(name: str) -> str:
    """Return a name asked for; what can be no name is a mistake to be told, not a missing
    database.
    """
    if not quotable(name):
        raise Problem(400, "invalid-parameter", "A value of `database` cannot be a name.")
    return name


def _matches(if_none_match: str | None, tag: str) -> bool:
    """Compare weakly, as RFC 9110 wants of If-None-Match."""
    given = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return "*" in given or tag.removeprefix("W/") in given


def _json(answer: LastObservationShape | ObservationsShape, headers: dict[str, str]) -> Response:
    body = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    return Response(body, headers=headers, media_type="application/json")
