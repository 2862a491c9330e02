"""GET /last_observation: what automation asks. Reads Redis, never the databases.

Of a name that Redis does not know the registry says whether it exists. app.py imports this.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from starlette.concurrency import run_in_threadpool

from monitor.core.chunks import chunks
from monitor.core.errors import StoreUnavailable, Unreadable
from monitor.core.overlay import age
from monitor.core.status import State, Status
from monitor.live import generation, observations, reasons, targets, watched
from monitor.live.connections import Live, now
from monitor.live.observations import Latest
from monitor.live.reasons import Reason
from monitor.secrets import SecretBox
from monitor.shapes import LastObservationShape, ObservationsShape
from monitor.web.parameters import (
    MAX_PAGE,
    STRICT,
    BoxOf,
    Cursor,
    Limit,
    LiveOf,
    Lookup,
    LookupOf,
    Name,
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
from monitor.web.representation import Details, etag, last_observation, meta

CHUNK = 100  # databases read at once: about 10 ms of the loop
MAX_SCAN = 20_000  # databases looked at for one page; a rarer state takes more pages

router = APIRouter(tags=["last observation"], dependencies=[STRICT], responses=DOCUMENTED)


@dataclass(slots=True)
class Page:
    """The databases of one answer."""

    found: list[Latest] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # names nobody can tell of
    unreadable: list[str] = field(default_factory=list)  # those whose row is of a newer version
    following: str = ""  # the name to go on after, '' at the end


@router.get("/last_observation/{name}", response_model=LastObservationShape)
async def one(
    live: LiveOf,
    box: BoxOf,
    lookup: LookupOf,
    name: Name,
    if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Return the last observation and the state of one database."""
    found, at = await asyncio.gather(observations.latest(live, [name]), now(live))
    if name in found.unreadable:
        raise unreadable_database(name)
    if name not in found:
        found |= await _unobserved(live, [name], lookup)
    latest = found.get(name)
    if latest is None:
        raise unknown_database(name)
    tag = etag(latest, at)
    # With Age: ask again, a 304 is cheap.
    headers = {"ETag": tag, "Cache-Control": "private, max-age=1"}
    if latest.at is not None:
        headers["Last-Modified"] = formatdate(latest.at, usegmt=True)
        headers["Age"] = str(int(age(latest.at, at)))
    if _matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    reason = (await reasons.reasons(live, [latest])).get(name)
    return _json(last_observation(latest, at, _details(box, latest, reason)), headers)


@router.get("/last_observation", response_model=ObservationsShape)
async def many(
    live: LiveOf,
    box: BoxOf,
    lookup: LookupOf,
    database: Annotated[list[str] | None, Query(max_length=MAX_PAGE)] = None,
    state: Annotated[list[State] | None, Query()] = None,
    limit: Limit = MAX_PAGE,
    cursor: Cursor = "",
) -> Response:
    """Return the last observations of all databases, of those named or in a state; by name."""
    after = decode_cursor(cursor)
    if database:
        names: Sequence[str] = sorted({_asked(name) for name in database})
        tolerant = partial(_tolerantly, lookup)
    else:
        names = await observations.names(live)
        tolerant = None
    following = [name for name in names if name > after]
    page = await _page(live, following, frozenset(state or State), limit, tolerant)
    why, trouble, at = await asyncio.gather(
        reasons.reasons(live, page.found), _trouble(live), now(live)
    )

    def answer() -> Response:
        data = []
        for latest in page.found:
            details = _details(box, latest, why.get(latest.database))
            data.append(last_observation(latest, at, details))
        body: ObservationsShape = {
            "data": data,
            "meta": meta(data, len(names), trouble),
            "missing": page.missing if database else [],
            "unreadable": page.unreadable,
            "next_cursor": encode_cursor(page.following) if page.following else None,
        }
        return _json(body, {"Cache-Control": "private, no-cache"})

    return await run_in_threadpool(answer)  # 0.1 ms for each database: the loop has others to serve


async def _trouble(live: Live) -> tuple[str, ...]:
    """Return why observations may not be coming or not be here.

    The bus may be another Redis, and away.
    """
    trouble: tuple[str, ...] = ()
    if not (await generation.generation(live)).open:
        trouble = ("Redis is being rebuilt: databases may be missing here",)
    try:
        watchers = await watched.watchers(live)
    except StoreUnavailable as error:
        silent = f"the Redis of REDIS_URL does not answer ({error.detail})"
        return (f"nobody knows who watches: {silent}",)
    return trouble + watchers.troubles


async def _page(
    live: Live,
    names: Sequence[str],
    states: frozenset[State],
    limit: int,
    lookup: Lookup | None,
) -> Page:
    """Return those of the names that are in one of these states, at most `limit` of them."""
    page = Page()
    for chunk in chunks(names[:MAX_SCAN], CHUNK):
        found = await observations.latest(live, chunk)
        unreadable = found.unreadable
        unheard = [name for name in chunk if name not in found and name not in unreadable]
        found |= await _unobserved(live, unheard, lookup)
        for name in chunk:
            if name not in found:
                page.missing.append(name)
                if name in unreadable:
                    page.unreadable.append(name)
            elif found[name].status.state in states:
                if len(page.found) == limit:
                    page.following = page.found[-1].database
                    return page
                page.found.append(found[name])
    if len(names) > MAX_SCAN:
        page.following = names[MAX_SCAN - 1]
    return page


async def _tolerantly(lookup: Lookup, names: Sequence[str]) -> dict[str, Latest]:
    """Look names up; while the registry is away the others of a list are answered all the same."""
    try:
        return await lookup(names)
    except (StoreUnavailable, Unreadable):
        return {}


async def _unobserved(live: Live, names: Sequence[str], lookup: Lookup | None) -> dict[str, Latest]:
    """Return those that nobody was given to watch yet: published, or in the registry alone."""
    found = await _published(live, names)
    unknown = [name for name in names if name not in found]
    if not unknown or lookup is None:
        return found
    if not (await generation.generation(live)).open:
        raise rebuilding()
    return found | await lookup(unknown)


async def _published(live: Live, names: Sequence[str]) -> dict[str, Latest]:
    known = await targets.targets(live, names) if names else {}
    found = {}
    for name, target in known.items():
        found[name] = Latest(
            database=name,
            status=Status(),
            labels=target.labels,
            policy=target.policy,
            ciphertext=target.ciphertext,
        )
    return found


def _details(box: SecretBox, latest: Latest, reason: Reason | None) -> Details:
    address, user = _address(box, latest.database, latest.ciphertext)
    return Details(address, user, reason)


@lru_cache(maxsize=10_000)  # 70 us each to open
def _address(box: SecretBox, name: str, ciphertext: str) -> tuple[str, str]:
    """Return the URL without its password, and the user; nothing where we cannot read it."""
    address = box.readable_address(name, ciphertext)
    if address is None:
        return "", ""
    return address.redacted(), address.user


def _asked(name: str) -> str:
    """Return a name asked for; what can be no name is a mistake, not a missing database."""
    if not quotable(name):
        raise Problem(400, "invalid-parameter", "A value of `database` cannot be a name.")
    return name


def _matches(if_none_match: str | None, tag: str) -> bool:
    """Compare weakly, as RFC 9110 wants of If-None-Match."""
    wanted = tag.removeprefix("W/")
    for part in (if_none_match or "").split(","):
        given = part.strip().removeprefix("W/")
        if given in ("*", wanted):
            return True
    return False


def _json(answer: LastObservationShape | ObservationsShape, headers: dict[str, str]) -> Response:
    body = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    return Response(body, headers=headers, media_type="application/json")
