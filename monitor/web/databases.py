"""/api/v1/databases: the registry. A connection URL goes in and never comes out."""

import logging
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, ConfigDict, SecretStr
from starlette.concurrency import run_in_threadpool

from monitor.core.database import DatabaseStatus, check_name, check_zone, parse_address
from monitor.core.errors import InvalidInput, Outdated, StoreUnavailable
from monitor.live import observations, requests
from monitor.live.connections import Live
from monitor.registry import fleet
from monitor.registry.fleet import Database
from monitor.secrets import SecretBox
from monitor.shapes import AcceptedShape, FleetShape, RegisteredShape
from monitor.web.parameters import (
    STRICT,
    BoxOf,
    Cursor,
    Limit,
    LiveOf,
    Name,
    RegistryOf,
    decode_cursor,
    encode_cursor,
)
from monitor.web.patience import StoreOf
from monitor.web.problems import DOCUMENTED, unknown_database
from monitor.web.security import BEARER

MAX_LABELS = 16
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}\Z")
_log = logging.getLogger("feeler.web")

router = APIRouter(tags=["databases"], dependencies=[STRICT], responses=DOCUMENTED)


class NewDatabase(BaseModel):
    """What `POST /api/v1/databases` takes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str
    url: SecretStr
    labels: dict[str, str] = {}
    policy: str = "default"
    zone: str = ""


class Changes(BaseModel):
    """What `PATCH /api/v1/databases/{name}` takes: what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: SecretStr | None = None
    labels: dict[str, str] | None = None
    policy: str | None = None
    zone: str | None = None


@router.get("/databases")
def listed(store: StoreOf, box: BoxOf, limit: Limit = 100, cursor: Cursor = "") -> FleetShape:
    """Return the registered databases, sorted by name."""
    rows = fleet.list_databases(store, after=decode_cursor(cursor), limit=limit + 1)
    following = encode_cursor(rows[limit - 1].name) if len(rows) > limit else None
    return {"data": [_shape(row, box) for row in rows[:limit]], "next_cursor": following}


@router.get("/databases/{name}")
def read(name: Name, response: Response, store: StoreOf, box: BoxOf) -> RegisteredShape:
    """Return one registered database; its ETag is what If-Match of a PATCH compares."""
    return _answer(fleet.get(store, name), response, box)


@router.post("/databases", status_code=201, dependencies=[Depends(BEARER)])
async def register(
    new: NewDatabase, response: Response, store: StoreOf, box: BoxOf, live: LiveOf
) -> RegisteredShape:
    """Register a database; a worker begins to watch it within seconds."""
    parse_address(new.url.get_secret_value())
    name, labels = check_name(new.name), _check_labels(new.labels)
    sealed = box.seal(name, new.url.get_secret_value().strip())
    row = await run_in_threadpool(
        fleet.add, store, name, sealed, labels, new.policy, check_zone(new.zone)
    )
    await _tell(live)
    response.headers["Location"] = f"/api/v1/databases/{name}"
    return _answer(row, response, box)


@router.patch("/databases/{name}", dependencies=[Depends(BEARER)])
async def change(
    name: Name,
    changes: Changes,
    response: Response,
    store: StoreOf,
    box: BoxOf,
    live: LiveOf,
    if_match: Annotated[
        str | None, Header(description="The ETag that was read; without it, whatever is there")
    ] = None,
) -> RegisteredShape:
    """Change address, labels, policy or zone; its worker takes the new address up within
    seconds.
    """
    before = await run_in_threadpool(fleet.get, store, name)
    revision = None if if_match in (None, "*") else before.revision
    if revision and _etag(before) not in map(str.strip, str(if_match).split(",")):
        raise Outdated("database", name)
    values = _changed(before, changes, box)
    row = before
    if values or before.status is DatabaseStatus.RETIRED:  # for which `change` has the right error
        row = await run_in_threadpool(fleet.change, store, name, **values, revision=revision)
        await _tell(live)
    return _answer(row, response, box)


@router.delete("/databases/{name}", status_code=204, dependencies=[Depends(BEARER)])
async def retire(name: Name, store: StoreOf, live: LiveOf) -> None:
    """Retire a database: watching ends, its history stays and goes on when the name is registered
    again.
    """
    await run_in_threadpool(fleet.remove, store, name)
    await _tell(live)


@router.post("/databases/{name}/observe", status_code=202, dependencies=[Depends(BEARER)])
async def observe(name: Name, live: LiveOf, registry: RegistryOf) -> AcceptedShape:
    """Ask the owner to feel the database now; the answer is the next observation."""
    known = await observations.latest(live, [name])
    if name not in known and name not in known.unreadable and not await registry([name]):
        raise unknown_database(name)
    return {"request": await requests.ask(live, "observe", name), "database": name}


async def _tell(live: Live) -> None:
    """Nudge the leader; without Redis it finds the change by itself a little later."""
    try:
        await requests.ask(live, "fleet_changed")
    except StoreUnavailable as error:
        _log.warning("action=nudge_failed store=%s", error.store)


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise InvalidInput("labels", "too many", f"at most {MAX_LABELS}")
    for key, value in labels.items():
        if not _LABEL.match(key):
            raise InvalidInput(
                "labels", "a key is not usable", "use a-z, 0-9, _, . and -, at most 63"
            )
        if len(value.encode()) > 63 or not value.isprintable():
            raise InvalidInput(
                f"labels/{key}", "not a usable value", "printable text of at most 63 bytes"
            )
    return labels


def _changed(before: Database, changes: Changes, box: SecretBox) -> dict[str, Any]:
    """Return what is really new, as the registry takes it: the same once more is no change."""
    values: dict[str, Any] = {}
    if changes.url is not None:
        url = changes.url.get_secret_value().strip()
        parse_address(url)
        if url != _opened(before, box):
            values["ciphertext"] = box.seal(before.name, url)
    if changes.labels is not None and _check_labels(changes.labels) != before.labels:
        values["labels"] = changes.labels
    if changes.policy not in (None, before.policy.name):
        values["policy"] = changes.policy
    if changes.zone is not None and changes.zone != before.zone:
        values["zone"] = check_zone(changes.zone)
    return values


def _opened(row: Database, box: SecretBox) -> str:
    """Return the URL, '' where it is sealed with a key that is gone."""
    try:
        return box.open(row.name, row.ciphertext)
    except InvalidInput:
        return ""


def _answer(row: Database, response: Response, box: SecretBox) -> RegisteredShape:
    response.headers["ETag"] = _etag(row)
    return _shape(row, box)


def _etag(row: Database) -> str:
    return f'"{row.revision}"'


def _shape(row: Database, box: SecretBox) -> RegisteredShape:
    url = _opened(row, box)
    return {
        "name": row.name,
        "url": parse_address(url).redacted() if url else "",
        "labels": dict(row.labels),
        "policy": row.policy.name,
        "zone": row.zone,
        "status": row.status.value,
        "revision": row.revision,
    }
